//! Waiting for git: while `.git/index.lock` exists a checkout or pull is rewriting the tree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::clock::boot_ms;
use tokio::time::sleep;

/// Between two looks at a lock; only while there is one.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until no lock is left, at most `max`; whether there was one to wait for.
pub(super) async fn wait(root: &Path, max: Duration) -> bool {
    let locks = locks(root);
    let locked = || locks.iter().find(|lock| lock.exists());
    let deadline_ms = boot_ms().saturating_add(u64::try_from(max.as_millis()).unwrap_or(u64::MAX));
    let mut waited = false;
    while let Some(lock) = locked() {
        if boot_ms() >= deadline_ms {
            tracing::warn!(lock = %lock.display(), "still there after {max:?}; is it left behind by a crash? going on");
            return false;
        }
        waited = true;
        sleep(LOOK).await;
    }
    waited
}

/// Where a lock would be: of the repository the root is in, and of repositories directly below it.
fn locks(root: &Path) -> Vec<PathBuf> {
    let real = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let above = real.ancestors().map(Path::to_owned).find(|directory| directory.join(".git").exists());
    let below = std::fs::read_dir(&real).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    above
        .into_iter()
        .chain(below)
        .filter_map(|directory| git_dir(&directory))
        .map(|git| git.join("index.lock"))
        .collect()
}

/// `.git` itself, or what it points to (worktrees and submodules: `gitdir: PATH`).
fn git_dir(directory: &Path) -> Option<PathBuf> {
    let git = directory.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let pointer = std::fs::read_to_string(&git).ok()?;
    Some(directory.join(pointer.strip_prefix("gitdir:")?.trim()))
}
