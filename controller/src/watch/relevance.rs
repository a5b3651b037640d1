//! Which events can mean a change of the manifests, and which directories must be watched to hear them.
//!
//! Relevance is a filter against needless wake-ups, not a decision: what it lets pass is compared by content, and what
//! it wrongly drops is found by the resync.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, Event, EventKind, ModifyKind};

use super::Shared;
use crate::manifest::Scan;

/// What the thread that hears events knows.
#[derive(Debug, Clone)]
pub(super) struct Relevance(Shared<Known>);

#[derive(Debug, Default)]
struct Known {
    root: PathBuf,
    /// Files whose content counts, as named and as they really are.
    files: BTreeSet<PathBuf>,
    /// Directories that are watched.
    directories: BTreeSet<PathBuf>,
}

impl Relevance {
    pub(super) fn new(root: &Path) -> Self {
        Self(Arc::new(Mutex::new(Known { root: root.to_owned(), ..Known::default() })))
    }

    pub(super) fn set(&self, scan: &Scan, file_refs: &BTreeSet<String>) {
        let named = scan.files.iter().cloned().chain(file_refs.iter().map(PathBuf::from));
        let mut files: BTreeSet<PathBuf> = BTreeSet::new();
        for file in named {
            files.extend(std::fs::canonicalize(&file).ok());
            files.insert(file);
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.directories.clone_from(&scan.directories);
        known.files = files;
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        if event.need_rescan() {
            return true;
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            // Our own scans open and read: those must never wake us.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Data(_)) => {
                event.paths.iter().any(|path| known.is_file(path))
            }
            EventKind::Access(_) => false,
            EventKind::Any | EventKind::Other | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) => {
                event.paths.is_empty() || event.paths.iter().any(|path| known.is_name(path))
            }
        }
    }
}

impl Known {
    /// Content that counts was written.
    fn is_file(&self, path: &Path) -> bool {
        self.files.contains(path) || (is_yaml(path) && !is_hidden(path))
    }

    /// A name came, went or changed that counts or can lead to what counts.
    fn is_name(&self, path: &Path) -> bool {
        if self.is_file(path) || self.directories.contains(path) || self.root.starts_with(path) {
            return true;
        }
        // `..data` is how Kubernetes' volumes are swapped.
        let swapped = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."));
        let below = path.starts_with(&self.root) || self.directories.iter().any(|d| path.starts_with(d));
        let leads_somewhere = path.extension().is_none() || path.is_dir();
        swapped || (below && !is_hidden(path) && leads_somewhere)
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// The directories to watch: those below the root, the one that holds the root's name, and those of every file that
/// counts, as named and as it really is. Never what containers write to.
pub(super) fn directories(
    root: &Path,
    scan: &Scan,
    file_refs: &BTreeSet<String>,
    bind_paths: &BTreeSet<String>,
) -> BTreeSet<PathBuf> {
    let mut wanted = scan.directories.clone();
    let files = scan.files.iter().cloned().chain(file_refs.iter().map(PathBuf::from));
    for file in files {
        let real = std::fs::canonicalize(&file).ok();
        let both = [Some(file), real].into_iter().flatten();
        wanted.extend(both.filter_map(|path| path.parent().map(Path::to_owned)));
    }
    let written = |directory: &Path| {
        let below = bind_paths.iter().map(Path::new).filter(|bind| !root.starts_with(bind));
        below.into_iter().any(|bind| directory.starts_with(bind))
    };
    wanted.retain(|directory| !written(directory));
    // The root may be a symlink that is swapped, or not exist yet: whoever holds its name is told.
    let holder = root.ancestors().skip(1).find(|directory| directory.is_dir());
    wanted.extend(holder.map(Path::to_owned));
    wanted
}
