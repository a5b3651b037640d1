//! Collection: marks from the index, the callers' digests and the leases; sweeps names on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::stage::{LayerNote, remove_tree};
use super::{Store, sync_dir};
use crate::clock;
use crate::error::{Doing, Result};
use crate::image::Digest;

/// How long a blob that was cut off waits for its pull to go on, in milliseconds.
const PARTIAL_KEEP_MS: u64 = 24 * 3_600 * 1_000;

/// What a collection freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Collected {
    /// Images that had no reference and no user.
    pub images: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of both, as far as known.
    pub bytes: u64,
}

#[derive(Default)]
struct Marks {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
}

impl Store {
    /// Deletes images without a reference that are not in `in_use` (manifest digests), and every layer and blob
    /// nobody needs. What a pull under way needs stays.
    ///
    /// # Errors
    /// `Io`; `Untrusted` when a kept image cannot be read, since then nobody can tell what it needs.
    pub fn collect(&self, in_use: &BTreeSet<Digest>) -> Result<Collected> {
        let mut freed = Collected::default();
        let mut trash = Vec::new();
        self.edit_index(|index| {
            self.with_leases(|leases| {
                let before = index.entries.len();
                let keep = |d: &Digest| in_use.contains(d) || leases.contains_key(d);
                index.entries.retain(|e| e.reference.is_some() || keep(&e.digest));
                freed.images = (before - index.entries.len()) as u64;
                let kept: BTreeSet<Digest> = index.entries.iter().map(|e| e.digest.clone()).collect();
                let marks = self.mark(&kept, leases)?;
                trash = self.sweep(&marks, &mut freed)?;
                Ok(())
            })
        })?;
        sync_dir(&self.root.join("layers"))?;
        for path in trash {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "could not delete; left for the next open");
            }
        }
        Ok(freed)
    }

    fn mark(&self, kept: &BTreeSet<Digest>, leases: &BTreeMap<Digest, usize>) -> Result<Marks> {
        let mut marks = Marks::default();
        marks.blobs.extend(leases.keys().cloned());
        marks.layers.extend(leases.keys().cloned());
        for digest in kept {
            let record = self.record(digest)?;
            marks.blobs.insert(digest.clone());
            marks.blobs.insert(record.config_digest.clone());
            marks.blobs.extend(record.layers.iter().map(|l| l.digest.clone()));
            marks.layers.extend(record.diff_ids.iter().cloned());
        }
        for layer in &marks.layers {
            marks.blobs.extend(LayerNote::read(&self.layer_dir(layer)).map(|note| note.blob));
        }
        Ok(marks)
    }

    /// Takes the unmarked out of sight; returns what is to be deleted.
    fn sweep(&self, marks: &Marks, freed: &mut Collected) -> Result<Vec<PathBuf>> {
        let mut trash = Vec::new();
        for (dir, marked) in [("layers", &marks.layers), ("blobs/sha256", &marks.blobs)] {
            let dir = self.root.join(dir);
            for entry in std::fs::read_dir(&dir).doing(|| format!("read {}", dir.display()))? {
                let entry = entry.doing(|| format!("read {}", dir.display()))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let digest = format!("sha256:{name}").parse::<Digest>();
                if digest.as_ref().is_ok_and(|d| marked.contains(d)) {
                    continue;
                }
                if entry.path().is_dir() {
                    freed.layers += 1;
                    freed.bytes += LayerNote::read(&entry.path()).map_or(0, |n| n.bytes);
                } else {
                    freed.blobs += 1;
                    freed.bytes += entry.metadata().map_or(0, |m| m.size());
                }
                let away = self.tmp_path("trash");
                std::fs::rename(entry.path(), &away).doing(|| format!("rename {}", entry.path().display()))?;
                trash.push(away);
            }
        }
        trash.extend(self.old_partials()?);
        Ok(trash)
    }

    fn old_partials(&self) -> Result<Vec<PathBuf>> {
        let now = clock::unix_ms();
        let is_old = |path: &PathBuf| {
            let modified = path.metadata().map_or(0, |m| u64::try_from(m.mtime()).unwrap_or(0) * 1_000);
            path.extension().is_some_and(|e| e == "partial") && modified + PARTIAL_KEEP_MS < now
        };
        let entries = std::fs::read_dir(self.tmp()).doing(|| "read the store's tmp")?;
        Ok(entries.filter_map(|e| e.ok().map(|e| e.path())).filter(is_old).collect())
    }

    /// Empties `tmp` but for blobs a later pull can go on with.
    pub(super) fn clear_tmp(&self) -> Result<()> {
        for entry in std::fs::read_dir(self.tmp()).doing(|| "read the store's tmp")?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "partial") {
                continue;
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove_tree(&path);
            } else {
                std::fs::remove_file(&path).doing(|| format!("delete {}", path.display()))?;
            }
        }
        Ok(())
    }
}
