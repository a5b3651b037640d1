//! Replicas of several containers: what runs before and beside the main one, what they share, and how they end.

use std::time::Duration;

use super::on_images;
use crate::http;
use crate::lab::{Lab, kill, replicas};
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[on_images("a_pod_starts_in_order_shares_its_network_and_mends_itself", 180, a_pod_of_four)];

const LIMIT: Duration = Duration::from_secs(60);

/// Ends when it is asked to.
const WAITS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

fn deployment(lab: &Lab, version: u32) -> String {
    let (nginx, busybox) = (lab.image("nginx:1"), lab.image("busybox:1"));
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 5
      initContainers:
      - name: page
        image: {busybox}
        command: [sh, -c, 'echo page {version} > /work/page.html; chmod 644 /work/page.html']
        volumeMounts: [{{name: pages, mountPath: /work}}]
      - {{name: proxy, image: {busybox}, restartPolicy: Always, command: [sh, -c, \"{WAITS}\"]}}
      containers:
      - name: nginx
        image: {nginx}
        ports: [{{containerPort: 80, hostPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /pages/page.html, port: 80}}, periodSeconds: 1}}
        volumeMounts: [{{name: pages, mountPath: /var/www/html/pages, readOnly: true}}]
      - {{name: side, image: {busybox}, command: [sh, -c, \"{WAITS}\"]}}
      volumes: [{{name: pages, emptyDir: {{}}}}]
"
    )
}

/// Container, pid and restarts of a member of the one live replica.
fn member(lab: &Lab, name: &str) -> Result<(String, i64, u64)> {
    let object = lab.object("app/web")?;
    let live = replicas(&object).find(|replica| replica["state"] == "running").cloned().unwrap_or_default();
    let members = live["members"].as_array().cloned().unwrap_or_default();
    let found = members.iter().find(|member| member["name"] == name && member["state"] == "running");
    let found = found.ok_or_else(|| format!("no running container `{name}`: {object}"))?;
    let text = found["container"].as_str().unwrap_or_default().to_owned();
    Ok((text, found["pid"].as_i64().unwrap_or(0), found["attempt"].as_u64().unwrap_or(0)))
}

fn page(expected: &str) -> Result {
    let answer = http::get(8080, "/pages/page.html")?;
    ensure!(answer.body == expected, "expected {expected:?}, got {:?}", answer.body);
    Ok(())
}

fn a_pod_of_four(lab: &mut Lab) -> Result {
    lab.write("web.yaml", &deployment(lab, 1))?;
    lab.start_controller()?;
    lab.ready("app/web", 1, LIMIT)?;
    page("page 1\n")?;
    let seen =
        lab.ok(&["exec", "web", "-c", "side", "--", "wget", "-q", "-O", "-", "http://127.0.0.1/pages/page.html"])?;
    ensure!(seen == "page 1\n", "the sidecar sees {seen:?}");
    let of_main = lab.ok(&["exec", "web", "--", "cat", "/var/www/html/pages/page.html"])?;
    ensure!(of_main == "page 1\n", "the main container is meant without a name: {of_main:?}");
    let none = lab.boxship(&["exec", "web", "-c", "sied", "--", "true"]);
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    ensure!(!none.status.success() && said.contains("page, proxy, nginx, side"), "{said}");
    let described = lab.ok(&["describe", "app/web"])?;
    for text in ["init     page", "sidecar  proxy", "main     nginx", "beside   side"] {
        ensure!(described.contains(text), "{text:?} is not in {described}");
    }

    // one that is killed comes back alone
    let (nginx, side) = (member(lab, "nginx")?, member(lab, "side")?);
    kill(i32::try_from(side.1).unwrap_or(0))?;
    wait_for("another container of that name runs", LIMIT, || {
        let now = member(lab, "side")?;
        ensure!(now.0 != side.0 && now.2 == 1, "{now:?}");
        Ok(())
    })?;
    ensure!(member(lab, "nginx")? == nginx, "the main container was touched");
    lab.ready("app/web", 1, LIMIT)?;
    let all = lab.ok(&["logs", "web", "-c", "nginx"])?;
    ensure!(!all.contains("side"), "{all}");

    // a new version comes up beside the old one, with a volume of its own
    let traffic = http::Load::start(2, 8080, "/pages/page.html");
    lab.write("web.yaml", &deployment(lab, 2))?;
    wait_for("the new version serves", LIMIT, || page("page 2\n"))?;
    lab.ready("app/web", 1, LIMIT)?;
    let seen = traffic.stop();
    ensure!(seen.failed() == 0, "{} requests failed during the roll-out", seen.failed());
    ends_and_failures(lab)
}

/// A Job whose sidecar does not keep it from its end, and an init container whose failure is told.
fn ends_and_failures(lab: &mut Lab) -> Result {
    let busybox = lab.image("busybox:1");
    lab.write(
        "once.yaml",
        &format!(
            "apiVersion: boxship/v1\nkind: Job\nname: once\nimage: {busybox}\nentrypoint: [sh, -c, \"cat /work/in\"]\n\
             mounts: [{{path: /work, scratch: work}}]\n\
             initContainers:\n\
             - {{name: first, image: {busybox}, entrypoint: [sh, -c, \"echo done > /out/in\"], mounts: [{{path: /out, scratch: work}}]}}\n\
             - {{name: stays, image: {busybox}, restart: always, entrypoint: [sh, -c, \"{WAITS}\"]}}\n"
        ),
    )?;
    wait_for("the job completes", LIMIT, || {
        let object = lab.object("job/once")?;
        ensure!(object["phase"] == "completed", "{object}");
        Ok(())
    })?;
    let said = lab.ok(&["logs", "job/once", "-c", "once"])?;
    ensure!(said.contains("done"), "{said:?}");
    lab.write(
        "bad.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: bad}}\nspec:\n  initContainers:\n  \
             - {{name: fails, image: {busybox}, command: [sh, -c, 'echo no database; exit 3']}}\n  \
             containers:\n  - {{name: main, image: {busybox}, command: [sleep, '1000']}}\n"
        ),
    )?;
    wait_for("the failure is told", LIMIT, || {
        let got = lab.ok(&["get", "--replicas"])?;
        ensure!(got.contains("container `fails` of bad-1: ") && got.contains("Init:CrashLoopBackOff"), "{got}");
        Ok(())
    })?;
    let logs = lab.ok(&["logs", "bad", "-c", "fails"])?;
    ensure!(logs.contains("no database"), "{logs}");
    Ok(())
}
