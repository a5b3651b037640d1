//! Checks that lead to restarts: liveness, startup; and how revisions are watched, undone and held by hand.

use std::time::Duration;

use super::on_images;
use crate::lab::{Lab, replicas};
use crate::wait::{holds_for, wait_for};
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[on_images("what_hangs_is_restarted_and_what_starts_slowly_is_not", 120, what_hangs_is_restarted)];

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
