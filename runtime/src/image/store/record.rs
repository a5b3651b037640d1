//! What one image is, read from its manifest and config blobs and checked against their digests.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::{Store, not_found, stage};
use crate::error::{Doing, Error, Result};
use crate::image::Digest;
use crate::image::config::{self, CONFIG_BYTES_MAX};
use crate::image::manifest::{self, Descriptor, Document, MANIFEST_BYTES_MAX};
use crate::runtime::ImageConfig;

/// One image's immutable facts.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Of the manifest.
    pub(crate) media_type: String,
    pub(crate) config_digest: Digest,
    pub(crate) config_blob: Descriptor,
    pub(crate) config: ImageConfig,
    pub(crate) created: Option<String>,
    /// Bottom first.
    pub(crate) diff_ids: Vec<Digest>,
    /// Their blobs, in the same order.
    pub(crate) layers: Vec<Descriptor>,
    /// Unpacked bytes of each layer that is here, by diffID.
    pub(crate) layer_bytes: BTreeMap<Digest, u64>,
    /// Their sum.
    pub(crate) size_bytes: u64,
    /// Every layer is here.
    pub(crate) complete: bool,
}

impl Record {
    pub(super) fn read(store: &Store, digest: &Digest) -> Result<Self> {
        let bytes = store.read_blob(digest, MANIFEST_BYTES_MAX)?;
        let Document::Manifest(manifest) = manifest::parse(&bytes, "")? else {
            return Err(Error::Untrusted(format!("{digest} is an index, not an image")));
        };
        let spec = config::parse(&store.read_blob(&manifest.config.digest, CONFIG_BYTES_MAX)?)?;
        if spec.diff_ids.len() != manifest.layers.len() {
            return Err(Error::Untrusted(format!("{digest} has as many layers as its config does not say")));
        }
        let notes: Vec<_> = spec.diff_ids.iter().filter_map(|d| stage::LayerNote::read(&store.layer_dir(d))).collect();
        Ok(Self {
            media_type: manifest::own_media_type(&bytes).unwrap_or_else(|| manifest::OCI_MANIFEST.into()),
            config_digest: manifest.config.digest.clone(),
            config_blob: manifest.config,
            config: spec.config,
            created: spec.created,
            size_bytes: notes.iter().map(|note| note.bytes).sum(),
            layer_bytes: notes.iter().map(|note| (note.diff_id.clone(), note.bytes)).collect(),
            complete: notes.len() == spec.diff_ids.len(),
            diff_ids: spec.diff_ids,
            layers: manifest.layers,
        })
    }
}

impl Store {
    /// Reads a small blob of the store and checks that it still hashes to its name.
    pub(crate) fn read_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(not_found(digest)),
            Err(e) => return Err(Error::io(format!("open {}", path.display()), e)),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes).doing(|| format!("read {}", path.display()))?;
        if Digest::of(&bytes) != *digest {
            return Err(Error::Untrusted(format!("blob {digest} of the store is damaged")));
        }
        Ok(bytes)
    }
}
