//! Volumes, host paths and content files as detached idmapped mounts: ids on disk are the container's own, so that
//! data outlives id ranges. Always nosuid and nodev, since container root writes there as host root. Runs in the
//! stage helper.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, OFlags};

use super::{copy, layers};
use crate::error::{Doing as _, Error, Result};
use crate::runtime::IdRange;
use crate::spec::launch::{LaunchMount, LaunchSource};
use crate::sys::mount::{self, Attr};
use crate::sys::path;

/// Written beside `data/` once a volume has been used: from then on, nothing is copied into it any more.
pub(crate) const USED: &str = "used";

/// The detached mount of a volume or a bind; `None` for content files, which share one.
///
/// # Errors
/// `BadContainer` for a host path that does not exist; `Unsupported` when its file system cannot show other ids; `Io`.
pub fn open(
    launch: &LaunchMount,
    root: BorrowedFd<'_>,
    ids: IdRange,
    userns: BorrowedFd<'_>,
) -> Result<Option<OwnedFd>> {
    let (path, recursive) = match &launch.source {
        LaunchSource::Volume { dir } => {
            fill_on_first_use(dir, root, &launch.target, ids)?;
            (dir.join("data"), false)
        }
        LaunchSource::Bind { path } => (path.clone(), true),
        LaunchSource::File { .. } => return Ok(None),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
            Error::BadContainer(format!("{} (mounted at {}) does not exist on the host", path.display(), launch.target))
        }
        other => Error::io(format!("open {}", path.display()), other),
    })?;
    let tree = mount::clone_tree(&source, "", recursive).doing(|| format!("copy the mount of {}", path.display()))?;
    let mut set = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV;
    if launch.read_only {
        set |= Attr::MOUNT_ATTR_RDONLY;
    }
    layers::idmap(tree.as_fd(), userns, set, recursive, &path.to_string_lossy())?;
    Ok(Some(tree))
}

/// The detached, read-only mount of the directory of content files.
///
/// # Errors
/// As [`open`].
pub fn open_files(dir: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let text = dir.to_string_lossy();
    let tree = mount::clone_tree(CWD, &text, false).doing(|| format!("copy the mount of {text}"))?;
    let set = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_RDONLY;
    layers::idmap(tree.as_fd(), userns, set, false, &text)?;
    Ok(tree)
}

/// The same for files in memory, which have the host's ids: not every kernel can map those.
///
/// # Errors
/// `Io`.
pub fn open_shifted_files(dir: &Path) -> Result<OwnedFd> {
    let text = dir.to_string_lossy();
    let doing = || format!("copy the mount of {text}");
    let tree = mount::clone_tree(CWD, &text, false).doing(doing)?;
    let set = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC | Attr::MOUNT_ATTR_RDONLY;
    mount::set_attributes(&tree, set, Attr::empty(), false).doing(doing)?;
    Ok(tree)
}

/// Copies the image's directory at `target` with owners and modes into a volume that nobody has used yet and that is
/// empty. Two containers that start at once take turns; a crash in the middle leaves the volume unused and empty.
///
/// # Errors
/// `Io`.
pub fn fill_on_first_use(volume: &Path, root: BorrowedFd<'_>, target: &str, ids: IdRange) -> Result<()> {
    let used = volume.join(USED);
    let doing = || format!("fill volume {}", volume.display());
    if used.try_exists().doing(doing)? {
        return Ok(());
    }
    let lock = File::open(volume).doing(doing)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).doing(doing)?;
    if used.try_exists().doing(doing)? {
        return Ok(());
    }
    let data = volume.join("data");
    let is_empty = match fs::read_dir(&data) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(&data).doing(doing)?;
            true
        }
        Err(error) => return Err(Error::io(doing(), error)),
    };
    let source = path::open_in_root(root, Path::new(target), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK);
    if let (true, Ok(source)) = (is_empty, source) {
        let fresh = volume.join("data.new");
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(doing(), error)),
            _ => {}
        }
        fs::create_dir(&fresh).doing(doing)?;
        let fresh_dir = File::open(&fresh).doing(doing)?;
        copy::tree(source.as_fd(), fresh_dir.as_fd(), ids).doing(doing)?;
        rustix::fs::syncfs(&fresh_dir).doing(doing)?;
        fs::rename(&fresh, &data).doing(doing)?;
    }
    File::create(&used).and_then(|file| file.sync_all()).doing(doing)?;
    lock.sync_all().doing(doing)
}
