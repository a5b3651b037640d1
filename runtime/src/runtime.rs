//! The boundary between deciding and doing: trait [`Runtime`] and the values that cross it.
//!
//! # The life of things behind this trait
//!
//! *Images*: `pull_image` makes one present: fetched, verified, unpacked, durable, and only then visible in
//! `list_images`. `remove_image` forgets it; layers other images use stay.
//!
//! *Networks* and *volumes*: `ensure_*` is idempotent, `remove_*` of an absent one is `NotFound`.
//!
//! *Containers*: `create_container` lays out disk and namespaces and stops just before the user's program
//! (`Created`); `start_container` runs it (`Running`); when its first process is gone it is `Stopped` with an
//! [`ExitStatus`], until `remove_container` takes its writable layer, logs and kernel objects. `create` with an id
//! that exists is a `Conflict`; `start` is legal only in `Created`; `stop` of a `Stopped` one is `Ok`; `remove` of a
//! running one is a `Conflict`. A container is never started twice: a restart is a new container.
//!
//! *Pods*: containers that share namespaces; the rules are beside [`PodPart`].
//!
//! *Endpoints*: `publish_endpoints` replaces the whole table of names and ports; when it returns, no new connection
//! goes to a backend the table does not name.
//!
//! Every call blocks. Every call may be repeated after a crash. No call decides anything.

pub(crate) mod base64_bytes;
mod extras;
mod finding;
mod image;
mod network;
mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::id::{ContainerId, NetworkName, VolumeName};
use crate::image::{Digest, ImageRef};
pub use extras::{Extras, OwnEndpoints, PublishedPort, Ulimit};
pub use finding::Finding;
pub use image::{ImageConfig, ImageHealthcheck, ImageInfo, NoProgress, PullPhase, PullProgress, PullRequest};
pub use network::{
    DnsView, EndpointTable, HostPort, Listener, NETWORKS_MAX, NetworkAddress, NetworkConfig, NetworkInfo, NetworkMode,
    Protocol, Service, ServicePort,
};
pub use pod::PodPart;

/// The verbs of the container runtime, in CRI's words. See the module for the life cycle.
pub trait Runtime: Send + Sync {
    /// Makes an image present and returns it. Present already under this reference and (for a tag) `refresh` unset:
    /// returns at once without touching the network.
    ///
    /// # Errors
    /// `Registry`, `Untrusted`, `NoSpace`, `Io`. Nothing becomes visible on error; partial blobs are kept for a resume.
    fn pull_image(&self, request: &PullRequest, progress: &dyn PullProgress) -> Result<ImageInfo>;

    /// Images that are complete and verified.
    ///
    /// # Errors
    /// `Io` when the store cannot be read.
    fn list_images(&self) -> Result<Vec<ImageInfo>>;

    /// Forgets one reference (tag or digest form); the bytes go when no reference and no container needs them.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` naming the containers that use it.
    fn remove_image(&self, reference: &ImageRef) -> Result<()>;

    /// Makes a bridge network present with exactly this configuration, its containers' links attached to it.
    ///
    /// # Errors
    /// `Unsupported` names the missing kernel feature or right.
    fn ensure_network(&self, config: &NetworkConfig) -> Result<()>;

    /// Removes a network that no container is attached to.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`.
    fn remove_network(&self, name: &NetworkName) -> Result<()>;

    /// Networks present in the kernel and on disk.
    ///
    /// # Errors
    /// `Io`.
    fn list_networks(&self) -> Result<Vec<NetworkInfo>>;

    /// Makes a volume's directory present. Its content is never touched once it exists.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    fn ensure_volume(&self, config: &VolumeConfig) -> Result<()>;

    /// Deletes a volume with its data.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` naming the containers that use it.
    fn remove_volume(&self, name: &VolumeName) -> Result<()>;

    /// Volumes on disk.
    ///
    /// # Errors
    /// `Io`.
    fn list_volumes(&self) -> Result<Vec<VolumeInfo>>;

    /// Lays out a container up to the point before its program runs.
    ///
    /// # Errors
    /// `Conflict` when the id exists, `NotFound` for image, network or volume, `BadContainer` for what its own
    /// configuration makes impossible, `Unsupported`, `NoSpace`, `Unreachable`.
    fn create_container(&self, config: &ContainerConfig) -> Result<()>;

    /// Runs the program of a `Created` container. Returns once it was executed.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (not `Created`), `BadContainer` when the program cannot be executed.
    fn start_container(&self, id: &ContainerId) -> Result<()>;

    /// Sends the stop signal, waits up to `grace`, then kills; returns when nothing of the container runs.
    /// Does not wait in vain: a first process that cannot react to the signal is killed at once.
    ///
    /// # Errors
    /// `NotFound`, `Unreachable`.
    fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()>;

    /// Deletes a container that does not run: writable layer, logs, cgroups, addresses. A `Creating` or `Created`
    /// one is killed first.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` while running.
    fn remove_container(&self, id: &ContainerId) -> Result<()>;

