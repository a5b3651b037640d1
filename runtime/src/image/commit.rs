//! New images from what is here: a container's writable layer on top of its image, and the tar of a whole root file system.
//! The same layer, notes and image give the same digests. What a container is, is told by values.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{Mode, Stat};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::build::{Packed, encode};
use super::changes::{self, Change, Met, Places, Walk};
use super::config::CONFIG_BYTES_MAX;
use super::manifest::{OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD, OCI_MANIFEST, Platform};
use super::merged::Layers;
use super::pack::{DIR, Owners, Packer};
use super::store::IndexEntry;
use super::unpack::{Packing, unpacked_digest};
use super::{Digest, ImageRef, Store, instruction};
use crate::error::{Doing, Error, Result};
use crate::runtime::{IdRange, ImageInfo};
use crate::supervisor::rfc3339_nano;

const CHUNK_BYTES: usize = 128 << 10;

/// What a person says about an image that is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// What to call it; without a name it is known by its id.
    pub reference: Option<ImageRef>,
    /// A remark in its history.
    pub message: String,
    /// Who made it.
    pub author: Option<String>,
    /// Instructions of a Dockerfile that change settings: `CMD ["sh"]`, `ENV A=1`.
    pub changes: Vec<String>,
}

/// A container's writable layer, and what the container was told to run.
pub(crate) struct Writable<'a> {
    /// The image below it.
    pub(crate) image: &'a Digest,
    /// The directory overlay writes to.
    pub(crate) upper: &'a Path,
    pub(crate) ids: IdRange,
    pub(crate) places: Places,
    pub(crate) entrypoint: Option<&'a [String]>,
    pub(crate) args: Option<&'a [String]>,
    pub(crate) user: Option<&'a str>,
    pub(crate) working_dir: Option<&'a str>,
    pub(crate) stop_signal: Option<&'a str>,
}

/// Layers on the way into an image.
struct Parts {
    config: Map<String, Value>,
    layers: Vec<Value>,
    diff_ids: Vec<Digest>,
    /// Of its history: when, by what.
    created: Option<String>,
    created_by: String,
}

impl Store {
    /// What a writable layer changes of its image.
    ///
    /// # Errors
    /// `NotFound` for the image, `Io`.
    pub(crate) fn changes(&self, of: &Writable<'_>) -> Result<Vec<Change>> {
        let mut found = Vec::new();
        self.walk(of, &mut |met| changes::list(&met, &mut found))?;
        changes::sort(&mut found);
        Ok(found)
    }

    /// Makes an image of a writable layer and what is below it.
    ///
    /// # Errors
    /// `NotFound` for the image below, `Unsupported` for notes that make no sense or a file no layer can hold, `NoSpace`,
    /// `Io`. Nothing is visible then.
    pub(crate) fn commit(&self, of: &Writable<'_>, notes: &Notes) -> Result<ImageInfo> {
        self.commit_layer(of, notes).map_err(|error| self.full_disk(error))
    }

    fn commit_layer(&self, of: &Writable<'_>, notes: &Notes) -> Result<ImageInfo> {
        let below = self.record(of.image)?;
        let blobs = below.layers.iter().map(|layer| layer.digest.clone());
        let _lease = self.lease(below.diff_ids.iter().cloned().chain(blobs).collect());
        let bytes = self.read_blob(&below.config_digest, CONFIG_BYTES_MAX)?;
        let config: Value = serde_json::from_slice(&bytes).map_err(io::Error::from).doing(|| "read a config")?;
        let Value::Object(mut config) = config else {
            return Err(Error::Untrusted(format!("the config of {} is no object", of.image)));
        };
        let inner = settings(&mut config);
        told(inner, of);
        // said wrongly is found out before gigabytes are packed
        notes.changes.iter().try_for_each(|change| instruction::apply(inner, change))?;
        // of the container an image was once committed from by somebody else
        ["container", "container_config"].iter().for_each(|key| drop(config.remove(*key)));
        let layers = below.layers.iter().map(
            |layer| json!({"mediaType": oci_layer(&layer.media_type), "digest": layer.digest, "size": layer.size}),
        );
        let (packed, changed) = self.pack_writable(of)?;
        let parts = Parts {
            created_by: command(inner_of(&config)),
            config,
            layers: layers.collect(),
            diff_ids: below.diff_ids.clone(),
            created: Some(changed),
        };
        let diff_id = packed.digest.clone();
        self.make_from(parts, &packed, diff_id, OCI_LAYER_TAR, notes)
    }

    /// Makes an image of the tar of a root file system, plain or packed with gzip or zstd.
    ///
    /// # Errors
    /// `Untrusted` for what is no such archive, `Unsupported` for notes that make no sense, `NoSpace`, `Io`.
    pub fn import(&self, path: &Path, notes: &Notes) -> Result<ImageInfo> {
        self.import_tar(path, notes).map_err(|error| self.full_disk(error))
    }

