//! One pull, from reference to image: manifest → platform → config → layers in parallel → publish.
//!
//! Where the bytes come from is an [`Origin`]: a registry, or an OCI layout on disk. Layers that are here are not
//! fetched again, a layer two pulls want is fetched by one of them, and what was cut off goes on where it stopped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::config::{self, CONFIG_BYTES_MAX, ImageSpec};
use super::manifest::{self, Descriptor, Document, Manifest, Platform};
use super::policy::Policy;
use super::registry::Mirrors;
use super::store::stage::{SmallBlob, Staged};
use super::store::{IndexEntry, flight::Claim, lock};
use super::{Digest, ImageRef, Store};
use crate::clock;
use crate::error::{Doing, Error, Result};
use crate::runtime::{ImageInfo, PullPhase, PullProgress, PullRequest};

mod ahead;
mod download;
mod early;
mod newer;
mod together;
mod weigh;

pub(super) use download::Download;
pub(super) use early::Written;
pub(super) use together::{Documents, patiently};
use together::{Slot, Together};
pub use weigh::PullCost;

/// Layers of one pull fetched at the same time.
const THREADS_MAX: usize = 3;
/// An index may name an index, once.
const INDEX_DEPTH_MAX: usize = 2;
/// Times a layer is fetched again because its bytes were wrong: once for what an earlier pull left, then for mirrors.
const REFETCHES_MAX: usize = 3;
/// What a compressed layer is expected to unpack to, as a multiple of its size.
const UNPACK_ESTIMATE: u64 = 3;
/// Kept free on the store's file system, in bytes, so that deleting and recording still work.
const RESERVE_BYTES: u64 = 64 << 20;
/// Largest blob of a layer, in bytes.
const BLOB_BYTES_MAX: u64 = 64 << 30;

/// A document with what its carrier said about it.
#[derive(Clone)]
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
}

/// Where images come from.
pub(super) trait Origin: Sync {
    /// The manifest or index a reference means; its digest wins over its tag. At most `MANIFEST_BYTES_MAX` bytes.
    fn manifest(&self, reference: &ImageRef) -> Result<Fetched>;
    /// The bytes of a blob from `from` on.
    fn blob(&self, reference: &ImageRef, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + '_>>;
    /// The bytes of a blob from `from` up to `to`, over a connection of their own. `None`: it gives no parts.
    fn part(&self, _: &ImageRef, _: &Descriptor, _from: u64, _to: u64) -> Result<Option<Box<dyn Read + '_>>> {
        Ok(None)
    }
    /// Whether it can be asked for the same again another day: a registry, and no file somebody brought.
    fn is_lasting(&self) -> bool {
        false
    }
    /// What was read last was not what it should be. Whether it is worth asking again, since somebody else answers.
    fn distrust(&self) -> bool {
        false
    }
}

/// An image as chosen: nothing of it is in the store yet.
struct Chosen {
    bytes: Vec<u8>,
    entry: IndexEntry,
    manifest: Manifest,
}

impl Store {
    /// Makes an image present. See [`Runtime::pull_image`](crate::Runtime::pull_image).
    ///
    /// # Errors
    /// `Registry` (`BX0301`-`BX0309`), `Untrusted`, `NoSpace`, `Io`. Nothing becomes visible on error.
    pub fn pull(&self, request: &PullRequest, progress: &dyn PullProgress) -> Result<ImageInfo> {
        let reference = &request.reference;
        // a digest means the same bytes for ever: there is nothing to ask
        let ask = request.refresh && reference.digest().is_none();
        if !ask && let Ok(info) = self.resolve(reference) {
            return self.named(reference, info);
        }
        let since_ms = clock::boot_ms();
        let mirrors = Mirrors::of(reference, &self.options)?;
        let registry =
            Together { origin: &mirrors, documents: &self.documents, since_ms, stall_ms: self.options.stall_ms };
        let locked = if ask { None } else { self.locked(reference) };
        let chosen = match locked {
            Some(chosen) => chosen,
            None => choose(&registry, reference)?,
        };
        self.allow(&registry, reference, &chosen)?;
        if let Some(info) = self.unchanged(&chosen) {
            let layers = &chosen.manifest.layers;
            layers.iter().for_each(|blob| progress.layer(&blob.digest, PullPhase::Shared, blob.size, blob.size));
            return Ok(info);
        }
        // what is fetched for the question is not fetched again as long as it is held
        let _config = if request.newer_only {
            let (config, bytes) = self.config_bytes(&registry, reference, &chosen.manifest.config)?;
            self.refuse_older(reference, &chosen, &bytes)?;
            config
        } else {
            None
        };
        self.install(&registry, reference, chosen, progress)
    }