    /// Changes limits in place; a frozen cgroup runs again.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported`.
    fn update_resources(&self, id: &ContainerId, resources: &Resources) -> Result<()>;

    /// Every container of the data root, from its self-describing directory and the kernel.
    ///
    /// # Errors
    /// `Io`, `Unreachable`.
    fn list_containers(&self) -> Result<Vec<ContainerInfo>>;

    /// Runs a further program in a running container; its stdio are the given descriptors.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (not running), `BadContainer`.
    fn exec(&self, id: &ContainerId, config: &ExecConfig, stdio: ExecStdio) -> Result<Box<dyn ExecSession>>;

    /// Replaces the table of names and published ports; returns when it is in force.
    ///
    /// # Errors
    /// `PortInUse` for the first port that cannot be had (all others are in force), `Unreachable`.
    fn publish_endpoints(&self, table: &EndpointTable) -> Result<()>;

    /// Exits and deaths as they happen, from now on. A hint: what it misses, `list_containers` shows.
    ///
    /// # Errors
    /// `Unreachable`.
    fn watch(&self) -> Result<Box<dyn RuntimeWatch>>;

    /// Deletes kernel objects that bear the id of an owner that is gone; returns their names. Writes nothing to disk.
    ///
    /// # Errors
    /// `Unreachable`, `Io`; what could be deleted is.
    fn sweep(&self) -> Result<Vec<String>>;

    /// What of this host stands in the way of networks although everything of ours is in place. Only looks.
    ///
    /// # Errors
    /// `Io`.
    fn findings(&self) -> Result<Vec<Finding>>;

    /// The directory with the log files `current` and `1` … `n` (older) of a container, in CRI log format.
    fn log_dir(&self, id: &ContainerId) -> PathBuf;
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeConfig {
    /// Its name.
    pub name: VolumeName,
    /// Opaque to the runtime; kept on disk beside the data, so that an index can be rebuilt.
    pub labels: BTreeMap<String, String>,
}

/// A volume as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// What it was made with.
    pub config: VolumeConfig,
    /// Where its data is on the host.
    pub path: PathBuf,
}

/// Everything needed to make one container. Contains no policy: defaults were applied by whoever built it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Unique for the history of the data root.
    pub id: ContainerId,
    /// Opaque to the runtime; kept on disk beside the container, so that an index can be rebuilt.
    pub labels: BTreeMap<String, String>,
    /// Host name inside.
    pub hostname: String,
    /// Manifest digest of an image that is present.
    pub image: Digest,
    /// Replaces the image's entrypoint (and drops its cmd, as Docker and Kubernetes do).
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's cmd.
    pub args: Option<Vec<String>>,
    /// Added to the image's, replacing variables of the same name.
    pub env: BTreeMap<String, String>,
    /// The same with values that are kept encrypted; only who starts the container opens them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sealed_env: BTreeMap<String, String>,
    /// Replaces the image's; made when missing.
    pub working_dir: Option<String>,
    /// Replaces the image's `user[:group]`.
    pub user: Option<String>,
    /// In order of mounting (parents first is up to the runtime).
    pub mounts: Vec<MountConfig>,
    /// How it is connected.
    pub network: NetworkMode,
    /// Limits.
    pub resources: Resources,
    /// The host ids its ids 0… map to.
    pub ids: IdRange,
    /// Deviations from the safe defaults.
    pub security: SecurityConfig,
    /// Replaces the image's stop signal; by name (`SIGTERM`) or number.
    pub stop_signal: Option<String>,
    /// Size of /dev/shm in bytes.
    pub shm_bytes: u64,
    /// A pseudo terminal as stdio.
    pub tty: bool,
    /// Run our reaper as PID 1 in front of the program.
    pub init: bool,
    /// Search domains of resolv.conf.
    pub dns_search: Vec<String>,
    /// Log bounds.
    pub log: LogConfig,
    /// What only containers made by hand ask for.
    #[serde(default, skip_serializing_if = "Extras::is_none")]
    pub extras: Extras,
    /// Its part in a pod; `None`: it stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodPart>,
}

/// A range of host user and group ids, mapped to 0… inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First host id.
    pub host_start: u32,
    /// How many.
    pub len: u32,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountConfig {
    /// Absolute path inside; resolved in the container's root.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// Refuses writes.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountSource {
    /// A volume of this data root; an empty one is filled from the image's directory at `target` on first use.
    Volume {
        /// Which.
        name: VolumeName,
    },
    /// A host path, opened when the container is created; must exist.
    Bind {
        /// Absolute host path.
        path: PathBuf,
    },
    /// A file with this content (a Config, a hashed copy of a host file), owned by container root.
    File {
        /// The bytes.
        #[serde(with = "base64_bytes")]
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// A file whose content is kept encrypted; in the container it is in memory only.
    Secret {
        /// What [`crate::linux::Unseal`] opens.
        sealed: String,
        /// Permission bits.
        mode: u32,
        /// User and group inside; `None`: the container's user where it is a number, else root.
        owner: Option<[u32; 2]>,
    },
    /// Memory.
    Tmpfs {
        /// Upper bound in bytes; `None` is half of the host's memory (the kernel's default).
        size_bytes: Option<u64>,
    },
}

/// Limits; `None` is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
    /// Swap in bytes beside the memory; [`u64::MAX`] is no limit, `None` no swap where memory is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Memory in bytes that is taken from it last when the host runs short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation_bytes: Option<u64>,
    /// Its part of busy CPUs beside other containers, 2 to 262144; `None`: as every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u32>,
}