    fn import_tar(&self, path: &Path, notes: &Notes) -> Result<ImageInfo> {
        let host = Platform::host();
        let mut config = Map::new();
        config.insert("architecture".to_owned(), json!(host.architecture));
        config.insert("os".to_owned(), json!(host.os));
        let inner = settings(&mut config);
        notes.changes.iter().try_for_each(|change| instruction::apply(inner, change))?;
        let packed = self.copy_in(path)?;
        let mut file = File::open(&packed.path).doing(|| format!("open {}", packed.path.display()))?;
        let unpacked = unpacked_digest(&mut file, &packed.digest, packed.size);
        let (diff_id, packing) = unpacked.inspect_err(|_| drop(std::fs::remove_file(&packed.path)))?;
        let media_type = match packing {
            Packing::Plain => OCI_LAYER_TAR,
            Packing::Gzip => OCI_LAYER_GZIP,
            Packing::Zstd => OCI_LAYER_ZSTD,
        };
        let created_by = "boxship image import".to_owned();
        let parts = Parts { config, layers: Vec::new(), diff_ids: Vec::new(), created: None, created_by };
        self.make_from(parts, &packed, diff_id, media_type, notes)
    }

    /// One more layer on top, then settings, history, manifest, and into the store.
    fn make_from(
        &self,
        mut parts: Parts,
        packed: &Packed,
        diff_id: Digest,
        media_type: &str,
        notes: &Notes,
    ) -> Result<ImageInfo> {
        let _layer = self.lease(vec![packed.digest.clone(), diff_id.clone()]);
        let staged: Vec<_> = self.stage_packed(packed, &diff_id)?.into_iter().collect();
        history(&mut parts, notes);
        parts.layers.push(json!({"mediaType": media_type, "digest": packed.digest, "size": packed.size}));
        parts.diff_ids.push(diff_id);
        parts.config.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": parts.diff_ids}));
        let config = encode(&Value::Object(parts.config))?;
        let manifest = encode(&json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.bytes.len()},
            "layers": parts.layers,
        }))?;
        let entry = IndexEntry {
            digest: manifest.digest.clone(),
            size: manifest.bytes.len() as u64,
            media_type: OCI_MANIFEST.into(),
            reference: notes.reference.clone(),
            index_digest: None,
        };
        let digest = entry.digest.clone();
        let _lease = self.lease(vec![digest.clone(), config.digest.clone()]);
        self.publish(&staged, &[manifest, config], &parts.diff_ids, entry)?;
        self.get(&digest)
    }

    fn walk(&self, of: &Writable<'_>, tell: &mut dyn FnMut(Met<'_>) -> io::Result<()>) -> Result<()> {
        let below = Layers::open(&self.layer_dirs(of.image)?)?;
        let doing = || format!("read the writable layer {}", of.upper.display());
        let upper = rustix::fs::open(of.upper, DIR, Mode::empty()).doing(doing)?;
        let walk = Walk { owners: Owners(Some(of.ids)), places: &of.places };
        walk.walk(upper.as_fd(), &below.root(), tell).doing(doing)
    }

    /// The layer as a tar in `tmp`, and when it was last changed.
    fn pack_writable(&self, of: &Writable<'_>) -> Result<(Packed, String)> {
        let path = self.tmp_path("commit");
        let doing = || format!("write {}", path.display());
        let file = File::options().write(true).create_new(true).open(&path).doing(doing)?;
        let mut packer =
            Packer::new(Hashed::new(io::BufWriter::with_capacity(CHUNK_BYTES, file)), Owners(Some(of.ids)));
        let upper = std::fs::File::open(of.upper).doing(|| format!("open {}", of.upper.display()))?;
        let mut newest = changed_ns(&rustix::fs::fstat(&upper).doing(doing)?);
        let packed = self.walk(of, &mut |met| pack(&mut packer, &met, &mut newest));
        let packed = packed.and_then(|()| packer.finish().and_then(Hashed::finish).doing(doing));
        let (digest, size) = packed.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        Ok((Packed { path, digest, size }, rfc3339_nano(newest)))
    }

    /// A copy of a file in `tmp`, hashed on its way.
    fn copy_in(&self, from: &Path) -> Result<Packed> {
        let doing = || format!("read {}", from.display());
        let mut source = File::open(from).doing(doing)?;
        let mut head = [0; 6];
        let got = (&mut source).take(6).read(&mut head).doing(doing)?;
        if got == 0 {
            return Err(Error::Untrusted(format!("{} is empty", from.display())));
        }
        let packer = match &head[..got] {
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
            [b'B', b'Z', b'h', ..] => Some("bzip2"),
            _ => None,
        };
        if let Some(packer) = packer {
            let name = from.display();
            return Err(Error::Unsupported(format!(
                "{name} is packed with {packer}, which layers never are; try: {packer} -dc {name} | boxship image import -"
            )));
        }
        source.rewind().doing(doing)?;
        let path = self.tmp_path("import");
        let writing = || format!("write {}", path.display());
        let file = File::options().write(true).create_new(true).open(&path).doing(writing)?;
        let mut out = Hashed::new(io::BufWriter::with_capacity(CHUNK_BYTES, file));
        let copied = io::copy(&mut source, &mut out).and_then(|_| out.finish()).doing(writing);
        let (digest, size) = copied.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        Ok(Packed { path, digest, size })
    }
}

