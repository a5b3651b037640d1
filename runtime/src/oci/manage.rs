//! What is done to a container after its start: signals, freezing, limits, removal.

use std::os::fd::AsFd as _;

use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::Runtime;
use super::bundle::CGROUP_PARENT;
use super::record::{Container, Status};
use super::start::poststop;
use crate::cgroup::{self, Cgroup};
use crate::error::{Doing as _, Error, Result};
use crate::linux::signal::signal_number;
use crate::process;
use crate::sys::daemon::pidfd_signal;

/// How long processes that were killed may take to be gone, in milliseconds.
const GONE_MS: u64 = 10_000;

impl Runtime {
    /// Sends a signal to a container's init, or with `all` to every process of it.
    ///
    /// # Errors
    /// `NotFound`; `BadContainer` for what is no signal; `Conflict` when it is neither created nor running.
    pub fn kill(&self, id: &str, signal: &str, all: bool) -> Result<()> {
        let signal = if signal == "0" { 0 } else { signal_number(signal)? };
        let container = self.container(id)?;
        let status = container.status();
        let own_pids = process::makes_pid_namespace(container.spec());
        let every = all || !own_pids && signal == libc::SIGKILL;
        match status {
            Status::Created | Status::Running | Status::Paused => {}
            // Without a pid namespace, others may have outlived init.
            Status::Stopped if all => {}
            Status::Creating | Status::Stopped => return Err(container.cannot("signalled", status)),
        }
        if !every {
            return pidfd_signal(container.open_init()?, signal)
                .doing(|| format!("send signal {signal} to container {id}"));
        }
        let cgroup = container.cgroup()?;
        if signal == libc::SIGKILL {
            return cgroup.kill();
        }
        for pid in cgroup.pids()? {
            // One that is gone meanwhile needs no signal; another one that has its pid by now is not in here.
            let pidfd = rustix::process::Pid::from_raw(pid)
                .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
            if let Some(pidfd) = pidfd
                && cgroup.pids()?.contains(&pid)
            {
                let _ = pidfd_signal(&pidfd, signal);
            }
        }
        Ok(())
    }

    /// Removes a stopped container, or with `force` any, after killing it; none at all is no error then. Returns
    /// warnings: `poststop` hooks that failed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not stopped; `Io`.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<String>> {
        let container = match self.container(id) {
            Err(error) if error.is_not_found() && force => {
                // Left by a `create` that was killed before its record was whole.
                let _ = std::fs::remove_dir_all(self.root.join(id));
                return Ok(Vec::new());
            }
            other => other?,
        };
        let _lock = container.lock()?;
        // Only now: a `create` or `start` may have been at work.
        let container = self.container(id)?;
        match container.status() {
            Status::Stopped => {}
            Status::Creating | Status::Created | Status::Running | Status::Paused if force => {
                if let Ok(pidfd) = container.open_init() {
                    let _ = pidfd_signal(&pidfd, libc::SIGKILL);
                    wait_gone(&pidfd)?;
                }
            }
            status @ (Status::Creating | Status::Created | Status::Running | Status::Paused) => {
                return Err(container.cannot("deleted", status));
            }
        }
        remove(&container)
    }

    /// Freezes a running container.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run; `Unsupported` when its processes do not freeze in time.
    pub fn pause(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        match container.status() {
            Status::Created | Status::Running => container.cgroup()?.freeze(true),
            status @ (Status::Creating | Status::Paused | Status::Stopped) => Err(container.cannot("paused", status)),
        }
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not paused.
    pub fn resume(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        match container.status() {
            Status::Paused => container.cgroup()?.freeze(false),
            status @ (Status::Creating | Status::Created | Status::Running | Status::Stopped) => {
                Err(container.cannot("resumed", status))
            }
        }
    }

    /// Changes the limits that are named; those that are not stay.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is stopped; `Unsupported`, `Io`.
    pub fn update(&self, id: &str, limits: &LinuxResources) -> Result<()> {
        let container = self.container(id)?;
        match container.status() {
            Status::Created | Status::Running | Status::Paused => container.cgroup()?.change(limits),
            status @ (Status::Creating | Status::Stopped) => Err(container.cannot("updated", status)),
        }
    }

    /// Host pids of every process of a container.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn pids(&self, id: &str) -> Result<Vec<i32>> {
        self.container(id)?.cgroup()?.pids()
    }
}

/// Cgroups, `poststop` hooks, record, in this order: a removal that fails can be tried again.
pub(super) fn remove(container: &Container) -> Result<Vec<String>> {
    remove_cgroup(&container.cgroup()?)?;
    container.unmount_root();
    if container.record.launch.cgroup.starts_with(CGROUP_PARENT) {
        cgroup::remove_empty(CGROUP_PARENT);
    }
    container.forget()?;
    Ok(poststop(container))
}

/// Removes a cgroup after killing what is in it, and waits for that to be gone.
pub(super) fn remove_cgroup(cgroup: &Cgroup<'_>) -> Result<()> {
    match cgroup.remove() {
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {}
        other => return other,
    }
    cgroup.kill()?;
    cgroup.wait_empty(GONE_MS)?;
    // Its last process leaves the v1 directories a moment after the v2 one.
    let until = crate::clock::boot_ms() + GONE_MS;
    loop {
        match cgroup.remove() {
            Err(Error::Io { source, .. })
                if source.raw_os_error() == Some(libc::EBUSY) && crate::clock::boot_ms() < until =>
            {
                let _ = rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
            }
            other => return other,
        }
    }
}

/// Waits for a killed process.
fn wait_gone(pidfd: &std::os::fd::OwnedFd) -> Result<()> {
    let time = Timespec { tv_sec: i64::try_from(GONE_MS / 1000).unwrap_or(10), tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    match rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&time))).doing(|| "wait for an end")? {
        0 => Err(Error::Unsupported("its init did not die within 10 s of being killed; nothing was removed".into())),
        _ => Ok(()),
    }
}
