//! Stopping without waiting in vain.
//!
//! The first process of a pid namespace ignores every signal it has no handler for (`SIGNAL_UNKILLABLE`). It *cannot
//! react* when its NSpid ends in 1, two looks 20 ms apart show the signal neither caught nor blocked by its leader,
//! it does not sit in `rt_sigtimedwait` (tini waits there with both masks empty), and it has run for 2 s, since a
//! program that is just starting may not have installed its handlers. Then waiting for it is in vain; the container's
//! other processes still get the signal and the grace.

use std::os::fd::OwnedFd;

use super::Supervisor;
use super::container::Container;
use super::event_loop::{Source, Timer, Watched};
use crate::clock;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::runtime::ContainerState;
use crate::sys::daemon::pidfd_signal;

/// Between the two looks.
const LOOK_MS: u64 = 20;
/// How long a program may take to install its handlers.
const SETTLE_MS: u64 = 2_000;

/// A stop under way.
pub(crate) struct Stop {
    signal: i32,
    grace_at_ms: u64,
    /// The last look found the first process deaf.
    was_deaf: bool,
    /// The signal came before the first process listened.
    resend: bool,
    /// Other processes that have the signal.
    siblings: Vec<(i32, Watched<OwnedFd>)>,
    siblings_asked: bool,
    killed: bool,
}

impl Supervisor {
    /// Begins (or joins, or shortens) a stop; `client` hears when nothing of the container runs.
    pub(super) fn stop(&mut self, client: u64, id: &ContainerId, signal: i32, grace_ms: u64) -> Result<()> {
        let now = clock::boot_ms();
        let container = self.container_mut(id)?;
        match container.record.state {
            ContainerState::Stopped => {
                self.answer_done(client);
                return Ok(());
            }
            ContainerState::Creating => {
                return Err(Error::Conflict(format!("container `{id}` is being created: remove it instead")));
            }
            ContainerState::Created | ContainerState::Running => {}
        }
        container.waiting.stopped.push(client);
        let grace_at_ms = now.saturating_add(grace_ms);
        if container.record.state == ContainerState::Created || grace_ms == 0 {
            kill_all(container);
            return Ok(());
        }
        if let Some(stop) = &mut container.stop {
            stop.grace_at_ms = stop.grace_at_ms.min(grace_at_ms);
            self.timers.set(grace_at_ms, Timer::StopGrace(id.clone()));
            return Ok(());
        }
        let was_deaf = is_deaf(container.record.identity.pid, signal);
        send(container, signal);
        container.stop = Some(Stop {
            signal,
            grace_at_ms,
            was_deaf,
            resend: was_deaf,
            siblings: Vec::new(),
            siblings_asked: false,
            killed: false,
        });
        if was_deaf {
            self.timers.set(now + LOOK_MS, Timer::StopLook(id.clone()));
        }
        self.timers.set(grace_at_ms, Timer::StopGrace(id.clone()));
        Ok(())
    }

    /// Looks again at a first process that did not listen.
    pub(super) fn stop_look(&mut self, id: &ContainerId) {
        let now = clock::boot_ms();
        let Some(container) = self.containers.get_mut(id) else { return };
        let settled_at = container.record.times.started_boot_ms + SETTLE_MS;
        let deaf = is_deaf(container.record.identity.pid, container.stop.as_ref().map_or(0, |stop| stop.signal));
        let Some(stop) = &mut container.stop else { return };
        if !deaf {
            stop.was_deaf = false;
            let signal = stop.signal;
            if std::mem::take(&mut stop.resend) {
                send(container, signal);
            }
            return;
        }
        if !stop.was_deaf || now < settled_at {
            stop.was_deaf = true;
            // one look right before it counts as settled, one after
            let at = if now + LOOK_MS >= settled_at { now + LOOK_MS } else { settled_at - LOOK_MS / 2 };
            self.timers.set(at, Timer::StopLook(id.clone()));
            return;
        }
        self.stop_siblings(id);
    }

