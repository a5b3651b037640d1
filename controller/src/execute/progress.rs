//! How far the pulls are: the latest word of each layer, for whoever draws it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use runtime::image::{Digest, ImageRef};
use runtime::runtime::{PullPhase, PullProgress};
use tokio::sync::watch;

/// One layer on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Which.
    pub digest: Digest,
    /// What is happening.
    pub phase: PullPhase,
    /// Bytes so far.
    pub done_bytes: u64,
    /// Bytes in all; 0 while unknown.
    pub total_bytes: u64,
}

type Board = Mutex<BTreeMap<ImageRef, Vec<Layer>>>;

/// Images on their way.
#[derive(Debug)]
pub struct Pulls {
    board: Arc<Board>,
    changed: watch::Sender<u64>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self { board: Arc::default(), changed: watch::channel(0).0 }
    }
}

impl Pulls {
    /// Adds a pull until the returned value is dropped.
    #[must_use]
    pub fn begin(&self, reference: &ImageRef) -> Pull {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).insert(reference.clone(), Vec::new());
        self.changed.send_modify(|version| *version += 1);
        Pull { board: Arc::clone(&self.board), changed: self.changed.clone(), reference: reference.clone() }
    }

    /// All of them, as far as they are.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ImageRef, Vec<Layer>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever one of them moves.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// One pull.
pub struct Pull {
    board: Arc<Board>,
    changed: watch::Sender<u64>,
    reference: ImageRef,
}

impl PullProgress for Pull {
    fn layer(&self, digest: &Digest, phase: PullPhase, done_bytes: u64, total_bytes: u64) {
        let now = Layer { digest: digest.clone(), phase, done_bytes, total_bytes };
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(layers) = board.get_mut(&self.reference) else { return };
        match layers.iter_mut().find(|layer| layer.digest == *digest) {
            Some(layer) => *layer = now,
            None => layers.push(now),
        }
        drop(board);
        self.changed.send_modify(|version| *version += 1);
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.reference);
        self.changed.send_modify(|version| *version += 1);
    }
}
