//! The content-addressed image store of one data root: an OCI image layout with unpacked layers beside it.
//!
//! ```text
//! images/index.json oci-layout blobs/sha256/HEX      an OCI layout: any tool can read it
//!        layers/HEX/{layer.json,fs/}                 unpacked, named by diffID, shared between images
//!        tmp/  boot.json  lock                       being made; last boot seen; one recovery at a time
//! ```
//! Durable before visible: stage in `tmp`, one `syncfs` per pull, rename, fsync the parents, then `index.json`.
//! The index is the only record; a name in `blobs` or `layers` is complete and was durable before it got its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Digest, ImageRef};
use crate::error::{Doing, Error, Result};
use crate::layout::{Layout, make_private_dir};
use crate::runtime::ImageInfo;

pub(super) mod flight;
mod gc;
mod index;
mod names;
mod prune;
mod record;
mod recover;
pub(super) mod stage;
pub(super) mod tree;

pub use gc::Collected;
pub(super) use index::{Index, IndexEntry};
pub use names::Named;
pub use prune::{PruneRequest, Pruned, PrunedImage};
pub(super) use record::Record;

/// How a store reaches registries and unpacks.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `HOST[:PORT]` of registries spoken to over plain HTTP, beside loopback ones.
    pub insecure: BTreeSet<String>,
    /// PEM files of further certificate authorities, trusted beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// The program whose `unpack` subcommand is [`unpack_child`](super::unpack_child).
    pub unpack_program: PathBuf,
    /// Where names of hosts are looked up first.
    pub hosts_file: PathBuf,
    /// Where the name servers are written.
    pub resolv_conf: PathBuf,
    /// Files with credentials, first match wins; `None` is the usual places: `REGISTRY_AUTH_FILE`, the data root's own
    /// (`boxship image login`), Podman's, Docker's.
    pub auth_files: Option<Vec<PathBuf>>,
    /// Directories with certificates for single registries (containers-certs.d(5)), first match wins.
    pub certs_dirs: Vec<PathBuf>,
    /// Mirrors and insecure registries (containers-registries.conf(5)); its `.d` directory is read as well.
    pub registries_conf: Option<PathBuf>,
    /// Which images may come, and whose signatures they need (containers-policy.json(5)).
    pub policy: Option<PathBuf>,
    /// Proxies; `None` is what the environment says.
    pub proxies: Option<super::registry::Proxies>,
    /// Compressed layers are dropped once they are unpacked, when a registry has them: about a third less disk; `save` and
    /// `push` fetch them again, and a damaged layer is healed only where its registry can be reached.
    pub drop_blobs: bool,
    /// How long a connection may stall without a byte before it counts as cut, in milliseconds.
    pub stall_ms: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            insecure: BTreeSet::new(),
            ca_files: Vec::new(),
            unpack_program: "/proc/self/exe".into(),
            hosts_file: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            auth_files: None,
            certs_dirs: vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
            registries_conf: Some(
                std::env::var_os("CONTAINERS_REGISTRIES_CONF")
                    .map_or_else(|| "/etc/containers/registries.conf".into(), PathBuf::from),
            ),
            policy: Some("/etc/containers/policy.json".into()),
            proxies: None,
            drop_blobs: false,
            stall_ms: 30_000,
        }
    }
}

/// The image store. Calls block; any number of threads may share one.
pub struct Store {
    pub(super) root: PathBuf,
    pub(super) options: StoreOptions,
    boot_id: String,
    clean: Mutex<bool>,
    flights: flight::Flights,
    pub(super) documents: super::pull::Documents,
    pub(super) written: super::pull::Written,
    cache: Mutex<Cache>,
    /// Held shared as long as the store is open or one of its unpackers runs; recovery needs it alone.
    pub(super) lock: File,
}

#[derive(Default)]
struct Cache {
    stamp: Option<index::Stamp>,
    index: Arc<Index>,
    records: BTreeMap<Digest, Arc<Record>>,
}

