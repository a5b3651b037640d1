//! Images made here, from files and bytes, straight into the store. The same input gives the same digests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::manifest::{OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST, Platform};
use super::store::stage::{SmallBlob, Staged};
use super::store::{IndexEntry, flight::Claim};
use super::unpack::{self, Source};
use super::{Digest, ImageRef, Store};
use crate::error::{Doing, Result};
use crate::runtime::{ImageConfig, ImageHealthcheck, ImageInfo};

/// An image to be made.
#[derive(Debug, Clone, Default)]
pub struct ImageBuild {
    /// Bottom first.
    pub layers: Vec<BuildLayer>,
    /// What it asks of its containers.
    pub config: ImageConfig,
}

/// One layer: entries in order; parents are made where missing.
#[derive(Debug, Clone, Default)]
pub struct BuildLayer {
    /// What it holds.
    pub entries: Vec<BuildEntry>,
}

/// One file, directory or link, owned by root, dated 1970.
#[derive(Debug, Clone)]
pub struct BuildEntry {
    /// Path inside, with or without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// What an entry holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// A directory.
    Dir,
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A file with the bytes of this host file.
    HostFile(PathBuf),
    /// A symbolic link to this target.
    Symlink(String),
}

/// A layer's tar in the store's `tmp`.
pub(super) struct Packed {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Store {
    /// Makes an image and locks `reference` to it.
    ///
    /// # Errors
    /// `Io` (also for a host file that cannot be read), `NoSpace`, `Unsupported`, `Untrusted` for a path no image may
    /// hold.
    pub fn build(&self, reference: &ImageRef, build: &ImageBuild) -> Result<ImageInfo> {
        self.make(reference, build).map_err(|e| self.full_disk(e))
    }

    fn make(&self, reference: &ImageRef, build: &ImageBuild) -> Result<ImageInfo> {
        let mut staged = Vec::new();
        let mut layers = Vec::new();
        let mut leases = Vec::new();
        for layer in &build.layers {
            let packed = pack(&self.tmp_path("build"), layer)?;
            leases.push(self.lease(vec![packed.digest.clone()]));
            layers.push(json!({"mediaType": OCI_LAYER_TAR, "digest": packed.digest, "size": packed.size}));
            staged.extend(self.stage_packed(&packed, &packed.digest)?);
        }
        let diff_ids: Vec<Digest> =
            layers.iter().filter_map(|l| serde_json::from_value(l["digest"].clone()).ok()).collect();
        let config = encode(&config_json(&build.config, &diff_ids))?;
        let manifest = encode(&json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.bytes.len()},
            "layers": layers,
        }))?;
        let entry = IndexEntry {
            digest: manifest.digest.clone(),
            size: manifest.bytes.len() as u64,
            media_type: OCI_MANIFEST.into(),
            reference: Some(reference.clone()),
            index_digest: None,
        };
        let digest = entry.digest.clone();
        let _lease = self.lease(vec![digest.clone(), config.digest.clone()]);
        self.publish(&staged, &[manifest, config], &diff_ids, entry)?;
        self.get(&digest)
    }

    /// Unpacks and stages a layer; `None` when it is here already. An uncompressed layer's blob is its own diffID.
    pub(super) fn stage_packed(&self, packed: &Packed, diff_id: &Digest) -> Result<Option<Arc<Staged>>> {
        let work = match self.claim_layer(diff_id) {
            Claim::Staged(staged) => return Ok(Some(staged)),
            Claim::Work(work) => work,
        };
        if self.layer_dir(diff_id).join("layer.json").exists() {
            return self.keep_packed(packed).map(|()| None);
        }
        let partial = self.partial_path(&packed.digest);
        std::fs::rename(&packed.path, &partial).doing(|| format!("rename {}", packed.path.display()))?;
        let file = File::open(&partial).doing(|| format!("open {}", partial.display()))?;
        let mut source = Source::new(Box::new(file), packed.digest.clone(), packed.size);
        let staged = self.stage_layer(&mut source, diff_id, Some(partial.clone()));
        // nothing to go on with later: what it was made from is here
        Ok(Some(work.done(staged.inspect_err(|_| drop(std::fs::remove_file(&partial)))?)))
    }

    /// The layer is here, perhaps from a blob that was packed otherwise.
    fn keep_packed(&self, packed: &Packed) -> Result<()> {
        if self.blob_path(&packed.digest).exists() {
            return std::fs::remove_file(&packed.path).doing(|| "delete a packed layer");
        }
        let file = File::open(&packed.path).doing(|| format!("open {}", packed.path.display()))?;
        file.sync_all().doing(|| format!("sync {}", packed.path.display()))?;
        self.take_in_blob(&packed.path, &packed.digest)
    }
}

