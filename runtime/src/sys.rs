//! Thin safe wrappers over system calls that nix and rustix lack or wrap too thickly for a freshly cloned child.
//!
//! No policy, no paths of our own, no logging: arguments in, `io::Result` out. Beside `process`, the only room where
//! `unsafe` may appear.

pub mod bpf;
pub mod clone;
pub(crate) mod daemon;
pub mod fdpass;
pub mod mount;
pub mod path;
pub mod privilege;
pub(crate) mod rights;
pub mod terminal;
pub mod userns;
