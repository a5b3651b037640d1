//! System calls a container may make: our profile as an OCI seccomp object, and the compiler from such an object to
//! classic BPF.
//!
//! Meaning of an object, as our compiler reads it (seccomp(2); OCI config-linux, "Seccomp"):
//! calls of another machine's ABI are ENOSYS; numbers above those this build knows are ENOSYS too, so that programs
//! fall back from calls newer than the profile; the rules of one call are tried in the order of the object, and the
//! first whose conditions all hold decides; else the default action does. Pure.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag as Flag};

mod compile;
mod numbers;
mod profile;

pub use compile::compile;
pub use numbers::number;
pub use profile::profile;

/// The actions [`compile`] takes, as an OCI spec writes them.
pub const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The flags of filters an OCI spec may name (seccomp(2)). Another thread to synchronise with there never is.
pub const FLAGS: [&str; 3] = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"];

/// The flags of an object as the kernel takes them (`linux/seccomp.h`).
#[must_use]
pub fn flags(object: &LinuxSeccomp) -> u32 {
    let bit = |flag: &Flag| match flag {
        Flag::SeccompFilterFlagTsync => 1,
        Flag::SeccompFilterFlagLog => 1 << 1,
        Flag::SeccompFilterFlagSpecAllow => 1 << 2,
        // of listeners, which there are none of: it changes nothing
        Flag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    object.flags().iter().flatten().fold(0, |flags, flag| flags | bit(flag))
}

/// The one machine whose calls are told apart; those of its older relatives do not exist.
#[must_use]
pub fn native_name() -> &'static str {
    if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" }
}

#[cfg(test)]
mod tests;
