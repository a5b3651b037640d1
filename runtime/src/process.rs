//! The start path of one container: from a [`Spec`] and a [`Launch`] to a running program.
//!
//! [`spawn`] clones two children (or one, see [`SpawnOptions::alone`]) and returns: *init*, which becomes the program, and *stage*, a short-lived helper
//! that does with host credentials what init may not do (id maps, cgroups, idmapped mounts, veth) and then ends.
//! The caller (the supervisor) polls three descriptors: the [`Channel`], init's pidfd and stage's pidfd. It must be
//! single threaded, must reap both children, must kill stage when it outlives its deadline, and must not reap init
//! before stage has ended. It never mounts and never resolves a path of a user.
//!
//! ```text
//! spawn ─► (stage and init work) ─► Created ─► start() ─► Started | Failed
//!                                └► Failed
//! ```
//! Knows nothing of who asked, of logs, of restarts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Spec;

pub use at_once::{Moment, Witness};

use crate::cgroup::{Cgroup, Hierarchies};
use crate::spec::launch::Launch;
use crate::{Error, Result};

pub mod affinity;
mod at_once;
mod exec;
mod handshake;
pub mod hooks;
mod init;
pub mod memory_policy;
mod namespaces;
mod parent;
mod program;
mod pty;
mod reaper;
mod stage;

/// Where a program's standard input, output and error go.
#[derive(Debug)]
pub enum Stdio {
    /// Three descriptors, moved into the program.
    Fds([OwnedFd; 3]),
    /// A pseudo terminal is made inside; its master comes with the `Created` event.
    Terminal,
}

/// What a container's first process is given beside its spec.
#[derive(Debug)]
pub struct SpawnOptions {
    /// Its standard files.
    pub stdio: Stdio,
    /// A listening SEQPACKET socket on which init, once `Created`, waits for the one caller that says `start`, instead of
    /// on the [`Channel`]: for callers that end in between. See [`Channel::resume`].
    pub rendezvous: Option<OwnedFd>,
    /// How many descriptors from 3 on the program inherits. They must be open, and were before anything else was.
    pub preserved_fds: u32,
    /// The caller lives for this container alone and may hang with it: where it can, it does the stage helper's work
    /// itself before it clones init, which saves a process and all conversation.
    pub alone: bool,
}

impl From<Stdio> for SpawnOptions {
    fn from(stdio: Stdio) -> Self {
        Self { stdio, rendezvous: None, preserved_fds: 0, alone: false }
    }
}

/// A started, not yet running container.
#[derive(Debug)]
pub struct Spawned {
    /// Host pid of init.
    pub pid: i32,
    /// Readable when init is gone.
    pub pidfd: OwnedFd,
    /// What init and stage have to say.
    pub channel: Channel,
    /// The helper, to be reaped, and killed when it takes too long. Without one, the caller was `alone`.
    pub stage: Option<StageChild>,
}

/// A short-lived helper child of the caller.
#[derive(Debug)]
pub struct StageChild {
    /// Host pid.
    pub pid: i32,
    /// Readable when it is gone.
    pub pidfd: OwnedFd,
}

/// What happened on a [`Channel`].
#[derive(Debug)]
pub enum InitEvent {
    /// Everything is mounted and nothing is entered yet. Only where the spec has hooks for the caller to run at this
    /// moment; it goes on with [`Channel::proceed`].
    Mounted,
    /// Everything is in place; the program waits for [`Channel::start`].
    Created {
        /// UDP and TCP (listening) sockets at 127.0.0.11:53 of the container's network namespace, on a bridge.
        dns: Option<[OwnedFd; 2]>,
        /// The master of the terminal, where one was asked for.
        terminal: Option<OwnedFd>,
    },
    /// The program was executed. The channel has ended.
    Started,
    /// It will not run; init and stage end by themselves. The channel has ended.
    Failed {
        /// Why; `BadContainer`, `Unsupported` or `Io`.
        error: Error,
    },
}

/// The caller's end of the conversation with a child: poll it for reading.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    phase: handshake::Phase,
}

/// A running container, as `exec` needs it.
#[derive(Debug)]
pub struct ExecTarget<'a> {
    /// Host pid of its first process.
    pub pid: i32,
    /// pidfd of its first process.
    pub pidfd: BorrowedFd<'a>,
    /// What it was made from.
    pub spec: &'a Spec,
    /// What it was made from.
    pub launch: &'a Launch,
}

/// What to run in a running container.
pub type ExecConfig = crate::runtime::ExecConfig;

/// A further program on its way into a running container.
#[derive(Debug)]
pub struct SpawnedExec {
    /// The helper that joins the container and clones the program; a child of the caller, to be reaped.
    pub stage: StageChild,
    /// What it has to say.
    pub channel: ExecChannel,
}

