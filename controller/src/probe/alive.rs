//! The checks whose failure ends a container: startup, which has so much time to pass once, and liveness, which has to go
//! on passing. What could not be asked (the supervisor is being restarted) says nothing of the container.

use std::time::Duration;

use runtime::clock;
use runtime::id::ContainerId;

use super::ask::Miss;
use super::{Probes, STEP_EXEC_MS, STEP_MS, Watched};
use crate::model::{Healthcheck, Probe};

impl Probes {
    /// Asks until it passes, in quick steps that grow to the interval; says whether it did in the time it has. The time
    /// counts from here where an earlier controller may have seen it pass.
    pub(super) async fn watch_startup(&self, id: &ContainerId, watched: &Watched, check: &Healthcheck) -> bool {
        let first = if matches!(check.probe, Probe::Exec(_)) { STEP_EXEC_MS } else { STEP_MS };
        let mut step = first.min(check.interval_ms);
        let given_ms = check.start_period_ms + check.interval_ms.saturating_mul(u64::from(check.retries.max(1)));
        let deadline = clock::boot_ms().max(watched.started_boot_ms).saturating_add(given_ms);
        loop {
            match self.ask(id, watched, check).await {
                Ok(()) => return true,
                Err(Miss::Failed(why)) if clock::boot_ms() >= deadline => {
                    let message = format!("{} has not started in {given_ms} ms: {why}", watched.name);
                    self.turned_unhealthy(id, watched, message);
                    return false;
                }
                Err(miss) => self.failed(id, miss.text()),
            }
            let left = deadline.saturating_sub(clock::boot_ms());
            // Past the deadline only what could not be asked is asked again.
            let wait = if left == 0 { check.interval_ms } else { step.min(left) };
            tokio::time::sleep(Duration::from_millis(wait.max(1))).await;
            step = (step + step / 2).min(check.interval_ms);
        }
    }

    /// Asks at each interval; ends with the last of so many failures in a row.
    pub(super) async fn watch_liveness(&self, id: &ContainerId, watched: &Watched) {
        let Some(check) = &watched.liveness else { return };
        let first = watched.started_boot_ms.saturating_add(check.start_period_ms);
        tokio::time::sleep(Duration::from_millis(first.saturating_sub(clock::boot_ms()))).await;
        let mut failures = 0;
        loop {
            match self.ask(id, watched, check).await {
                Ok(()) => failures = 0,
                Err(Miss::Unasked(_)) => {}
                Err(Miss::Failed(why)) => {
                    failures += 1;
                    if failures >= check.retries.max(1) {
                        let times =
                            if failures == 1 { "once".to_owned() } else { format!("{failures} times in a row") };
                        let message = format!("{} failed its liveness check {times}: {why}", watched.name);
                        return self.turned_unhealthy(id, watched, message);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(check.interval_ms.max(1))).await;
        }
    }

    fn turned_unhealthy(&self, id: &ContainerId, watched: &Watched, message: String) {
        self.memory.record_event(Some(&watched.object), "Unhealthy", message.clone(), true);
        self.update(id, |entry| {
            entry.unhealthy = true;
            entry.failure = Some(message);
            true
        });
    }
}
