//! Checks that lead to restarts: liveness, startup; and how revisions are watched, undone and held by hand.

use std::time::Duration;

use super::on_images;
use crate::lab::{Lab, kill, replicas};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("what_hangs_is_restarted_and_what_starts_slowly_is_not", 120, what_hangs_is_restarted),
    on_images("a_rollout_is_directed_by_hand", 240, a_rollout_is_directed_by_hand),
    on_images("what_is_held_is_left_as_it_is", 240, what_is_held_is_left_as_it_is),
];

const LIMIT: Duration = Duration::from_secs(40);

/// An App of busybox that runs a line of the shell, and more fields.
pub(super) fn shell(lab: &Lab, name: &str, line: &str, extra: &str) -> String {
    let image = lab.image("busybox:1");
    format!(
        "apiVersion: boxship/v1\nkind: App\nname: {name}\nimage: {image}\nentrypoint: [sh, -c, \"{line}\"]\n\
         stopGracePeriod: 2s\n{extra}"
    )
}

/// Serves nothing until it is told to end, and ends with 0.
const WAITS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

const ALIVE: &str = "exec: [sh, -c, \"test -f /tmp/up || { echo lost its file; exit 1; }\"]";

fn what_hangs_is_restarted(lab: &mut Lab) -> Result {
    let hangs = |interval: &str| {
        let extra = format!("liveness: {{{ALIVE}, interval: {interval}, retries: 2, startPeriod: 2s}}\n");
        shell(lab, "hangs", &format!("touch /tmp/up; {WAITS}"), &extra)
    };
    lab.write("hangs.yaml", &hangs("200ms"))?;
    // without the startup check the first try of the other would be its last
    let slow = format!(
        "startup: {{{ALIVE}, interval: 1s, retries: 60}}\nliveness: {{{ALIVE}, interval: 100ms, retries: 1}}\n\
         healthcheck: {{{ALIVE}, interval: 200ms}}\n"
    );
    lab.write("slow.yaml", &shell(lab, "slow", &format!("sleep 3; touch /tmp/up; {WAITS}"), &slow))?;
    let never = format!("startup: {{{ALIVE}, interval: 500ms, retries: 1}}\n");
    lab.write("never.yaml", &shell(lab, "never", WAITS, &never))?;
    lab.start_controller()?;
    lab.ready("app/hangs", 1, LIMIT)?;
    let (before, pid) = lab.started("app/hangs")?;

    // a check is changed in place
    lab.write("hangs.yaml", &hangs("250ms"))?;
    holds_for(Duration::from_secs(1), || {
        let now = lab.started("app/hangs")?;
        ensure!(now == (before.clone(), pid), "{before} ({pid}) gave way to {now:?} for a check");
        Ok(())
    })?;

    lab.ok(&["exec", "hangs", "--", "rm", "/tmp/up"])?;
    wait_for("another container serves", LIMIT, || {
        let object = lab.object("app/hangs")?;
        let other = |replica: &serde_json::Value| replica["ready"] == true && replica["container"] != before.as_str();
        ensure!(replicas(&object).any(other), "{object}");
        Ok(())
    })?;
    let events = lab.ok(&["events"])?;
    ensure!(
        events.contains("hangs-1 failed its liveness check 2 times in a row") && events.contains("lost its file"),
        "the event does not say what the check said:\n{events}"
    );
    // it ended with 0, since it was asked; that is a failure all the same
    let described = lab.ok(&["describe", "app/hangs"])?;
    ensure!(described.contains("stopped as unhealthy") && !described.contains("asked for"), "{described}");

    lab.ready("app/slow", 1, LIMIT)?;
    let slow = lab.object("app/slow")?;
    ensure!(slow["restarts"] == 0, "it was restarted: {slow}");
    wait_for("what never starts is tried again and backs off", LIMIT, || {
        let events = lab.ok(&["events"])?;
        ensure!(events.matches("never-1 has not started in 500 ms").count() >= 2, "{events}");
        let got = lab.ok(&["get"])?;
        ensure!(got.contains("stopped as unhealthy"), "{got}");
        Ok(())
    })?;
    Ok(())
}

/// The replicas' containers that are ready, by revision.
fn ready_of(lab: &Lab, revision: u64) -> Result<usize> {
    let object = lab.object("app/web")?;
    Ok(replicas(&object).filter(|replica| replica["ready"] == true && replica["revision"] == revision).count())
}

/// The message of an App.
fn says(lab: &Lab, key: &str, what: &str) -> Result {
    wait_for(&format!("{key} says {what:?}"), LIMIT, || {
        let object = lab.object(key)?;
        ensure!(object["message"].as_str().is_some_and(|message| message.contains(what)), "{object}");
        Ok(())
    })?;
    Ok(())
}

/// What is refused, and says why.
fn refused(lab: &Lab, args: &[&str], why: &str) -> Result {
    let output = lab.boxship(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains(why), "`{}`: {}: {said}", args.join(" "), output.status);
    Ok(())
}

