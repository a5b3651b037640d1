//! Start, stop, remove and the like, one container at a time. What belongs to an object of a manifest is refused with the
//! reason: its controller would undo it.

use std::sync::Arc;
use std::time::Duration;

use runtime::id::{ContainerId, NetworkName};
use runtime::linux::AttachedStdio;
use runtime::runtime::{ContainerConfig, ContainerInfo, ContainerState, ExitStatus};
use runtime::supervisor::client::SupervisorClient;
use runtime::{Error, LinuxRuntime, Result, Runtime as _};

use super::create::{ensure_network, holder, in_use};
use super::{STOP_MS, names, shell_code};
use crate::model::{ObservedContainer, by_hand};

/// The container meant, whoever made it.
pub(super) fn find(linux: &LinuxRuntime, name: &str) -> Result<Arc<ContainerConfig>> {
    by_hand::find_container(&linux.container_configs()?, name).cloned()
}

/// The container meant, if it was made by hand.
fn find_own(linux: &LinuxRuntime, name: &str, doing: &str) -> Result<Arc<ContainerConfig>> {
    let found = find(linux, name)?;
    if by_hand::name_of(&found.labels).is_some() {
        return Ok(found);
    }
    let owner = ObservedContainer::from_config(&found).map(|observed| observed.replica.workload);
    let owner = owner.map_or_else(|| "somebody else".to_owned(), |key| format!("{}/{}", key.kind, key.name));
    Err(Error::Conflict(format!(
        "`{name}` belongs to {owner}: to {doing} it by hand would be undone; change its manifest"
    )))
}

fn state(linux: &LinuxRuntime, config: &ContainerConfig) -> Result<ContainerState> {
    let all = linux.list_containers()?;
    let found = all.into_iter().find(|info| info.config.id == config.id);
    let missing = || Error::NotFound { what: "container", name: shown(config) };
    found.map(|info| info.state).ok_or_else(missing)
}

/// The name people know it by.
fn shown(config: &ContainerConfig) -> String {
    by_hand::name_of(&config.labels).unwrap_or(config.id.as_str()).to_owned()
}

pub(super) fn start(linux: &LinuxRuntime, name: &str) -> Result<()> {
    let config = find_own(linux, name, "start")?;
    start_again(linux, &config, 0)
}

/// Starts one that does not run; `restarts` is how often that was done in a row without being asked for.
pub(super) fn start_again(linux: &LinuxRuntime, config: &ContainerConfig, restarts: u32) -> Result<()> {
    // a stop comes before or after it, never in the middle
    let _alone = linux.lock_kept();
    if state(linux, config)? == ContainerState::Running || (restarts > 0 && linux.life(&config.id).stop_asked) {
        return Ok(());
    }
    ensure_network(linux, config)?;
    linux.prepare_kept(&config.id)?;
    linux.run_kept(&config.id, restarts)
}

/// Attaches to a container and, with `start`, runs it: nothing it writes is missed.
///
/// # Errors
/// Those of a start; `Conflict` when it does not run and shall not be started.
pub fn attach_and_start(linux: &LinuxRuntime, name: &str, start: bool, stdin: bool) -> Result<AttachedStdio> {
    if !start {
        // who looks on may leave again: the end of stdin stays the container's own
        return linux.attach(&find(linux, name)?.id, false);
    }
    let config = find_own(linux, name, "start")?;
    let _alone = linux.lock_kept();
    ensure_network(linux, &config)?;
    linux.prepare_kept(&config.id)?;
    let attached = linux.attach(&config.id, stdin)?;
    linux.run_kept(&config.id, 0)?;
    Ok(attached)
}

pub(super) fn stop(linux: &LinuxRuntime, name: &str, grace_ms: Option<u64>) -> Result<()> {
    let config = find_own(linux, name, "stop")?;
    halt(linux, &config, grace_ms)?;
    after_end(linux, &config)
}

fn halt(linux: &LinuxRuntime, config: &ContainerConfig, grace_ms: Option<u64>) -> Result<()> {
    if !ask_stop(linux, config)? {
        return Ok(());
    }
    let own = config.labels.get(by_hand::STOP_MS).and_then(|ms| ms.parse().ok());
    let grace = Duration::from_millis(grace_ms.or(own).unwrap_or(STOP_MS));
    thaw(linux, config)?;
    linux.stop_container(&config.id, grace)
}