    /// The same from another origin, asking it even when the reference is present.
    pub(super) fn install_from(
        &self,
        origin: &dyn Origin,
        source: &ImageRef,
        reference: &ImageRef,
        progress: &dyn PullProgress,
    ) -> Result<ImageInfo> {
        let mut chosen = choose(origin, source)?;
        chosen.entry.reference = Some(reference.clone());
        self.install(origin, source, chosen, progress)
    }

    /// Asks the policy, before anything of the image is fetched. What a tag stands for is what is signed: the index.
    fn allow(&self, origin: &dyn Origin, reference: &ImageRef, chosen: &Chosen) -> Result<()> {
        let policy = self.options.policy.as_deref().map(Policy::read).transpose()?.flatten();
        let signed = chosen.entry.index_digest.as_ref().unwrap_or(&chosen.entry.digest);
        policy.map_or(Ok(()), |policy| policy.check(origin, reference, signed))
    }

    /// The image, when it is here and all that would be written is there already.
    fn unchanged(&self, chosen: &Chosen) -> Option<ImageInfo> {
        let index = self.index().ok()?;
        index.entries.contains(&chosen.entry).then(|| self.get(&chosen.entry.digest).ok()).flatten()
    }

    /// An image found by its digest under another name gets this name too.
    fn named(&self, reference: &ImageRef, info: ImageInfo) -> Result<ImageInfo> {
        if info.references.contains(reference) {
            return Ok(info);
        }
        self.edit_index(|index| {
            if let Some(found) = index.find(reference).cloned() {
                index.set(IndexEntry { reference: Some(reference.clone()), ..found });
            }
            Ok(())
        })?;
        self.resolve(reference)
    }

    /// What the reference is locked to, when only a layer is missing: no need to ask which manifest it is.
    fn locked(&self, reference: &ImageRef) -> Option<Chosen> {
        let entry = self.edit_index(|index| Ok(index.find(reference).cloned())).ok()??;
        let bytes = self.read_blob(&entry.digest, manifest::MANIFEST_BYTES_MAX).ok()?;
        let Ok(Document::Manifest(manifest)) = manifest::parse(&bytes, &entry.media_type) else { return None };
        let entry = IndexEntry { reference: Some(reference.clone()), ..entry };
        Some(Chosen { bytes, entry, manifest })
    }

    fn install(
        &self,
        origin: &dyn Origin,
        source: &ImageRef,
        chosen: Chosen,
        progress: &dyn PullProgress,
    ) -> Result<ImageInfo> {
        let Chosen { bytes, entry, manifest } = chosen;
        let mut wanted: Vec<Digest> = manifest.layers.iter().map(|l| l.digest.clone()).collect();
        wanted.extend([entry.digest.clone(), manifest.config.digest.clone()]);
        let _blobs = self.lease(wanted);
        let (_config, config_bytes) = self.config_bytes(origin, source, &manifest.config)?;
        let spec = config::parse(&config_bytes)?;
        let layers = pair(&manifest, &spec, source)?;
        let _layers = self.lease(spec.diff_ids.clone());
        self.admit(&layers)?;
        let job = Job { store: self, origin, source, progress };
        let staged = job.layers(&layers)?;
        for (blob, _) in &layers {
            progress.layer(&blob.digest, PullPhase::Commit, blob.size, blob.size);
        }
        let digest = entry.digest.clone();
        let small = [
            SmallBlob { digest: digest.clone(), bytes },
            SmallBlob { digest: manifest.config.digest.clone(), bytes: config_bytes },
        ];
        self.publish(&staged, &small, &spec.diff_ids, entry).map_err(|e| self.full_disk(e))?;
        for (blob, _) in &layers {
            progress.layer(&blob.digest, PullPhase::Done, blob.size, blob.size);
        }
        self.get(&digest)
    }

    /// Also for other pulls, as long as the first of the two lives: it is in the store only at the very end.
    fn config_bytes(
        &self,
        origin: &dyn Origin,
        source: &ImageRef,
        config: &Descriptor,
    ) -> Result<(Option<Arc<Slot>>, Vec<u8>)> {
        if let Ok(bytes) = self.read_blob(&config.digest, CONFIG_BYTES_MAX) {
            return Ok((None, bytes));
        }
        let fetch = || {
            let bytes = patiently(self.options.stall_ms, || fetch_config(origin, source, config))?;
            Ok(Fetched { bytes, media_type: String::new() })
        };
        let (slot, found) = self.documents.once(config.digest.as_str(), 0, fetch)?;
        Ok((Some(slot), found.bytes))
    }