impl Store {
    /// Opens the store, making it when it is not there. After a boot that did not end cleanly, checks what was
    /// published in it and repairs or sets aside what is bad.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(layout: &Layout, mut options: StoreOptions) -> Result<Self> {
        let root = layout.images_dir();
        options.auth_files.get_or_insert_with(|| super::registry::usual_files(&layout.auth_file()));
        for dir in ["blobs/sha256", "layers", "tmp"] {
            make_private_dir(&root.join(dir))?;
        }
        let lock_path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.doing(|| format!("open {}", lock_path.display()))?;
        let store = Self {
            boot_id: layout.boot_id()?,
            options,
            clean: Mutex::new(false),
            flights: flight::Flights::default(),
            documents: super::pull::Documents::default(),
            written: super::pull::Written::default(),
            cache: Mutex::default(),
            lock: lock.try_clone().doing(|| "duplicate the store's lock")?,
            root,
        };
        recover::recover(&store, &lock)?;
        Ok(store)
    }

    /// A store that is only looked at: nothing is made, checked or repaired, and one that is not there is empty.
    ///
    /// # Errors
    /// `Io`.
    pub fn look(layout: &Layout, mut options: StoreOptions) -> Result<Self> {
        options.auth_files.get_or_insert_with(|| super::registry::usual_files(&layout.auth_file()));
        Ok(Self {
            boot_id: layout.boot_id()?,
            options,
            clean: Mutex::new(false),
            flights: flight::Flights::default(),
            documents: super::pull::Documents::default(),
            written: super::pull::Written::default(),
            cache: Mutex::default(),
            // Nothing is guarded: who looks publishes nothing.
            lock: File::open("/dev/null").doing(|| "open /dev/null")?,
            root: layout.images_dir(),
        })
    }

    /// Images that are complete: manifest, config and every layer in place.
    ///
    /// # Errors
    /// `Io` when the store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageInfo>> {
        let index = self.index()?;
        let mut digests: Vec<&Digest> = index.entries.iter().map(|e| &e.digest).collect();
        digests.sort();
        digests.dedup();
        Ok(digests.into_iter().filter_map(|d| self.info(&index, d).ok()).collect())
    }

    /// One image by the digest of its manifest.
    ///
    /// # Errors
    /// `NotFound`; `Io`.
    pub fn get(&self, digest: &Digest) -> Result<ImageInfo> {
        let index = self.index()?;
        if !index.entries.iter().any(|e| e.digest == *digest) {
            return Err(not_found(digest));
        }
        self.info(&index, digest)
    }

    /// The image a reference is locked to here. Asks nobody else.
    ///
    /// # Errors
    /// `NotFound` when it is absent or a part of it is missing; `Io`.
    pub fn resolve(&self, reference: &ImageRef) -> Result<ImageInfo> {
        let index = self.index()?;
        let entry = index.find(reference).ok_or_else(|| not_found(reference))?;
        self.info(&index, &entry.digest)
    }

    /// The unpacked layers of an image, topmost first: what overlay takes as `lowerdir`.
    ///
    /// # Errors
    /// `NotFound`; `Io`.
    pub fn layer_dirs(&self, digest: &Digest) -> Result<Vec<PathBuf>> {
        self.get(digest)?;
        self.touch(digest);
        let record = self.record(digest)?;
        let mut seen = BTreeSet::new();
        // the same layer twice is refused by overlay, and the upper one of two hides the lower one completely
        let fresh = record.diff_ids.iter().rev().filter(|d| seen.insert((*d).clone()));
        Ok(fresh.map(|d| self.layer_dir(d).join("fs")).collect())
    }

    /// Forgets a reference; then deletes what neither a reference, nor one of `in_use` (manifest digests of
    /// containers), nor a pull under way needs.
    ///
    /// # Errors
    /// `NotFound`; `Io`.
    pub fn remove(&self, reference: &ImageRef, in_use: &BTreeSet<Digest>) -> Result<()> {
        self.untag(std::slice::from_ref(reference), in_use)?;
        self.collect(in_use).map(|_| ())
    }

    pub(super) fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Drops what is remembered of an image, so that the next look reads its blobs again.
    pub(super) fn forget_record(&self, digest: &Digest) {
        lock(&self.cache).records.remove(digest);
    }

    /// The parsed index; read again only when the file changed.
    pub(super) fn index(&self) -> Result<Arc<Index>> {
        let path = self.root.join("index.json");
        let stamp = index::stamp(&path)?;
        let mut cache = lock(&self.cache);
        if cache.stamp != Some(stamp) {
            cache.index = Arc::new(Index::read(&path)?);
            cache.stamp = Some(stamp);
            let known: BTreeSet<_> = cache.index.entries.iter().map(|e| e.digest.clone()).collect();
            cache.records.retain(|digest, _| known.contains(digest));
        }
        Ok(Arc::clone(&cache.index))
    }

    /// Reads, changes and durably replaces the index, alone among threads and processes.
    pub(super) fn edit_index<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let path = self.root.join("index.lock");
        let guard = File::options().create(true).truncate(false).write(true).open(&path);
        let guard = guard.doing(|| format!("open {}", path.display()))?;
        guard.lock().doing(|| format!("lock {}", path.display()))?;
        let path = self.root.join("index.json");
        let before = Index::read(&path)?;
        let mut after = before.clone();
        let answer = change(&mut after)?;
        if after != before {
            after.write(&path)?;
        }
        Ok(answer)
    }

    /// What an image is, from its blobs; immutable, so kept.
    pub(super) fn record(&self, digest: &Digest) -> Result<Arc<Record>> {
        if let Some(found) = lock(&self.cache).records.get(digest) {
            return Ok(Arc::clone(found));
        }
        let record = Arc::new(Record::read(self, digest)?);
        if record.complete {
            lock(&self.cache).records.insert(digest.clone(), Arc::clone(&record));
        }
        Ok(record)
    }

    fn info(&self, index: &Index, digest: &Digest) -> Result<ImageInfo> {
        let record = self.record(digest)?;
        if let Some(missing) = record.diff_ids.iter().find(|d| !self.layer_dir(d).join("layer.json").exists()) {
            let name = format!("{digest} (its layer {missing} is missing)");
            return Err(Error::NotFound { what: "image", name });
        }
        let here = index.entries.iter().filter(|e| e.digest == *digest);
        Ok(ImageInfo {
            digest: digest.clone(),
            id: record.config_digest.clone(),
            references: here.filter_map(|e| e.reference.clone()).collect(),
            size_bytes: record.size_bytes,
            config: record.config.clone(),
            created: record.created.clone(),
        })
    }
}

pub(super) fn not_found(name: impl ToString) -> Error {
    Error::NotFound { what: "image", name: name.to_string() }
}

/// A lock whose holder panicked guards plain data here: it is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a rename or a new name in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    let open = File::open(dir).and_then(|d| d.sync_all());
    open.doing(|| format!("sync directory {}", dir.display()))
}

/// Writes a small file durably: all of it or nothing is seen.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = parent.join(format!(".{name}.{}.new", std::process::id()));
    let mut file = File::create(&staged).doing(|| format!("create {}", staged.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).doing(|| format!("write {}", staged.display()))?;
    std::fs::rename(&staged, path).doing(|| format!("rename {} to {}", staged.display(), path.display()))?;
    sync_dir(parent)
}
