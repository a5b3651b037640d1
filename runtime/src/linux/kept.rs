//! Containers that stay after their end: written down before they are made, made anew at each start from the same config
//! and writable layer, removed only by name. `life.json` beside the config says how the last life went, also after a reboot.
//!
//! Mechanism only: who may do what is decided above.

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::containers::CreatedRecord;
use super::{LinuxRuntime, durable, of_status};
use crate::cgroup::{Cgroup, Hierarchies};
use crate::clock;
use crate::error::{Doing, Error, Result};
use crate::id::ContainerId;
use crate::runtime::{
    ContainerConfig, ContainerInfo, ContainerState, ContainerTimes, ExecSession, ExitStatus, Runtime as _,
};
use crate::supervisor::client::{SupervisorClient, SupervisorWatch};
use crate::supervisor::wire::ContainerStatus;

/// `life.json`: the last life of a kept container. Times are wall clock, milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// 0: never started.
    pub started_unix_ms: u64,
    /// 0: not ended, or nobody saw when.
    pub finished_unix_ms: u64,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// Somebody asked for the end: nothing starts it again but a person.
    pub stop_asked: bool,
    /// How often in a row it was started again after an end.
    pub restarts: u32,
}

/// Ends of an attached container's standard files.
pub struct AttachedStdio {
    /// stdout and stderr, or what a terminal shows.
    pub outputs: Vec<OwnedFd>,
    /// stdin, or the terminal.
    pub input: Option<OwnedFd>,
    /// Waits for the container's end.
    pub session: Box<dyn ExecSession>,
}

impl LinuxRuntime {
    /// Keeps names, addresses and ports of kept containers as they are, and who runs, while it is held.
    pub fn lock_kept(&self) -> MutexGuard<'_, ()> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every container's config, kept or not, without asking the supervisor.
    ///
    /// # Errors
    /// `Io`.
    pub fn container_configs(&self) -> Result<Vec<Arc<ContainerConfig>>> {
        self.containers.list()
    }

    /// Writes a container down. Nothing runs, and nothing is made in the kernel, until [`Self::prepare_kept`].
    ///
    /// # Errors
    /// Those of [`crate::Runtime::create_container`] that the configuration alone explains.
    pub fn keep_container(&self, config: &ContainerConfig) -> Result<()> {
        let using = self.images_in_use.read().unwrap_or_else(PoisonError::into_inner);
        let (_, stop_signal) = self.lower(config)?;
        self.containers.begin(config, |others| self.claim_address(config, others))?;
        drop(using);
        self.containers.complete(&config.id, stop_signal)
    }

    /// Makes a kept container that does not run, up to the point before its program; [`Self::run_kept`] goes on.
    ///
    /// # Errors
    /// Those of [`crate::Runtime::create_container`]; `Conflict` when it runs; `PortInUse`. Then it is as it was.
    pub fn prepare_kept(&self, id: &ContainerId) -> Result<()> {
        let config = self.containers.get(id)?;
        let _root = self.roots.try_hold(id).ok_or_else(|| {
            Error::Conflict(format!(
                "files are being copied into or out of container `{id}`: start it when that is done"
            ))
        })?;
        match self.supervisor.list()?.iter().find(|status| status.id == *id).map(|status| status.state) {
            None => {}
            Some(ContainerState::Running) => return Err(Error::Conflict(format!("container `{id}` runs already"))),
            Some(ContainerState::Creating | ContainerState::Created | ContainerState::Stopped) => self.unmake(id)?,
        }
        let (create, _) = self.lower(&config)?;
        // one that a dying supervisor left half made is made again by the next
        let made = super::patiently(|| self.set_up(create.clone()).inspect_err(|_| drop(self.unmake(id))));
        made.and_then(|()| self.refresh_own(Some(id))).inspect_err(|_| drop(self.unmake(id)))
    }

    /// Runs the program of a prepared container, and writes down that its life began.
    ///
    /// # Errors
    /// Those of [`crate::Runtime::start_container`]; then it is as if it had not been prepared.
    pub fn run_kept(&self, id: &ContainerId, restarts: u32) -> Result<()> {
        let life = Life { started_unix_ms: clock::unix_ms(), restarts, ..Life::default() };
        let before = self.change_life(id, |_| Some(life))?;
        self.start_container(id).inspect_err(|_| {
            drop(self.unmake(id));
            let _ = self.change_life(id, |_| Some(before));
            let _ = self.refresh_own(None);
        })
    }

