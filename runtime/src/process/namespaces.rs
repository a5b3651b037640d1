//! Which namespaces a spec asks for: new ones, given ones, or the caller's own. Joining the given ones.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Type, Spec};
use rustix::fs::{Mode, OFlags};

use crate::error::{Doing as _, Error, Result};
use crate::sys::clone;

/// CLONE_NEWTIME (`linux/sched.h`): in clone it is part of the exit signal, so it takes unshare.
const NEWTIME: i32 = 0x80;

fn listed(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
}

/// Whether a container has a namespace of this kind that is not the caller's: a new one or a given one.
pub(super) fn has(spec: &Spec, kind: Type) -> bool {
    listed(spec).iter().any(|namespace| namespace.typ() == kind)
}

/// Whether a new one of this kind is made for it.
pub(super) fn makes(spec: &Spec, kind: Type) -> bool {
    listed(spec).iter().any(|namespace| namespace.typ() == kind && path(namespace).is_none())
}

/// Whether one is given by path.
pub(super) fn has_given(spec: &Spec) -> bool {
    listed(spec).iter().any(|namespace| path(namespace).is_some())
}

fn path(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// Makes a spec join the namespaces of a running process that a pod shares, instead of making new ones.
pub(super) fn join(spec: &mut Spec, pid: i32, share_pids: bool) {
    let Some(list) = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut()) else { return };
    for namespace in list {
        let name = match namespace.typ() {
            Type::User => "user",
            Type::Network => "net",
            Type::Ipc => "ipc",
            Type::Uts => "uts",
            Type::Pid if share_pids => "pid",
            Type::Pid | Type::Mount | Type::Cgroup | Type::Time => continue,
        };
        namespace.set_path(Some(format!("/proc/{pid}/ns/{name}").into()));
    }
}

/// The flag of a kind for clone, unshare and setns.
fn flag(kind: Type) -> i32 {
    match kind {
        Type::Mount => libc::CLONE_NEWNS,
        Type::User => libc::CLONE_NEWUSER,
        Type::Pid => libc::CLONE_NEWPID,
        Type::Network => libc::CLONE_NEWNET,
        Type::Ipc => libc::CLONE_NEWIPC,
        Type::Uts => libc::CLONE_NEWUTS,
        Type::Cgroup => libc::CLONE_NEWCGROUP,
        Type::Time => NEWTIME,
    }
}

/// clone3 flags for the new namespaces of a spec. Not the cgroup namespace: its root is where the process is when it
/// is made, so init makes it once it is in its cgroups. Not the time namespace: see [`Given::join`].
pub(super) fn new_flags(spec: &Spec) -> u64 {
    let new = listed(spec).iter().filter(|namespace| path(namespace).is_none()).map(|namespace| namespace.typ());
    new.filter(|kind| !matches!(kind, Type::Cgroup | Type::Time)).fold(0, |flags, kind| flags | flag(kind) as u64)
}

/// setns flags for all namespaces a running container does not share with the caller.
pub(super) fn all_flags(spec: &Spec) -> i32 {
    listed(spec).iter().fold(0, |flags, namespace| flags | flag(namespace.typ()))
}

/// What has to be done by a process before it clones a container's init.
pub(super) struct Given {
    files: Vec<(Type, OwnedFd, String)>,
    makes_time: bool,
    offsets: String,
}

impl Given {
    /// Opens the namespaces a spec gives by path; `None` when it gives none and wants no time namespace.
    ///
    /// # Errors
    /// `BadContainer` naming a path that is no namespace of its kind.
    pub(super) fn open(spec: &Spec) -> Result<Option<Self>> {
        let mut files = Vec::new();
        for namespace in listed(spec) {
            let Some(path) = path(namespace) else { continue };
            let shown = format!("the {} namespace {}", namespace.typ(), path.display());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| Error::BadContainer(format!("{shown} cannot be opened: {errno}")))?;
            files.push((namespace.typ(), file, shown));
        }
        let makes_time = makes(spec, Type::Time);
        if files.is_empty() && !makes_time {
            return Ok(None);
        }
        let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
        let line = |(clock, offset): (&String, &oci_spec::runtime::LinuxTimeOffset)| {
            format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
        };
        let offsets = offsets.into_iter().flatten().map(line).collect();
        Ok(Some(Self { files, makes_time, offsets }))
    }

    /// Enters them, for the calling process or (pid, time) its next children. Those that the host's root may enter
    /// come first: inside a user namespace it has rights over that one's own only, which are tried again then.
    ///
    /// # Errors
    /// `BadContainer` when one is of another kind; `Io`.
    pub(super) fn join(&self) -> Result<()> {
        let (users, others): (Vec<_>, Vec<_>) = self.files.iter().partition(|(kind, ..)| *kind == Type::User);
        let mut refused = Vec::new();
        for one in others {
            match enter(one) {
                Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EPERM) && !users.is_empty() => {
                    refused.push(one);
                }
                other => other?,
            }
        }
        // Before the user namespace: its offsets are the host's root's to write.
        if self.makes_time {
            clone::unshare(NEWTIME).doing(|| "make a time namespace")?;
            if !self.offsets.is_empty() {
                let doing = || "set the offsets of the time namespace";
                fs::write("/proc/self/timens_offsets", &self.offsets).doing(doing)?;
            }
        }
        users.into_iter().chain(refused).try_for_each(enter)
    }
}

fn enter((kind, file, shown): &(Type, OwnedFd, String)) -> Result<()> {
    clone::join(file.as_fd(), flag(*kind)).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => Error::BadContainer(format!("{shown} is none of that kind")),
        _ => Error::io(format!("join {shown}"), error),
    })
}
