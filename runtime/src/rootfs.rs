//! The file system a container sees.
//!
//! `mounts` is the pure list of what goes where. The stage helper builds with host credentials what init may not
//! (`layers`, `devices`, `volumes`, `files`) as detached mounts; init attaches them and makes the rest (`assemble`).
//! Nothing here is ever attached in the host's mount namespace.

pub mod assemble;
pub mod binds;
pub mod copy;
pub mod devices;
pub mod files;
pub mod layers;
pub mod mounts;
pub mod options;
pub mod volumes;
