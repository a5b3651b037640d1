//! Compressed layers that are not here, because the policy drops them once they are unpacked: they are fetched again by
//! digest from a registry that had them, or what needs them is refused. Made again they would be other bytes.

use std::fs::File;

use super::manifest::Descriptor;
use super::pull::Download;
use super::registry::Mirrors;
use super::store::flight::Lease;
use super::unpack::Source;
use super::{Digest, ImageRef, Store};
use crate::error::{Doing, Error, Result};
use crate::runtime::PullProgress;

/// Blobs held for one use. Those that were fetched for it are dropped again afterwards, where the policy says so and
/// nobody else holds them.
pub(super) struct Held<'a> {
    store: &'a Store,
    fetched: Vec<Digest>,
    lease: Option<Lease<'a>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        drop(self.lease.take());
        if !self.store.options.drop_blobs {
            return;
        }
        self.store.with_leases(|leases| {
            for blob in self.fetched.iter().filter(|blob| !leases.contains_key(*blob)) {
                let _ = std::fs::remove_file(self.store.blob_path(blob));
            }
        });
    }
}

impl Held<'_> {
    /// Fetches a layer when it is not here.
    pub(super) fn fetch(&mut self, blob: &Descriptor, progress: &dyn PullProgress) -> Result<()> {
        if self.store.blob_path(&blob.digest).exists() {
            return Ok(());
        }
        let names = self.store.names_with(&blob.digest)?;
        self.store.fetch_blob(blob, &names, progress).map_err(|error| because(blob, error))?;
        self.fetched.push(blob.digest.clone());
        Ok(())
    }
}

/// Says why anything is fetched at all.
fn because(blob: &Descriptor, error: Error) -> Error {
    let what = format!("layer {} is not kept here compressed and cannot be fetched again", blob.digest);
    match error {
        Error::Registry { code, message, retry } => {
            Error::Registry { code, message: format!("{what}: {message}"), retry }
        }
        Error::NotFound { .. } => Error::Conflict(format!("{what}: no name here says which registry had it")),
        other => other,
    }
}

impl Store {
    /// Keeps these blobs from being collected or dropped.
    pub(super) fn hold(&self, digests: Vec<Digest>) -> Held<'_> {
        Held { store: self, fetched: Vec::new(), lease: Some(self.lease(digests)) }
    }

    /// Names under which a registry may have a blob: those of every image here that has it.
    fn names_with(&self, blob: &Digest) -> Result<Vec<ImageRef>> {
        let images = self.list()?;
        let has = |digest: &Digest| self.record(digest).is_ok_and(|r| r.layers.iter().any(|l| l.digest == *blob));
        Ok(images.into_iter().filter(|image| has(&image.digest)).flat_map(|image| image.references).collect())
    }

    /// From the first registry that still has it.
    pub(super) fn fetch_blob(&self, blob: &Descriptor, names: &[ImageRef], progress: &dyn PullProgress) -> Result<()> {
        let mut last = Error::NotFound { what: "registry for the layer", name: blob.digest.to_string() };
        for name in names {
            match self.fetch_from(blob, name, progress) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn fetch_from(&self, blob: &Descriptor, name: &ImageRef, progress: &dyn PullProgress) -> Result<()> {
        let registry = Mirrors::of(name, &self.options)?;
        let path = self.partial_path(&blob.digest);
        let download = Download::new(&registry, name, blob, &path, progress)?;
        let mut source = Source::new(Box::new(download), blob.digest.clone(), blob.size);
        if let Err(error) = source.finish() {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
        file.sync_all().doing(|| format!("sync {}", path.display()))?;
        self.take_in_blob(&path, &blob.digest)
    }
}
