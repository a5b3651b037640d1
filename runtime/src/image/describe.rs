//! What people ask about an image: its sizes, its history, all of it. Read-only; text of images is inert data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::{self, CONFIG_BYTES_MAX};
use super::manifest::MANIFEST_BYTES_MAX;
use super::registry::Mirrors;
use super::{Digest, ImageRef, Store};
use crate::error::{Doing, Result};

/// An image's disk use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageSizes {
    /// Bytes of layers no other image here has: what removing it frees, compressed blobs not counted.
    pub unique_bytes: u64,
    /// Bytes of layers other images have as well.
    pub shared_bytes: u64,
}

/// One step an image was made by, as it says itself; untrusted text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStep {
    /// RFC 3339.
    pub created: Option<String>,
    /// The command.
    pub created_by: String,
    /// A remark.
    pub comment: String,
    /// The layer it made; `None` when it changed only settings.
    pub layer: Option<Digest>,
    /// Bytes of that layer, unpacked.
    pub size_bytes: u64,
}

impl Store {
    /// Disk use of every image, by manifest digest. A layer two images have is counted once on the disk and as shared by
    /// both, so sizes do not add up.
    ///
    /// # Errors
    /// `Io`.
    pub fn sizes(&self) -> Result<BTreeMap<Digest, ImageSizes>> {
        let mut records = BTreeMap::new();
        for image in self.list()? {
            records.insert(image.digest.clone(), self.record(&image.digest)?);
        }
        let mut users: BTreeMap<Digest, u64> = BTreeMap::new();
        for record in records.values() {
            record.layer_bytes.keys().for_each(|layer| *users.entry(layer.clone()).or_default() += 1);
        }
        let sizes = |layers: &BTreeMap<Digest, u64>| {
            layers.iter().fold(ImageSizes::default(), |mut sum, (layer, bytes)| {
                if users[layer] > 1 {
                    sum.shared_bytes += bytes
                } else {
                    sum.unique_bytes += bytes
                }
                sum
            })
        };
        Ok(records.into_iter().map(|(digest, record)| (digest, sizes(&record.layer_bytes))).collect())
    }

    /// The steps an image was made by, latest first.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Untrusted`.
    pub fn history(&self, digest: &Digest) -> Result<Vec<HistoryStep>> {
        self.get(digest)?;
        let record = self.record(digest)?;
        let bytes = self.read_blob(&record.config_digest, CONFIG_BYTES_MAX)?;
        let mut layers = record.diff_ids.iter();
        let mut steps: Vec<HistoryStep> = Vec::new();
        for said in config::history(&bytes)? {
            let layer = if said.empty_layer { None } else { layers.next().cloned() };
            steps.push(HistoryStep {
                created: said.created,
                created_by: said.created_by.unwrap_or_default(),
                comment: said.comment.unwrap_or_default(),
                size_bytes: layer.as_ref().and_then(|l| record.layer_bytes.get(l)).copied().unwrap_or(0),
                layer,
            });
        }
        // small tools write no history: the layers are there all the same
        for layer in layers {
            steps.push(HistoryStep {
                created: None,
                created_by: String::new(),
                comment: String::new(),
                size_bytes: record.layer_bytes.get(layer).copied().unwrap_or(0),
                layer: Some(layer.clone()),
            });
        }
        steps.reverse();
        Ok(steps)
    }

    /// Tags of a repository at its registry; at most the first thousand.
    ///
    /// # Errors
    /// `Registry`.
    pub fn remote_tags(&self, repository: &ImageRef) -> Result<Vec<String>> {
        Mirrors::of(repository, &self.options)?.primary()?.tags(repository)
    }

    /// Everything about an image, in the manner of `docker image inspect`, with our digests beside.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Untrusted`.
    pub fn inspect(&self, digest: &Digest) -> Result<Value> {
        let info = self.get(digest)?;
        let record = self.record(digest)?;
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(std::io::Error::from);
        let config = json(&self.read_blob(&record.config_digest, CONFIG_BYTES_MAX)?).doing(|| "read a config")?;
        let manifest = json(&self.read_blob(digest, MANIFEST_BYTES_MAX)?).doing(|| "read a manifest")?;
        let sizes = self.sizes()?.get(digest).copied().unwrap_or_default();
        let tags: Vec<String> = info.references.iter().filter(|r| r.digest().is_none()).map(|r| r.familiar()).collect();
        let mut digests: Vec<String> =
            info.references.iter().map(|r| format!("{}@{digest}", r.familiar_repository())).collect();
        digests.sort();
        digests.dedup();
        let layers: Vec<Value> = record
            .diff_ids
            .iter()
            .zip(&record.layers)
            .map(|(diff_id, blob)| {
                json!({"diffId": diff_id, "digest": blob.digest, "mediaType": blob.media_type, "size": blob.size,
                "unpackedSize": record.layer_bytes.get(diff_id)})
            })
            .collect();
        Ok(json!({
            "Id": info.id, "Digest": digest, "RepoTags": tags, "RepoDigests": digests,
            "Created": config["created"], "Author": config["author"], "Architecture": config["architecture"],
            "Variant": config["variant"], "Os": config["os"], "Config": config["config"],
            "RootFS": {"Type": "layers", "Layers": record.diff_ids}, "Size": info.size_bytes,
            "UniqueSize": sizes.unique_bytes, "SharedSize": sizes.shared_bytes, "Layers": layers, "Manifest": manifest,
        }))
    }
}
