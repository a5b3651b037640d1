//! Paths inside a root that somebody else filled: openat2 only (5.6), never a string joined to a root.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

/// Opens `path` as a process whose root is `root` would: links stay inside, magic links are refused.
///
/// # Errors
/// The kernel's.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    // EAGAIN: a rename raced with the walk (openat2(2)); a bounded number of tries is what the manual asks for.
    for _ in 0..32 {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Opens what is literally at `path` below `dir`: no links at all, no way out.
///
/// # Errors
/// The kernel's; ELOOP for a link.
pub fn open_beneath(dir: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// What to make where a mount point is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0644, in directories of mode 0755.
    File,
}

/// Opens `path` in `root` (O_PATH), making what is missing of it.
///
/// # Errors
/// The kernel's; `InvalidInput` for a path without a name.
pub fn open_or_make(root: impl AsFd, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    match open_in_root(&root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (parent, name) = split(path)?;
    let parent = make_directories(root.as_fd(), parent)?;
    match missing {
        Missing::Directory => make_directory(parent.as_fd(), name),
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
            Ok(rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
        }
    }
}

/// Opens a directory of `root` (O_PATH), making what is missing of it. A link that leads nowhere is NotFound.
///
/// # Errors
/// The kernel's.
pub fn make_directories(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (parent, name) = split(path)?;
    let parent = make_directories(root, parent)?;
    make_directory(parent.as_fd(), name)
}

fn make_directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A dangling link of this name: EEXIST above, ENOTDIR or ELOOP here.
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match path.components().next_back() {
        Some(Component::Normal(name)) => Ok((path.parent().unwrap_or(Path::new("/")), name)),
        Some(Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_)) | None => {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }
}

/// Whether the file behind an O_PATH descriptor is a directory.
///
/// # Errors
/// The kernel's.
pub fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

/// The id of the mount a descriptor is on (statx, 5.8).
///
/// # Errors
/// The kernel's.
pub fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let answer = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::MNT_ID)?;
    Ok(answer.stx_mnt_id)
}

/// Reads a regular file of a root whole, at most `bytes_max` bytes; `None` when it is not there or no regular file.
///
/// # Errors
/// The kernel's; `FileTooLarge` above the bound.
pub fn read_in_root(root: impl AsFd, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    // NONBLOCK: the file may be a FIFO that nobody ever writes.
    let fd = match open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = std::fs::File::from(fd);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_the_root_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("passwd"), "inside").unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let read = read_in_root(&root, Path::new("/out/../out/passwd"), 100).unwrap().unwrap();
        assert_eq!(read, b"inside");
        assert!(read_in_root(&root, Path::new("/etc/passwd"), 100).unwrap().is_none());
        assert!(read_in_root(&root, Path::new("/passwd"), 3).is_err());
    }

    #[test]
    fn missing_mount_points_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let fd = open_or_make(&root, Path::new("/a/b/c"), Missing::Directory).unwrap();
        assert!(is_directory(fd).unwrap());
        let fd = open_or_make(&root, Path::new("/a/b/f"), Missing::File).unwrap();
        assert!(!is_directory(fd).unwrap());
        assert!(dir.path().join("a/b/f").is_file());
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert!(open_or_make(&root, Path::new("/dangling"), Missing::Directory).is_err());
        assert!(open_or_make(&root, Path::new("/a/../../../x"), Missing::Directory).is_ok());
        assert!(dir.path().join("x").is_dir());
    }
}
