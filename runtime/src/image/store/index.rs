//! `index.json`: which manifests are here and which references are locked to them. An OCI image index, so that other
//! tools can read the store. Never looks at blobs.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Result};
use crate::image::manifest::{Descriptor, OCI_INDEX};
use crate::image::{Digest, ImageRef};

/// OCI's annotation for the name of an entry of a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Ours: the digest of the index the manifest was chosen from, so that a reference pinned to it resolves.
const INDEX_DIGEST: &str = "io.boxship.index-digest";

/// One reference, or one image kept without a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Manifest digest.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) reference: Option<ImageRef>,
    pub(crate) index_digest: Option<Digest>,
}

/// All entries, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Index {
    pub(crate) entries: Vec<IndexEntry>,
}

/// Identity of one version of the file.
pub(super) type Stamp = (u64, u64, i64, i64);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: String,
    manifests: Vec<Descriptor>,
}

/// Which version of the file is there; all zero while there is none.
pub(super) fn stamp(path: &Path) -> Result<Stamp> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((0, 0, 0, 0)),
        Err(e) => Err(Error::io(format!("stat {}", path.display()), e)),
    }
}

impl Index {
    /// Reads the file; an absent one is an empty index.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::io(format!("read {}", path.display()), e)),
        };
        let raw: Raw = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Untrusted(format!("{} is damaged: {e}", path.display())))?;
        Ok(Self { entries: raw.manifests.into_iter().map(IndexEntry::from_descriptor).collect() })
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let manifests = self.entries.iter().map(IndexEntry::descriptor).collect();
        let raw = Raw { schema_version: 2, media_type: OCI_INDEX.into(), manifests };
        let bytes = serde_json::to_vec_pretty(&raw).map_err(std::io::Error::from).doing(|| "encode index.json")?;
        super::write_durably(path, &bytes)
    }

    /// The entry a reference means: its digest wins over its tag, as everywhere.
    pub(crate) fn find(&self, reference: &ImageRef) -> Option<&IndexEntry> {
        let exact = self.entries.iter().find(|e| e.reference.as_ref() == Some(reference));
        exact.or_else(|| {
            let wanted = reference.digest()?;
            let means = |e: &&IndexEntry| {
                let pinned = e.reference.as_ref().and_then(ImageRef::digest);
                e.digest == *wanted || e.index_digest.as_ref() == Some(wanted) || pinned == Some(wanted)
            };
            self.entries.iter().find(means)
        })
    }

    /// Adds an entry; its reference moves to it. The image it pointed to before stays under its digest form
    /// (`web:1@sha256:…`), for an undo, until somebody removes that.
    pub(crate) fn set(&mut self, entry: IndexEntry) {
        if let Some(at) = self.entries.iter().position(|e| e.reference.is_some() && e.reference == entry.reference) {
            let mut old = self.entries.remove(at);
            old.reference = old.reference.map(|r| r.at(old.digest.clone()));
            if old.digest != entry.digest && !self.entries.iter().any(|e| e.reference == old.reference) {
                self.entries.push(old);
            }
        }
        self.entries.retain(|e| e.reference.is_some() || e.digest != entry.digest);
        self.entries.push(entry);
    }

    /// Takes the name from an entry; an image that is in use stays without one.
    pub(super) fn forget(&mut self, entry: &IndexEntry, is_in_use: bool) {
        self.entries.retain(|e| e != entry);
        if is_in_use && !self.entries.iter().any(|e| e.digest == entry.digest) {
            self.entries.push(IndexEntry { reference: None, ..entry.clone() });
        }
    }
}

impl IndexEntry {
    fn from_descriptor(descriptor: Descriptor) -> Self {
        let notes = descriptor.annotations.unwrap_or_default();
        Self {
            digest: descriptor.digest,
            size: descriptor.size,
            media_type: descriptor.media_type,
            reference: notes.get(REF_NAME).and_then(|t| t.parse().ok()),
            index_digest: notes.get(INDEX_DIGEST).and_then(|t| t.parse().ok()),
        }
    }

    fn descriptor(&self) -> Descriptor {
        let mut notes = BTreeMap::new();
        if let Some(reference) = &self.reference {
            notes.insert(REF_NAME.to_owned(), reference.to_string());
        }
        if let Some(digest) = &self.index_digest {
            notes.insert(INDEX_DIGEST.to_owned(), digest.to_string());
        }
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            platform: None,
            urls: None,
            annotations: (!notes.is_empty()).then_some(notes),
        }
    }
}
