//! The caller's side: cloning init and stage, hearing what they say.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::handshake::{self, Heard, Phase, Report, START};
use super::{Channel, ExecChannel, ExecEvent, InitEvent, Spawned, StageChild, Stdio, init, stage};
use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Doing as _, Error, Result};
use crate::spec::launch::Launch;
use crate::sys::{clone, fdpass};

/// Refuses to go on in a threaded process: a clone would copy locks that other threads hold.
///
/// # Errors
/// `Unsupported`, which only a programming mistake can cause.
pub(super) fn check_single_threaded() -> Result<()> {
    match clone::is_single_threaded() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Unsupported("containers can only be started by a single-threaded process".into())),
        Err(error) => Err(Error::io("count the threads of this process", error)),
    }
}

/// Runs the body of a cloned child: never returns, never unwinds into the caller's copy of the stack.
pub(super) fn run_child(body: impl FnOnce() -> Result<()>, report: BorrowedFd<'_>) -> ! {
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let error = match answer {
        Ok(Ok(())) => clone::exit_now(0),
        Ok(Err(error)) => error,
        Err(_) => Error::Unsupported("a child of the start panicked; this is a bug".into()),
    };
    let message = handshake::encode(&Report::Failed((&error).into()));
    // Nobody is left to tell when this fails.
    let _ = fdpass::send(report, &message, &[]);
    clone::exit_now(127)
}

/// See [`super::spawn`].
pub(super) fn spawn(spec: &Spec, launch: &Launch, stdio: Stdio) -> Result<Spawned> {
    check_single_threaded()?;
    let cgroup = Cgroup::new(Hierarchies::of_host()?, &launch.cgroup);
    let directory = cgroup.create_unified()?;
    let answer = spawn_in(spec, launch, stdio, directory.as_fd());
    if answer.is_err() {
        // Init is not there, so the directory is empty.
        let _ = cgroup.remove();
    }
    answer
}

fn spawn_in(spec: &Spec, launch: &Launch, stdio: Stdio, cgroup: BorrowedFd<'_>) -> Result<Spawned> {
    let doing = || format!("start container {}", launch.id);
    let (ours, reports) = fdpass::pair().doing(doing)?;
    let (supply, supplied) = fdpass::pair().doing(doing)?;
    let flags = namespaces(spec);
    // SAFETY: single threaded by the check in spawn; run_child never returns.
    let cloned = unsafe { clone::clone3(flags, Some(cgroup)) }.doing(doing)?;
    let (pid, pidfd) = match cloned {
        clone::Cloned::Child => {
            let ends = init::Ends { report: reports.as_fd(), supplies: supplied.as_fd() };
            run_child(|| init::run(spec, launch, &stdio, &ends), reports.as_fd())
        }
        clone::Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    // SAFETY: as above.
    let cloned = unsafe { clone::clone3(0, None) };
    let stage = match cloned {
        Ok(clone::Cloned::Child) => {
            let ends = stage::Ends { report: reports.as_fd(), supplies: supply.as_fd() };
            run_child(|| stage::run(spec, launch, pid, &ends), reports.as_fd())
        }
        Ok(clone::Cloned::Parent { pid, pidfd }) => StageChild { pid, pidfd },
        Err(error) => {
            kill_and_reap(pidfd.as_fd());
            return Err(Error::io(doing(), error));
        }
    };
    Ok(Spawned { pid, pidfd, channel: Channel::new(ours), stage })
}

/// For an init that nobody will hear of.
fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd), rustix::process::WaitIdOptions::EXITED);
}

/// clone3 flags for the namespaces of a spec. Not the cgroup namespace: its root is where the process is when it is
/// made, so init makes it once it is in its cgroups.
fn namespaces(spec: &Spec) -> u64 {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    listed.iter().fold(0, |flags, namespace| {
        flags
            | match namespace.typ() {
                LinuxNamespaceType::Mount => libc::CLONE_NEWNS as u64,
                LinuxNamespaceType::User => libc::CLONE_NEWUSER as u64,
                LinuxNamespaceType::Pid => libc::CLONE_NEWPID as u64,
                LinuxNamespaceType::Network => libc::CLONE_NEWNET as u64,
                LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC as u64,
                LinuxNamespaceType::Uts => libc::CLONE_NEWUTS as u64,
                LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time => 0,
            }
    })
}

/// Whether a spec has its own network namespace.
pub(super) fn owns_network(spec: &Spec) -> bool {
    namespaces(spec) & libc::CLONE_NEWNET as u64 != 0
}

impl Channel {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, phase: Phase::Waiting }
    }

    pub(super) fn receive_event(&mut self) -> Result<Option<InitEvent>> {
        let Some((heard, fds)) = hear(self.fd.as_fd(), &mut self.phase)? else { return Ok(None) };
        let mut fds = fds.into_iter();
        match heard {
            Heard::Announced(Report::Created { dns, terminal }) => {
                let dns = if dns { fds.next().zip(fds.next()).map(|(udp, tcp)| [udp, tcp]) } else { None };
                Ok(Some(InitEvent::Created { dns, terminal: if terminal { fds.next() } else { None } }))
            }
            Heard::Announced(Report::Joined { .. } | Report::Failed(_)) => Err(nonsense()),
            Heard::Started => Ok(Some(InitEvent::Started)),
            Heard::Failed(failure) => Ok(Some(InitEvent::Failed { error: failure.into() })),
        }
    }

    pub(super) fn send_start(&self) -> Result<()> {
        fdpass::send(&self.fd, START, &[]).doing(|| "tell a created container to start")
    }
}

impl ExecChannel {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, phase: Phase::Waiting }
    }

    pub(super) fn receive_event(&mut self) -> Result<Option<ExecEvent>> {
        let Some((heard, fds)) = hear(self.fd.as_fd(), &mut self.phase)? else { return Ok(None) };
        let mut fds = fds.into_iter();
        match heard {
            Heard::Announced(Report::Joined { pid, terminal }) => {
                let pidfd = fds.next().ok_or_else(nonsense)?;
                Ok(Some(ExecEvent::Created { pid, pidfd, terminal: if terminal { fds.next() } else { None } }))
            }
            Heard::Announced(Report::Created { .. } | Report::Failed(_)) => Err(nonsense()),
            Heard::Started => Ok(Some(ExecEvent::Started)),
            Heard::Failed(failure) => Ok(Some(ExecEvent::Failed { error: failure.into() })),
        }
    }
}

fn hear(socket: BorrowedFd<'_>, phase: &mut Phase) -> Result<Option<(Heard, Vec<OwnedFd>)>> {
    let (input, fds) = match fdpass::receive(socket, false) {
        Ok(Some((bytes, fds))) => (Some(handshake::decode::<Report>(&bytes).ok_or_else(nonsense)?), fds),
        Ok(None) => (None, Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(Error::io("hear from a starting container", error)),
    };
    let (next, heard) = phase.step(input);
    *phase = next;
    Ok(heard.map(|heard| (heard, fds)))
}

fn nonsense() -> Error {
    Error::io("hear from a starting container", io::Error::from(io::ErrorKind::InvalidData))
}
