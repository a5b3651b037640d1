//! Pseudo terminals from the container's own /dev/pts, so that they have names inside.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;

use crate::error::{Doing as _, Result};
use crate::sys::path::{self, Missing};
use crate::sys::{mount, terminal};

/// The two ends of a terminal.
pub(super) struct Terminal {
    /// For the caller.
    pub(super) master: OwnedFd,
    /// For the program.
    pub(super) slave: OwnedFd,
}

/// Opens a terminal; the root of the calling process must be the container's.
pub(super) fn open() -> Result<Terminal> {
    let doing = || "open a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).doing(doing)?;
    rustix::pty::unlockpt(&master).doing(doing)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).doing(doing)?;
    Ok(Terminal { master, slave })
}

impl Terminal {
    /// Gives it the size a spec asks for.
    pub(super) fn resize(&self, process: &Process) -> Result<()> {
        let Some(size) = process.console_size() else { return Ok(()) };
        let short = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
        terminal::set_window_size(&self.master, short(size.height()), short(size.width())).doing(|| "size the terminal")
    }

    /// Makes it /dev/console.
    pub(super) fn make_console(&self, root: BorrowedFd<'_>) -> Result<()> {
        let doing = || "mount /dev/console";
        let name = rustix::pty::ptsname(&self.master, Vec::new()).doing(doing)?;
        let tree = mount::clone_tree(root, name.to_string_lossy().trim_start_matches('/'), false).doing(doing)?;
        let place = path::open_or_make(root, Path::new("/dev/console"), Missing::File).doing(doing)?;
        mount::attach(tree, place).doing(doing)
    }

    /// Makes it the controlling terminal of the calling process, a new session, and gives it to `uid`.
    pub(super) fn take(&self, uid: u32) -> Result<()> {
        let doing = || "take the terminal";
        rustix::process::ioctl_tiocsctty(self.slave.as_fd()).doing(doing)?;
        rustix::fs::fchown(&self.slave, Some(Uid::from_raw(uid)), None).doing(doing)
    }
}
