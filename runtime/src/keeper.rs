//! The keeper: parent of supervisor, switchboard and controller, subreaper of every container.
//!
//! Starts and restarts the three, holds their descriptors, reaps orphans and writes down how they ended. It parses
//! nothing but its own arguments and does nothing else, so that there is nothing in it to go wrong. It must not know
//! what a container, a request or a manifest is.

mod children;
mod store;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::clock;
use crate::error::{Doing, Error, Result};
pub use crate::fd_store::{Held, KeeperStore};
use crate::layout::{Layout, make_private_dir};
use crate::supervisor::identity::record_exit;
pub use crate::sys::daemon::lock;
use children::{Child, Image};

/// Processes it can hold, in the order of a stop.
const NAMES: [&str; 3] = [CONTROLLER, "switchboard", "supervisor"];
const CONTROLLER: &str = "controller";
/// How long a process may take to stop before it is killed, in milliseconds.
const STOP_MS: u64 = 10_000;

/// Runs the keeper until SIGTERM; `args` are those after `boxship keeper`:
/// `--data-root D --run-dir R [--boot-id-path F] [--with supervisor,switchboard,controller] [-- ARG…]`, where the
/// last are given to the controller.
///
/// # Errors
/// `Conflict` when another keeper holds the run directory, `Io`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let (layout, with, extra) = parse(args)?;
    make_private_dir(&layout.run_dir)?;
    make_private_dir(&layout.exits_dir())?;
    let mut lock = lock(&lock_file(&layout), "keeper")?;
    sign(&mut lock, with.iter().any(|name| name == CONTROLLER))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).doing(|| "become subreaper")?;
    crate::sys::daemon::raise_fd_limit();
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        mask.add(signal);
    }
    mask.thread_block().doing(|| "block signals")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .doing(|| "make a signal descriptor")?;
    let image = Image::open()?;
    let children = NAMES.iter().filter(|name| with.iter().any(|w| w == *name)).map(|name| Child::new(name));
    let store = store::Server::bind(&layout)?;
    Keeper { children: children.collect(), store, image, signals, extra, layout, lock, stopping: false }.run()
}

fn lock_file(layout: &Layout) -> PathBuf {
    layout.run_dir.join("keeper.lock")
}

/// Arguments for a controller that is to be started by a keeper that runs already, each ended by a zero byte.
fn handed_file(layout: &Layout) -> PathBuf {
    layout.run_dir.join("controller.args")
}

/// Says in the lock who holds it: `PID`, or `PID alone` without a controller.
fn sign(lock: &mut File, has_controller: bool) -> Result<()> {
    let text = format!("{}{}", std::process::id(), if has_controller { "" } else { " alone" });
    let signed = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(text.as_bytes()));
    signed.doing(|| "say who the keeper is")
}

/// The pid of a keeper that runs here without a controller.
///
/// # Errors
/// `Io`.
pub fn alone(layout: &Layout) -> Result<Option<i32>> {
    let path = lock_file(layout);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(|| format!("read {}", path.display()))?,
    };
    let pid = text.strip_suffix(" alone").and_then(|pid| pid.parse().ok());
    // the text may be a dead one's
    Ok(pid.filter(|_| lock(&path, "keeper").is_err()))
}

/// Lets a keeper that runs without a controller start one with these arguments: its containers go on. Its pid, when there is
/// such a keeper.
///
/// # Errors
/// `Io`.
pub fn hand_controller(layout: &Layout, args: &[OsString]) -> Result<Option<i32>> {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(pid) = alone(layout)? else { return Ok(None) };
    let text: Vec<u8> = args.iter().flat_map(|arg| arg.as_bytes().iter().copied().chain([0])).collect();
    let path = handed_file(layout);
    std::fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
    let told = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGUSR1);
    told.doing(|| "tell the keeper to start a controller")?;
    Ok(Some(pid))
}

/// Lets a keeper end its controller and nothing else; it then runs alone.
///
/// # Errors
/// `Io`.
pub fn dismiss_controller(keeper: i32) -> Result<()> {
    let told = nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), Signal::SIGUSR2);
    told.doing(|| "tell the keeper to let go of the controller")
}