/// Named relaxations and hardenings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityConfig {
    /// Gives sudo and setuid back: no_new_privs off.
    pub allow_privilege_escalation: bool,
    /// Added to Docker's 14, `CAP_NET_RAW` style or without the prefix.
    pub cap_add: Vec<String>,
    /// Taken away; `ALL` first.
    pub cap_drop: Vec<String>,
    /// The root file system refuses writes.
    pub read_only_root: bool,
}

/// Log bounds: the files of one container never hold more than `file_bytes_max × files_max`. What all hold together is
/// bounded for the data root, see the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Bytes until a file is rotated.
    pub file_bytes_max: u64,
    /// Files kept, the current one included.
    pub files_max: u32,
    /// A program that writes faster than its log is never held up: lines are dropped, and the log says how many.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lossy: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { file_bytes_max: 10 << 20, files_max: 5, lossy: false }
    }
}

/// A container as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// What it was made with.
    pub config: ContainerConfig,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Host pid of its first process while `Created` or `Running`.
    pub pid: Option<i32>,
    /// When it was created, started and finished.
    pub times: ContainerTimes,
    /// How it ended; `Some` exactly when `Stopped`.
    pub exit: Option<ExitStatus>,
    /// What somebody changed of it from outside while it runs. Looked for at most every 5 s.
    pub altered: BTreeSet<Alteration>,
}

/// A part of a running container that is not as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Alteration {
    /// A limit of its cgroup differs, or the cgroup is frozen: [`Runtime::update_resources`] puts that right.
    Limits,
    /// The host's end of its link is down or off its bridge: [`Runtime::ensure_network`] puts that right.
    Link,
    /// Its interface, address or route is gone: only a new container has them again.
    Network,
}

/// Times of one container. Boot-time values order and schedule; wall-clock ones are for display.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerTimes {
    /// Wall clock, milliseconds since 1970.
    pub created_unix_ms: u64,
    /// CLOCK_BOOTTIME in milliseconds, of this boot; 0 when it belongs to an earlier boot.
    pub started_boot_ms: u64,
    /// Wall clock, milliseconds since 1970; 0 when never started.
    pub started_unix_ms: u64,
    /// CLOCK_BOOTTIME in milliseconds; 0 when not finished or in an earlier boot.
    pub finished_boot_ms: u64,
    /// Wall clock; 0 when not finished.
    pub finished_unix_ms: u64,
}

/// States of the OCI runtime-spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Being made; a crash may leave one here, to be removed.
    Creating,
    /// Waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its program is gone.
    Stopped,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
    /// The kernel killed it for memory (from the cgroup's own counter).
    OutOfMemory,
    /// Nobody saw it (the keeper itself died, or the host rebooted). Never invented as 0.
    Unknown,
}

/// What to run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecConfig {
    /// Program and arguments; looked up in the container's PATH.
    pub args: Vec<String>,
    /// Added to the container's.
    pub env: BTreeMap<String, String>,
    /// Replaces the container's.
    pub working_dir: Option<String>,
    /// Replaces the container's.
    pub user: Option<String>,
    /// A new pseudo terminal as stdio.
    pub tty: bool,
}

/// The descriptors of an exec.
pub enum ExecStdio {
    /// stdin, stdout, stderr of the new process.
    Fds([OwnedFd; 3]),
    /// A terminal is made; [`ExecSession::terminal`] is its master side.
    Terminal,
}

/// A program running by [`Runtime::exec`].
pub trait ExecSession: Send {
    /// The master of the terminal, once.
    fn terminal(&mut self) -> Option<OwnedFd>;
    /// Waits for the end.
    ///
    /// # Errors
    /// `Unreachable` when nobody can tell any more.
    fn wait(&mut self) -> Result<ExitStatus>;
    /// Kills it; for probes past their deadline.
    ///
    /// # Errors
    /// `Unreachable`.
    fn kill(&mut self) -> Result<()>;
    /// Something that can kill it while another thread is in `wait`.
    fn killer(&self) -> Box<dyn Fn() + Send + Sync>;
}

/// A stream of [`RuntimeEvent`]s.
pub trait RuntimeWatch: Send {
    /// Waits for the next one.
    ///
    /// # Errors
    /// `Unreachable` when the stream broke; make a new one and list again.
    fn next(&mut self) -> Result<RuntimeEvent>;
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeEvent {
    /// A container's first process is gone.
    Exited {
        /// Which.
        id: ContainerId,
        /// How.
        exit: ExitStatus,
    },
    /// A container directory or process changed in another way; list again.
    Changed,
}
