//! The controller's memory across restarts: small JSON records under text keys, and the only room that names sled.
//!
//! Nothing in here is the only copy of anything: desired state is in the manifests, actual state in the kernel and
//! beside each container. So a store that cannot be read is set aside and rebuilt, and one that cannot be written
//! leaves a condition ([`StateStore::problem`]) and a controller that goes on planning. Readers never touch sled:
//! they read an in-memory copy that is always complete. Knows nothing of the runtime or of plans.

mod checkpoint;
mod database;
mod durable;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod record;
mod sled_store;
mod snapshot;
mod volatile;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use durable::write_durably;
pub use sled_store::{Opened, SledStore};
pub use snapshot::snapshot;
pub use volatile::VolatileStore;

/// Longest key in bytes; longer ones are refused by [`StateStore::commit`].
pub const KEY_BYTES_MAX: usize = 1024;

/// Records by key. A batch is seen and survives a crash whole or not at all.
pub trait StateStore: Send + Sync {
    /// The JSON text under a key.
    fn get(&self, key: &str) -> Option<String>;

    /// All records whose key starts with `prefix`, in order of their keys.
    fn scan_prefix(&self, prefix: &str) -> Vec<(String, String)>;

    /// Applies a batch; returns once it is on stable storage. Concurrent calls share one flush. Readers see the batch
    /// from now on even when this fails: what fails is only that it survives.
    ///
    /// # Errors
    /// [`StoreError::NotPersisted`], [`StoreError::BadKey`] (then nothing was applied).
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Why the last commit did not reach stable storage; `None` when it did.
    fn problem(&self) -> Option<String>;

    /// Writes a checkpoint if anything changed since the last one, and lets go of the files. Commits after this are
    /// not persisted.
    fn close(&self);
}

/// Changes that belong together. A later change of the same key replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: BTreeMap<String, Option<String>>,
}

impl Batch {
    /// Puts JSON text under a key.
    pub fn put(&mut self, key: impl Into<String>, json: String) {
        self.changes.insert(key.into(), Some(json));
    }

    /// Removes a key; an absent one is fine.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.changes.insert(key.into(), None);
    }

    /// Takes back a change of a key that was not yet committed.
    pub fn forget(&mut self, key: &str) {
        self.changes.remove(key);
    }

    /// What it does to a key: `None` nothing, `Some(None)` removes it.
    #[must_use]
    pub fn change(&self, key: &str) -> Option<Option<&str>> {
        self.changes.get(key).map(Option::as_deref)
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.changes.keys().find(|key| key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0')) {
            Some(key) => Err(StoreError::BadKey(key.chars().take(80).collect())),
            None => Ok(()),
        }
    }
}

/// The complete copy in memory.
type Model = BTreeMap<String, String>;

fn apply(model: &mut Model, batch: &Batch) {
    for (key, change) in &batch.changes {
        match change {
            Some(json) => model.insert(key.clone(), json.clone()),
            None => model.remove(key),
        };
    }
}

fn scan(model: &Model, prefix: &str) -> Vec<(String, String)> {
    let from = model.range(prefix.to_owned()..);
    from.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, json)| (key.clone(), json.clone())).collect()
}

/// What a caller of the store does differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The change is in memory but would not survive: disk full, file system read-only, database unusable.
    #[error("state is not persisted: {0}")]
    NotPersisted(String),
    /// A key that is empty, too long or holds a NUL byte.
    #[error("`{0}` cannot be a key of the state database")]
    BadKey(String),
    /// Another controller runs on this data root.
    #[error("the state database {path} is in use{holder}: one controller per data root")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// ` by pid N` when the lock file says so, else empty.
        holder: String,
    },
    /// Written by a newer boxship; this one refuses rather than misread it.
    #[error("the state database has format {found}, this boxship knows up to {known}: use the newer boxship")]
    Newer {
        /// Format on disk.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
}
