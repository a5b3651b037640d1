//! What is kept of a container between two calls: `state.json` in a directory of its id, and beside it `start`, the
//! socket on which its init waits, which is there exactly until it was told to start.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::Runtime;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Doing as _, Error, Result};
use crate::layout::make_private_dir;
use crate::process;
use crate::spec::launch::{Launch, RootSource};
use crate::supervisor::container::{read_record, write_record, write_record_at};
use crate::supervisor::identity::start_time;

/// Longest id; the directory of it must be one.
const ID_BYTES_MAX: usize = 255;
const RECORD: &str = "state.json";
const START: &str = "start";

/// Where a container is in its life (OCI runtime, "Lifecycle"; `paused` as every runtime says it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Its init waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its program is frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl Status {
    /// The word of the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Host pid of its init; 0 while there is none.
    pub(super) pid: i32,
    /// Start time of that process in clock ticks: the pid alone may be somebody else's by now.
    pub(super) start_time: u64,
    pub(super) created_unix_ms: u64,
    /// Its init was announced: it waits for `start`.
    pub(super) ready: bool,
    pub(super) spec: Spec,
    pub(super) launch: Launch,
    /// Without a mount namespace of its own: the mount of its root in the caller's.
    #[serde(default)]
    pub(super) root_mount: Option<u64>,
}

/// One container, as its record was read.
#[derive(Debug, Clone)]
pub struct Container {
    pub(super) id: String,
    pub(super) directory: PathBuf,
    pub(super) record: Record,
}

impl Runtime {
    /// Reads one container.
    ///
    /// # Errors
    /// `NotFound`; `BadContainer` for an id that cannot be one; `Io`.
    pub fn container(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let directory = self.root.join(id);
        match read_record(&directory.join(RECORD)) {
            Ok(record) => Ok(Container { id: id.to_owned(), directory, record }),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound { what: "container", name: id.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// All containers, by id. One that is being removed meanwhile is left out.
    ///
    /// # Errors
    /// `Io` when the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(|| format!("read {}", self.root.display()))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut list: Vec<Container> = names.filter_map(|name| self.container(&name).ok()).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(list)
    }

    /// Makes the directory of a new container.
    pub(super) fn reserve(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        make_private_dir(&self.root)?;
        let directory = self.root.join(id);
        match fs::create_dir(&directory) {
            Ok(()) => Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Conflict(format!("container `{id}` exists already")))
            }
            Err(error) => Err(Error::io(format!("make {}", directory.display()), error)),
        }
    }
}

/// runc's rule: `[A-Za-z0-9_+.-]+`, and a name a directory can have.
fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'.' | b'-');
    if id.is_empty() || id.len() > ID_BYTES_MAX || id == "." || id == ".." || !id.bytes().all(allowed) {
        return Err(Error::BadContainer(format!(
            "`{id}` is no container id: letters, digits, `_`, `+`, `-` and `.` are"
        )));
    }
    Ok(())
}

