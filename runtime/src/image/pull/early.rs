//! Writing to the disk begins while layers still come: the one sync before publication then has little left to wait
//! for. Nothing here makes anything visible, and that last sync is as it was.

use std::fs::File;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::{Doing, Error, Result};
use crate::image::Store;
use crate::image::store::lock;

/// Unpacked bytes between two syncs. Smaller ones write directories and the journal again and again; with larger ones the
/// disk idles.
const STEP_BYTES: u64 = 64 << 20;

/// Bytes unpacked by every pull of a store.
#[derive(Default)]
pub(in crate::image) struct Written {
    bytes: AtomicU64,
    gate: Mutex<()>,
    changed: Condvar,
    /// Held by who syncs: two at a time gain nothing.
    syncing: Mutex<()>,
}

impl Written {
    pub(in crate::image) fn add(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / STEP_BYTES != (before + bytes) / STEP_BYTES {
            self.notify();
        }
    }

    fn steps(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) / STEP_BYTES
    }

    fn notify(&self) {
        drop(lock(&self.gate));
        self.changed.notify_all();
    }
}

/// The syncs of one pull.
pub(super) struct Early<'a> {
    store: &'a Store,
    root: File,
    workers: AtomicUsize,
}

/// A worker of the pull; the syncs end with the last one.
pub(super) struct Worker<'a>(&'a Early<'a>);

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.0.workers.fetch_sub(1, Ordering::Release);
        self.0.store.written.notify();
    }
}

impl<'a> Early<'a> {
    pub(super) fn new(store: &'a Store) -> Result<Self> {
        let root = File::open(&store.root).doing(|| format!("open {}", store.root.display()))?;
        Ok(Self { store, root, workers: AtomicUsize::new(0) })
    }

    pub(super) fn worker(&'a self) -> Worker<'a> {
        self.workers.fetch_add(1, Ordering::Release);
        Worker(self)
    }

    /// Syncs after every step until the last worker has ended. A failure is the pull's: the kernel tells it once, so
    /// the sync before publication would not hear of it.
    pub(super) fn run(&self) -> Result<()> {
        let written = &self.store.written;
        let mut seen = written.steps();
        loop {
            let mut gate = lock(&written.gate);
            while self.workers.load(Ordering::Acquire) > 0 && written.steps() == seen {
                gate = written.changed.wait(gate).unwrap_or_else(PoisonError::into_inner);
            }
            drop(gate);
            if self.workers.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            seen = written.steps();
            if let Ok(_alone) = written.syncing.try_lock() {
                rustix::fs::syncfs(&self.root)
                    .map_err(|e| Error::io(format!("sync the file system of {}", self.store.root.display()), e))?;
            }
        }
    }
}