    /// The first process is deaf: the others get the signal; when none is left, it is killed.
    fn stop_siblings(&mut self, id: &ContainerId) {
        let poller = self.poller.clone();
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(stop) = &mut container.stop else { return };
        stop.siblings_asked = true;
        let first = container.record.identity.pid;
        for pid in container.cgroup.processes() {
            if pid == first || stop.siblings.iter().any(|(known, _)| *known == pid) {
                continue;
            }
            let Some(raw) = rustix::process::Pid::from_raw(pid) else { continue };
            let Ok(pidfd) = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) else { continue };
            // between the two reads the number may have gone to somebody else: still in the cgroup means still ours
            if !container.cgroup.processes().contains(&pid) {
                continue;
            }
            let _ = pidfd_signal(&pidfd, stop.signal);
            if let Ok(watched) = poller.watch(pidfd, Source::Sibling(id.clone())) {
                stop.siblings.push((pid, watched));
            }
        }
        if stop.siblings.is_empty() {
            kill_all(container);
        }
    }

    /// One of the other processes ended: new ones may be there, or it was the last.
    pub(super) fn stop_sibling_ended(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(stop) = &mut container.stop else { return };
        stop.siblings.retain(|(_, pidfd)| !has_ended(pidfd));
        if stop.siblings.is_empty() && !stop.killed {
            self.stop_siblings(id);
        }
    }

    /// The grace is over, if it was not prolonged or the container gone.
    pub(super) fn stop_grace_over(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.stop.as_ref().is_some_and(|stop| clock::boot_ms() >= stop.grace_at_ms) {
            kill_all(container);
        }
    }
}

/// Kills everything of a container, at once.
pub(super) fn kill_all(container: &mut Container) {
    if let Some(stop) = &mut container.stop {
        stop.killed = true;
        stop.siblings.clear();
    }
    if let Err(error) = container.cgroup.kill() {
        tracing::debug!(container = %container.id, error = %crate::error::chain(&error), "cgroup.kill");
    }
    // the death of a namespace's first process takes all others with it
    send(container, libc::SIGKILL);
}

/// Sends a signal to the first process; one that is gone is no error.
pub(super) fn send(container: &Container, signal: i32) {
    if let Some(init) = &container.init {
        let _ = pidfd_signal(init, signal);
    }
}

fn has_ended(pidfd: &Watched<OwnedFd>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// One look: whether the signal would be dropped by this process.
fn is_deaf(pid: i32, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let syscall = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    would_drop(&status, &syscall, signal)
}

/// The rule on the texts of `/proc/<pid>/status` and `/proc/<pid>/syscall`. What cannot be read is not deaf.
fn would_drop(status: &str, syscall: &str, signal: i32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mask = |name: &str| field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let (Some(ns_pid), Some(caught), Some(blocked)) = (field("NSpid:"), mask("SigCgt:"), mask("SigBlk:")) else {
        return false;
    };
    let first_of_namespace =
        ns_pid.split_ascii_whitespace().last() == Some("1") && ns_pid.split_ascii_whitespace().count() > 1;
    let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift)).unwrap_or(0);
    let waits_for_signals =
        syscall.split_ascii_whitespace().next().and_then(|n| n.parse::<i64>().ok()) == Some(libc::SYS_rt_sigtimedwait);
    first_of_namespace && (caught | blocked) & bit == 0 && !waits_for_signals && signal != libc::SIGKILL
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ns_pid: &str, blocked: u64, caught: u64) -> String {
        format!(
            "Name:\tx\nNSpid:\t{ns_pid}\nSigBlk:\t{blocked:016x}\nSigIgn:\t0000000000000000\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn only_a_first_process_without_handler_mask_or_wait_is_deaf() {
        let term = 1 << (libc::SIGTERM - 1);
        let sleeping = "35 0x7ffd 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f";
        assert!(would_drop(&status("4242\t1", 0, 0), sleeping, libc::SIGTERM), "sleep as PID 1");
        assert!(!would_drop(&status("4242\t7", 0, 0), sleeping, libc::SIGTERM), "not first: dies by default");
        assert!(!would_drop(&status("1", 0, 0), sleeping, libc::SIGTERM), "the host's own first process");
        assert!(!would_drop(&status("4242\t1", 0, term), sleeping, libc::SIGTERM), "handler");
        assert!(!would_drop(&status("4242\t1", term, 0), sleeping, libc::SIGTERM), "signalfd or sigwait");
        assert!(would_drop(&status("4242\t1", 0, term), sleeping, libc::SIGQUIT), "handler of another signal");
        let tini = format!("{} 0x7ffd 0x0 0x0 0x8 0x0 0x0 0x7ffd 0x7f", libc::SYS_rt_sigtimedwait);
        assert!(!would_drop(&status("4242\t1", 0, 0), &tini, libc::SIGTERM), "tini");
        assert!(!would_drop("", sleeping, libc::SIGTERM), "gone");
        assert!(would_drop(&status("4242\t1", 0, 0), "running", libc::SIGTERM), "busy on a processor");
    }
}
