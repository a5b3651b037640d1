//! Looking for rot: every blob is hashed, every unpacked layer compared with its fingerprint. What is bad and no
//! container stands on is set aside and made again: a layer from its blob, a blob from the registry it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::manifest::Descriptor;
use super::pull::Origin as _;
use super::registry::Mirrors;
use super::store::{Record, stage::LayerNote, stage::Staged};
use super::unpack::{self, Source};
use super::{Digest, ImageRef, Store};
use crate::error::{Doing, Error, Result, chain};
use crate::runtime::{PullPhase, PullProgress};

/// What a scrub saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Layers and blobs looked at.
    pub checked: u64,
    /// Bad ones that were made again.
    pub healed: Vec<Digest>,
    /// Bad ones that stay bad, and why.
    pub lost: Vec<(Digest, String)>,
}

/// Runs what must not meet a container being made, with the manifest digests containers have.
pub type Swap<'a> = &'a dyn Fn(&mut dyn FnMut(&BTreeSet<Digest>) -> Result<()>) -> Result<()>;

/// Called with the bytes read since it was called last; may take its time.
pub type Pace<'a> = &'a dyn Fn(u64);

struct Scrub<'a> {
    store: &'a Store,
    pace: Pace<'a>,
    progress: &'a dyn PullProgress,
    alone: Swap<'a>,
    seen: Scrubbed,
}

impl Store {
    /// Checks everything that is here. A bad layer below a container is told, not touched, since its files are open;
    /// `alone` says which those are while nobody makes another.
    ///
    /// # Errors
    /// `Io` when the store cannot be read at all. A part that cannot be healed is in the answer.
    pub fn scrub(&self, progress: &dyn PullProgress, alone: Swap<'_>) -> Result<Scrubbed> {
        let mut scrub = Scrub { store: self, pace: &|_| (), progress, alone, seen: Scrubbed::default() };
        let names = self.named_images()?;
        let mut done = BTreeSet::new();
        for (digest, names) in &names {
            let Some(record) = scrub.documents(digest, names) else { continue };
            for (blob, diff_id) in record.layers.iter().zip(&record.diff_ids) {
                if done.insert(diff_id.clone()) {
                    scrub.layer(blob, diff_id, names);
                }
            }
        }
        Ok(scrub.seen)
    }

    /// Checks one layer, the next after `after` by its diffID and in the end the first again, and the documents of images
    /// that begin with it: so whoever asks again and again has asked for everything. Gives which one it was, how many
    /// there are, and what was seen; `None` where there are none. `pace` hears of each byte read for it.
    ///
    /// # Errors
    /// `Io` when the store cannot be read at all.
    pub fn scrub_next(
        &self,
        after: &Digest,
        progress: &dyn PullProgress,
        alone: Swap<'_>,
        pace: Pace<'_>,
    ) -> Result<Option<(Digest, usize, Scrubbed)>> {
        let mut scrub = Scrub { store: self, pace, progress, alone, seen: Scrubbed::default() };
        let mut layers: BTreeMap<Digest, (Descriptor, Vec<ImageRef>)> = BTreeMap::new();
        let mut first: BTreeMap<Digest, Vec<(Digest, Vec<ImageRef>)>> = BTreeMap::new();
        for (digest, names) in self.named_images()? {
            // its documents are damaged, and nothing else says what its layers are
            let Ok(record) = self.record(&digest) else {
                scrub.documents(&digest, &names);
                continue;
            };
            for (blob, diff_id) in record.layers.iter().zip(&record.diff_ids) {
                let known = layers.entry(diff_id.clone()).or_insert_with(|| (blob.clone(), Vec::new()));
                known.1.extend(names.iter().cloned());
            }
            first.entry(record.diff_ids.first().unwrap_or(&digest).clone()).or_default().push((digest, names));
        }
        let after = (Bound::Excluded(after.clone()), Bound::Unbounded);
        let Some((diff_id, (blob, names))) = layers.range(after).next().or_else(|| layers.iter().next()) else {
            return Ok(None);
        };
        for (digest, names) in first.get(diff_id).into_iter().flatten() {
            scrub.documents(digest, names);
        }
        scrub.layer(blob, diff_id, names);
        Ok(Some((diff_id.clone(), layers.len(), scrub.seen)))
    }

    fn named_images(&self) -> Result<BTreeMap<Digest, Vec<ImageRef>>> {
        let mut names: BTreeMap<Digest, Vec<ImageRef>> = BTreeMap::new();
        for entry in &self.index()?.entries {
            names.entry(entry.digest.clone()).or_default().extend(entry.reference.clone());
        }
        Ok(names)
    }
}

