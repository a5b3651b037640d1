//! One push: layers, config, manifest, in that order. The bytes are the store's own, so the digest stays what it was.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::manifest::{Descriptor, MANIFEST_BYTES_MAX};
use super::refetch::Held;
use super::registry::{Mirrors, Registry, Sent};
use super::store::lock;
use super::{Digest, ImageRef, Store};
use crate::error::Result;
use crate::runtime::{PullPhase, PullProgress};

/// Layers of one push sent at the same time.
const THREADS_MAX: usize = 3;

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pushed {
    /// What the registry now has under the name.
    pub digest: Digest,
    /// Blobs that were there already.
    pub present: u64,
    /// Blobs the registry took over from another of its repositories.
    pub mounted: u64,
    /// Blobs whose bytes were sent.
    pub uploaded: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
}

impl Store {
    /// Sends the image `digest` to the registry of `to` and tags it there.
    ///
    /// # Errors
    /// `NotFound` when the image is not here; `Conflict` when a compressed layer is neither here nor to be had; `Registry`;
    /// `Io`. On error the tag is what
    /// it was.
    pub fn push(&self, digest: &Digest, to: &ImageRef, progress: &dyn PullProgress) -> Result<Pushed> {
        self.get(digest)?;
        let record = self.record(digest)?;
        let bytes = self.read_blob(digest, MANIFEST_BYTES_MAX)?;
        let mut wanted: Vec<Digest> = record.layers.iter().map(|l| l.digest.clone()).collect();
        wanted.extend([digest.clone(), record.config_digest.clone()]);
        let mirrors = Mirrors::of(to, &self.options)?;
        let registry = mirrors.primary()?;
        let held = Mutex::new(self.hold(wanted));
        let pushed = Pushed { digest: digest.clone(), present: 0, mounted: 0, uploaded: 0, uploaded_bytes: 0 };
        let job = Job { store: self, registry, to, progress, held, pushed: Mutex::new(pushed) };
        let mut seen = BTreeSet::new();
        let layers: Vec<&Descriptor> = record.layers.iter().filter(|l| seen.insert(l.digest.clone())).collect();
        job.layers(&layers)?;
        job.blob(&record.config_blob)?;
        job.registry.push_manifest(to, &bytes, &record.media_type)?;
        Ok(job.pushed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// A repository of this registry that had the blob when we pulled it.
    fn mount_source(&self, blob: &Digest, to: &ImageRef) -> Option<String> {
        let images = self.list().ok()?;
        let has = |digest: &Digest| self.record(digest).is_ok_and(|r| r.layers.iter().any(|l| l.digest == *blob));
        let holders = images.into_iter().filter(|image| has(&image.digest));
        let elsewhere = |r: &ImageRef| r.host() == to.host() && r.repository() != to.repository();
        holders.flat_map(|image| image.references).find(elsewhere).map(|r| r.repository().to_owned())
    }
}

struct Job<'a> {
    store: &'a Store,
    registry: &'a Registry,
    to: &'a ImageRef,
    progress: &'a dyn PullProgress,
    held: Mutex<Held<'a>>,
    pushed: Mutex<Pushed>,
}

impl Job<'_> {
    fn layers(&self, layers: &[&Descriptor]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..THREADS_MAX.min(layers.len()) {
                scope.spawn(|| {
                    while lock(&failed).is_none()
                        && let Some(blob) = layers.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(error) = self.blob(blob) {
                            lock(&failed).get_or_insert(error);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn blob(&self, blob: &Descriptor) -> Result<()> {
        let from = self.store.mount_source(&blob.digest, self.to);
        // only what the registry has not: a layer that was dropped is fetched for it
        let file = || {
            lock(&self.held).fetch(blob, self.progress)?;
            Ok(self.store.blob_path(&blob.digest))
        };
        let sent = self.registry.push_blob(self.to, blob, &file, from.as_deref())?;
        let mut pushed = lock(&self.pushed);
        match sent {
            Sent::Present => pushed.present += 1,
            Sent::Mounted => pushed.mounted += 1,
            Sent::Uploaded => {
                pushed.uploaded += 1;
                pushed.uploaded_bytes += blob.size;
            }
        }
        self.progress.layer(&blob.digest, PullPhase::Done, blob.size, blob.size);
        Ok(())
    }
}
