//! `run`, and what it shares with `exec`: staying with a program, passing signals and a terminal on, until it ends.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, Termios};

use super::create::{self, CreateOptions, Created, check_terminal, keep_places};
use super::{Runtime, bundle, manage, start};
use crate::error::{Doing as _, Result};
use crate::sys::daemon::pidfd_signal;
use crate::sys::terminal;

/// One piece of what goes through a terminal.
const PIECE_BYTES: usize = 16 << 10;

impl Runtime {
    /// Creates and starts a container, stays until it ends and removes it: its exit code. With `detach`, returns 0 as
    /// soon as it runs; with `keep`, it is not removed. Warnings go to `warn`.
    ///
    /// # Errors
    /// As [`Runtime::create`] and [`Runtime::start`]; nothing is left behind then.
    pub fn run(
        &self,
        id: &str,
        options: &CreateOptions,
        detach: bool,
        keep: bool,
        warn: &mut dyn FnMut(String),
    ) -> Result<i32> {
        keep_places(options.preserve_fds)?;
        let bundle = bundle::read(&options.bundle, id)?;
        let terminal = bundle.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
        if detach || options.console_socket.is_some() {
            check_terminal(terminal, options.console_socket.is_some())?;
        }
        let Created { container, channel, pidfd, terminal, warnings } = self.make(id, bundle, options, false)?;
        warnings.into_iter().for_each(&mut *warn);
        if let Some(mut channel) = channel
            && let Err(error) = start::run_program(&container, &mut channel)
        {
            create::reap(&pidfd)?;
            manage::remove(&container)?;
            return Err(error);
        }
        if detach {
            return Ok(0);
        }
        let own = if options.console_socket.is_some() { None } else { terminal.as_ref() };
        let code = follow(&pidfd, own);
        if !keep {
            manage::remove(&container)?.into_iter().for_each(warn);
        }
        code
    }
}

/// Waits for a child; what signals reach this process reach it, and what is typed here reaches its terminal. Its exit
/// code, or 128 and the signal that ended it.
pub(super) fn follow(pidfd: &OwnedFd, master: Option<&OwnedFd>) -> Result<i32> {
    let doing = || "wait for the program";
    let mut signals = SigSet::all();
    // The kernel's word on our own faults, and what a background job must do.
    for own in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTTOU, Signal::SIGTTIN] {
        signals.remove(own);
    }
    signals.thread_block().doing(doing)?;
    let queue = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).doing(doing)?;
    let _raw = master.map(|master| Raw::new(master.as_fd()));
    let stdin = std::io::stdin();
    let mut typing = master.is_some();
    let mut showing = master.is_some();
    loop {
        let mut polled = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(&queue, PollFlags::IN)];
        if let Some(master) = master {
            let wanted = |on: bool| if on { PollFlags::IN } else { PollFlags::empty() };
            polled.push(PollFd::new(master, wanted(showing)));
            if typing {
                polled.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None)).doing(doing)?;
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        drop(polled);
        if let (Some(master), true) = (master, ready.get(2) == Some(&true) && showing) {
            showing = pass(master.as_fd(), Towards::Us);
        }
        if let (Some(master), true) = (master, ready.get(3) == Some(&true)) {
            typing = pass(stdin.as_fd(), Towards::Program(master.as_fd()));
        }
        if ready[1] {
            pass_signals(&queue, pidfd, master);
        }
        // What it wrote last is shown first.
        let silent = !showing || ready.get(2) != Some(&true);
        if ready[0] && silent {
            return exit_code(pidfd);
        }
    }
}

enum Towards<'a> {
    Us,
    Program(BorrowedFd<'a>),
}

/// Moves what is there; `false` at its end.
fn pass(from: BorrowedFd<'_>, towards: Towards<'_>) -> bool {
    let mut piece = [0; PIECE_BYTES];
    let Ok(count @ 1..) = rustix::io::read(from, &mut piece) else { return false };
    match towards {
        Towards::Us => std::io::stdout().write_all(&piece[..count]).and_then(|()| std::io::stdout().flush()).is_ok(),
        Towards::Program(master) => {
            let mut rest = &piece[..count];
            while let Ok(written @ 1..) = rustix::io::write(master, rest) {
                rest = &rest[written..];
            }
            rest.is_empty()
        }
    }
}

fn pass_signals(queue: &SignalFd, pidfd: &OwnedFd, master: Option<&OwnedFd>) {
    while let Ok(Some(signal)) = queue.read_signal() {
        let Ok(number) = i32::try_from(signal.ssi_signo) else { continue };
        match (number, master) {
            (libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG, _) => {}
            (libc::SIGWINCH, Some(master)) => copy_size(master.as_fd()),
            _ => drop(pidfd_signal(pidfd, number)),
        }
    }
}

fn copy_size(master: BorrowedFd<'_>) {
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) {
        let _ = terminal::set_window_size(master, size.ws_row, size.ws_col);
    }
}

fn exit_code(pidfd: &OwnedFd) -> Result<i32> {
    let wait = || rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let status = rustix::io::retry_on_intr(wait).doing(|| "learn how the program ended")?;
    let signal =
        || status.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal).map(|signal| 128 + signal);
    Ok(status.as_ref().and_then(rustix::process::WaitIdStatus::exit_status).or_else(signal).unwrap_or(255))
}

/// Our own terminal hands every key on as it is; put back at the end.
struct Raw(Option<Termios>);

impl Raw {
    fn new(master: BorrowedFd<'_>) -> Self {
        let Ok(before) = rustix::termios::tcgetattr(std::io::stdin()) else { return Self(None) };
        copy_size(master);
        let mut raw = before.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