    /// Refuses before the first byte what cannot fit.
    fn admit(&self, layers: &[(Descriptor, Digest)]) -> Result<()> {
        let mut needed = 0_u64;
        for (blob, diff_id) in layers {
            if self.has_layer(diff_id) {
                continue;
            }
            let here = std::fs::metadata(self.partial_path(&blob.digest)).map_or(0, |m| m.len());
            let fetch = if self.blob_path(&blob.digest).exists() { 0 } else { blob.size.saturating_sub(here) };
            let ratio = if blob.media_type.ends_with("tar") { 1 } else { UNPACK_ESTIMATE };
            needed = needed.saturating_add(fetch).saturating_add(blob.size.saturating_mul(ratio));
        }
        if needed == 0 {
            return Ok(());
        }
        let stat =
            rustix::fs::statvfs(&self.root).doing(|| format!("stat the file system of {}", self.root.display()))?;
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        let needed_bytes = needed.saturating_add(RESERVE_BYTES);
        if free_bytes < needed_bytes {
            return Err(Error::NoSpace {
                path: self.root.display().to_string(),
                needed_bytes,
                free_bytes,
                reclaimable_bytes: 0,
            });
        }
        Ok(())
    }

    /// "No space left" while something is written is the same to the caller as too little space before.
    pub(super) fn full_disk(&self, error: Error) -> Error {
        match &error {
            Error::Io { source, .. } if super::unpack::is_full(source) => super::unpack::no_space(&self.root),
            _ => error,
        }
    }

    fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_dir(diff_id).join("layer.json").exists()
    }
}

/// Fetches a config blob and checks it.
pub(super) fn fetch_config(origin: &dyn Origin, source: &ImageRef, config: &Descriptor) -> Result<Vec<u8>> {
    if config.size > CONFIG_BYTES_MAX {
        return Err(Error::Untrusted(format!("the image's config is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    let read = origin.blob(source, config, 0)?.take(config.size + 1).read_to_end(&mut bytes);
    read.map_err(super::unpack::unwrap_io)?;
    check_digest(&bytes, &config.digest, "the image's config")?;
    Ok(bytes)
}

/// Fetches manifests until one is an image of this host's platform.
fn choose(origin: &dyn Origin, reference: &ImageRef) -> Result<Chosen> {
    let mut at = reference.clone();
    let mut index_digest = None;
    for _ in 0..=INDEX_DEPTH_MAX {
        let fetched = origin.manifest(&at)?;
        let digest = Digest::of(&fetched.bytes);
        if let Some(wanted) = at.digest() {
            check_digest(&fetched.bytes, wanted, "the manifest")?;
        }
        match manifest::parse(&fetched.bytes, &fetched.media_type)? {
            Document::Manifest(manifest) => {
                let entry = IndexEntry {
                    size: fetched.bytes.len() as u64,
                    digest,
                    media_type: media_type(&fetched),
                    reference: Some(reference.clone()),
                    index_digest,
                };
                return Ok(Chosen { bytes: fetched.bytes, entry, manifest });
            }
            Document::Index(list) => {
                let best = manifest::select_platform(&list, &Platform::host(), reference)?;
                at = reference.at(best.digest.clone());
                index_digest = index_digest.or(Some(digest));
            }
        }
    }
    Err(Error::Untrusted(format!("`{reference}` is an index of indexes of indexes")))
}

/// The document's own word first, then its carrier's.
fn media_type(fetched: &Fetched) -> String {
    let served = fetched.media_type.split(';').next().unwrap_or_default().trim();
    manifest::own_media_type(&fetched.bytes).unwrap_or_else(|| match served {
        "" => manifest::OCI_MANIFEST.into(),
        served => served.to_owned(),
    })
}

pub(super) fn check_digest(bytes: &[u8], wanted: &Digest, what: &str) -> Result<()> {
    let found = Digest::of(bytes);
    if found == *wanted {
        return Ok(());
    }
    let message = format!("{what} should be {wanted} but is {found}: the bytes were changed on their way");
    Err(Error::Registry { code: "BX0307", message, retry: true })
}

/// Layers with their diffIDs, bottom first, each diffID once.
fn pair(manifest: &Manifest, spec: &ImageSpec, reference: &ImageRef) -> Result<Vec<(Descriptor, Digest)>> {
    if spec.diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), spec.diff_ids.len());
        return Err(Error::Untrusted(format!("`{reference}` has {layers} layers, but its config names {ids}")));
    }
    let host = Platform::host();
    if !host.runs(&spec.platform) {
        return Err(manifest::platform_error(reference, &host, &spec.platform.to_string()));
    }
    let mut seen = BTreeMap::new();
    let mut pairs = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(&spec.diff_ids) {
        if blob.size > BLOB_BYTES_MAX {
            return Err(Error::Untrusted(format!("layer {} is larger than {BLOB_BYTES_MAX} bytes", blob.digest)));
        }
        match seen.insert(blob.digest.clone(), diff_id.clone()) {
            Some(other) if other != *diff_id => {
                return Err(Error::Untrusted(format!("layer {} is said to unpack to two things", blob.digest)));
            }
            Some(_) => {}
            None => pairs.push((blob.clone(), diff_id.clone())),
        }
    }
    Ok(pairs)
}

struct Job<'a> {
    store: &'a Store,
    origin: &'a dyn Origin,
    source: &'a ImageRef,
    progress: &'a dyn PullProgress,
}

