//! Making, joining and closing: clone3, setns by pidfd, close_range, execve.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

/// Which process a `clone` returned to.
#[derive(Debug)]
pub enum Cloned {
    /// The new one.
    Child,
    /// The old one.
    Parent {
        /// Pid of the child in the caller's pid namespace.
        pid: i32,
        /// Readable when the child is gone; close on exec.
        pidfd: OwnedFd,
    },
}

/// `struct clone_args` (`linux/sched.h`, 88 bytes since 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes the child a sibling of the caller: it gets the caller's parent (and its exit signal).
pub const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) without shared memory: a fork into new namespaces and, where given, into a cgroup v2 directory (5.7).
///
/// # Safety
/// The calling process must be single threaded: the child has a copy of the caller's memory, and a lock another
/// thread held at that moment would stay locked in it for ever. The child must not return into the caller's work.
///
/// # Errors
/// The kernel's.
pub unsafe fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut args =
        CloneArgs { flags: flags | CLONE_PIDFD, pidfd: ptr::from_mut(&mut pidfd) as u64, ..Default::default() };
    // With CLONE_PARENT the child inherits the exit signal, and naming one is EINVAL.
    if flags & CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args is a live, correctly sized clone_args; without CLONE_VM the child runs on its own copy of this stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: i32::try_from(pid).expect("a pid fits in pid_t"), pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// clone3(2) as vfork(2) does it: the child runs `body` in the caller's memory, on the caller's stack, while the caller is
/// suspended until the child has executed a program or is gone. Nothing is copied, so nothing is faulted in twice.
/// On other machines than x86-64 it is [`clone3`].
///
/// # Safety
/// As for [`clone3`]. What `body` changes in memory, the caller finds changed; descriptors, ids, signal handlers and
/// namespaces are the child's own. No process that must not write to the caller's memory may be able to trace the child:
/// it has to be in a new process namespace, or among the caller's equals.
///
/// # Errors
/// The kernel's.
pub unsafe fn clone3_suspended(
    flags: u64,
    cgroup: BorrowedFd<'_>,
    body: &mut dyn FnMut(),
) -> io::Result<(i32, OwnedFd)> {
    #[cfg(target_arch = "x86_64")]
    {
        let mut pidfd: RawFd = -1;
        let mut args = CloneArgs {
            flags: flags | CLONE_PIDFD | CLONE_INTO_CGROUP | (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
            pidfd: ptr::from_mut(&mut pidfd) as u64,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: cgroup.as_raw_fd() as u64,
            ..Default::default()
        };
        let mut body = body;
        // SAFETY: args and body live until the child has let go of this memory, since the kernel suspends us until then.
        let pid = unsafe { suspended(&mut args, &mut body) };
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EIO)));
        }
        // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns; the child's copy is its own.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok((i32::try_from(pid).expect("a pid fits in pid_t"), pidfd))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // SAFETY: the caller's promise.
        match unsafe { clone3(flags, Some(cgroup)) }? {
            Cloned::Child => {
                body();
                exit_now(127)
            }
            Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        }
    }
}

/// The call itself. In assembly, since the child returns from it first, on our stack: it must call on from here, below all
/// that is ours, and never come back.
///
/// # Safety
/// See [`clone3_suspended`].
#[cfg(target_arch = "x86_64")]
unsafe fn suspended(args: &mut CloneArgs, body: &mut &mut dyn FnMut()) -> i64 {
    extern "C" fn enter(body: *mut &mut dyn FnMut()) -> ! {
        // SAFETY: the caller of `suspended` is suspended, so that nobody else uses it.
        unsafe { (*body)() };
        exit_now(127)
    }
    let mut answer = libc::SYS_clone3;
    // SAFETY: without `nostack`, the stack pointer is aligned for a call and nothing of ours is below it. The kernel takes
    // rcx and r11; all other registers are the child's own copies.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") answer,
            in("rdi") ptr::from_mut(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") ptr::from_mut(body),
            in("r13") enter as extern "C" fn(*mut &mut dyn FnMut()) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// Joins the one namespace behind a descriptor of it (setns(2)).
///
/// # Errors
/// The kernel's; EINVAL when it is of another kind than `flag` says.
pub fn join(namespace: BorrowedFd<'_>, flag: i32) -> io::Result<()> {
    setns(namespace, flag)
}

/// Joins namespaces of the process behind a pidfd, all at once (setns(2) by pidfd, 5.8).
///
/// # Errors
/// The kernel's.
pub fn setns(pidfd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is borrowed.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), flags) })
}