impl Container {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its spec as it was created.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.record.spec
    }

    /// Absolute path of its bundle.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        self.record.launch.told.as_ref().map_or(Path::new("/"), |told| &told.bundle)
    }

    /// When it was created, milliseconds since 1970.
    #[must_use]
    pub fn created_unix_ms(&self) -> u64 {
        self.record.created_unix_ms
    }

    /// Where it is in its life now.
    #[must_use]
    pub fn status(&self) -> Status {
        if !self.is_alive() {
            return if self.record.pid == 0 { Status::Creating } else { Status::Stopped };
        }
        if !self.record.ready {
            return Status::Creating;
        }
        if self.directory.join(START).exists() {
            return Status::Created;
        }
        match self.cgroup() {
            Ok(cgroup) if cgroup.is_frozen() => Status::Paused,
            Ok(_) | Err(_) => Status::Running,
        }
    }

    /// Host pid of its init; `None` when that has ended.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.is_alive().then_some(self.record.pid)
    }

    fn is_alive(&self) -> bool {
        is_running(self.record.pid) && start_time(self.record.pid) == Some(self.record.start_time)
    }

    /// The state document (OCI runtime, "State").
    #[must_use]
    pub fn state(&self) -> String {
        let told = self.record.launch.told.as_ref();
        let status = self.status();
        let pid = if status == Status::Stopped { Some(0) } else { self.pid() };
        told.map(|told| told.state(&self.id, status.as_str(), pid)).unwrap_or_default()
    }

    /// Its init, by a descriptor that no other process can take the place of.
    ///
    /// # Errors
    /// `Conflict` when it has ended.
    pub fn open_init(&self) -> Result<OwnedFd> {
        let gone = || Error::Conflict(format!("container `{}` does not run", self.id));
        let pid = Pid::from_raw(self.record.pid).ok_or_else(gone)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        // Only now: until it was opened, the pid could have become another one's.
        if self.is_alive() { Ok(pidfd) } else { Err(gone()) }
    }

    pub(super) fn cgroup(&self) -> Result<Cgroup<'_>> {
        Ok(Cgroup::new(Hierarchies::of_launch(&self.record.launch)?, &self.record.launch.cgroup))
    }

    /// Writes the record.
    pub(super) fn save(&self) -> Result<()> {
        write_record(&self.directory.join(RECORD), &self.record)
    }

    /// The same through its directory, opened before this process went where no path leads to it.
    pub(super) fn save_at(&self, directory: BorrowedFd<'_>) -> Result<()> {
        write_record_at(directory, Path::new(RECORD), &self.record)
    }

    /// Keeps other calls that change this container away for as long as the file lives.
    pub(super) fn lock(&self) -> Result<File> {
        let doing = || format!("lock container {}", self.id);
        let file = match File::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { what: "container", name: self.id.clone() });
            }
            other => other.doing(doing)?,
        };
        rustix::fs::flock(&file, FlockOperation::LockExclusive).doing(doing)?;
        Ok(file)
    }

    /// An illegal transition, in the words of every one of them.
    pub(super) fn cannot(&self, what: &str, status: Status) -> Error {
        Error::Conflict(format!("container `{}` cannot be {what}: it is {}", self.id, status.as_str()))
    }

    /// Makes the socket its init will wait on.
    pub(super) fn listen(&self) -> Result<OwnedFd> {
        let doing = || "make the socket for the start";
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .doing(doing)?;
        let (_directory, address) = self.start_address()?;
        rustix::net::bind(&socket, &address).doing(doing)?;
        rustix::net::listen(&socket, 1).doing(doing)?;
        Ok(socket)
    }

    /// Connects to its waiting init. The caller that takes the socket's name away is the one that starts it.
    pub(super) fn connect(&self) -> Result<OwnedFd> {
        let doing = || format!("reach the waiting init of container {}", self.id);
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .doing(doing)?;
        let (_directory, address) = self.start_address()?;
        rustix::net::connect(&socket, &address).doing(doing)?;
        fs::remove_file(self.directory.join(START)).doing(doing)?;
        Ok(socket)
    }

    /// A socket's path may have 107 bytes, a directory of state more: it is reached through a descriptor.
    fn start_address(&self) -> Result<(OwnedFd, SocketAddrUnix)> {
        let doing = || format!("open {}", self.directory.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.directory, flags, Mode::empty()).doing(doing)?;
        let path = format!("/proc/self/fd/{}/{START}", directory.as_raw_fd());
        let address = SocketAddrUnix::new(path.as_str()).doing(doing)?;
        Ok((directory, address))
    }

    /// The directory of its root file system.
    fn root(&self) -> PathBuf {
        match &self.record.launch.root {
            RootSource::Directory { directory } => directory.clone(),
            RootSource::Layers(_) => PathBuf::new(),
        }
    }

    /// Remembers what has to be unmounted in the end.
    pub(super) fn note_root_mount(&mut self) {
        if !process::has_mount_namespace(self.spec()) {
            self.record.root_mount = mount_at(&self.root());
        }
    }

    /// Takes its root out of the caller's mounts, with all below it, if it is still there.
    pub(super) fn unmount_root(&self) {
        let root = self.root();
        if self.record.root_mount.is_some() && mount_at(&root) == self.record.root_mount {
            // Whoever has unmounted it meanwhile was right.
            let _ = rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// Forgets it.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.directory.display()), error))
            }
            _ => Ok(()),
        }
    }
}

fn mount_at(path: &Path) -> Option<u64> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    crate::sys::path::mount_id(file).ok()
}

/// Whether a process is there and not only waits to be reaped.
fn is_running(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rfind(')').and_then(|at| stat[at + 1..].trim_start().chars().next());
    pid > 0 && !matches!(state, Some('Z' | 'X') | None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "A_b+c.d-9", &"x".repeat(64)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "ä", "a b", &"x".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_container_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime { root: dir.path().join("none") };
        assert!(runtime.container("x").unwrap_err().is_not_found());
        assert!(runtime.list().unwrap().is_empty());
    }
}
