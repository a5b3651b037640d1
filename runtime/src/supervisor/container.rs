//! One container in the supervisor's memory, and its records in `RUN/containers/<id>/`: `bundle.json` (what it is made
//! from), `state.json` (who it is and where in its life), `exit.json` (how it ended). Each is written beside and renamed,
//! before anybody is told.

use std::io::Write as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroups::Cgroup;
use super::event_loop::Watched;
use super::identity::{ExitFile, Identity};
use super::logs::Stream;
use super::logs::file::LogFile;
use super::stop::Stop;
use super::wire::{ContainerStatus, Create};
use crate::error::{Doing, Result};
use crate::id::ContainerId;
use crate::process::Channel;
use crate::runtime::{ContainerState, ContainerTimes, ExitStatus, LogConfig};

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) identity: Identity,
    pub(crate) state: ContainerState,
    /// The word to execute the program was (or was about to be) given.
    #[serde(default)]
    pub(crate) start_asked: bool,
    pub(crate) times: ContainerTimes,
    pub(crate) terminal: bool,
    pub(crate) log: LogConfig,
    pub(crate) cgroup: String,
}

/// One container.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) dir: PathBuf,
    pub(crate) record: StateRecord,
    pub(crate) cgroup: Cgroup,
    pub(crate) exit: Option<ExitFile>,
    /// Its first process, until it is reaped.
    pub(crate) init: Option<Watched<OwnedFd>>,
    /// The first process ended, but it may not be reaped before `helper` is.
    pub(crate) init_ended: bool,
    /// The conversation with it until its program runs.
    pub(crate) channel: Option<Watched<Channel>>,
    /// Pid of the helper that sets it up.
    pub(crate) helper: Option<i32>,
    pub(crate) streams: Vec<Stream>,
    /// The other end of its stdin, until somebody takes it.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) log: LogFile,
    pub(crate) stop: Option<Stop>,
    /// Somebody wants it gone, or its creation failed.
    pub(crate) removing: bool,
    pub(crate) waiting: Waiting,
}

/// Connections that wait for something about one container.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) created: Option<u64>,
    pub(crate) started: Option<u64>,
    pub(crate) stopped: Vec<u64>,
    pub(crate) removed: Vec<u64>,
}

impl Container {
    pub(crate) fn new(id: ContainerId, dir: PathBuf, logs: PathBuf, record: StateRecord) -> Self {
        Self {
            id,
            dir,
            cgroup: Cgroup::new(&record.cgroup),
            exit: None,
            init: None,
            init_ended: false,
            channel: None,
            helper: None,
            streams: Vec::new(),
            stdin: None,
            log: LogFile::new(logs, record.log),
            stop: None,
            removing: false,
            waiting: Waiting::default(),
            record,
        }
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let lives = self.record.state != ContainerState::Stopped;
        ContainerStatus {
            id: self.id.clone(),
            state: self.record.state,
            pid: lives.then_some(self.record.identity.pid),
            times: self.times(),
            exit: self.exit_status(),
        }
    }

    fn times(&self) -> ContainerTimes {
        let mut times = self.record.times;
        if let Some(exit) = &self.exit {
            (times.finished_boot_ms, times.finished_unix_ms) = (exit.finished_boot_ms, exit.finished_unix_ms);
        }
        times
    }

    /// `Some` exactly when stopped.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        let stopped = self.record.state == ContainerState::Stopped;
        stopped.then(|| self.exit.as_ref().map_or(ExitStatus::Unknown, |exit| exit.exit))
    }

    /// Writes `state.json`.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn save(&self) -> Result<()> {
        write_record(&self.dir.join("state.json"), &self.record)
    }

    /// What it was made from; read each time, since it is large and seldom needed.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn bundle(&self) -> Result<Create> {
        read_record(&self.dir.join("bundle.json"))
    }
}

/// Writes a record beside and renames it. No fsync: the run directory does not outlive the boot.
///
/// # Errors
/// `Io`.
pub(crate) fn write_record<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    write_record_at(rustix::fs::CWD, path, record)
}

/// The same below a directory, for who can reach it by no path.
///
/// # Errors
/// `Io`.
pub(crate) fn write_record_at<T: Serialize>(directory: BorrowedFd<'_>, path: &Path, record: &T) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(record).doing(doing)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, &temporary, flags, Mode::from_raw_mode(0o666)).doing(doing)?;
    std::fs::File::from(file).write_all(&bytes).doing(doing)?;
    rustix::fs::renameat(directory, &temporary, directory, path).doing(doing)
}

/// Reads a record.
///
/// # Errors
/// `Io`; `InvalidData` inside when it is not one.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let doing = || format!("read {}", path.display());
    let bytes = std::fs::read(path).doing(doing)?;
    serde_json::from_slice(&bytes).doing(doing)
}