/// What happened on an [`ExecChannel`].
#[derive(Debug)]
pub enum ExecEvent {
    /// The program's process exists and is a child of the caller, to be reaped.
    Created {
        /// Host pid.
        pid: i32,
        /// Readable when it is gone.
        pidfd: OwnedFd,
        /// The master of the terminal, where one was asked for.
        terminal: Option<OwnedFd>,
    },
    /// The program was executed. The channel has ended.
    Started,
    /// It will not run. A process announced by `Created` ends by itself. The channel has ended.
    Failed {
        /// Why; `BadContainer`, `Unsupported` or `Io`.
        error: Error,
    },
}

/// The caller's end of the conversation with an exec: poll it for reading.
#[derive(Debug)]
pub struct ExecChannel {
    fd: OwnedFd,
    phase: handshake::Phase,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsFd for ExecChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Channel {
    /// The channel of a container that was `Created` under an earlier supervisor, whose descriptor the keeper held.
    #[must_use]
    pub fn resume(fd: OwnedFd) -> Self {
        Self { fd, phase: handshake::Phase::Announced }
    }

    /// Takes the next event without waiting; `None` when there is none yet. Call it when the channel is readable.
    ///
    /// # Errors
    /// `Io` when the socket itself fails, or a message is not one of ours.
    pub fn receive(&mut self) -> Result<Option<InitEvent>> {
        self.receive_event()
    }

    /// Lets a container go on whose hooks have run.
    ///
    /// # Errors
    /// `Io`; EPIPE when init is gone.
    pub fn proceed(&self) -> Result<()> {
        self.send_proceed()
    }

    /// Lets a created container run its program; `Started` or `Failed` follows.
    ///
    /// # Errors
    /// `Io`; EPIPE when init is gone.
    pub fn start(&self) -> Result<()> {
        self.send_start()
    }
}

impl ExecChannel {
    /// Takes the next event without waiting; `None` when there is none yet. Call it when the channel is readable.
    ///
    /// # Errors
    /// `Io` when the socket itself fails, or a message is not one of ours.
    pub fn receive(&mut self) -> Result<Option<ExecEvent>> {
        self.receive_event()
    }
}

/// Clones init and stage and returns at once. The cgroup's v2 directory is made here; all else happens in the children.
///
/// # Errors
/// `Io` when the cgroup cannot be made or the kernel refuses to clone; `Unsupported` naming a missing feature.
/// Nothing is left behind then.
pub fn spawn(spec: &Spec, launch: &Launch, options: impl Into<SpawnOptions>) -> Result<Spawned> {
    parent::spawn(spec, launch, &options.into())
}

/// Whether [`spawn_at_once`] can start a container.
#[must_use]
pub fn can_spawn_at_once(spec: &Spec, launch: &Launch, options: &SpawnOptions) -> bool {
    at_once::is_possible(spec, launch, options)
}

/// Starts a container and returns when its program runs; the caller is suspended meanwhile, and has no child on an error.
///
/// # Errors
/// As [`spawn`], and whatever an [`InitEvent::Failed`] would tell.
pub fn spawn_at_once(spec: &Spec, launch: &Launch, options: &SpawnOptions, witness: Witness<'_>) -> Result<Spawned> {
    at_once::spawn(spec, launch, options, witness)
}

/// Clones a helper that joins the container's namespaces and cgroups and clones the program there.
///
/// # Errors
/// `Io` when the kernel refuses to clone.
pub fn exec(target: &ExecTarget<'_>, config: &ExecConfig, options: impl Into<SpawnOptions>) -> Result<SpawnedExec> {
    exec::spawn(target, config, &options.into())
}

/// Makes a container join the namespaces that a running process holds for its pod. The process must not be reaped before
/// [`spawn`] has returned, so that its number is nobody else's.
pub fn join(spec: &mut Spec, pid: i32, share_pids: bool) {
    namespaces::join(spec, pid, share_pids);
}

/// Whether a container has a new pid namespace, with whose init all its processes die.
#[must_use]
pub fn makes_pid_namespace(spec: &Spec) -> bool {
    namespaces::makes(spec, oci_spec::runtime::LinuxNamespaceType::Pid)
}

/// Whether a container has mounts that are not the caller's.
#[must_use]
pub fn has_mount_namespace(spec: &Spec) -> bool {
    namespaces::has(spec, oci_spec::runtime::LinuxNamespaceType::Mount)
}

/// Removes what the kernel keeps of a container that has ended: its cgroups, children before parents, after killing
/// whatever is still in them. Idempotent. Interfaces and mounts die with its namespaces.
///
/// # Errors
/// `Io` when a cgroup cannot be removed (EBUSY while its last processes are still dying: call again).
pub fn cleanup(launch: &Launch) -> Result<()> {
    Cgroup::new(Hierarchies::of_launch(launch)?, &launch.cgroup).remove()
}