/// Hashes and counts what goes through it.
struct Hashed<W: Write> {
    out: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Self {
        Self { out, hash: Sha256::new(), written: 0 }
    }

    fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.out.flush()?;
        Ok((Digest::from_hash(&self.hash.finalize().into()), self.written))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is met, as entries of a layer (OCI image-spec, layer.md).
fn pack(packer: &mut Packer<impl Write>, met: &Met<'_>, newest: &mut u64) -> io::Result<()> {
    let marked = |path: &[u8]| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let parent = &path[..path.len() - name.len()];
        [parent, b".wh.", name].concat()
    };
    match met {
        Met::Directory { dir, path, .. } => {
            *newest = (*newest).max(changed_ns(&rustix::fs::fstat(*dir)?));
            packable(path)?;
            packer.directory(*dir, path)
        }
        Met::Opaque { path } => {
            let within = if path.is_empty() { Vec::new() } else { [path, &b"/"[..]].concat() };
            packer.mark(&[&within, &b".wh..wh..opq"[..]].concat())
        }
        Met::Entry { parent, name, path, stat, .. } => {
            *newest = (*newest).max(changed_ns(stat));
            packable(path)?;
            packer.entry(*parent, name, path, stat)
        }
        Met::Whiteout { path } => packer.mark(&marked(path)),
        Met::Hidden { .. } => Ok(()),
    }
}

/// A name that a layer's readers take for a mark of theirs.
fn packable(path: &[u8]) -> io::Result<()> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name.starts_with(b".wh.") {
        let path = String::from_utf8_lossy(path);
        return Err(io::Error::other(format!(
            "/{path} cannot be in an image: names with .wh. mean deleted files there"
        )));
    }
    Ok(())
}

/// When a file was last changed in any way, in nanoseconds since 1970.
fn changed_ns(stat: &Stat) -> u64 {
    let secs = u64::try_from(stat.st_ctime).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec)
}

/// The `config` object of a config.
fn settings(config: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let inner = config.entry("config").or_insert(Value::Null);
    if !inner.is_object() {
        *inner = json!({});
    }
    inner.as_object_mut().expect("it was just made one")
}

fn inner_of(config: &Map<String, Value>) -> &Value {
    config.get("config").unwrap_or(&Value::Null)
}

/// What the container runs becomes what the image runs. Its environment does not: it may hold secrets.
fn told(config: &mut Map<String, Value>, of: &Writable<'_>) {
    if let Some(entrypoint) = of.entrypoint {
        config.insert("Entrypoint".to_owned(), json!(entrypoint));
        config.remove("Cmd");
    }
    if let Some(args) = of.args {
        config.insert("Cmd".to_owned(), json!(args));
    }
    for (key, value) in [("User", of.user), ("WorkingDir", of.working_dir), ("StopSignal", of.stop_signal)] {
        if let Some(value) = value {
            config.insert(key.to_owned(), json!(value));
        }
    }
}

/// What an image runs, on one line.
fn command(config: &Value) -> String {
    let words = |key: &str| serde_json::from_value::<Vec<String>>(config[key].clone()).unwrap_or_default();
    [words("Entrypoint"), words("Cmd")].concat().join(" ")
}

/// A line for each layer, as Docker wants it: what small tools left out is made up for, so that the new one is the last.
fn history(parts: &mut Parts, notes: &Notes) {
    let mut steps: Vec<Value> = parts.config.get("history").and_then(|h| h.as_array().cloned()).unwrap_or_default();
    let said = steps.iter().filter(|step| step["empty_layer"] != json!(true)).count();
    steps.extend((said..parts.diff_ids.len()).map(|_| json!({"created_by": ""})));
    let mut step: BTreeMap<&str, Value> = BTreeMap::new();
    step.insert("created_by", json!(parts.created_by));
    if !notes.message.is_empty() {
        step.insert("comment", json!(notes.message));
    }
    if let Some(author) = &notes.author {
        step.insert("author", json!(author));
        parts.config.insert("author".to_owned(), json!(author));
    }
    parts.config.remove("created");
    if let Some(created) = &parts.created {
        step.insert("created", json!(created));
        parts.config.insert("created".to_owned(), json!(created));
    }
    steps.push(json!(step));
    parts.config.insert("history".to_owned(), Value::Array(steps));
}

/// OCI's name for how a layer is packed; the bytes are the same as under Docker's.
fn oci_layer(media_type: &str) -> &str {
    match media_type {
        docker if docker.ends_with("diff.tar.gzip") => OCI_LAYER_GZIP,
        docker if docker.ends_with("diff.tar.zstd") => OCI_LAYER_ZSTD,
        docker if docker.ends_with("diff.tar") => OCI_LAYER_TAR,
        other => other,
    }
}
