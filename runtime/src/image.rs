//! Images: references and digests (parsed here, trusted inside), registry client, store, unpacking.
//!
//! [`Store`] is the door: `pull`, `list`, `resolve`, `layer_dirs`, `remove`, `collect`, `build`, `load`, `commit`. Everything an
//! image says is inert data here; nothing of it reaches a path, a command or a log format unchecked. This room has
//! never heard of containers: who uses an image is told to it as a set of digests.

mod build;
mod changes;
mod commit;
mod compare;
mod config;
mod describe;
mod digest;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod instruction;
mod load;
mod manifest;
mod merge;
mod merged;
pub(crate) mod pack;
mod policy;
mod pull;
mod push;
mod reference;
mod refetch;
mod registry;
mod save;
mod scrub;
mod store;
mod unpack;

pub use build::{BuildEntry, BuildLayer, Content, ImageBuild};
pub(crate) use changes::Places;
pub use changes::{Change, ChangeKind};
pub use commit::Notes;
pub(crate) use commit::Writable;
pub use describe::{HistoryStep, ImageSizes};
pub use digest::Digest;
pub use pull::PullCost;
pub use push::Pushed;
pub use reference::{ImageRef, RefError};
pub use registry::{Proxies, sign_in, sign_out};
pub use save::{SaveFormat, SaveImage};
pub use scrub::{Pace, Scrubbed, Swap};
pub use store::{Collected, Named, PruneRequest, Pruned, PrunedImage, Store, StoreOptions};
pub(crate) use unpack::pax_time;
pub use unpack::unpack_child;
