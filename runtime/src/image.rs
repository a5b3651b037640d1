//! Images: references and digests (parsed here, trusted inside), registry client, store, unpacking.
//!
//! [`Store`] is the door: `pull`, `list`, `resolve`, `layer_dirs`, `remove`, `collect`, `build`, `load`. Everything an
//! image says is inert data here; nothing of it reaches a path, a command or a log format unchecked. This room has
//! never heard of containers: who uses an image is told to it as a set of digests.

mod build;
mod config;
mod digest;
mod load;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;

pub use build::{BuildEntry, BuildLayer, Content, ImageBuild};
pub use digest::Digest;
pub use reference::{ImageRef, RefError};
pub use store::{Collected, Store, StoreOptions};
pub use unpack::unpack_child;
