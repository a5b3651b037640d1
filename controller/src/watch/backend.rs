//! The kernel's side: inotify watches on directories, never on files, through `notify`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use notify::{ErrorKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::relevance::Relevance;

/// The watches, by directory and what it was when it was watched.
pub(super) struct Backend {
    watcher: notify::RecommendedWatcher,
    watched: BTreeMap<PathBuf, Identity>,
    #[cfg(test)]
    handler: Handler,
}

/// A directory that was replaced by another of the same name needs a new watch; the change time tells reused inodes
/// apart.
type Identity = (u64, u64, i64, i64);

#[derive(Clone)]
struct Handler {
    signals: mpsc::Sender<()>,
    relevance: Relevance,
}

impl Handler {
    /// Called from notify's thread. A full channel means that a signal is under way already.
    fn handle(&self, event: &notify::Result<notify::Event>) {
        let wanted = match event {
            Ok(event) => self.relevance.wants(event),
            // A lost event, whatever it was.
            Err(_) => true,
        };
        if wanted {
            let _ = self.signals.try_send(());
        }
    }
}

impl Backend {
    /// `None` when the kernel gives no inotify instance.
    pub(super) fn new(signals: mpsc::Sender<()>, relevance: Relevance) -> Option<Self> {
        let handler = Handler { signals, relevance };
        let callback = handler.clone();
        let config = notify::Config::default().with_follow_symlinks(false);
        match notify::RecommendedWatcher::new(move |event| callback.handle(&event), config) {
            Ok(watcher) => Some(Self {
                watcher,
                watched: BTreeMap::new(),
                #[cfg(test)]
                handler,
            }),
            Err(error) => {
                tracing::warn!(%error, "no file events from the kernel (fs.inotify.max_user_instances); polling");
                None
            }
        }
    }

    /// Watches exactly these directories; whether any watch is new. One that is gone meanwhile is left out: its
    /// parent's watch tells.
    ///
    /// # Errors
    /// When the kernel has no more watches to give.
    pub(super) fn watch(&mut self, wanted: &BTreeSet<PathBuf>) -> Result<bool, String> {
        let now: BTreeMap<PathBuf, Identity> =
            wanted.iter().filter_map(|path| Some((path.clone(), identity(path)?))).collect();
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, identity)| now.get(*path).map(inode) != Some(inode(identity)))
            .map(|(path, _)| path.clone())
            .collect();
        for path in stale {
            // The kernel has dropped the watch of a removed directory by itself.
            let _ = self.watcher.unwatch(&path);
            self.watched.remove(&path);
        }
        let mut new = false;
        for (path, identity) in now {
            // A directory made anew under a reused inode has another change time; watching one twice does no harm, and
            // taking the old watch away first would lose what happens in between.
            if self.watched.get(&path) == Some(&identity) {
                continue;
            }
            match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    new = true;
                    self.watched.insert(path, identity);
                }
                Err(error) if is_exhausted(&error) => return Err(error.to_string()),
                Err(_) => {
                    self.watched.remove(&path);
                }
            }
        }
        Ok(new)
    }

    #[cfg(test)]
    pub(super) fn handle(&self, event: &notify::Result<notify::Event>) {
        self.handler.handle(event);
    }
}

fn inode(identity: &Identity) -> (u64, u64) {
    (identity.0, identity.1)
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn is_exhausted(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::OutOfMemory)
        }
        ErrorKind::Generic(_) | ErrorKind::PathNotFound | ErrorKind::WatchNotFound | ErrorKind::InvalidConfig(_) => {
            false
        }
    }
}
