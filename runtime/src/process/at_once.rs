//! A start in one go, for a caller that lives for this container alone and needs no word with its init in between: init
//! runs in the caller's memory while the caller is suspended, as after vfork(2). No copy of the memory is made and faulted
//! in, and nobody waits for a message.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

use super::{Channel, InitEvent, SpawnOptions, Spawned, Stdio, init, namespaces, parent, stage};
use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Doing as _, Error, Result};
use crate::spec::launch::Launch;
use crate::sys::{clone, fdpass};

/// A moment of a start at which its caller has something to do, in init and with the caller's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Init's first: the host's /proc is still there.
    Cloned,
    /// Everything is in place, nothing of the host is reachable but what was opened before, no right is given up. The
    /// program follows.
    Ready,
}

/// The caller's part in a start at once.
pub struct Witness<'a> {
    /// Stays open in init, beside the standard files, until the program is executed.
    pub keep: BorrowedFd<'a>,
    /// Called in init. Its error is the start's.
    pub at: &'a mut dyn FnMut(Moment) -> Result<()>,
}

/// Whether a container can be started so. Init shares memory with its caller, so nobody else may be where init is: it
/// takes a new process namespace, and programs of the bundle (hooks, a reaper's child) that could look at init must not
/// run beside it.
#[must_use]
pub(super) fn is_possible(spec: &Spec, launch: &Launch, options: &SpawnOptions) -> bool {
    let new = |kind| namespaces::makes(spec, kind);
    cfg!(target_arch = "x86_64")
        && options.alone
        && options.rendezvous.is_none()
        && matches!(options.stdio, Stdio::Fds(_))
        && stage::needs_no_init(spec, launch)
        && spec.hooks().is_none()
        && !launch.reaper
        && !launch.holds
        && new(Type::Pid)
        && new(Type::Mount)
        && !namespaces::has(spec, Type::Time)
        && !namespaces::has_given(spec)
}

/// Returns when the program runs.
///
/// # Errors
/// `Unsupported` for what cannot be started so; else as [`super::spawn`] and as [`InitEvent::Failed`] says. Nothing is left
/// behind then.
pub(super) fn spawn(spec: &Spec, launch: &Launch, options: &SpawnOptions, witness: Witness<'_>) -> Result<Spawned> {
    parent::check_single_threaded()?;
    if !is_possible(spec, launch, options) {
        return Err(Error::Unsupported("this container cannot be started at once; this is a bug".into()));
    }
    stage::check_limits(spec)?;
    let cgroup = Cgroup::new(Hierarchies::of_launch(launch)?, &launch.cgroup);
    let directory = cgroup.create_unified()?;
    let answer = spawn_in(spec, launch, options, directory.as_fd(), witness);
    if answer.is_err() {
        let _ = cgroup.remove();
    }
    answer
}

fn spawn_in(
    spec: &Spec,
    launch: &Launch,
    options: &SpawnOptions,
    cgroup: BorrowedFd<'_>,
    mut witness: Witness<'_>,
) -> Result<Spawned> {
    let doing = || format!("start container {}", launch.id);
    let (ours, reports) = fdpass::pair().doing(doing)?;
    let (supply, supplied) = fdpass::pair().doing(doing)?;
    stage::serve_ahead(spec, launch, &stage::Ends { report: reports.as_fd(), supplies: supply.as_fd() })?;
    let mut came_far = false;
    let Witness { keep, at } = &mut witness;
    let mut at = |moment| {
        came_far = moment == Moment::Ready;
        at(moment)
    };
    let mut body = || {
        let ends = init::Ends { report: reports.as_fd(), supplies: supplied.as_fd() };
        let mut witness = Witness { keep: *keep, at: &mut at };
        parent::run_child(|| init::run(spec, launch, options, &ends, Some(&mut witness)), reports.as_fd())
    };
    // SAFETY: single threaded by the check in spawn; body never returns; nobody shares the new process namespace, see
    // is_possible.
    let cloned = unsafe { clone::clone3_suspended(namespaces::new_flags(spec), cgroup, &mut body) };
    let (pid, pidfd) = cloned.doing(doing)?;
    let mut channel = Channel::resume(ours);
    let error = match channel.receive()? {
        Some(InitEvent::Failed { error }) => error,
        // The kernel wakes us before it closes what init had open, so no end can be waited for; a failure would be here.
        None if came_far => return Ok(Spawned { pid, pidfd, channel, stage: None }),
        Some(InitEvent::Started | InitEvent::Mounted | InitEvent::Created { .. }) | None => {
            let cut = io::Error::other("its first process was killed");
            Error::io(doing(), cut)
        }
    };
    parent::kill_and_reap(pidfd.as_fd());
    Err(error)
}
