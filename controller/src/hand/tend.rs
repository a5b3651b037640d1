//! What a controller does for containers made by hand as they end: their names and ports go, those with `--rm` go, those with
//! a restart policy start again, sooner than later and ever later. Without a controller nobody does it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::{boot_ms, unix_ms};
use runtime::error::chain;
use runtime::id::ContainerId;
use runtime::runtime::{ContainerInfo, ContainerState, ExitStatus, RuntimeEvent};
use runtime::{LinuxRuntime, Result, Runtime as _};
use tokio::sync::{mpsc, watch};

use super::{Restart, act};
use crate::model::by_hand;

/// Before the first restart, in milliseconds; doubled each time, up to …
const BACKOFF_MIN_MS: u64 = 100;
/// … this.
const BACKOFF_MAX_MS: u64 = 60_000;
/// Who ran for so long has succeeded: the next restart is a first one.
const HEALTHY_MS: u64 = 10_000;
/// A look for what events missed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Before the stream of events is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// Goes on until `stop` turns true.
pub fn tend(linux: Arc<LinuxRuntime>, mut stop: watch::Receiver<bool>) {
    let (rung, mut bell) = mpsc::channel(1);
    hear_ends(Arc::clone(&linux), rung);
    tokio::spawn(async move {
        let mut due: BTreeMap<ContainerId, u64> = BTreeMap::new();
        loop {
            let (looker, waiting) = (Arc::clone(&linux), due.clone());
            let looked = tokio::task::spawn_blocking(move || look(&looker, waiting)).await;
            due = looked.unwrap_or_default();
            let next = due.values().min().map(|at| Duration::from_millis(at.saturating_sub(boot_ms())));
            tokio::select! {
                heard = bell.recv() => if heard.is_none() { return },
                () = tokio::time::sleep(next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    });
}

/// Rings at each end of a container made by hand, on a thread of its own, since the stream blocks.
fn hear_ends(linux: Arc<LinuxRuntime>, rung: mpsc::Sender<()>) {
    let hear = move || {
        while !rung.is_closed() {
            if let Ok(mut events) = linux.watch() {
                while let Ok(event) = events.next() {
                    if let RuntimeEvent::Exited { id, .. } = event
                        && is_by_hand(&linux, &id)
                    {
                        // one that waits already is enough
                        let _ = rung.try_send(());
                    }
                    if rung.is_closed() {
                        return;
                    }
                }
            }
            std::thread::sleep(REOPEN_AFTER);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("hand".to_owned()).spawn(hear) {
        tracing::error!(%error, "ends of containers made by hand are found by the timer only");
    }
}

fn is_by_hand(linux: &LinuxRuntime, id: &ContainerId) -> bool {
    let configs = linux.container_configs().unwrap_or_default();
    configs.iter().any(|config| config.id == *id && by_hand::name_of(&config.labels).is_some())
}

/// One look at everything made by hand; returns who is to be started when (boot time).
fn look(linux: &LinuxRuntime, mut due: BTreeMap<ContainerId, u64>) -> BTreeMap<ContainerId, u64> {
    let tended = act::tidy(linux).and_then(|()| restart_due(linux, &mut due));
    if let Err(error) = tended {
        tracing::debug!(error = chain(&error), "containers made by hand could not be looked after");
    }
    due
}

fn restart_due(linux: &LinuxRuntime, due: &mut BTreeMap<ContainerId, u64>) -> Result<()> {
    let configs = linux.container_configs()?;
    if !configs.iter().any(|config| config.labels.contains_key(by_hand::RESTART)) {
        due.clear();
        return Ok(());
    }
    let containers = linux.list_containers()?;
    due.retain(|id, _| containers.iter().any(|info| info.config.id == *id && info.state == ContainerState::Stopped));
    for info in containers.iter().filter(|info| info.state == ContainerState::Stopped) {
        let id = &info.config.id;
        let Some(restarts) = wanted(linux, info) else {
            due.remove(id);
            continue;
        };
        let after = (BACKOFF_MIN_MS << restarts.min(16)).min(BACKOFF_MAX_MS);
        let at = *due.entry(id.clone()).or_insert_with(|| boot_ms() + after);
        if at > boot_ms() {
            continue;
        }
        due.remove(id);
        if let Err(error) = act::start_again(linux, &info.config, restarts + 1) {
            tracing::warn!(container = %id, error = chain(&error), "not started again");
            due.insert(id.clone(), boot_ms() + BACKOFF_MAX_MS);
        }
    }
    Ok(())
}

/// How often in a row an ended container was started again; `None`: it shall not be.
fn wanted(linux: &LinuxRuntime, info: &ContainerInfo) -> Option<u32> {
    let policy = Restart::parse(info.config.labels.get(by_hand::RESTART)?).ok()?;
    let life = linux.life(&info.config.id);
    if life.stop_asked {
        return None;
    }
    let finished = if life.finished_unix_ms == 0 { unix_ms() } else { life.finished_unix_ms };
    let was_healthy = finished.saturating_sub(life.started_unix_ms) >= HEALTHY_MS;
    let restarts = if was_healthy { 0 } else { life.restarts };
    let failed = info.exit != Some(ExitStatus::Code(0));
    let again = match policy {
        Restart::No => false,
        Restart::OnFailure(most) => failed && most.is_none_or(|most| restarts < most),
        Restart::UnlessStopped | Restart::Always => true,
    };
    again.then_some(restarts)
}
