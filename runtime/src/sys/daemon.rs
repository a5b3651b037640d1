//! System calls of the long-lived processes: what a child of the keeper is given, who is a zombie, signals and exits
//! by pidfd.
//!
//! Knows nothing of containers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Error, Result};

/// Makes a child start with an empty signal mask and die by `death_signal` when the calling thread's process dies.
///
/// `std` lets children inherit the mask since 1.66; a daemon with SIGCHLD blocked never sees its children die.
pub(crate) fn prepare_child(command: &mut Command, death_signal: i32) {
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec; it calls only async-signal-safe functions (sigemptyset,
    // sigprocmask, prctl, getppid) and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
            libc::prctl(libc::PR_SET_PDEATHSIG, death_signal);
            // the parent may be gone already: then no signal will ever come
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Takes an exclusive lock that lives as long as the returned file.
///
/// # Errors
/// `Conflict` when it is held.
pub fn lock(path: &Path, who: &str) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.doing(|| format!("open {}", path.display()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Error::Conflict(format!("another {who} runs here: {} is locked", path.display())))
        }
        Err(error) => Err(Error::io(format!("lock {}", path.display()), error)),
    }
}

/// Five descriptors per container: the default of 1024 would end at 200. Returns the most this process may have.
pub(crate) fn raise_fd_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // best effort: a lower limit shows later as EMFILE on the call that hits it
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    maximum.unwrap_or(u64::MAX)
}

/// Copies a file into sealed memory, to be executed from there.
///
/// # Errors
/// `Io`.
pub(crate) fn sealed_copy(path: &Path) -> Result<File> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let doing = || format!("copy {} into memory", path.display());
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut memory = File::from(memfd_create("boxship", flags).doing(doing)?);
    let mut file = File::open(path).doing(doing)?;
    io::copy(&mut file, &mut memory).doing(doing)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&memory, seals).doing(doing)?;
    Ok(memory)
}

/// The raw end of a process: `si_code` and `si_status` of its SIGCHLD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawExit {
    /// Which.
    pub(crate) pid: i32,
    /// Exit code, or `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it; may be a real-time one, which has no name.
    pub(crate) signal: Option<i32>,
}

/// A child that has exited and is not reaped yet; `None` when there is none. It stays a zombie, so that its
/// `/proc` entry can still be read.
///
/// # Errors
/// What `waitid` says, except "no children", which is `None`.
pub(crate) fn peek_exited() -> io::Result<Option<RawExit>> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is valid for writes for the whole call.
    let result =
        unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    // SAFETY: zeroed above and filled by a successful waitid; the fields read are those of SIGCHLD.
    let (pid, code, status) = unsafe {
        let info = info.assume_init();
        (info.si_pid(), info.si_code, info.si_status())
    };
    if pid == 0 {
        return Ok(None);
    }
    let exited = code == libc::CLD_EXITED;
    Ok(Some(RawExit { pid, code: exited.then_some(status), signal: (!exited).then_some(status) }))
}

/// Sends any signal, real-time ones too, by pidfd.
///
/// # Errors
/// `ESRCH` when the process is gone.
pub(crate) fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; a null siginfo is allowed by pidfd_send_signal(2).
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct pidfd_info` of Linux 6.15, `include/uapi/linux/pidfd.h`.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` for the 64 bytes above; the kernel takes any known size.
const PIDFD_GET_INFO: libc::c_ulong =
    (3 << 30) | ((std::mem::size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;

/// The wait status of an exited process that is not our child, when the kernel kept it (Linux 6.15 and newer, and
/// only if the pidfd was open while it lived). `None` when it did not.
#[must_use]
pub(crate) fn pidfd_exit_status(pidfd: impl AsFd) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: `info` is a valid, writable struct of the size encoded in the request number.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}
