//! The accepted state on disk. Contract: version 1; a file of another version is set aside, not guessed at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::api::types::SourceRequest;
use crate::model::{Accepted, ObjectKey, Orders};
use crate::store::write_durably;

const VERSION: u32 = 1;

/// Everything accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved {
    version: u32,
    /// Grows by one with each change of the merged state.
    pub(super) generation: u64,
    /// By path.
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    /// What people asked of objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) orders: BTreeMap<ObjectKey, Orders>,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) request: SourceRequest,
    pub(super) accepted: Accepted,
    #[serde(default)]
    pub(super) role: Role,
}

/// Whose a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Role {
    /// Somebody's who put it in force with `up`.
    #[default]
    Asked,
    /// The directory the controller was started with; at most one.
    Controllers,
    /// A directory the controller was started with before; nothing reads it any more.
    Left,
}

impl Default for Saved {
    fn default() -> Self {
        Self { version: VERSION, generation: 0, entries: BTreeMap::new(), orders: BTreeMap::new() }
    }
}

/// Reads the file and leaves it as it is; `None` when it is not there or cannot be understood.
pub(super) fn peek(file: &Path) -> Option<Saved> {
    let saved = serde_json::from_slice::<Saved>(&std::fs::read(file).ok()?).ok();
    saved.filter(|saved| saved.version == VERSION)
}

/// Reads the file; `None` when it is not there or cannot be understood (then it is set aside).
pub(super) fn read(file: &Path) -> (Option<Saved>, Vec<u8>) {
    let Ok(bytes) = std::fs::read(file) else { return (None, Vec::new()) };
    match serde_json::from_slice::<Saved>(&bytes) {
        Ok(saved) if saved.version == VERSION => (Some(saved), bytes),
        Ok(_) | Err(_) => {
            let aside = file.with_extension("broken");
            let moved = std::fs::rename(file, &aside);
            tracing::error!(?moved, "{} cannot be read and was set aside", file.display());
            (None, Vec::new())
        }
    }
}

/// Writes the file if its bytes changed; returns them with their digest.
pub(super) fn write(file: &Path, saved: &Saved, written: &[u8]) -> std::io::Result<Option<(Vec<u8>, String)>> {
    let bytes = serde_json::to_vec(saved).map_err(std::io::Error::other)?;
    if bytes == written {
        return Ok(None);
    }
    write_durably(file, &bytes)?;
    let mut digest = String::new();
    for byte in Sha256::digest(&bytes) {
        let _ = write!(digest, "{byte:02x}");
    }
    Ok(Some((bytes, digest)))
}
