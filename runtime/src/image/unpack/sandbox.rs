//! The walls around the extraction: own mount, network, IPC and host name namespaces, the target as root, few
//! capabilities, no new ones, few system calls, bounded memory. Called in a process of one thread.

use std::collections::HashSet;

use caps::{CapSet, Capability};
use nix::sched::CloneFlags;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder, LinuxSyscallBuilder};
use rustix::mount::MountPropagationFlags;
use rustix::process::{Resource, Rlimit};

use super::LAYER_BYTES_MAX;
use super::report::Refusal;
use crate::security::seccomp;
use crate::sys::privilege::install_seccomp;

/// Address space of the child in bytes: a parser led astray dies here.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const OPEN_FILES_MAX: u64 = 64;
/// What extraction needs: any owner, any mode, file capabilities.
const KEPT: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETFCAP,
];

/// Files by descriptor, memory, signals, the end.
const ALLOWED: &[&str] = &[
    "brk",
    "close",
    "exit",
    "exit_group",
    "fchmod",
    "fchown",
    "fchownat",
    "fcntl",
    "fgetxattr",
    "fsetxattr",
    "fstat",
    "futex",
    "getdents64",
    "getpid",
    "getrandom",
    "gettid",
    "linkat",
    "lseek",
    "madvise",
    "mkdirat",
    "mknodat",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "openat",
    "openat2",
    "read",
    "readv",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "statx",
    "symlinkat",
    "tgkill",
    "unlinkat",
    "utimensat",
    "write",
    "writev",
];

/// Closes the door behind this process.
pub(super) fn enter() -> Result<(), Refusal> {
    let refuse = |what: &'static str| {
        move |e: std::io::Error| match e.raw_os_error() {
            Some(libc::EPERM) => Refusal::Unsupported(format!("{what} needs root: {e}")),
            _ => Refusal::io(what, &e),
        }
    };
    let spaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    nix::sched::unshare(spaces).map_err(|e| refuse("unpacking an image")(e.into()))?;
    let step = refuse("enter the unpacking root");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|e| step(e.into()))?;
    rustix::mount::mount_bind(".", ".").map_err(|e| step(e.into()))?;
    // "." is still the directory under the new mount; go in by name
    let here = std::env::current_dir().and_then(std::fs::File::open).map_err(step)?;
    crate::sys::mount::pivot(here).map_err(step)?;
    limit()?;
    drop_rights()?;
    let filter = seccomp::compile(&calls()).map_err(|e| Refusal::Unsupported(format!("limit system calls: {e}")))?;
    install_seccomp(&filter, 0).map_err(|e| Refusal::io("limit system calls", &e))
}

/// What extraction calls, what an allocator and a panic call, and nothing else.
fn calls() -> LinuxSeccomp {
    let names = ALLOWED.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let rule = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow).build();
    let arch = if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 };
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM.cast_unsigned())
        .architectures(vec![arch])
        .syscalls(vec![rule.expect("every field without a default is set")])
        .build()
        .expect("every field without a default is set")
}

fn limit() -> Result<(), Refusal> {
    let bounds = [
        (Resource::As, MEMORY_BYTES_MAX),
        (Resource::Nofile, OPEN_FILES_MAX),
        (Resource::Core, 0),
        (Resource::Fsize, LAYER_BYTES_MAX),
    ];
    for (resource, max) in bounds {
        let both = Rlimit { current: Some(max), maximum: Some(max) };
        rustix::process::setrlimit(resource, both).map_err(|e| Refusal::io("limit the unpacker", &e.into()))?;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}

fn drop_rights() -> Result<(), Refusal> {
    let failed = |e: caps::errors::CapsError| Refusal::Unsupported(format!("dropping capabilities: {e}"));
    let kept: HashSet<Capability> = KEPT.into_iter().collect();
    for capability in caps::all() {
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    rustix::thread::set_no_new_privs(true).map_err(|e| Refusal::io("set no_new_privs", &e.into()))
}
