//! Our own PID 1 in front of a program that cannot be one: passes signals on, reaps orphans, ends with its exit code.

use std::os::fd::BorrowedFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use nix::unistd::{ForkResult, Pid};

use super::handshake::{Report, encode};
use crate::error::{Doing as _, Error, Result};
use crate::sys::{clone, fdpass};

/// Forks. Returns in the child, which goes on to the program; the parent stays as the reaper and never returns.
pub(super) fn stand_before(report: BorrowedFd<'_>) -> Result<()> {
    let everything = SigSet::all();
    let mut before = SigSet::empty();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&everything), Some(&mut before))
        .doing(|| "block signals")?;
    // SAFETY: this child of a single-threaded process has one thread.
    match unsafe { nix::unistd::fork() }.doing(|| "fork the program")? {
        ForkResult::Child => {
            nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).doing(|| "restore signals")
        }
        ForkResult::Parent { child } => {
            // The conversation must end when the program is executed, not when the container ends.
            // SAFETY: this process uses no descriptor from here on.
            if let Err(error) = unsafe { clone::close_others(3, &[]) } {
                let error = Error::io("close files of the reaper", error);
                let _ = fdpass::send(report, &encode(&Report::Failed((&error).into())), &[]);
                clone::exit_now(127)
            }
            let _ = rustix::thread::set_name(c"boxship-init");
            clone::exit_now(reap(child, &everything))
        }
    }
}

/// Stays as the holder of its namespaces until it is asked to end; reaps whatever ends in its process ids. Returns only
/// with the reason why not.
pub(super) fn hold(report: BorrowedFd<'_>) -> Result<()> {
    let everything = SigSet::all();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&everything), None).doing(|| "block signals")?;
    // Members with its process ids must not read in it what it has from the supervisor.
    let doing = || "protect the memory of the pod's holder";
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).doing(doing)?;
    let _ = rustix::thread::set_name(c"boxship-pod");
    // Ends the conversation: it runs.
    // SAFETY: this process uses no descriptor from here on.
    if let Err(error) = unsafe { clone::close_others(3, &[]) } {
        let error = Error::io("close files of the pod's holder", error);
        let _ = fdpass::send(report, &encode(&Report::Failed((&error).into())), &[]);
        clone::exit_now(127)
    }
    loop {
        match everything.wait() {
            Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => clone::exit_now(0),
            // No child has the number 0.
            Ok(Signal::SIGCHLD) => drop(collect(Pid::from_raw(0))),
            Ok(_) | Err(_) => {}
        }
    }
}

fn reap(child: Pid, everything: &SigSet) -> i32 {
    loop {
        match everything.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = collect(child) {
                    return code;
                }
            }
            Ok(signal) => drop(nix::sys::signal::kill(child, signal)),
            // A real-time signal nix has no name for.
            Err(_) => {}
        }
    }
}

/// Reaps whatever is dead; the exit code when the program is among it.
fn collect(child: Pid) -> Option<i32> {
    loop {
        match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