pub(super) fn encode(value: &Value) -> Result<SmallBlob> {
    let bytes = serde_json::to_vec(value).map_err(std::io::Error::from).doing(|| "encode an image")?;
    Ok(SmallBlob { digest: Digest::of(&bytes), bytes })
}

fn pack(path: &Path, layer: &BuildLayer) -> Result<Packed> {
    let doing = || format!("write {}", path.display());
    let file = File::options().read(true).write(true).create_new(true).open(path).doing(doing)?;
    let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
    for entry in &layer.entries {
        append(&mut tar, entry).doing(|| format!("pack `{}`", entry.path))?;
    }
    let mut writer = tar.into_inner().doing(doing)?;
    writer.flush().doing(doing)?;
    let mut file = writer.into_inner().map_err(std::io::IntoInnerError::into_error).doing(doing)?;
    let size = file.stream_position().doing(doing)?;
    file.rewind().doing(doing)?;
    let digest = unpack::digest_of(&mut file).doing(doing)?;
    Ok(Packed { path: path.to_owned(), digest, size })
}

fn append(tar: &mut tar::Builder<impl std::io::Write>, entry: &BuildEntry) -> std::io::Result<()> {
    let path = entry.path.trim_start_matches('/');
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match &entry.content {
        Content::Dir => {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, path, std::io::empty())
        }
        Content::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes.as_slice())
        }
        Content::HostFile(host) => {
            let file = File::open(host)?;
            let size = file.metadata()?.len();
            header.set_size(size);
            tar.append_data(&mut header, path, file.take(size))
        }
        Content::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target)
        }
    }
}

fn config_json(config: &ImageConfig, diff_ids: &[Digest]) -> Value {
    let set = |keys: &[String]| keys.iter().map(|k| (k.clone(), json!({}))).collect::<BTreeMap<_, _>>();
    let mut inner = serde_json::Map::new();
    let mut put = |key: &str, value: Value| {
        let is_empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            other => other.is_null(),
        };
        if !is_empty {
            inner.insert(key.to_owned(), value);
        }
    };
    put("Entrypoint", json!(config.entrypoint));
    put("Cmd", json!(config.cmd));
    put("Env", json!(config.env));
    put("User", json!(config.user));
    put("WorkingDir", json!(config.working_dir));
    put("Volumes", json!(set(&config.volumes)));
    put("ExposedPorts", json!(set(&config.exposed_ports)));
    put("StopSignal", json!(config.stop_signal));
    put("Labels", json!(config.labels));
    put("Healthcheck", config.healthcheck.as_ref().map_or(Value::Null, healthcheck_json));
    let host = Platform::host();
    json!({
        "architecture": host.architecture, "os": host.os, "config": inner,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

fn healthcheck_json(check: &ImageHealthcheck) -> Value {
    let nanos = |ms: Option<u64>| ms.unwrap_or(0).saturating_mul(1_000_000);
    json!({
        "Test": check.test, "Interval": nanos(check.interval_ms), "Timeout": nanos(check.timeout_ms),
        "StartPeriod": nanos(check.start_period_ms), "Retries": check.retries.unwrap_or(0),
    })
}