impl Scrub<'_> {
    /// Manifest and config, read anew.
    fn documents(&mut self, digest: &Digest, names: &[ImageRef]) -> Option<Arc<Record>> {
        self.seen.checked += 1;
        self.store.forget_record(digest);
        let first = self.store.record(digest);
        let error = match first {
            Ok(record) => return Some(record),
            Err(error) => error,
        };
        let healed = names.iter().any(|name| self.fetch_documents(digest, name).is_ok());
        match self.store.record(digest) {
            Ok(record) if healed => {
                self.seen.healed.push(digest.clone());
                Some(record)
            }
            Ok(_) | Err(_) => {
                self.seen.lost.push((digest.clone(), chain(&error)));
                None
            }
        }
    }

    fn fetch_documents(&self, digest: &Digest, name: &ImageRef) -> Result<()> {
        let registry = Mirrors::of(name, &self.store.options)?;
        let fetched = registry.manifest(&name.at(digest.clone()))?;
        super::pull::check_digest(&fetched.bytes, digest, "the manifest")?;
        self.store.replace_blob(digest, &fetched.bytes)?;
        let config = super::manifest::config_of(&fetched.bytes)?;
        let bytes = super::pull::fetch_config(&registry, name, &config)?;
        self.store.replace_blob(&config.digest, &bytes)
    }

    fn layer(&mut self, blob: &Descriptor, diff_id: &Digest, names: &[ImageRef]) {
        self.seen.checked += 2;
        self.progress.layer(&blob.digest, PullPhase::Commit, 0, blob.size);
        let blob_is_bad = self.blob_is_bad(blob);
        let layer_is_bad = !self.store.layer_is_good(diff_id, self.pace);
        let heal = || -> Result<()> {
            if blob_is_bad {
                self.store.fetch_blob(blob, names, self.progress)?;
            }
            if layer_is_bad {
                if !self.store.blob_path(&blob.digest).exists() {
                    self.store.fetch_blob(blob, names, self.progress)?;
                }
                self.unpack_again(blob, diff_id)?;
            }
            Ok(())
        };
        if blob_is_bad || layer_is_bad {
            match heal() {
                Ok(()) => self.seen.healed.push(diff_id.clone()),
                Err(error) => self.seen.lost.push((diff_id.clone(), chain(&error))),
            }
        }
        self.progress.layer(&blob.digest, PullPhase::Done, blob.size, blob.size);
    }

    /// A blob that is not here is no damage: it may have been dropped on purpose.
    fn blob_is_bad(&self, blob: &Descriptor) -> bool {
        match File::open(self.store.blob_path(&blob.digest)) {
            Ok(file) => unpack::digest_of(&mut Paced { file, pace: self.pace }).ok().as_ref() != Some(&blob.digest),
            Err(e) => e.kind() != std::io::ErrorKind::NotFound,
        }
    }
}

impl Scrub<'_> {
    /// Unpacks a blob again and puts the result in the place of the bad layer.
    fn unpack_again(&self, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
        let path = self.store.blob_path(&blob.digest);
        let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
        let mut source = Source::new(Box::new(file), blob.digest.clone(), blob.size);
        let staged = self.store.stage_layer(&mut source, diff_id, None)?;
        (self.alone)(&mut |in_use| {
            let stands_on = |digest| self.store.record(digest).is_ok_and(|r| r.diff_ids.contains(diff_id));
            if in_use.iter().any(stands_on) {
                return Err(Error::Conflict("a container stands on this layer; remove it and scrub again".to_owned()));
            }
            self.store.swap_layer(&staged, diff_id)
        })
    }
}

impl Store {
    /// Whether the unpacked layer is here and is what was unpacked.
    fn layer_is_good(&self, diff_id: &Digest, pace: Pace<'_>) -> bool {
        let dir = self.layer_dir(diff_id);
        LayerNote::read(&dir).is_some_and(|note| self.matches(&dir, &note, pace))
    }

    fn swap_layer(&self, staged: &Staged, diff_id: &Digest) -> Result<()> {
        let bad = self.tmp_path("bad");
        match std::fs::rename(self.layer_dir(diff_id), &bad) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("set layer {diff_id} aside"), e)),
        }
        self.publish_repaired(staged)?;
        super::store::stage::remove_tree(&bad);
        Ok(())
    }
}

/// A file read at a pace.
struct Paced<'a> {
    file: File,
    pace: Pace<'a>,
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        (self.pace)(n as u64);
        Ok(n)
    }
}
