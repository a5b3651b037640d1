//! Plans that are read first and then carried out, exactly or not at all.

use std::time::Duration;

use super::converge::{EXTRA_CONF, web};
use super::on_images;
use crate::lab::Lab;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("a_plan_is_carried_out_as_read_or_not_at_all", 150, a_plan_is_carried_out_as_read),
    on_images("a_plan_without_a_controller_is_the_controllers", 150, a_plan_without_a_controller),
];

/// The same text, hash included, whether or not a controller runs; a look makes and changes nothing.
fn a_plan_without_a_controller(lab: &mut Lab) -> Result {
    let dir = lab.manifests.to_string_lossy().into_owned();
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 2, ""))?;
    // nothing was ever here
    let fresh = lab.ok(&["plan", &dir])?;
    for what in ["+ app/web", "create", "to fetch in", "--plan-hash "] {
        ensure!(fresh.contains(what), "no {what:?} in the plan:\n{fresh}");
    }
    ensure!(!lab.data_root.exists(), "a plan made a data root");
    lab.ok(&["up", &dir, "--timeout", "60s", "--plan-hash", &hash_of(&fresh)])?;
    lab.ready("app/web", 2, Duration::from_secs(60))?;
    // the machine loses power: what would be done is known without anybody who does it
    lab.reboot(2)?;
    lab.write("web.yaml", &web(lab, "2", 3, ""))?;
    let before = tree(&lab.data_root)?;
    let text = lab.ok(&["plan", &dir])?;
    for what in ["app/web", "image:", "web.yaml:", "replicas: 2 → 3", "to fetch in", "--plan-hash "] {
        ensure!(text.contains(what), "no {what:?} in the plan:\n{text}");
    }
    let again = lab.ok(&["plan", &dir])?;
    ensure!(again == text, "asked again, the plan is another:\n{text}\n{again}");
    ensure!(tree(&lab.data_root)? == before, "a look changed the data root");
    let settled = lab.ok(&["plan"])?;
    ensure!(settled.contains("app/web") && settled.contains("put right"), "what the power cut took: {settled}");
    // a controller that has nothing else to do does exactly that
    lab.ok(&["up", &dir, "--timeout", "60s"])?;
    let first = lab.ok(&["plan"])?;
    ensure!(first.contains("same"), "{first}");
    Ok(())
}

fn hash_of(plan: &str) -> String {
    plan.rsplit("--plan-hash ").next().map(str::trim).unwrap_or_default().to_owned()
}

/// Every file below a directory with its length and times.
fn tree(dir: &std::path::Path) -> Result<Vec<String>> {
    let found = std::process::Command::new("find").arg(dir).args(["-printf", "%p %s %T@ %C@\n"]).output();
    let found = found.map_err(|error| format!("find: {error}"))?;
    let mut lines: Vec<String> = String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn a_plan_is_carried_out_as_read(lab: &mut Lab) -> Result {
    let dir = lab.manifests.to_string_lossy().into_owned();
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 2, ""))?;
    lab.up()?;
    lab.ready("app/web", 2, Duration::from_secs(60))?;
    lab.write("web.yaml", &web(lab, "2", 2, "env: {TOKEN: s3cret-of-plan}\n"))?;
    let text = lab.ok(&["plan", &dir])?;
    let says =
        |what: &str| text.contains(what).then_some(()).ok_or_else(|| format!("no {what:?} in the plan:\n{text}"));
    for what in ["rolling over 2", "image:", "→", "web.yaml:", "to fetch in", "env.TOKEN", "--plan-hash "] {
        says(what)?;
    }
    ensure!(!text.contains("s3cret-of-plan"), "the plan tells a value of the environment:\n{text}");
    let hash = hash_of(&text);
    // the same question has the same answer
    let again = lab.ok(&["plan", &dir])?;
    ensure!(again.contains(&hash), "asked again, the plan is another:\n{text}\n{again}");
    // the world moves: somebody edits the manifest
    let before = lab.pids("app/web")?;
    lab.write("web.yaml", &web(lab, "2", 3, "env: {TOKEN: s3cret-of-plan}\n"))?;
    let refused = lab.boxship(&["up", &dir, "--plan-hash", &hash]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success(), "a plan of other manifests was carried out");
    ensure!(said.contains("BX0603") && said.contains("the manifests say something else"), "refused with: {said}");
    ensure!(lab.pids("app/web")? == before, "a refused plan changed what runs");
    // as it was read, it is done
    lab.write("web.yaml", &web(lab, "2", 2, "env: {TOKEN: s3cret-of-plan}\n"))?;
    lab.ok(&["apply", &dir, "--plan-hash", &hash])?;
    ensure!(crate::http::get(8080, "/")?.body == "nginx 2\n", "the new tag does not answer");
    let settled = lab.ok(&["plan", &dir])?;
    ensure!(settled.contains("Plan: 1 same"), "after it, nothing is to be done: {settled}");
    Ok(())
}
