//! What a container may do: capabilities, system calls, hidden paths. Pure lists and the seccomp compiler.
//!
//! `spec` writes these into the OCI spec, `process` applies what the spec says. Makes no system call itself.

pub mod capabilities;
pub mod masks;
pub mod seccomp;
pub mod sysctl;