/// Ends a keeper that runs without a controller, with supervisor and switchboard; containers that run would go on.
///
/// # Errors
/// `Io`.
pub fn end_alone(layout: &Layout) -> Result<()> {
    let Some(pid) = alone(layout)? else { return Ok(()) };
    let pid = rustix::process::Pid::from_raw(pid);
    let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return Ok(()) };
    crate::sys::daemon::pidfd_signal(&pidfd, libc::SIGTERM).doing(|| "end the keeper")?;
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
    Ok(())
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Layout, Vec<String>, Vec<OsString>)> {
    let mut args = args.into_iter();
    let mut with = NAMES.map(str::to_owned).to_vec();
    let mut layout = Vec::new();
    let mut extra = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--" {
            extra.extend(args.by_ref());
        } else if arg == "--with" {
            let list = args.next().unwrap_or_default().to_string_lossy().into_owned();
            with = list.split(',').map(str::to_owned).collect();
        } else {
            layout.push(arg);
        }
    }
    Ok((Layout::from_args(layout)?, with, extra))
}

struct Keeper {
    children: Vec<Child>,
    store: store::Server,
    image: Image,
    signals: SignalFd,
    extra: Vec<OsString>,
    layout: Layout,
    lock: File,
    stopping: bool,
}

impl Keeper {
    fn run(mut self) -> Result<()> {
        loop {
            let wake_at = self.advance();
            if self.stopping && self.children.iter().all(|child| child.pid.is_none()) {
                return Ok(());
            }
            self.wait(wake_at)?;
            self.take_signals();
            self.reap();
            self.store.serve();
        }
    }

    /// Starts what is due, stops what must stop; returns when to look again (boot milliseconds).
    fn advance(&mut self) -> Option<u64> {
        let now = clock::boot_ms();
        if self.stopping {
            let next = self.children.iter_mut().find(|child| child.pid.is_some())?;
            return Some(next.stop(now, STOP_MS));
        }
        let mut wake_at = None;
        for child in &mut self.children {
            let due = match (child.pid, child.stop_asked()) {
                (Some(_), true) => Some(child.stop(now, STOP_MS)),
                (Some(_), false) => None,
                (None, _) => child.start_when_due(now, &self.image, &self.layout, &self.extra),
            };
            wake_at = [wake_at, due].into_iter().flatten().min();
        }
        wake_at
    }

    fn wait(&self, wake_at: Option<u64>) -> Result<()> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        fds.extend(self.store.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = wake_at.map(|at| {
            let ms = at.saturating_sub(clock::boot_ms()).max(1);
            Timespec {
                tv_sec: i64::try_from(ms / 1000).unwrap_or(1),
                tv_nsec: i64::from((ms % 1000) as u32) * 1_000_000,
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Error::io("wait for events", error)),
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo) {
                Ok(libc::SIGTERM | libc::SIGINT) => self.stopping = true,
                Ok(libc::SIGHUP) => self.upgrade(),
                Ok(libc::SIGUSR1) => self.take_controller(),
                Ok(libc::SIGUSR2) => self.dismiss_controller(),
                _ => {}
            }
        }
    }

    /// All three are started anew from the file the keeper was started from; containers do not notice.
    fn upgrade(&mut self) {
        match self.image.reload() {
            Ok(()) => self.children.iter_mut().for_each(Child::ask_stop),
            Err(error) => tracing::error!(error = %crate::error::chain(&error), "upgrade refused"),
        }
    }

    /// Starts the controller that a keeper without one was handed.
    fn take_controller(&mut self) {
        use std::os::unix::ffi::OsStringExt as _;
        if self.stopping || self.children.iter().any(|child| child.is_called(CONTROLLER)) {
            return;
        }
        let Ok(text) = std::fs::read(handed_file(&self.layout)) else { return };
        let args = text.split_inclusive(|byte| *byte == 0).filter_map(|arg| arg.strip_suffix(&[0]));
        self.extra = args.map(|arg| OsString::from_vec(arg.to_vec())).collect();
        // first in the order of a stop
        self.children.insert(0, Child::new(CONTROLLER));
        if let Err(error) = sign(&mut self.lock, true) {
            tracing::warn!(error = %crate::error::chain(&error), "others may hand over another controller");
        }
    }

    /// The controller ends and does not come back: what it does not know goes on with supervisor and switchboard.
    fn dismiss_controller(&mut self) {
        for child in self.children.iter_mut().filter(|child| child.is_called(CONTROLLER)) {
            child.dismiss();
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(exit)) = crate::sys::daemon::peek_exited() {
            let child = self.children.iter_mut().find(|child| child.pid == Some(exit.pid));
            match child {
                Some(child) => child.ended(clock::boot_ms(), exit),
                None => record_exit(&self.layout.exits_dir(), exit),
            }
            if let Some(pid) = rustix::process::Pid::from_raw(exit.pid) {
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
            }
        }
        let before = self.children.len();
        self.children.retain(|child| !child.has_left());
        if self.children.len() < before
            && let Err(error) = sign(&mut self.lock, false)
        {
            tracing::warn!(error = %crate::error::chain(&error), "others will take the controller for running");
        }
    }
}
