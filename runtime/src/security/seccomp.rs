//! System calls a container may make: our profile as an OCI seccomp object, and the compiler from such an object to
//! classic BPF.
//!
//! Meaning of an object, as our compiler reads it (seccomp(2); OCI config-linux, "Seccomp"):
//! calls of another machine's ABI are ENOSYS; numbers above those this build knows are ENOSYS too, so that programs
//! fall back from calls newer than the profile; the rules of one call are tried in the order of the object, and the
//! first whose conditions all hold decides; else the default action does. Pure.

mod compile;
mod numbers;
mod profile;

pub use compile::compile;
pub use numbers::number;
pub use profile::profile;

#[cfg(test)]
mod tests;
