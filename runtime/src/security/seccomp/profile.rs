//! The allow-list: Docker's default without what a container in a user namespace has no use for (keys, bpf,
//! io_uring, userfaultfd, perf, kexec, modules), plus socket families by name.
//!
//! New user namespaces are refused: they are the door to most kernel bugs of the last years. `clone3` is ENOSYS,
//! since its flags are behind a pointer no filter can read; libraries then fall back to `clone`.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// All namespace flags of clone(2) and unshare(2), CLONE_NEWTIME aside, which in clone is part of the exit signal.
const CLONE_NEW_ANY: u64 = 0x7e02_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
/// In unshare(2) alone.
const CLONE_NEWTIME: u64 = 0x80;
/// ioctls that type into a terminal: TIOCSTI and TIOCLINUX.
const TYPING_IOCTLS: [u64; 2] = [0x5412, 0x541c];
/// Values personality(2) may be set to: Linux, Linux 32 bit, each with the uname-2.6 flag, and "only ask".
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Machine bits of commands and families that the kernel looks at: they are 32-bit ints there.
const INT: u64 = 0xffff_ffff;

/// The profile for a container with these capabilities.
#[must_use]
pub fn profile(capabilities: &Capabilities) -> LinuxSeccomp {
    let has = |capability| capabilities.contains(&capability);
    let mut rules = vec![allow(ALWAYS)];
    for (capability, names) in WITH_CAPABILITY {
        if has(*capability) {
            rules.push(allow(names));
        }
    }
    let admin = has(Capability::SysAdmin);
    let refused = if admin { CLONE_NEWUSER } else { CLONE_NEW_ANY };
    rules.push(allow_if(&["clone"], vec![masked(0, refused, 0)]));
    rules.push(allow_if(&["unshare"], vec![masked(0, if admin { refused } else { refused | CLONE_NEWTIME }, 0)]));
    rules.push(errno(&["clone3"], libc::ENOSYS, vec![]));
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        rules.push(allow_if(&["socket"], vec![masked(0, INT, family.cast_unsigned().into())]));
    }
    let route = vec![
        masked(0, INT, libc::AF_NETLINK.cast_unsigned().into()),
        masked(2, INT, libc::NETLINK_ROUTE.cast_unsigned().into()),
    ];
    rules.push(allow_if(&["socket"], route));
    rules.push(allow_if(&["socketpair"], vec![masked(0, INT, libc::AF_UNIX.cast_unsigned().into())]));
    // "No such family" is what libraries expect of a kernel without it (libaudit in sudo, libnl); EPERM makes them fail.
    rules.push(errno(&["socket", "socketpair"], libc::EAFNOSUPPORT, vec![]));
    for command in TYPING_IOCTLS {
        rules.push(errno(&["ioctl"], libc::EPERM, vec![masked(1, INT, command)]));
    }
    rules.push(allow(&["ioctl"]));
    for value in PERSONALITIES {
        rules.push(allow_if(&["personality"], vec![masked(0, INT, value)]));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM.cast_unsigned())
        .architectures(vec![native()])
        .syscalls(rules)
        .build()
        .expect("every field without a default is set")
}

fn native() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 }
}

fn allow(names: &[&str]) -> LinuxSyscall {
    allow_if(names, vec![])
}

fn allow_if(names: &[&str], args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::ScmpActAllow, None, args)
}

fn errno(names: &[&str], errno: i32, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::ScmpActErrno, Some(errno.cast_unsigned()), args)
}

fn rule(names: &[&str], action: LinuxSeccompAction, errno: Option<u32>, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut builder = LinuxSyscallBuilder::default()
        .names(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .action(action);
    if let Some(errno) = errno {
        builder = builder.errno_ret(errno);
    }
    if !args.is_empty() {
        builder = builder.args(args);
    }
    builder.build().expect("every field without a default is set")
}

/// `argument & mask == value`; OCI has the mask in `value` and the value in `valueTwo`.
fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
        .expect("every field without a default is set")
}

const WITH_CAPABILITY: &[(Capability, &[&str])] = &[
    (
        Capability::SysAdmin,
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
        ],
    ),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysNice, &["migrate_pages", "move_pages"]),
    (Capability::SysPtrace, &["kcmp", "pidfd_getfd"]),
    (Capability::SysTime, &["adjtimex", "clock_adjtime", "clock_settime", "settimeofday"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::Syslog, &["syslog"]),
];

#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "accept", "accept4", "access", "alarm", "arch_prctl", "bind", "brk", "cachestat", "capget", "capset", "chdir",
    "chmod", "chown", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "close_range", "connect",
    "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait",
    "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
    "faccessat2", "fadvise64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchownat", "fcntl", "fdatasync", "fgetxattr", "file_getattr", "file_setattr", "flistxattr", "flock", "fork",
    "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futex", "futex_requeue", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_mempolicy", "get_robust_list", "get_thread_area", "getcpu",
    "getcwd", "getdents", "getdents64", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpeername",
    "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getxattr", "getxattrat",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy",
    "io_getevents", "io_pgetevents", "io_setup", "io_submit", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lgetxattr", "link", "linkat", "listen",
    "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "madvise",
    "map_shadow_stack", "mbind", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat",
    "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mq_getsetattr", "mq_notify", "mq_open",
    "mq_timedreceive", "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd",
    "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat",
    "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "poll", "ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_madvise",
    "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6", "ptrace", "pwrite64", "pwritev",
    "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall",
    "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select",
    "semctl", "semget", "semop", "semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "set_mempolicy",
    "set_mempolicy_home_node", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsuid",
    "setgid", "setgroups", "setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid",
    "setrlimit", "setsid", "setsockopt", "setuid", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "sigaltstack", "signalfd", "signalfd4", "splice", "stat", "statfs", "statmount", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
    "timerfd_settime", "times", "tkill", "truncate", "umask", "uname", "unlink", "unlinkat", "utime", "utimensat",
    "utimes", "vfork", "wait4", "waitid", "write", "writev",
];