    /// Forgets what of a container that does not run is in the kernel.
    fn unmake(&self, id: &ContainerId) -> Result<()> {
        self.drop_dns(id);
        match self.supervisor.remove(id) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The last life of a kept container.
    #[must_use]
    pub fn life(&self, id: &ContainerId) -> Life {
        durable::read_file(&self.life_file(id)).ok().flatten().unwrap_or_default()
    }

    /// Notes that the end that comes is asked for, or (`false`) that it no longer is.
    ///
    /// # Errors
    /// `Io`.
    pub fn ask_stop_of_kept(&self, id: &ContainerId, asked: bool) -> Result<()> {
        self.change_life(id, |life| (life.stop_asked != asked).then_some(Life { stop_asked: asked, ..life })).map(drop)
    }

    /// Replaces what is written of a life by what `change` makes of it, if anything; returns what was written before.
    fn change_life(&self, id: &ContainerId, change: impl FnOnce(Life) -> Option<Life>) -> Result<Life> {
        let _alone = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.life(id);
        if let Some(life) = change(before.clone()) {
            durable::replace_file(&self.life_file(id), &life)?;
        }
        Ok(before)
    }

    fn life_file(&self, id: &ContainerId) -> std::path::PathBuf {
        self.layout.container_dir(id).join("life.json")
    }

    /// Sends one signal to the first process.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run; `Unreachable`.
    pub fn signal_container(&self, id: &ContainerId, signal: &str) -> Result<()> {
        let signal = super::signal_number(signal)?;
        self.containers.get(id)?;
        match self.supervisor.kill(id, signal) {
            Err(Error::NotFound { .. }) => Err(Error::Conflict(format!("container `{id}` does not run"))),
            other => other,
        }
    }

    /// Freezes all processes of a container, or lets them go on.
    ///
    /// # Errors
    /// `NotFound`; `Io` when it has no cgroup; `Unsupported` when they do not freeze in time.
    pub fn freeze_container(&self, id: &ContainerId, frozen: bool) -> Result<()> {
        self.containers.get(id)?;
        let hierarchies = Hierarchies::of_host()?;
        Cgroup::new(hierarchies, &format!("{}/{id}", self.cgroup_parent)).freeze(frozen)
    }

    /// Whether all its processes are frozen.
    #[must_use]
    pub fn is_frozen(&self, id: &ContainerId) -> bool {
        let name = format!("{}/{id}", self.cgroup_parent);
        Hierarchies::of_host().is_ok_and(|hierarchies| Cgroup::new(hierarchies, &name).is_frozen())
    }

    /// Replaces what is written down of a container; what runs of it does not change.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn rewrite_container(&self, config: &ContainerConfig) -> Result<()> {
        self.containers.get(&config.id)?;
        self.containers.replace(config)?;
        self.refresh_own(None)
    }

    /// Output of a container as it comes, and its stdin. With `take_stdin` its end is the caller's to give.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run; `Unreachable`.
    pub fn attach(&self, id: &ContainerId, take_stdin: bool) -> Result<AttachedStdio> {
        let tty = self.containers.get(id)?.tty;
        // opened first: an end that comes at once is not missed
        let events = self.supervisor.watch()?;
        let mut fds = match self.supervisor.attach(id, take_stdin) {
            Err(Error::NotFound { .. }) => return Err(Error::Conflict(format!("container `{id}` does not run"))),
            other => other?.into_iter(),
        };
        let outputs: Vec<OwnedFd> = fds.by_ref().take(if tty { 1 } else { 2 }).collect();
        let input = fds.next();
        let terminal = input.as_ref().filter(|_| tty).map(|fd| fd.as_fd().try_clone_to_owned());
        let terminal = terminal.transpose().doing(|| "copy a terminal")?;
        let session = Box::new(Attached {
            client: self.supervisor.clone(),
            events,
            id: id.clone(),
            terminal,
            over: Arc::default(),
        });
        Ok(AttachedStdio { outputs, input, session })
    }

    /// Bytes on disk of a container's writable layer.
    #[must_use]
    pub fn writable_bytes(&self, id: &ContainerId) -> u64 {
        disk_bytes(&self.layout.container_dir(id).join("upper"))
    }

    /// What the supervisor knows of a kept container; its end is written down where it is seen.
    pub(super) fn kept_info(
        &self,
        config: ContainerConfig,
        status: &ContainerStatus,
        created: &CreatedRecord,
    ) -> ContainerInfo {
        let mut info = of_status(config, status);
        info.times.created_unix_ms = created.created_unix_ms;
        if info.state == ContainerState::Stopped {
            let (finished_unix_ms, exit) = (info.times.finished_unix_ms, info.exit);
            let ended = |life: Life| life.exit.is_none().then_some(Life { finished_unix_ms, exit, ..life });
            if self.life(&info.config.id).exit.is_none()
                && let Err(error) = self.change_life(&info.config.id, ended)
            {
                tracing::warn!(container = %info.config.id, error = crate::error::chain(&error), "end not kept");
            }
        }
        info
    }

    /// A kept container of which no process is known: never started, or of an earlier boot.
    pub(super) fn kept_alone(&self, config: ContainerConfig, created: &CreatedRecord) -> ContainerInfo {
        let life = self.life(&config.id);
        let times = ContainerTimes {
            created_unix_ms: created.created_unix_ms,
            started_unix_ms: life.started_unix_ms,
            finished_unix_ms: life.finished_unix_ms,
            ..ContainerTimes::default()
        };
        let started = life.started_unix_ms > 0;
        let (state, exit) = if started {
            (ContainerState::Stopped, Some(life.exit.unwrap_or(ExitStatus::Unknown)))
        } else {
            (ContainerState::Created, None)
        };
        ContainerInfo { config, state, pid: None, times, exit, altered: BTreeSet::new() }
    }
}

/// An attached container as something that ends.
struct Attached {
    client: SupervisorClient,
    events: SupervisorWatch,
    id: ContainerId,
    terminal: Option<OwnedFd>,
    /// Nobody waits any more.
    over: Arc<AtomicBool>,
}

impl ExecSession for Attached {
    fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        match self.events.end_of(&self.id) {
            // the supervisor was replaced: its successor knows
            Err(Error::Unreachable { .. }) if !self.over.load(Ordering::Acquire) => self.client.wait(&self.id),
            other => other,
        }
    }

    fn kill(&mut self) -> Result<()> {
        Ok(())
    }

    /// Who looks on does not end what he looks at: only the wait is over.
    fn killer(&self) -> Box<dyn Fn() + Send + Sync> {
        let (over, stream) = (Arc::clone(&self.over), self.events.closer());
        Box::new(move || {
            over.store(true, Ordering::Release);
            if let Some(stream) = &stream {
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
    }
}

/// Bytes on disk of a directory and all below; what cannot be read does not count. Follows no link.
fn disk_bytes(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() {
                dirs.push(entry.path());
            } else {
                bytes += data.blocks() * 512;
            }
        }
    }
    bytes
}
