//! The OCI runtime: containers made from somebody else's bundle, `config.json` and a root file system, by the same
//! start path as our own (`process`, `rootfs`, `cgroup`, `security`).
//!
//! [`Runtime`] is one directory of state with the operations of the runtime specification. No process of ours stays
//! with a container: who called `create` is the parent of its init, as engines expect. Knows nothing of the
//! supervisor, of images and of how a command line spells options.

mod bundle;
mod create;
mod exec;
mod features;
mod foreground;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod manage;
mod place;
mod record;
mod start;
mod stats;
mod template;
mod validate;

use std::path::PathBuf;

pub use crate::process::affinity;
pub use bundle::read_process;
pub use create::CreateOptions;
pub use exec::ExecOptions;
pub use features::features;
pub use record::{Container, Status};
pub use stats::stats;
pub use template::template;

/// The version of the runtime specification this is (OCI runtime, "State": `ociVersion`).
pub const VERSION: &str = "1.2.0";

/// One directory of state, runc's `--root`.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// It holds a directory for each container, named by its id.
    pub root: PathBuf,
}