/// Notes that the end is asked for, so that nothing starts it again; whether it runs.
fn ask_stop(linux: &LinuxRuntime, config: &ContainerConfig) -> Result<bool> {
    let _alone = linux.lock_kept();
    linux.ask_stop_of_kept(&config.id, true)?;
    Ok(state(linux, config)? == ContainerState::Running)
}

/// A frozen process does not hear a signal.
fn thaw(linux: &LinuxRuntime, config: &ContainerConfig) -> Result<()> {
    if linux.is_frozen(&config.id) { linux.freeze_container(&config.id, false) } else { Ok(()) }
}

/// What follows the end of a container made by hand: it is written down, its names and ports go, and with `--rm` itself.
///
/// # Errors
/// Those of the runtime.
pub fn after_end(linux: &LinuxRuntime, config: &ContainerConfig) -> Result<()> {
    let listed = linux.list_containers()?;
    linux.refresh_own(None)?;
    let ended = listed.iter().any(|info| info.config.id == config.id && info.state == ContainerState::Stopped);
    if ended && config.labels.contains_key(by_hand::AUTO_REMOVE) {
        return take_away(linux, config);
    }
    Ok(())
}

/// Whether any container made by hand runs; what cannot be known counts as no.
#[must_use]
pub fn is_any_live(linux: &LinuxRuntime) -> bool {
    let is_live = |info: &ContainerInfo| info.pid.is_some() && by_hand::name_of(&info.config.labels).is_some();
    linux.list_containers().is_ok_and(|all| all.iter().any(is_live))
}

/// What a controller does as things happen, done at once for whatever ended while none ran.
///
/// # Errors
/// `Io`, `Unreachable`.
pub fn tidy(linux: &LinuxRuntime) -> Result<()> {
    let configs = linux.container_configs()?;
    if !configs.iter().any(|config| by_hand::name_of(&config.labels).is_some()) {
        return Ok(());
    }
    for info in linux.list_containers()? {
        let is_over = info.state == ContainerState::Stopped && info.config.labels.contains_key(by_hand::AUTO_REMOVE);
        if is_over {
            take_away(linux, &info.config)?;
        }
    }
    linux.refresh_own(None)
}

pub(super) fn restart(linux: &LinuxRuntime, name: &str, grace_ms: Option<u64>) -> Result<()> {
    let config = find_own(linux, name, "restart")?;
    halt(linux, &config, grace_ms)?;
    start_again(linux, &config, 0)
}

