//! Choosing images to delete: dangling ones, unused ones, the longest unused ones until the store fits a budget. What
//! containers, declarations and pulls under way need is never among them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Collected, Record, Store};
use crate::clock;
use crate::error::Result;
use crate::image::{Digest, ImageRef};

/// Which images may go. None of the first three set: only those without a tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRequest {
    /// Everything nothing uses, also what has a tag.
    pub all: bool,
    /// Only what no container was made from for this long, in milliseconds.
    pub unused_for_ms: Option<u64>,
    /// The longest unused ones, until all images together have at most this many bytes on the disk.
    pub budget_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// One image a prune took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedImage {
    /// Its id.
    pub id: Digest,
    /// The names it had.
    pub references: Vec<ImageRef>,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The images.
    pub images: Vec<PrunedImage>,
    /// What that frees.
    pub freed: Collected,
}

/// An image that may go.
struct Candidate {
    digest: Digest,
    pruned: PrunedImage,
    is_dangling: bool,
    last_used_ms: u64,
}

impl Store {
    /// Deletes what `request` allows. `in_use` are manifest digests of containers, `held` references that stay.
    ///
    /// # Errors
    /// `Io`, `Untrusted`.
    pub fn prune(
        &self,
        request: &PruneRequest,
        in_use: &BTreeSet<Digest>,
        held: &BTreeSet<ImageRef>,
    ) -> Result<Pruned> {
        let mut records = BTreeMap::new();
        for entry in &self.index()?.entries {
            if let Ok(record) = self.record(&entry.digest) {
                records.insert(entry.digest.clone(), record);
            }
        }
        let mut candidates = self.candidates(in_use, held)?;
        candidates.sort_by_key(|c| c.last_used_ms);
        let is_open = request.all || request.unused_for_ms.is_some() || request.budget_bytes.is_some();
        let before = clock::unix_ms().saturating_sub(request.unused_for_ms.unwrap_or(0));
        let mut gone = BTreeSet::new();
        let mut pruned = Pruned::default();
        for candidate in candidates {
            let is_old = candidate.last_used_ms <= before;
            let fits = request.budget_bytes.is_some_and(|budget| self.disk_bytes(&records, &gone, None) <= budget);
            if !is_old || fits || !(is_open || candidate.is_dangling) {
                continue;
            }
            gone.insert(candidate.digest);
            pruned.images.push(candidate.pruned);
        }
        if request.dry_run {
            let images = gone.len() as u64;
            let bytes = self.disk_bytes(&records, &BTreeSet::new(), Some(&gone));
            pruned.freed = Collected { images, bytes, ..Collected::default() };
            return Ok(pruned);
        }
        let names: Vec<ImageRef> = pruned.images.iter().flat_map(|image| image.references.clone()).collect();
        self.untag(&names, &BTreeSet::new())?;
        pruned.freed = self.collect(in_use)?;
        pruned.freed.images = pruned.images.len() as u64;
        Ok(pruned)
    }

    fn candidates(&self, in_use: &BTreeSet<Digest>, held: &BTreeSet<ImageRef>) -> Result<Vec<Candidate>> {
        let index = self.index()?;
        let stays = |digest: &Digest| in_use.contains(digest) || self.with_leases(|l| l.contains_key(digest));
        let digests: BTreeSet<&Digest> = index.entries.iter().map(|e| &e.digest).collect();
        let mut found = Vec::new();
        for digest in digests {
            let entries = index.entries.iter().filter(|e| e.digest == *digest);
            let references: Vec<ImageRef> = entries.filter_map(|e| e.reference.clone()).collect();
            if stays(digest) || references.iter().any(|name| is_held(name, held)) {
                continue;
            }
            found.push(Candidate {
                digest: digest.clone(),
                // what lost its tag to another image is kept under its digest, see `Index::set`
                is_dangling: references.iter().all(|name| name.tag().is_some() && name.digest().is_some()),
                pruned: PrunedImage { id: self.id_of(digest), references },
                last_used_ms: self.last_used_ms(digest),
            });
        }
        Ok(found)
    }

    /// Bytes of the layers and blobs of all images but `without`; with `of` set, only of what `of` alone needs.
    fn disk_bytes(
        &self,
        records: &BTreeMap<Digest, Arc<Record>>,
        without: &BTreeSet<Digest>,
        of: Option<&BTreeSet<Digest>>,
    ) -> u64 {
        let sum = |wanted: &dyn Fn(&Digest) -> bool| {
            let mut parts: BTreeMap<Digest, u64> = BTreeMap::new();
            for (_, record) in records.iter().filter(|(digest, _)| wanted(digest)) {
                parts.extend(record.layer_bytes.clone());
                for blob in record.layers.iter().filter(|blob| self.blob_path(&blob.digest).exists()) {
                    // an uncompressed blob has its layer's name
                    *parts.entry(blob.digest.clone()).or_default() += blob.size;
                }
            }
            parts.into_values().sum::<u64>()
        };
        match of {
            None => sum(&|digest| !without.contains(digest)),
            Some(of) => sum(&|_| true) - sum(&|digest| !of.contains(digest)),
        }
    }

    /// When a container was last made from the image, or when it came; unix milliseconds.
    fn last_used_ms(&self, digest: &Digest) -> u64 {
        let seconds = std::fs::metadata(self.blob_path(digest)).map_or(0, |meta| meta.mtime());
        u64::try_from(seconds).unwrap_or(0) * 1_000
    }

    /// Remembers that a container is made from the image: the date of its manifest.
    pub(super) fn touch(&self, digest: &Digest) {
        let now = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(clock::unix_ms());
        let touched =
            std::fs::File::options().write(true).open(self.blob_path(digest)).and_then(|f| f.set_modified(now));
        if let Err(error) = touched {
            tracing::debug!(%digest, %error, "the time of use is not remembered");
        }
    }
}

/// A declared name holds what it names and the digests it named before: they are there for an undo.
fn is_held(name: &ImageRef, held: &BTreeSet<ImageRef>) -> bool {
    let parts = |r: &ImageRef| (r.host().to_owned(), r.repository().to_owned(), r.tag().map(str::to_owned));
    held.iter().any(|h| h == name || parts(h) == parts(name))
}
