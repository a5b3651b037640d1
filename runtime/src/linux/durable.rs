//! Files and directories that are whole or not there, after a power cut too: write beside, sync, rename, sync the
//! parent. And the other way round: moved out of sight first, deleted after.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Doing, Error, Result};
use crate::layout::make_private_dir;

/// What begins so is nobody's: half made or half deleted.
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// Makes `parent/name` a directory holding `file`, all at once.
///
/// # Errors
/// `Conflict` when it exists, `Io`.
pub(super) fn publish_dir<T: Serialize>(what: &str, parent: &Path, name: &str, file: &str, content: &T) -> Result<()> {
    let new = parent.join(format!("{NEW}{name}"));
    let target = parent.join(name);
    let doing = || format!("make {}", target.display());
    let _ = std::fs::remove_dir_all(&new);
    make_private_dir(&new)?;
    write_synced(&new.join(file), content)?;
    match rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &target, rustix::fs::RenameFlags::NOREPLACE)
    {
        Ok(()) => sync_dir(parent),
        Err(rustix::io::Errno::EXIST) => {
            let _ = std::fs::remove_dir_all(&new);
            Err(Error::Conflict(format!("{what} `{name}` exists already")))
        }
        Err(error) => Err(error).doing(doing),
    }
}

/// Replaces a file.
///
/// # Errors
/// `Io`.
pub(super) fn replace_file<T: Serialize>(path: &Path, content: &T) -> Result<()> {
    let temporary = path.with_extension("tmp");
    write_synced(&temporary, content)?;
    std::fs::rename(&temporary, path).doing(|| format!("rename {} to {}", temporary.display(), path.display()))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Reads a file; `None` when it is not there.
///
/// # Errors
/// `Io`; `InvalidData` inside when it does not parse.
pub(super) fn read_file<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let doing = || format!("read {}", path.display());
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(doing)?,
    };
    serde_json::from_slice(&bytes).doing(doing).map(Some)
}

/// Moves `parent/name` out of sight, so that the name is free and it is gone for good; then deletes it. `Ok(false)` when
/// there is none. What cannot be deleted now, [`sweep`] deletes later.
///
/// # Errors
/// `Io` when it cannot be moved.
pub(super) fn remove_dir(parent: &Path, name: &str) -> Result<bool> {
    let path = parent.join(name);
    let gone = parent.join(format!("{GONE}{name}"));
    let doing = || format!("remove {}", path.display());
    if gone.exists() {
        let _ = std::fs::remove_dir_all(&gone);
    }
    match std::fs::rename(&path, &gone) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.doing(doing)?,
    }
    if let Err(error) = std::fs::remove_dir_all(&gone) {
        tracing::warn!(dir = %gone.display(), %error, "left for the next sweep");
    }
    Ok(true)
}

/// Names of the directories in `parent` that are somebody's.
///
/// # Errors
/// `Io`.
pub(super) fn list_dirs(parent: &Path) -> Result<Vec<String>> {
    let doing = || format!("read {}", parent.display());
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(doing)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.doing(doing)?.file_name();
        names.extend(name.to_str().filter(|name| !name.starts_with('.')).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Deletes what a crash left half made or half deleted. Only for whoever holds the data root alone.
pub(super) fn sweep(parent: &Path) {
    let is_leftover = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(NEW) || name.starts_with(GONE));
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let left: Vec<PathBuf> =
        entries.filter(|entry| is_leftover(&entry.file_name())).map(|entry| entry.path()).collect();
    for path in left {
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::warn!(dir = %path.display(), %error, "left for the next sweep");
        }
    }
}

fn write_synced<T: Serialize>(path: &Path, content: &T) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec_pretty(content).doing(doing)?;
    let mut file = File::create(path).doing(doing)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).doing(doing)
}

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).doing(|| format!("sync {}", path.display()))
}
