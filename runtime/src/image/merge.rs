//! An image's whole root file system as one plain directory: its layers laid over each other, whiteouts applied. By
//! descriptor only, so that no link of a layer leads anywhere.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::merged::is_opaque;
use super::pack::DIR;
use super::unpack::DEPTH_MAX;
use super::{Digest, Store};
use crate::error::{Doing, Error, Result};

const XATTR_BYTES_MAX: usize = 64 << 10;

/// Files of one layer with several names: where the first one was put, by inode.
type Links = BTreeMap<u64, (OwnedFd, Vec<u8>)>;

impl Store {
    /// Writes the root file system of an image into `dest`, which is made, or is there and empty. Owners, modes, times,
    /// attributes and hard links are kept. It is made beside `dest` and on the disk before it gets that name, so that after
    /// a power cut it is there whole or not at all; an empty `dest` that something is mounted on is filled as it is.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when `dest` holds something; `Io`. `dest` is then as it was, unless something is mounted there.
    pub fn unpack_image(&self, digest: &Digest, dest: &Path) -> Result<()> {
        let dirs = self.layer_dirs(digest)?;
        let record = self.record(digest)?;
        let _lease = self.lease(record.diff_ids.clone());
        let doing = || format!("unpack into {}", dest.display());
        match std::fs::read_dir(dest).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(Error::Conflict(format!("{} is not empty; nothing was changed", dest.display())));
            }
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(doing(), error)),
        }
        let (Some(parent), Some(name)) = (dest.parent(), dest.file_name()) else { return fill(&dirs, dest) };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        std::fs::create_dir_all(parent).doing(doing)?;
        let staged = Staged::new(parent.join(format!(".{}.boxship-part", name.to_string_lossy())))?;
        fill(&dirs, &staged.path)?;
        match std::fs::rename(&staged.path, dest) {
            // a mount point keeps its place
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => fill(&dirs, dest),
            renamed => renamed.doing(doing).and_then(|()| super::store::sync_dir(parent)),
        }
    }
}

/// A directory beside the one wanted. What an earlier process left there goes; one that is at work is left alone.
struct Staged {
    path: PathBuf,
    /// Held as long as somebody writes there.
    _lock: File,
}

impl Staged {
    fn new(path: PathBuf) -> Result<Self> {
        let doing = || format!("unpack into {}", path.display());
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Error::io(doing(), error)),
            Ok(()) | Err(_) => {}
        }
        let lock = File::from(rustix::fs::open(&path, DIR | OFlags::NOFOLLOW, Mode::empty()).doing(doing)?);
        if lock.try_lock().is_err() {
            return Err(Error::Conflict(format!("another process unpacks into {}", path.display())));
        }
        for entry in std::fs::read_dir(&path).doing(doing)? {
            let name = CString::new(entry.doing(doing)?.file_name().into_encoded_bytes()).map_err(io::Error::from);
            remove(lock.as_fd(), &name.doing(doing)?, 0).doing(doing)?;
        }
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // gone when it got its name
        super::store::stage::remove_tree(&self.path);
    }
}

/// Lays the layers, topmost first, over each other in an empty directory, and waits until they are on the disk.
fn fill(dirs: &[PathBuf], dest: &Path) -> Result<()> {
    let doing = || format!("unpack into {}", dest.display());
    let to = rustix::fs::open(dest, DIR, Mode::empty()).doing(doing)?;
    for dir in dirs.iter().rev() {
        let from = rustix::fs::open(dir, DIR, Mode::empty()).doing(|| format!("open {}", dir.display()))?;
        merge(from.as_fd(), to.as_fd(), &mut Links::new(), 0).doing(doing)?;
    }
    rustix::fs::syncfs(&to).doing(doing)
}

/// Lays the content of one directory over another.
fn merge(from: BorrowedFd<'_>, to: BorrowedFd<'_>, links: &mut Links, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            entry_over(from, to, name, links, depth)?;
        }
    }
    attributes(from, to, &rustix::fs::fstat(from)?)
}

fn entry_over(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    links: &mut Links,
    depth: usize,
) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
        return remove(to, name, depth);
    }
    if kind == FileType::Directory {
        let source = rustix::fs::openat(from, name, DIR, Mode::empty())?;
        if is_opaque(source.as_fd()) || !is_directory(to, name) {
            remove(to, name, depth)?;
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
        }
        let target = rustix::fs::openat(to, name, DIR, Mode::empty())?;
        return merge(source.as_fd(), target.as_fd(), links, depth + 1);
    }
    remove(to, name, depth)?;
    if stat.st_nlink > 1 && kind == FileType::RegularFile {
        if let Some((dir, first)) = links.get(&stat.st_ino) {
            return Ok(rustix::fs::linkat(dir, first.as_slice(), to, name, AtFlags::empty())?);
        }
        links.insert(stat.st_ino, (to.try_clone_to_owned()?, name.to_bytes().to_vec()));
    }
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = File::from(rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?);
            io::copy(&mut source, &mut target)?;
            attributes(source.as_fd(), target.as_fd(), &stat)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), to, name)?;
            own(to, name, &stat)?;
            Ok(rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
            own(to, name, &stat)?;
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
            Ok(rustix::fs::utimensat(to, name, &times(&stat), AtFlags::empty())?)
        }
        // no layer of ours has any
        FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Socket
        | FileType::Directory
        | FileType::Unknown => Ok(()),
    }
}

/// Takes away what a lower layer put there, if anything.
fn remove(to: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !is_directory(to, name) {
        return match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        };
    }
    let dir = rustix::fs::openat(to, name, DIR, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        names.push(entry?.file_name().to_owned());
    }
    for child in names.iter().filter(|n| !matches!(n.to_bytes(), b"." | b"..")) {
        remove(dir.as_fd(), child, depth + 1)?;
    }
    Ok(rustix::fs::unlinkat(to, name, AtFlags::REMOVEDIR)?)
}

fn is_directory(at: BorrowedFd<'_>, name: &CStr) -> bool {
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

/// Owner, then mode (a change of owner clears setuid), then extended attributes, then times.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    own(to, c"", stat)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0_u8; XATTR_BYTES_MAX];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = vec![0_u8; XATTR_BYTES_MAX];
    // overlay's own marks mean nothing in a plain directory
    let wanted = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.overlay.");
    for name in names[..length].split(|byte| *byte == 0).filter(wanted) {
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::chownat(to, name, Some(uid), Some(gid), flags)?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |secs, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
