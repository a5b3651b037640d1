//! One hash over everything a load reads: equal means that a load would find the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::find::{self, Found};

/// What was read of each file.
pub(crate) type Contents = BTreeMap<String, Result<Vec<u8>, String>>;

/// Reads all manifests.
pub(crate) fn read_all(found: &Found) -> Contents {
    found.files.iter().map(|(name, path)| (name.clone(), find::read(path))).collect()
}

/// Hashes manifests and the files they name; the latter are read here.
pub(crate) fn hash(found: &Found, contents: &Contents, file_refs: &BTreeSet<String>) -> String {
    let mut sha = Sha256::new();
    let mut part = |bytes: &[u8]| {
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    };
    part(found.root_error.as_deref().unwrap_or("").as_bytes());
    for (name, why) in &found.unreadable {
        part(name.as_bytes());
        part(why.as_bytes());
    }
    let refs = file_refs.iter().map(|path| (path.clone(), find::read(Path::new(path))));
    for (name, content) in contents.clone().into_iter().chain(refs) {
        part(name.as_bytes());
        match content {
            Ok(bytes) => part(&bytes),
            Err(why) => {
                part(b"!");
                part(why.as_bytes());
            }
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in sha.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// A root as it is now, without a look at what the manifests say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// As [`crate::model::Loaded::fingerprint`].
    pub fingerprint: String,
    /// YAML files, absolute.
    pub files: BTreeSet<PathBuf>,
    /// Directories that hold them or could, absolute.
    pub directories: BTreeSet<PathBuf>,
}

/// Lists and hashes a root and the files its manifests name.
#[must_use]
pub fn scan(root: &Path, file_refs: &BTreeSet<String>) -> Scan {
    let found = find::find(root);
    let contents = read_all(&found);
    let fingerprint = hash(&found, &contents, file_refs);
    Scan { fingerprint, files: found.files.into_values().collect(), directories: found.directories }
}
