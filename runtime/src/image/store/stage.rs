//! From staged to visible: layers and blobs being made in `tmp`, and the one function that publishes them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{IndexEntry, Store, sync_dir, tree};
use crate::error::{Doing, Error, Result};
use crate::image::unpack::{Source, Unpacked};
use crate::image::{Digest, Pace};
use crate::layout::make_private_dir;

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// `layers/HEX/layer.json`: what was unpacked and how to tell that it is still that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerNote {
    pub(crate) diff_id: Digest,
    /// The blob it came from, for a repair.
    pub(crate) blob: Digest,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Fingerprint of names, modes, owners and content; see `store::tree`.
    pub(crate) tree: Digest,
    /// How that was made.
    #[serde(default = "sorted")]
    tree_kind: u8,
    /// The boot it was published in.
    pub(crate) boot: String,
    /// Device nodes that were left out.
    pub(crate) devices_skipped: u64,
    /// Largest user or group id in it.
    pub(crate) id_max: u32,
}

/// Notes of older versions do not say.
const fn sorted() -> u8 {
    tree::KIND_SORTED
}

impl LayerNote {
    /// `None` when there is none or it cannot be read: the layer is not there then.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join("layer.json")).ok()?).ok()
    }
}

/// A layer that is complete in `tmp` and not yet visible. Removed again when nobody publishes it.
pub(crate) struct Staged {
    pub(crate) diff_id: Digest,
    blob: Digest,
    dir: PathBuf,
    /// The downloaded blob; `None` when it was in the store already.
    partial: Option<PathBuf>,
    /// The blob is not kept: its registry has it.
    drops_blob: bool,
    published: AtomicBool,
}

impl Staged {
    /// Publishes the layer without its blob.
    pub(crate) fn without_blob(self) -> Self {
        let mut staged = self;
        staged.drops_blob = true;
        staged
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published.load(Ordering::Acquire) {
            remove_tree(&self.dir);
        }
    }
}

/// Deletes a tree of ours as far as it goes; what is left is swept at the next open.
pub(crate) fn remove_tree(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %dir.display(), %error, "could not delete; left for the next open");
    }
}

/// A small blob waiting to be published with its image.
pub(crate) struct SmallBlob {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Store {
    /// A fresh name in `tmp`.
    pub(crate) fn tmp_path(&self, what: &str) -> PathBuf {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        self.tmp().join(format!("{what}-{}-{serial}", std::process::id()))
    }

    /// Where a blob is collected while it arrives; one name per digest, so that a later pull goes on with it.
    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.tmp().join(format!("{}.partial", digest.hex()))
    }

    /// Unpacks `source` (a compressed tar) and stages it as the layer `diff_id`. `partial` is the file the source
    /// writes the blob to on its way, published with the layer.
    pub(crate) fn stage_layer(
        &self,
        source: &mut Source<'_>,
        diff_id: &Digest,
        partial: Option<PathBuf>,
    ) -> Result<Staged> {
        let dir = self.tmp_path("layer");
        make_private_dir(&dir)?;
        let blob = source.digest().clone();
        let staged = Staged {
            diff_id: diff_id.clone(),
            blob,
            dir,
            partial,
            drops_blob: false,
            published: AtomicBool::new(false),
        };
        let fs = staged.dir.join("fs");
        make_private_dir(&fs)?;
        let unpacked = self.unpack(&fs, source, Some(diff_id))?;
        self.write_note(&staged, &fs, &unpacked)?;
        Ok(staged)
    }

    fn write_note(&self, staged: &Staged, fs: &Path, unpacked: &Unpacked) -> Result<()> {
        let note = LayerNote {
            diff_id: staged.diff_id.clone(),
            blob: staged.blob.clone(),
            bytes: unpacked.bytes,
            entries: unpacked.entries,
            tree: self.fingerprint(fs, unpacked)?,
            tree_kind: tree::KIND_SUM,
            boot: self.boot_id.clone(),
            devices_skipped: unpacked.devices_skipped,
            id_max: unpacked.id_max,
        };
        let path = staged.dir.join("layer.json");
        let bytes = serde_json::to_vec(&note).map_err(std::io::Error::from).doing(|| "encode layer.json")?;
        std::fs::write(&path, bytes).doing(|| format!("write {}", path.display()))
    }

