//! Docker's own archive (`manifest.json`, configs, layer tars), as `docker save` wrote it before version 25 and skopeo's
//! `docker-archive:` still does. It has no OCI manifest: one is made, always the same from the same bytes; config and
//! layers, and so the image id, stay as they are.

use std::collections::BTreeMap;
use std::io::{Read, Seek as _, SeekFrom};

use serde_json::json;

use super::{Files, IMAGES_MAX, Offer, no_such};
use crate::error::{Doing, Error, Result};
use crate::image::manifest::{Descriptor, OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST};
use crate::image::pull::{Fetched, Origin};
use crate::image::{Digest, ImageRef, unpack};

/// One image of `manifest.json`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) struct DockerArchive {
    files: Files,
    /// Manifests made, by their digest, with the names their images have.
    manifests: BTreeMap<Digest, (Vec<u8>, Vec<String>)>,
    /// Where blobs are.
    paths: BTreeMap<Digest, String>,
}

impl DockerArchive {
    pub(super) fn open(files: Files) -> Result<Self> {
        let invalid = |e: serde_json::Error| Error::Untrusted(format!("manifest.json is not valid: {e}"));
        let items: Vec<Item> = serde_json::from_slice(&files.read("manifest.json")?).map_err(invalid)?;
        if items.len() > IMAGES_MAX {
            return Err(Error::Untrusted(format!("manifest.json names more than {IMAGES_MAX} images")));
        }
        let mut archive = Self { files, manifests: BTreeMap::new(), paths: BTreeMap::new() };
        for item in items {
            archive.add(item)?;
        }
        Ok(archive)
    }

    fn add(&mut self, item: Item) -> Result<()> {
        let config = self.measure(&item.config)?;
        let mut layers = Vec::new();
        for path in &item.layers {
            let (digest, size, is_gzip) = self.measure(path)?;
            let suffix = if is_gzip { "+gzip" } else { "" };
            layers.push(json!({"mediaType": format!("{OCI_LAYER_TAR}{suffix}"), "digest": digest, "size": size}));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config.0, "size": config.1}, "layers": layers,
        });
        let bytes = serde_json::to_vec(&manifest).map_err(std::io::Error::from).doing(|| "encode a manifest")?;
        let names = item.repo_tags.unwrap_or_default();
        self.manifests.entry(Digest::of(&bytes)).or_insert_with(|| (bytes, Vec::new())).1.extend(names);
        Ok(())
    }

    /// Digest and size of a file, and whether it is gzip.
    fn measure(&mut self, path: &str) -> Result<(Digest, u64, bool)> {
        let doing = || format!("read {path} of the archive");
        let mut file = self.files.open(path)?;
        let size = file.metadata().doing(doing)?.len();
        let mut head = Vec::new();
        (&mut file).take(2).read_to_end(&mut head).doing(doing)?;
        file.rewind().doing(doing)?;
        let digest = unpack::digest_of(&mut file).doing(doing)?;
        self.paths.insert(digest.clone(), path.to_owned());
        Ok((digest, size, head == [0x1f, 0x8b]))
    }

    pub(super) fn offers(&self, tag: Option<&str>) -> Result<Vec<Offer>> {
        let mut offers = Vec::new();
        for (digest, (_, names)) in &self.manifests {
            let wanted = names.iter().filter(|name| tag.is_none_or(|tag| tag == name.as_str()));
            let offer = |name| Offer { digest: digest.clone(), name, platform: None };
            offers.extend(wanted.map(|name| offer(name.parse::<ImageRef>().ok())));
            if names.is_empty() && tag.is_none() {
                offers.push(offer(None));
            }
        }
        if offers.is_empty() {
            let known: Vec<String> = self.manifests.values().flat_map(|(_, names)| names.clone()).collect();
            return Err(no_such(tag, &self.files.shown, &known));
        }
        Ok(offers)
    }
}

impl Origin for DockerArchive {
    fn manifest(&self, reference: &ImageRef) -> Result<Fetched> {
        let found = reference.digest().and_then(|digest| self.manifests.get(digest));
        let (bytes, _) = found.ok_or_else(|| crate::image::store::not_found(reference))?;
        Ok(Fetched { bytes: bytes.clone(), media_type: OCI_MANIFEST.to_owned() })
    }

    fn blob(&self, reference: &ImageRef, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + '_>> {
        let path = self.paths.get(&blob.digest).ok_or_else(|| crate::image::store::not_found(reference))?;
        let mut file = self.files.open(path)?;
        file.seek(SeekFrom::Start(from)).doing(|| format!("read {path} of the archive"))?;
        Ok(Box::new(file))
    }
}
