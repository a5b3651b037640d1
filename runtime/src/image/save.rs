//! Images as one archive: an OCI layout in a tar, which is at the same time what `docker load` reads (Docker 25 and later
//! write the same). Blobs go in as they came, so every digest stays; nothing is compressed again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write};

use serde_json::{Value, json};

use super::manifest::{Descriptor, OCI_INDEX};
use super::store::Record;
use super::{Digest, ImageRef, Store};
use crate::error::{Doing, Result};
use crate::runtime::NoProgress;

/// OCI's annotation for the name of an image in a layout.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's and Docker's for its whole name.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";

/// Which readers an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SaveFormat {
    /// `docker load`, `podman load`, skopeo's `docker-archive:`, and everything that reads OCI archives.
    Docker,
    /// Only OCI: skopeo's `oci-archive:`.
    Oci,
}

/// An image to save, and the names it gets in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveImage {
    /// Which.
    pub digest: Digest,
    /// None: only its digest.
    pub names: Vec<ImageRef>,
}

impl Store {
    /// Writes images as one tar.
    ///
    /// # Errors
    /// `NotFound` when an image is not here, `Conflict` or `Registry` when a compressed layer is neither here nor to be had,
    /// all before the first byte; `Io`, also of `out`.
    pub fn save(&self, images: &[SaveImage], format: SaveFormat, out: &mut dyn Write) -> Result<()> {
        let mut records = BTreeMap::new();
        for image in images {
            self.get(&image.digest)?;
            records.insert(image.digest.clone(), self.record(&image.digest)?);
        }
        let parts = |(digest, record): (&Digest, &std::sync::Arc<Record>)| {
            let layers = record.layers.iter().map(|l| l.digest.clone());
            [digest.clone(), record.config_digest.clone()].into_iter().chain(layers).collect::<Vec<_>>()
        };
        let mut held = self.hold(records.iter().flat_map(parts).collect());
        for blob in records.values().flat_map(|record| &record.layers) {
            held.fetch(blob, &NoProgress)?;
        }
        let mut tar = tar::Builder::new(out);
        let doing = || "write the archive";
        let mut done = BTreeSet::new();
        for (digest, record) in &records {
            let small = [digest, &record.config_digest];
            for blob in small.into_iter().chain(record.layers.iter().map(|l| &l.digest)) {
                if done.insert(blob.clone()) {
                    self.append_blob(&mut tar, blob)?;
                }
            }
        }
        let mut documents = vec![
            ("index.json", index(images, &records, self)?),
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ];
        if format == SaveFormat::Docker {
            documents.push(("manifest.json", docker_manifest(images, &records)));
        }
        for (name, value) in documents {
            let bytes = serde_json::to_vec(&value).map_err(std::io::Error::from).doing(doing)?;
            tar.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice()).doing(doing)?;
        }
        tar.into_inner().and_then(|out| out.flush()).doing(doing)
    }

    fn append_blob(&self, tar: &mut tar::Builder<&mut dyn Write>, blob: &Digest) -> Result<()> {
        let path = self.blob_path(blob);
        let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
        let size = file.metadata().doing(|| format!("stat {}", path.display()))?.len();
        tar.append_data(&mut header(size), blob_name(blob), file.take(size)).doing(|| format!("write blob {blob}"))
    }
}

fn blob_name(blob: &Digest) -> String {
    format!("blobs/sha256/{}", blob.hex())
}

/// Dated 1970 and owned by root, so that the same images make the same archive.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

type Records = BTreeMap<Digest, std::sync::Arc<Record>>;

fn index(images: &[SaveImage], records: &Records, store: &Store) -> Result<Value> {
    let mut manifests = Vec::new();
    for image in images {
        let path = store.blob_path(&image.digest);
        let size = std::fs::metadata(&path).doing(|| format!("stat {}", path.display()))?.len();
        let entry = |name: Option<&ImageRef>| Descriptor {
            media_type: records[&image.digest].media_type.clone(),
            digest: image.digest.clone(),
            size,
            platform: None,
            urls: None,
            annotations: name.map(|name| {
                let notes = [(REF_NAME, name.to_string()), (FULL_NAME, name.to_string())];
                notes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        };
        if image.names.is_empty() {
            manifests.push(entry(None));
        }
        manifests.extend(image.names.iter().map(|name| entry(Some(name))));
    }
    Ok(json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}))
}

fn docker_manifest(images: &[SaveImage], records: &Records) -> Value {
    let one = |image: &SaveImage| {
        let record = &records[&image.digest];
        // a name with a digest is no tag: Docker refuses it
        let tags: Vec<String> = image.names.iter().filter(|n| n.digest().is_none()).map(ImageRef::familiar).collect();
        let layers: Vec<String> = record.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
        json!({"Config": blob_name(&record.config_digest), "RepoTags": tags, "Layers": layers})
    };
    images.iter().map(one).collect()
}