pub(super) fn kill(linux: &LinuxRuntime, name: &str, signal: &str) -> Result<()> {
    let config = find(linux, name)?;
    let is_own = by_hand::name_of(&config.labels).is_some();
    let is_final = matches!(signal.to_ascii_uppercase().as_str(), "KILL" | "SIGKILL" | "9");
    if state(linux, &config)? != ContainerState::Running {
        return Err(Error::Conflict(format!("container `{name}` is not running")));
    }
    if is_own && is_final {
        linux.ask_stop_of_kept(&config.id, true)?;
    }
    linux.signal_container(&config.id, signal)?;
    if !is_final {
        return Ok(());
    }
    thaw(linux, &config)?;
    match linux.supervisor().wait(&config.id) {
        Ok(_) if is_own => after_end(linux, &config),
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn remove(linux: &LinuxRuntime, name: &str, force: bool) -> Result<()> {
    let config = find_own(linux, name, "remove")?;
    if !force && state(linux, &config)? == ContainerState::Running {
        let message = format!("container `{name}` is running: boxship stop {name}, or rm --force");
        return Err(Error::Conflict(message));
    }
    if ask_stop(linux, &config)? {
        thaw(linux, &config)?;
        linux.stop_container(&config.id, Duration::ZERO)?;
    }
    take_away(linux, &config)
}

/// Deletes a container that does not run, with what is only its own.
fn take_away(linux: &LinuxRuntime, config: &ContainerConfig) -> Result<()> {
    // while it is still known whose names and ports these are
    linux.refresh_own(None)?;
    match linux.remove_container(&config.id) {
        // somebody else was quicker
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    for volume in linux.list_volumes()? {
        if volume.config.labels.get(by_hand::VOLUME_OF).is_some_and(|owner| owner == config.id.as_str()) {
            linux.remove_volume(&volume.config.name)?;
        }
    }
    let _alone = linux.lock_kept();
    let others = linux.container_configs()?;
    for (network, _) in config.network.addresses() {
        if !others.iter().any(|other| other.network.interface_on(network).is_some()) {
            drop_network(linux, network);
        }
    }
    Ok(())
}

/// The last one has left; one that cannot go now goes with the next.
fn drop_network(linux: &LinuxRuntime, network: &NetworkName) {
    match linux.remove_network(network) {
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => tracing::debug!(%network, error = runtime::error::chain(&error), "network stays"),
    }
}

pub(super) fn rename(linux: &LinuxRuntime, name: &str, new: &str) -> Result<()> {
    let config = find_own(linux, name, "rename")?;
    names::check(new)?;
    let _alone = linux.lock_kept();
    if let Some(other) = holder(new, &linux.container_configs()?) {
        return Err(in_use(new, other));
    }
    let mut config = (*config).clone();
    config.labels.insert(by_hand::NAME.to_owned(), new.to_owned());
    if let Some(endpoints) = &mut config.extras.endpoints {
        endpoints.names = vec![new.to_owned()];
    }
    linux.rewrite_container(&config)
}

pub(super) fn pause(linux: &LinuxRuntime, name: &str, frozen: bool) -> Result<()> {
    let config = find_own(linux, name, if frozen { "pause" } else { "unpause" })?;
    if state(linux, &config)? != ContainerState::Running {
        return Err(Error::Conflict(format!("container `{name}` is not running")));
    }
    if linux.is_frozen(&config.id) == frozen {
        let how = if frozen { "paused already" } else { "not paused" };
        return Err(Error::Conflict(format!("container `{name}` is {how}")));
    }
    linux.freeze_container(&config.id, frozen)
}

/// How a container ended, as a shell tells it; `None` while it runs.
///
/// # Errors
/// `NotFound`; `Conflict` when it was never started.
pub fn ended(linux: &LinuxRuntime, name: &str) -> Result<Option<u8>> {
    let config = find(linux, name)?;
    let all = linux.list_containers()?;
    let found = all.iter().find(|info| info.config.id == config.id);
    match found.map(|info| (info.state, info.exit)) {
        Some((ContainerState::Running, _)) => Ok(None),
        Some((ContainerState::Stopped, exit)) => Ok(Some(shell_code(exit.unwrap_or(ExitStatus::Unknown)))),
        Some((ContainerState::Creating | ContainerState::Created, _)) if !config.extras.kept => Ok(None),
        Some((ContainerState::Creating | ContainerState::Created, _)) => {
            Err(Error::Conflict(format!("container `{name}` was never started")))
        }
        None => Err(Error::NotFound { what: "container", name: name.to_owned() }),
    }
}

/// Something that waits for a container's end without holding the data root.
///
/// # Errors
/// `NotFound`; `Conflict` when it was never started.
pub fn waiter(linux: &LinuxRuntime, name: &str) -> Result<Waiter> {
    let config = find(linux, name)?;
    let is_known = linux.list_containers()?.iter().any(|info| info.config.id == config.id && info.pid.is_some());
    let life = linux.life(&config.id);
    if !is_known && life.started_unix_ms == 0 && config.extras.kept {
        return Err(Error::Conflict(format!("container `{name}` was never started")));
    }
    Ok(Waiter { supervisor: linux.supervisor().clone(), id: config.id.clone(), before: life.exit })
}

/// See [`waiter`].
pub struct Waiter {
    supervisor: SupervisorClient,
    id: ContainerId,
    before: Option<ExitStatus>,
}

impl Waiter {
    /// Blocks until it has ended; how, as a shell tells it.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn wait(&self) -> Result<u8> {
        match self.supervisor.wait(&self.id) {
            Ok(exit) => Ok(shell_code(exit)),
            Err(Error::NotFound { .. }) => Ok(shell_code(self.before.unwrap_or(ExitStatus::Unknown))),
            Err(error) => Err(error),
        }
    }
}

/// What a shell would answer when a program cannot be run: 127 where it is not there, 126 where it cannot be executed, 125
/// for everything that is not the program's fault.
#[must_use]
pub fn launch_code(message: &str) -> u8 {
    let missing = ["no executable `", "is not in the image", "not found (is its interpreter"];
    let refused = ["is not executable", "cannot execute `"];
    if missing.iter().any(|text| message.contains(text)) {
        127
    } else if refused.iter().any(|text| message.contains(text)) {
        126
    } else {
        125
    }
}
