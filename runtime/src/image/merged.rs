//! Layers laid over each other, looked into without a mount: which layer has a name, what is hidden, what merges. Opens by
//! descriptor below each layer, no link followed; holds only the layers' own directories open, however deep one looks.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::pack::{DIR, is, join, names};
use crate::error::{Doing as _, Result};
use crate::sys::path::open_beneath;

/// The layers, topmost first.
pub(crate) struct Layers(Vec<OwnedFd>);

impl Layers {
    /// Opens them.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn open(dirs: &[PathBuf]) -> Result<Self> {
        let open =
            |dir: &PathBuf| rustix::fs::open(dir, DIR, Mode::empty()).doing(|| format!("open layer {}", dir.display()));
        dirs.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// The merged root directory.
    pub(crate) fn root(&self) -> Merged<'_> {
        Merged { layers: &self.0, parts: (0..self.0.len()).collect(), path: Vec::new() }
    }
}

/// One directory of the merged tree.
#[derive(Clone)]
pub(crate) struct Merged<'a> {
    layers: &'a [OwnedFd],
    /// The layers that have a part of it, topmost first. Empty: there is no such directory.
    parts: Vec<usize>,
    /// From the root, without a leading slash.
    path: Vec<u8>,
}

impl<'a> Merged<'a> {
    /// What `name` is here.
    pub(crate) fn get(&self, name: &CStr) -> io::Result<Option<Stat>> {
        for part in &self.parts {
            let dir = self.open_part(*part)?;
            match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                Ok(stat) if is_whiteout(&stat) => return Ok(None),
                other => return Ok(Some(other?)),
            }
        }
        Ok(None)
    }

    /// The directory `name` of this one; one without parts when it is none.
    pub(crate) fn child(&self, name: &CStr) -> io::Result<Self> {
        let mut child = Self { layers: self.layers, parts: Vec::new(), path: join(&self.path, name.to_bytes()) };
        for part in &self.parts {
            let dir = self.open_part(*part)?;
            match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                Ok(stat) if !is(&stat, FileType::Directory) => break,
                other => {
                    other?;
                    child.parts.push(*part);
                    if is_opaque(rustix::fs::openat(&dir, name, DIR, Mode::empty())?.as_fd()) {
                        break;
                    }
                }
            }
        }
        Ok(child)
    }

    /// Every name in it, with what it is.
    pub(crate) fn entries(&self) -> io::Result<BTreeMap<CString, Stat>> {
        let mut all: BTreeMap<CString, Option<Stat>> = BTreeMap::new();
        for part in &self.parts {
            let dir = self.open_part(*part)?;
            for name in names(dir.as_fd())? {
                if let std::collections::btree_map::Entry::Vacant(free) = all.entry(name) {
                    let stat = rustix::fs::statat(&dir, free.key().as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
                    free.insert((!is_whiteout(&stat)).then_some(stat));
                }
            }
        }
        Ok(all.into_iter().filter_map(|(name, stat)| Some((name, stat?))).collect())
    }

    /// Opens the directory itself: its topmost part, which says whose it is.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        self.parts.first().map(|part| self.open_part(*part)).transpose()
    }

    /// Opens a file of it.
    pub(crate) fn open_file(&self, name: &CStr) -> io::Result<OwnedFd> {
        for part in &self.parts {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::openat(self.open_part(*part)?, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                other => return Ok(other?),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Where a link of it leads.
    pub(crate) fn link(&self, name: &CStr) -> io::Result<Vec<u8>> {
        for part in &self.parts {
            match rustix::fs::readlinkat(self.open_part(*part)?, name, Vec::new()) {
                Err(Errno::NOENT) => {}
                other => return Ok(other?.into_bytes()),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// The same directories of the same layers, by inode: equal without a look inside.
    pub(crate) fn is_same(&self, other: &Self) -> io::Result<bool> {
        if self.parts.len() != other.parts.len() || self.parts.is_empty() {
            return Ok(false);
        }
        for (mine, theirs) in self.parts.iter().zip(&other.parts) {
            let (mine, theirs) =
                (rustix::fs::fstat(self.open_part(*mine)?)?, rustix::fs::fstat(other.open_part(*theirs)?)?);
            if (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    fn open_part(&self, part: usize) -> io::Result<OwnedFd> {
        let path: &[u8] = if self.path.is_empty() { b"." } else { &self.path };
        open_beneath(&self.layers[part], Path::new(OsStr::from_bytes(path)), OFlags::RDONLY | OFlags::DIRECTORY)
    }
}

/// Overlay's mark for "not there": a character device 0/0 (Documentation/filesystems/overlayfs.rst).
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    is(stat, FileType::CharacterDevice) && stat.st_rdev == 0
}

/// Overlay's mark for "hides the directory below".
pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    rustix::fs::fgetxattr(dir, c"trusted.overlay.opaque", &mut value).is_ok_and(|n| n == 1) && value == *b"y"
}
