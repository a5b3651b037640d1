//! Images: references and digests (parsed here, trusted inside), registry client, store, unpacking.

mod digest;
mod reference;

pub use digest::Digest;
pub use reference::{ImageRef, RefError};
