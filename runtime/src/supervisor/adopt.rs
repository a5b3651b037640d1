//! Taking over from a supervisor that is no more: records say who was there, the keeper has their descriptors and saw
//! who ended meanwhile.
//!
//! A process is adopted only if boot id, pid and start time are the recorded ones. An end is read or `Unknown`, never
//! invented.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Supervisor;
use super::container::{Container, StateRecord, read_record};
use super::event_loop::Source;
use super::identity::{ExitFile, exit_file_name, start_time};
use super::logs::format::StreamName;
use super::logs::{self, Stream};
use super::stop::kill_all;
use super::wire::Create;
use crate::error::{Doing, Result};
use crate::id::ContainerId;
use crate::process::{self, Channel};
use crate::runtime::{ContainerState, ExitStatus};

type Held = BTreeMap<String, Vec<OwnedFd>>;

impl Supervisor {
    /// Reads every record and takes over what lives.
    pub(super) fn adopt(&mut self) -> Result<()> {
        let mut held = Held::new();
        for prefix in ["log/", "tty/", "chan/", "in/"] {
            held.extend(self.keeper.get(prefix)?);
        }
        let dir = self.layout.run_dir.join("containers");
        for entry in std::fs::read_dir(&dir).doing(|| format!("read {}", dir.display()))? {
            let entry = entry.doing(|| format!("read {}", dir.display()))?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok()) else {
                continue;
            };
            if let Err(error) = self.adopt_one(&id, &mut held) {
                tracing::error!(container = %id, error = %crate::error::chain(&error), "not adopted");
            }
        }
        // descriptors of containers without a record
        for name in held.keys() {
            let _ = self.keeper.drop_name(name);
        }
        self.sweep_exits();
        Ok(())
    }

    fn adopt_one(&mut self, id: &ContainerId, held: &mut Held) -> Result<()> {
        let dir = self.layout.container_run_dir(id);
        let Ok(record) = read_record::<StateRecord>(&dir.join("state.json")) else {
            return self.undo_unborn(id);
        };
        let mut container = Container::new(id.clone(), dir.clone(), self.layout.container_dir(id).join("logs"), record);
        if let Ok(mut exit) = read_record::<ExitFile>(&dir.join("exit.json")) {
            container.record.state = ContainerState::Stopped;
            if container.record.identity.boot_id != self.boot_id {
                // that boot's clock means nothing now
                (container.record.times.started_boot_ms, exit.finished_boot_ms) = (0, 0);
            }
            container.exit = Some(exit);
            self.containers.insert(id.clone(), container);
            return Ok(());
        }
        if container.record.state == ContainerState::Stopped || container.record.identity.boot_id != self.boot_id {
            container.record.state = ContainerState::Stopped;
            (container.record.times.started_boot_ms, container.exit) = (0, Some(unseen()));
            self.containers.insert(id.clone(), container);
            return Ok(());
        }
        let terminal = held.remove(&format!("tty/{id}"));
        let fifos = held.remove(&format!("log/{id}"));
        container.streams = self.adopt_streams(id, container.record.terminal, terminal, fifos)?;
        container.stdin = held.remove(&format!("in/{id}")).and_then(|fds| fds.into_iter().next());
        let channel = held.remove(&format!("chan/{id}")).and_then(|fds| fds.into_iter().next());
        let identity = container.record.identity.clone();
        let pidfd = Pid::from_raw(identity.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // read after the open: if it is the recorded one now, the descriptor is that process's
        let pidfd = pidfd.filter(|_| start_time(identity.pid) == Some(identity.start_time));
        let lives = pidfd.is_some();
        if let Some(pidfd) = pidfd {
            container.init = Some(self.poller.watch(pidfd, Source::Init(id.clone()))?);
        }
        let state = container.record.state;
        if let (ContainerState::Created, Some(fd)) = (state, channel) {
            container.channel = Some(self.poller.watch(Channel::resume(fd), Source::Channel(id.clone()))?);
        }
        if state == ContainerState::Creating {
            container.removing = true;
        }
        if state == ContainerState::Creating || (state == ContainerState::Created && container.channel.is_none()) {
            kill_all(&mut container);
        }
        self.containers.insert(id.clone(), container);
        if !lives {
            let end = self.seen_by_keeper(id).unwrap_or_else(unseen);
            self.record_end(id, end);
        }
        Ok(())
    }

    /// A creation that did not come to its first record: its child ended by itself, its channel being closed.
    pub(super) fn undo_unborn(&mut self, id: &ContainerId) -> Result<()> {
        let dir = self.layout.container_run_dir(id);
        if let Ok(bundle) = read_record::<Create>(&dir.join("bundle.json")) {
            super::cgroups::Cgroup::new(&bundle.launch.cgroup).kill().ok();
            process::cleanup(&bundle.launch)?;
        }
        self.forget_files(id);
        Ok(())
    }

    fn adopt_streams(
        &self,
        id: &ContainerId,
        terminal: bool,
        master: Option<Vec<OwnedFd>>,
        fifos: Option<Vec<OwnedFd>>,
    ) -> Result<Vec<Stream>> {
        if terminal {
            let master = master.and_then(|fds| fds.into_iter().next());
            return master.map(|master| self.terminal_stream(id, master)).into_iter().collect();
        }
        let fifos = match fifos {
            Some(fifos) if fifos.len() == StreamName::ALL.len() => fifos,
            // the keeper is new: what the container holds open still has its bytes
            _ => {
                let dir = self.layout.container_run_dir(id);
                let open = |name: StreamName| logs::open_fifo(&dir.join(name.as_str()), OFlags::NONBLOCK);
                let fifos = StreamName::ALL.into_iter().map(open).collect::<Result<Vec<_>>>()?;
                let borrowed: Vec<_> = fifos.iter().map(std::os::fd::AsFd::as_fd).collect();
                self.keeper.put(&format!("log/{id}"), &borrowed)?;
                fifos
            }
        };
        self.fifo_streams(id, fifos)
    }

    /// Ends of processes no container waits for: execs and helpers of a dead supervisor.
    pub(super) fn sweep_exits(&self) {
        let waited: Vec<String> = self
            .containers
            .values()
            .filter(|container| container.lives())
            .map(|c| exit_file_name(c.record.identity.pid, c.record.identity.start_time))
            .collect();
        for entry in std::fs::read_dir(self.layout.exits_dir()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !waited.iter().any(|waited| name == waited.as_str()) && entry.path().extension().is_none() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn unseen() -> ExitFile {
    ExitFile { exit: ExitStatus::Unknown, finished_boot_ms: 0, finished_unix_ms: 0 }
}