impl Job<'_> {
    /// Stages every layer that is not here, a few at a time. Stops at the first error.
    fn layers(&self, layers: &[(Descriptor, Digest)]) -> Result<Vec<Arc<Staged>>> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let done = Mutex::new((Vec::new(), None));
        let early = early::Early::new(self.store)?;
        std::thread::scope(|scope| {
            for _ in 0..THREADS_MAX.min(layers.len()) {
                let worker = early.worker();
                let (next, stop, done) = (&next, &stop, &done);
                scope.spawn(move || {
                    let _worker = worker;
                    while !stop.load(Ordering::Relaxed)
                        && let Some((blob, diff_id)) = layers.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        match self.layer(blob, diff_id) {
                            Ok(staged) => lock(done).0.extend(staged),
                            Err(error) => {
                                stop.store(true, Ordering::Relaxed);
                                lock(done).1.get_or_insert(error);
                            }
                        }
                    }
                });
            }
            if let Err(error) = early.run() {
                stop.store(true, Ordering::Relaxed);
                lock(&done).1.get_or_insert(error);
            }
        });
        let (staged, error) = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        error.map_or(Ok(staged), Err)
    }

    /// `None` when it is in place already.
    fn layer(&self, blob: &Descriptor, diff_id: &Digest) -> Result<Option<Arc<Staged>>> {
        let shared = || self.progress.layer(&blob.digest, PullPhase::Shared, blob.size, blob.size);
        let work = match self.store.claim_layer(diff_id) {
            Claim::Staged(staged) => {
                shared();
                return Ok(Some(staged));
            }
            Claim::Work(work) => work,
        };
        if self.store.has_layer(diff_id) {
            shared();
            return Ok(None);
        }
        let staged = match self.restage(blob, diff_id) {
            Some(staged) => staged,
            None => self.fetch(blob, diff_id)?,
        };
        Ok(Some(work.done(staged)))
    }

    /// From a blob that is here. A bad one is deleted, so that it is fetched again.
    fn restage(&self, blob: &Descriptor, diff_id: &Digest) -> Option<Staged> {
        let path = self.store.blob_path(&blob.digest);
        let file = std::fs::File::open(&path).ok()?;
        let mut source = super::unpack::Source::new(Box::new(file), blob.digest.clone(), blob.size);
        match self.store.stage_layer(&mut source, diff_id, None) {
            Ok(staged) => Some(staged),
            Err(error) => {
                tracing::warn!(blob = %blob.digest, %error, "a blob of the store is damaged; it is fetched again");
                let _ = std::fs::remove_file(&path);
                None
            }
        }
    }

    fn fetch(&self, blob: &Descriptor, diff_id: &Digest) -> Result<Staged> {
        let path = self.store.partial_path(&blob.digest);
        let resumed = Cell::new(false);
        let attempt = || {
            std::thread::scope(|scope| {
                let download = Download::new(self.origin, self.source, blob, &path, self.progress)?;
                resumed.set(download.is_resumed());
                let download = download.with_lanes(Box::new(scope));
                let mut source = super::unpack::Source::new(Box::new(download), blob.digest.clone(), blob.size);
                let staged = self.store.stage_layer(&mut source, diff_id, Some(path.clone()));
                staged.map_err(|e| self.store.full_disk(e))
            })
        };
        let mut staged = attempt();
        for _ in 0..REFETCHES_MAX {
            if !staged.as_ref().is_err_and(is_bad_bytes) {
                break;
            }
            let _ = std::fs::remove_file(&path);
            // what was kept from an earlier pull may be to blame, not the registry
            if !resumed.get() && !self.origin.distrust() {
                break;
            }
            staged = attempt();
        }
        if staged.as_ref().is_err_and(|e| is_bad_bytes(e) || matches!(e, Error::NoSpace { .. })) {
            let _ = std::fs::remove_file(&path);
        }
        let drops_blob = self.store.options.drop_blobs && self.origin.is_lasting();
        if drops_blob { staged.map(Staged::without_blob) } else { staged }
    }
}

fn is_bad_bytes(error: &Error) -> bool {
    matches!(error, Error::Untrusted(_) | Error::Registry { code: "BX0307", .. })
}
