//! The switchboard: answers DNS for container networks and accepts on published host ports. A process of its own.
//!
//! It gets its whole table as one atomic value over its control socket and diffs its sockets against it; sockets that
//! stay are never closed. The keeper holds duplicates of all of them (`fd_store`), so a killed switchboard refuses no
//! connection. One thread, one epoll loop, no tokio. Must not know manifests, images or how containers are made.

pub mod client;
pub mod fd_store;
mod wire;
