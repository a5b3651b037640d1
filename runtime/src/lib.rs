//! Mechanism: knows OCI and Linux, and has never heard of a manifest, a replica, sled or tokio.
//!
//! The boundary is [`Runtime`], documented as the life cycle of what it manages. Below it:
//! `spec` builds an OCI spec (pure), `image` pulls, verifies, unpacks and stores, `process` is the
//! start path of one container, `supervisor` and `keeper` are the processes that hold containers,
//! `network` and `switchboard` carry names and ports, `cgroup` and `security` limit, and `sys`
//! wraps the raw system calls. All of it is blocking code.

pub mod archive;
pub mod cgroup;
pub mod clock;
pub mod error;
mod exit;
pub mod fake;
mod fd_store;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod id;
mod ids;
pub mod image;
pub mod keeper;
pub mod layout;
pub mod linux;
pub mod network;
pub mod oci;
pub mod process;
pub mod rootfs;
pub mod runtime;
pub mod security;
pub mod spec;
pub mod supervisor;
pub mod switchboard;
pub mod sys;
pub mod tls;
pub mod user;

pub use error::{Error, Result};
pub use fake::FakeRuntime;
pub use linux::LinuxRuntime;
pub use runtime::Runtime;