/// Leaves the shared namespaces named by `flags` for new ones (unshare(2)).
///
/// # Errors
/// The kernel's.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: the callers name only namespaces, never CLONE_FILES or CLONE_VM.
    check(unsafe { libc::unshare(flags) })
}

/// Whether the calling process has exactly one thread.
///
/// # Errors
/// When /proc is not there.
pub fn is_single_threaded() -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    // `.`, `..` and one for each thread.
    Ok(std::fs::metadata("/proc/self/task")?.nlink() == 3)
}

/// Closes every descriptor from `first` up but those in `keep`.
///
/// # Safety
/// No owned descriptor outside `keep` may be used or dropped afterwards.
///
/// # Errors
/// The kernel's.
pub unsafe fn close_others(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    keep.sort_unstable();
    let mut next = first;
    for fd in keep {
        if fd > next {
            close_range(next, fd - 1, 0)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX, 0)
}

/// Marks every descriptor from `first` up as close-on-exec.
///
/// # Errors
/// The kernel's.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Puts copies of `with`, close-on-exec, wherever nothing is open from 3 up to `end`, so that what is opened later is
/// not among them. They stay until the next exec. Ends early at the highest number there can be.
pub fn fill_descriptors(end: u32, with: BorrowedFd<'_>) {
    for number in (3..end).map_while(|number| i32::try_from(number).ok()) {
        // SAFETY: no pointers; F_GETFD tells whether the number is in use, and F_DUPFD_CLOEXEC takes a free one.
        let taken = unsafe {
            libc::fcntl(number, libc::F_GETFD) != -1
                || libc::fcntl(with.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) == number
        };
        if !taken {
            return;
        }
    }
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: no pointers; the public callers say what may be closed.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts three descriptors at 0, 1 and 2, without close-on-exec.
///
/// # Errors
/// The kernel's.
pub fn set_stdio(stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    // First out of the way: a source may itself be 0, 1 or 2, as when the caller ran with them closed.
    let moved = stdio.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3));
    for (target, fd) in moved.into_iter().enumerate() {
        let fd = fd?;
        // SAFETY: no pointers; whatever was at 0 to 2 is meant to be replaced.
        check(unsafe { libc::dup2(fd.as_raw_fd(), i32::try_from(target).expect("0 to 2")) })?;
    }
    Ok(())
}

/// Puts `with` in the place of `fd`, close-on-exec; what was there is closed.
///
/// # Errors
/// The kernel's.
pub fn replace(fd: BorrowedFd<'_>, with: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers; whoever owns `fd` goes on owning the number.
    check(unsafe { libc::dup3(with.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) })
}

/// execve(2): returns only on failure.
#[must_use]
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in a null pointer and point into strings that live through the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the calling process at once: no destructors, no exit handlers of the process it was cloned from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Marks a descriptor to survive (or not) the next exec.
///
/// # Errors
/// The kernel's.
pub fn set_close_on_exec(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = if on { rustix::io::FdFlags::CLOEXEC } else { rustix::io::FdFlags::empty() };
    Ok(rustix::io::fcntl_setfd(fd, flags)?)
}

/// Gives every signal its default action and empties the signal mask: both survive an exec and are the caller's.
///
/// # Errors
/// The kernel's.
pub fn reset_signals() -> io::Result<()> {
    // The kernel's own struct, all zero: SIG_DFL, no flags, no restorer, an empty mask. Four words are what the largest
    // of the 64-bit architectures reads.
    let default = [0_u64; 4];
    for signal in 1..=64_i32 {
        // SAFETY: `default` is live, SIG_DFL installs no handler. The raw call, since glibc refuses to touch its own two
        // signals (32, 33), and a caller that ignores them would hand that down. SIGKILL and SIGSTOP refuse: fine.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), size_of::<u64>())
        };
    }
    // SAFETY: an all-zero sigset_t is a valid value that sigemptyset fills.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is live and ours.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` is an initialised set.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) })
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