    /// Makes staged layers and blobs durable, then visible, then records the image. The only way into the store.
    pub(crate) fn publish(
        &self,
        layers: &[Arc<Staged>],
        blobs: &[SmallBlob],
        diff_ids: &[Digest],
        entry: IndexEntry,
    ) -> Result<()> {
        self.mark_dirty()?;
        let mut staged_blobs = Vec::new();
        for blob in blobs {
            if self.blob_path(&blob.digest).exists() && self.read_blob(&blob.digest, u64::MAX - 1).is_ok() {
                continue;
            }
            let path = self.tmp_path("blob");
            std::fs::write(&path, &blob.bytes).doing(|| format!("write {}", path.display()))?;
            staged_blobs.push((path, self.blob_path(&blob.digest)));
        }
        for layer in layers {
            if let Some(partial) = layer.partial.as_ref().filter(|p| p.exists() && !layer.drops_blob) {
                staged_blobs.push((partial.clone(), self.blob_path(&layer.blob)));
            }
        }
        self.sync_all()?;
        for (from, to) in &staged_blobs {
            rename_blob(from, to)?;
        }
        for layer in layers {
            self.publish_layer(layer)?;
            if let Some(partial) = layer.partial.as_ref().filter(|_| layer.drops_blob) {
                let _ = std::fs::remove_file(partial);
            }
        }
        sync_dir(&self.root.join("blobs/sha256"))?;
        sync_dir(&self.root.join("layers"))?;
        self.edit_index(|index| {
            if let Some(missing) = diff_ids.iter().find(|d| !self.layer_dir(d).exists()) {
                return Err(Error::Conflict(format!("layer {missing} was deleted while its image was pulled")));
            }
            index.set(entry);
            Ok(())
        })
    }

    fn publish_layer(&self, layer: &Staged) -> Result<()> {
        let to = self.layer_dir(&layer.diff_id);
        if to.exists() && LayerNote::read(&to).is_none() {
            // no layer of ours: half deleted, or somebody else's; it would be in the way for ever
            std::fs::rename(&to, self.tmp_path("bad")).doing(|| format!("rename {}", to.display()))?;
        }
        match std::fs::rename(&layer.dir, &to) {
            Ok(()) => {
                layer.published.store(true, Ordering::Release);
                Ok(())
            }
            // another pull was first; ours goes away with `layer`. NotFound: the same staged layer, published by them
            Err(_) if to.join("layer.json").exists() => Ok(()),
            Err(e) => Err(Error::io(format!("rename {} to {}", layer.dir.display(), to.display()), e)),
        }
    }

    /// Replaces a small blob that was damaged.
    pub(crate) fn replace_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.mark_dirty()?;
        super::write_durably(&self.blob_path(digest), bytes)
    }

    /// Puts a blob that was fetched and synced in its place.
    pub(crate) fn take_in_blob(&self, from: &Path, digest: &Digest) -> Result<()> {
        self.mark_dirty()?;
        rename_blob(from, &self.blob_path(digest))?;
        sync_dir(&self.root.join("blobs/sha256"))
    }

    /// Whether the layer in `dir` is still what its note says.
    pub(crate) fn matches(&self, dir: &Path, note: &LayerNote, pace: Pace<'_>) -> bool {
        match tree::fingerprint(&dir.join("fs"), note.tree_kind, pace) {
            Ok(Some(found)) => found == note.tree,
            // a later version made it, which knows how to check it
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// As it was made on the way, or read again where the archive was too odd for that.
    fn fingerprint(&self, fs: &Path, unpacked: &Unpacked) -> Result<Digest> {
        let doing = || format!("read the tree {}", fs.display());
        if let Some(tree) = &unpacked.tree {
            return Ok(tree.clone());
        }
        let odd = || std::io::Error::other("an unknown kind of fingerprint");
        tree::fingerprint(fs, tree::KIND_SUM, &|_| ())?.ok_or_else(odd).doing(doing)
    }

    /// Puts a layer that was unpacked again in its place. The caller has moved the bad one away.
    pub(crate) fn publish_repaired(&self, layer: &Staged) -> Result<()> {
        self.sync_all()?;
        self.publish_layer(layer)?;
        sync_dir(&self.root.join("layers"))
    }

    /// Everything written to the store's file system so far is on the disk.
    pub(super) fn sync_all(&self) -> Result<()> {
        let root = File::open(&self.root).doing(|| format!("open {}", self.root.display()))?;
        rustix::fs::syncfs(&root).doing(|| format!("sync the file system of {}", self.root.display()))
    }
}

/// Two pulls may bring the same blob: the second one finds it gone from `tmp` and in place.
fn rename_blob(from: &Path, to: &Path) -> Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && to.exists() => Ok(()),
        other => other.doing(|| format!("rename {} to {}", from.display(), to.display())),
    }
}