fn a_rollout_is_directed_by_hand(lab: &mut Lab) -> Result {
    let web = |value: &str, check: &str| {
        let extra = format!(
            "replicas: 2\nenv: {{VALUE: \"{value}\"}}\nstrategy: {{progressDeadline: 3s}}\n\
             healthcheck: {{exec: [sh, -c, \"{check}\"], interval: 200ms}}\n"
        );
        shell(lab, "web", WAITS, &extra)
    };
    lab.write("web.yaml", &web("one", "true"))?;
    lab.up()?;
    lab.write("web.yaml", &web("two", "true"))?;
    lab.up()?;
    ensure!(ready_of(lab, 2)? == 2, "{}", lab.object("app/web")?);
    let status = lab.ok(&["rollout", "status", "web", "--timeout", "30s"])?;
    ensure!(status.contains("rev 2: 2/2 updated · 2 ready"), "{status}");
    let history = lab.ok(&["rollout", "history", "web"])?;
    ensure!(history.contains("env.VALUE") && history.lines().count() == 3, "{history}");

    // back, and forth again
    let undone = lab.ok(&["rollout", "undo", "web"])?;
    ensure!(undone.contains("rev 2 -> rev 1 (env.VALUE)"), "{undone}");
    says(lab, "app/web", "Running rev 1 (rev 2 undone by hand)")?;
    ensure!(ready_of(lab, 1)? == 2, "{}", lab.object("app/web")?);
    let inside = lab.ok(&["exec", "web", "--", "sh", "-c", "echo $VALUE"])?;
    ensure!(inside.trim() == "one", "the earlier revision runs: {inside:?}");
    refused(lab, &["rollout", "undo", "web", "--to", "7"], "cannot go back to rev 7")?;
    lab.ok(&["rollout", "retry", "web"])?;
    says(lab, "app/web", "Running rev 2")?;
    ensure!(ready_of(lab, 2)? == 2, "{}", lab.object("app/web")?);

    // more and fewer, until the manifest is read again
    lab.ok(&["scale", "web", "4"])?;
    lab.ready("app/web", 4, LIMIT)?;
    lab.up()?;
    lab.ready("app/web", 2, LIMIT)?;

    // a revision that fails is tried again, once asked
    let path = lab.manifests.to_string_lossy().into_owned();
    lab.write("web.yaml", &web("three", "test -f /tmp/good"))?;
    lab.boxship(&["up", &path, "--timeout", "30s"]);
    says(lab, "app/web", "Revision 3 failed")?;
    lab.write("web.yaml", &web("three", "true"))?;
    lab.ok(&["up", &path, "--detach"])?;
    lab.ok(&["rollout", "retry", "web"])?;
    says(lab, "app/web", "Running rev 3")?;
    ensure!(ready_of(lab, 3)? == 2, "{}", lab.object("app/web")?);

    // a paused roll-out goes no further, and serves
    lab.ok(&["rollout", "pause", "web"])?;
    lab.write("web.yaml", &web("four", "true"))?;
    lab.ok(&["up", &path, "--detach"])?;
    says(lab, "app/web", "Paused at rev 4")?;
    ensure!(ready_of(lab, 4)? == 0 && ready_of(lab, 3)? == 2, "{}", lab.object("app/web")?);
    lab.ok(&["rollout", "resume", "web"])?;
    says(lab, "app/web", "Running rev 4")?;
    ensure!(ready_of(lab, 4)? == 2, "{}", lab.object("app/web")?);
    Ok(())
}

fn what_is_held_is_left_as_it_is(lab: &mut Lab) -> Result {
    let web = |value: &str| shell(lab, "web", WAITS, &format!("replicas: 2\nenv: {{VALUE: \"{value}\"}}\n"));
    lab.write("web.yaml", &web("one"))?;
    lab.start_controller()?;
    lab.ready("app/web", 2, LIMIT)?;
    let path = lab.manifests.to_string_lossy().into_owned();
    // the directory would bring it back
    refused(lab, &["scale", "web", "3"], "which is followed and would bring it back")?;
    refused(lab, &["rollout", "undo", "web"], "boxship hold app/web")?;
    refused(lab, &["down", &path], "is the directory this controller follows")?;

    lab.ok(&["hold", "app/web", "--why", "disk is being replaced"])?;
    says(lab, "app/web", "Held by hand: disk is being replaced")?;
    let before = lab.pids("app/web")?;
    lab.write("web.yaml", &web("two"))?;
    kill(before[0].1)?;
    let alone = || {
        let object = lab.object("app/web")?;
        ensure!(replicas(&object).count() == 2, "{object}");
        let live = replicas(&object).filter(|replica| replica["state"] == "running").count();
        ensure!(live < 2 || ready_of(lab, 1)? == 2, "{object}");
        Ok(())
    };
    wait_for("its end is seen", LIMIT, || {
        let object = lab.object("app/web")?;
        ensure!(replicas(&object).any(|replica| replica["state"] == "stopped"), "{object}");
        Ok(())
    })?;
    holds_for(Duration::from_secs(3), alone)?;
    // a controller that is started anew knows of it
    kill(lab.daemon("controller")?)?;
    wait_for("another controller answers", LIMIT, || lab.status())?;
    holds_for(Duration::from_secs(2), alone)?;
    let plan = lab.ok(&["plan"])?;
    ensure!(plan.contains("held") && plan.contains("disk is being replaced"), "{plan}");

    lab.ok(&["scale", "web", "3"])?;
    wait_for("it has three, as asked", LIMIT, || {
        ensure!(ready_of(lab, 1)? == 3, "{}", lab.object("app/web")?);
        Ok(())
    })?;
    lab.ok(&["release", "web"])?;
    lab.ready("app/web", 2, LIMIT)?;
    says(lab, "app/web", "Running rev 2")?;
    ensure!(ready_of(lab, 2)? == 2, "{}", lab.object("app/web")?);
    Ok(())
}
