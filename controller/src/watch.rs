//! When the manifests have changed: directories are watched, stillness is waited for, and contents decide.
//!
//! Events are hints only (R5). A trigger comes when the hash over all manifests and the files they name differs from
//! that of the last load, after the directories have been still for the settle time and no git operation is under way:
//! so editor saves, renames, symlink swaps and half-written files each lead to one load. What events miss, the resync
//! finds. Nothing here parses a manifest or decides anything; an idle host wakes up for the resync only.

mod backend;
mod git;
mod relevance;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::boot_ms;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::manifest::{Scan, scan};
use crate::model::Loaded;
use backend::Backend;
use relevance::Relevance;

/// Times and switches of a [`Watcher`].
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Stillness to wait for after an event.
    pub settle: Duration,
    /// Longest wait for stillness: a directory that is never still is loaded as it is.
    pub settle_max: Duration,
    /// Between two full scans without events.
    pub resync: Duration,
    /// Between two scans where the kernel has no watches left.
    pub poll: Duration,
    /// Longest wait for `.git/index.lock`: a crashed git leaves it behind.
    pub git_lock_max: Duration,
    /// Do not use events at all.
    pub poll_only: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(250),
            settle_max: Duration::from_secs(10),
            resync: Duration::from_secs(30),
            poll: Duration::from_secs(2),
            git_lock_max: Duration::from_secs(60),
            poll_only: false,
        }
    }
}

/// Why a [`Watcher`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The manifests differ from the last load that was followed: load them.
    Manifests,
    /// The manifests are as they were; time to look at the rest of the world.
    Resync,
}

/// Watches one manifest root. Make it within a tokio runtime with time enabled.
pub struct Watcher {
    root: PathBuf,
    options: WatchOptions,
    signals: mpsc::Receiver<()>,
    backend: Option<Backend>,
    relevance: Relevance,
    file_refs: BTreeSet<String>,
    bind_paths: BTreeSet<String>,
    /// Of the last load that was followed.
    fingerprint: Option<String>,
    /// Something happened that no scan has seen.
    pending: bool,
    /// The last wait for stillness was given up: the next load is taken as it is.
    restless: bool,
    /// Boot time, milliseconds.
    next_resync_ms: u64,
}

impl Watcher {
    /// Begins to watch. Never fails: where the kernel has no watches to give, it polls and says so in the log.
    #[must_use]
    pub fn new(root: &Path, options: WatchOptions) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let (sender, signals) = mpsc::channel(1);
        let relevance = Relevance::new(&root);
        let backend = if options.poll_only { None } else { Backend::new(sender, relevance.clone()) };
        let next_resync_ms = boot_ms() + ms(options.resync);
        Self {
            root,
            options,
            signals,
            backend,
            relevance,
            file_refs: BTreeSet::new(),
            bind_paths: BTreeSet::new(),
            fingerprint: None,
            pending: false,
            restless: false,
            next_resync_ms,
        }
    }

    /// Waits. The first call returns `Manifests` at once. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Trigger {
        if self.fingerprint.is_none() && !self.pending {
            self.scan().await;
            return Trigger::Manifests;
        }
        loop {
            let poll = if self.backend.is_none() { self.options.poll } else { self.options.resync };
            let until_resync = Duration::from_millis(self.next_resync_ms.saturating_sub(boot_ms()));
            if !self.pending {
                tokio::select! {
                    Some(()) = self.signals.recv() => self.pending = true,
                    () = sleep(poll.min(until_resync)) => {}
                }
            }
            if self.pending || self.backend.is_none() {
                self.settle().await;
            }
            let changed = self.scan().await;
            self.pending = false;
            let is_resync = boot_ms() >= self.next_resync_ms;
            if is_resync {
                self.next_resync_ms = boot_ms() + ms(self.options.resync);
            }
            if changed {
                return Trigger::Manifests;
            }
            if is_resync {
                return Trigger::Resync;
            }
        }
    }

    /// Tells the watcher what was loaded, so that it watches what the manifests name and knows what is not news.
    ///
    /// `false`: something changed while the load was under way, so it may be half of a change. Throw it away and call
    /// [`Watcher::next`] again, which returns `Manifests` after stillness.
    #[must_use]
    pub fn follow(&mut self, loaded: &Loaded) -> bool {
        let news = loaded.file_refs != self.file_refs || loaded.bind_paths != self.bind_paths;
        self.file_refs.clone_from(&loaded.file_refs);
        self.bind_paths.clone_from(&loaded.bind_paths);
        if news {
            let scan = scan(&self.root, &self.file_refs);
            self.register(&scan);
            // What changed between the load and the new watches has left no event.
            self.pending |= scan.fingerprint != loaded.fingerprint;
        }
        self.pending |= self.signals.try_recv().is_ok();
        if self.pending && !self.restless {
            return false;
        }
        self.fingerprint = Some(loaded.fingerprint.clone());
        true
    }

    /// Waits until nothing has happened for the settle time and git is done; bounded.
    async fn settle(&mut self) {
        let deadline_ms = boot_ms() + ms(self.options.settle_max);
        self.restless = false;
        loop {
            if boot_ms() >= deadline_ms {
                self.restless = true;
                tracing::warn!(root = %self.root.display(), "the manifests are never still; loading them as they are");
                return;
            }
            if self.backend.is_none() {
                let before = self.scan_only().await;
                sleep(self.options.settle).await;
                if self.scan_only().await.fingerprint != before.fingerprint {
                    continue;
                }
            } else if let Ok(Some(())) = timeout(self.options.settle, self.signals.recv()).await {
                continue;
            }
            if !git::wait(&self.root, self.options.git_lock_max).await {
                return;
            }
        }
    }

    async fn scan_only(&self) -> Scan {
        let (root, file_refs) = (self.root.clone(), self.file_refs.clone());
        let scan = tokio::task::spawn_blocking(move || scan(&root, &file_refs)).await;
        scan.unwrap_or_default()
    }

    /// Renews the watches, then compares: in this order, so that what happens in between is seen by one of the two.
    async fn scan(&mut self) -> bool {
        let first = self.scan_only().await;
        let scan = if self.register(&first) { self.scan_only().await } else { first };
        self.fingerprint.as_ref() != Some(&scan.fingerprint)
    }

    /// Whether there are new watches.
    fn register(&mut self, scan: &Scan) -> bool {
        self.relevance.set(scan, &self.file_refs);
        let Some(backend) = &mut self.backend else { return false };
        let wanted = relevance::directories(&self.root, scan, &self.file_refs, &self.bind_paths);
        match backend.watch(&wanted) {
            Ok(new) => new,
            Err(why) => {
                let seconds = self.options.poll.as_secs_f64();
                tracing::warn!(
                    why,
                    seconds,
                    "the kernel has no file watches left (fs.inotify.max_user_watches); polling"
                );
                self.backend = None;
                true
            }
        }
    }

    /// As if the kernel's queue had overflowed.
    #[cfg(test)]
    fn overflow(&self) {
        if let Some(backend) = &self.backend {
            backend.handle(&Ok(notify::Event::new(notify::EventKind::Other).set_flag(notify::event::Flag::Rescan)));
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

/// Shared with the thread that hears events.
type Shared<T> = Arc<std::sync::Mutex<T>>;

#[cfg(test)]
mod tests;
