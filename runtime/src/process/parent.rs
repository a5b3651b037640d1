//! The caller's side: cloning init and stage, hearing what they say.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Spec;

use super::handshake::{self, Heard, PROCEED, Phase, Report, START};
use super::namespaces::{self, Given};
use super::{Channel, ExecChannel, ExecEvent, InitEvent, SpawnOptions, Spawned, StageChild, init, stage};
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
pub(super) fn spawn(spec: &Spec, launch: &Launch, options: &SpawnOptions) -> Result<Spawned> {
    check_single_threaded()?;
    let cgroup = Cgroup::new(Hierarchies::of_launch(launch)?, &launch.cgroup);
    let directory = cgroup.create_unified()?;
    let answer = spawn_in(spec, launch, options, directory.as_fd());
    if answer.is_err() {
        // Init is not there, so the directory is empty.
        let _ = cgroup.remove();
    }
    answer
}

fn spawn_in(spec: &Spec, launch: &Launch, options: &SpawnOptions, cgroup: BorrowedFd<'_>) -> Result<Spawned> {
    let doing = || format!("start container {}", launch.id);
    let (ours, reports) = fdpass::pair().doing(doing)?;
    let (supply, supplied) = fdpass::pair().doing(doing)?;
    let ahead = options.alone && stage::needs_no_init(spec, launch);
    if ahead {
        stage::serve_ahead(spec, launch, &stage::Ends { report: reports.as_fd(), supplies: supply.as_fd() })?;
    }
    let init = || {
        let ends = init::Ends { report: reports.as_fd(), supplies: supplied.as_fd() };
        run_child(|| init::run(spec, launch, options, &ends, None), reports.as_fd())
    };
    let (pid, pidfd) = match Given::open(spec)? {
        Some(given) => clone_joined(&given, spec, cgroup, init)?,
        None => clone_init(namespaces::new_flags(spec), cgroup, init).doing(doing)?,
    };
    if ahead {
        if let Err(error) = stage::limit(spec, launch, pid) {
            kill_and_reap(pidfd.as_fd());
            return Err(error);
        }
        return Ok(Spawned { pid, pidfd, channel: Channel::new(ours), stage: None });
    }
    // SAFETY: single threaded by the check in spawn; run_child never returns.
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
    Ok(Spawned { pid, pidfd, channel: Channel::new(ours), stage: Some(stage) })
}

fn clone_init(flags: u64, cgroup: BorrowedFd<'_>, init: impl FnOnce()) -> io::Result<(i32, OwnedFd)> {
    // SAFETY: single threaded by the check in spawn; init never returns.
    match unsafe { clone::clone3(flags, Some(cgroup)) }? {
        clone::Cloned::Child => {
            init();
            clone::exit_now(127)
        }
        clone::Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

/// Where namespaces are given, a child of its own enters them and clones init as its sibling, so that the caller is
/// init's parent and stays in its own namespaces.
fn clone_joined(given: &Given, spec: &Spec, cgroup: BorrowedFd<'_>, init: impl FnOnce()) -> Result<(i32, OwnedFd)> {
    let doing = || "clone a process into given namespaces";
    let (ours, theirs) = fdpass::pair().doing(doing)?;
    // SAFETY: single threaded by the check in spawn; run_child never returns.
    let joiner = match unsafe { clone::clone3(0, None) }.doing(doing)? {
        clone::Cloned::Child => run_child(
            || {
                given.join()?;
                let flags = namespaces::new_flags(spec) | clone::CLONE_PARENT;
                let (pid, pidfd) = clone_init(flags, cgroup, init).doing(doing)?;
                let message = handshake::encode(&Report::Joined { pid, terminal: false });
                fdpass::send(&theirs, &message, &[pidfd.as_fd()]).doing(doing)
            },
            theirs.as_fd(),
        ),
        clone::Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let message = fdpass::receive(&ours, true).doing(doing)?;
    reap(joiner.as_fd());
    let heard = message.and_then(|(bytes, fds)| Some((handshake::decode::<Report>(&bytes)?, fds)));
    match heard {
        Some((Report::Joined { pid, .. }, fds)) => Ok((pid, fds.into_iter().next().ok_or_else(nonsense)?)),
        Some((Report::Failed(failure), _)) => Err(failure.into()),
        Some((Report::Mounted | Report::Created { .. }, _)) | None => Err(nonsense()),
    }
}

/// For an init that nobody will hear of.
pub(super) fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    reap(pidfd);
}

fn reap(pidfd: BorrowedFd<'_>) {
    let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd), rustix::process::WaitIdOptions::EXITED);
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
            Heard::Announced(Report::Joined { .. } | Report::Failed(_) | Report::Mounted) => Err(nonsense()),
            Heard::Mounted => Ok(Some(InitEvent::Mounted)),
            Heard::Started => Ok(Some(InitEvent::Started)),
            Heard::Failed(failure) => Ok(Some(InitEvent::Failed { error: failure.into() })),
        }
    }

    pub(super) fn send_proceed(&self) -> Result<()> {
        fdpass::send(&self.fd, PROCEED, &[]).doing(|| "tell a starting container that its hooks have run")
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
            Heard::Announced(Report::Created { .. } | Report::Failed(_) | Report::Mounted) | Heard::Mounted => {
                Err(nonsense())
            }
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
