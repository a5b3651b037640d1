//! What a writable layer, or the top layer of an image, changes of what is below it. One walk, by descriptor, in the order
//! of names; `diff` lists what it meets and `commit` packs it.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::merged::{Merged, is_opaque, is_whiteout};
use super::pack::{DIR, Owners, is, join, names};
use super::unpack::DEPTH_MAX;

/// Most changes that are listed.
pub(crate) const CHANGES_MAX: usize = 500_000;

/// One difference between two trees, in the manner of `docker diff`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// What happened to it.
    pub kind: ChangeKind,
    /// Absolute path inside; bytes that are no UTF-8 are replaced.
    pub path: String,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It was not there.
    #[serde(rename = "A")]
    Added,
    /// It was there and is different.
    #[serde(rename = "C")]
    Changed,
    /// It is not there any more; nor, for a directory, is what was in it.
    #[serde(rename = "D")]
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

impl Change {
    pub(crate) fn new(kind: ChangeKind, path: &[u8]) -> Self {
        Self { kind, path: format!("/{}", String::from_utf8_lossy(path)) }
    }
}

/// Collects changes up to the bound.
pub(crate) fn push(list: &mut Vec<Change>, change: Change) -> io::Result<()> {
    if list.len() >= CHANGES_MAX {
        return Err(io::Error::other(format!("more than {CHANGES_MAX} files differ")));
    }
    list.push(change);
    Ok(())
}

/// By path, as people read lists.
pub(crate) fn sort(list: &mut [Change]) {
    list.sort_by(|a, b| a.path.cmp(&b.path));
}

/// Something the walk meets. Directories come before what is in them.
pub(crate) enum Met<'a> {
    /// A directory that is new, or has other attributes, or holds something that changed.
    Directory { dir: BorrowedFd<'a>, path: &'a [u8], kind: ChangeKind },
    /// What was in the directory below is hidden: everything that is there now comes after this.
    Opaque { path: &'a [u8] },
    /// Anything else that is new or different.
    Entry { parent: BorrowedFd<'a>, name: &'a CStr, path: &'a [u8], stat: &'a Stat, kind: ChangeKind },
    /// It is gone by a mark of its own.
    Whiteout { path: &'a [u8] },
    /// It is gone since the directory above hides it.
    Hidden { path: &'a [u8] },
}

/// Lists what is met.
pub(crate) fn list(met: &Met<'_>, changes: &mut Vec<Change>) -> io::Result<()> {
    match met {
        Met::Directory { path: [], .. } => Ok(()),
        Met::Directory { path, kind, .. } | Met::Entry { path, kind, .. } => push(changes, Change::new(*kind, path)),
        Met::Whiteout { path } | Met::Hidden { path } => push(changes, Change::new(ChangeKind::Deleted, path)),
        Met::Opaque { .. } => Ok(()),
    }
}

/// A layer to walk.
pub(crate) struct Walk<'a> {
    /// Whose ids its files have.
    pub(crate) owners: Owners,
    /// What is not to be told of.
    pub(crate) places: &'a Places,
}

/// Where a runtime puts something into a container: what it leaves there in the writable layer is nobody's change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// Mount points, without a leading slash: made where missing, as empty files or directories.
    pub(crate) mounts: BTreeSet<Vec<u8>>,
    /// Links at mount points that lead here are the runtime's own.
    pub(crate) links_to: Vec<u8>,
}

/// Directories on the way down that nobody was told of yet.
struct Pending<'p> {
    above: Option<&'p Pending<'p>>,
    dir: BorrowedFd<'p>,
    path: &'p [u8],
    kind: ChangeKind,
    told: std::cell::Cell<bool>,
}

impl Pending<'_> {
    fn tell(&self, tell: &mut dyn FnMut(Met<'_>) -> io::Result<()>) -> io::Result<()> {
        if self.told.replace(true) {
            return Ok(());
        }
        if let Some(above) = self.above {
            above.tell(tell)?;
        }
        tell(Met::Directory { dir: self.dir, path: self.path, kind: self.kind })
    }
}

/// What the layers below have of a directory.
#[derive(Clone, Copy)]
struct Below<'b> {
    merged: &'b Merged<'b>,
    /// A directory of the layer hides it.
    is_cut: bool,
    depth: usize,
}

impl Walk<'_> {
    /// Walks the layer in `top` over `below`.
    ///
    /// # Errors
    /// The kernel's, those of `tell`; `Other` for what an image cannot hold, with the reason.
    pub(crate) fn walk(
        &self,
        top: BorrowedFd<'_>,
        below: &Merged<'_>,
        tell: &mut dyn FnMut(Met<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let root = Pending { above: None, dir: top, path: b"", kind: ChangeKind::Changed, told: false.into() };
        if !self.is_unchanged(top, below)? {
            root.tell(tell)?;
        }
        self.directory(&root, Below { merged: below, is_cut: false, depth: 0 }, tell)
    }

    fn directory(
        &self,
        here: &Pending<'_>,
        below: Below<'_>,
        tell: &mut dyn FnMut(Met<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if below.depth > DEPTH_MAX {
            return Err(io::Error::other(format!("it is deeper than {DEPTH_MAX} directories")));
        }
        refuse_references(here.dir, here.path)?;
        let below = Below { is_cut: below.is_cut || self.opaque(here, below.merged, tell)?, ..below };
        let names = names(here.dir)?;
        if below.is_cut {
            for name in below.merged.entries()?.keys().filter(|name| names.binary_search(name).is_err()) {
                here.tell(tell)?;
                tell(Met::Hidden { path: &join(here.path, name.to_bytes()) })?;
            }
        }
        for name in &names {
            match rustix::fs::statat(here.dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                other => self.entry(here, name, &other?, below, tell)?,
            }
        }
        Ok(())
    }

    /// Whether a mark hides what is below; told when there is something to hide.
    fn opaque(
        &self,
        here: &Pending<'_>,
        below: &Merged<'_>,
        tell: &mut dyn FnMut(Met<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        if !is_opaque(here.dir) {
            return Ok(false);
        }
        here.tell(tell)?;
        if below.open()?.is_some() {
            tell(Met::Opaque { path: here.path })?;
        }
        Ok(true)
    }

    fn entry(
        &self,
        here: &Pending<'_>,
        name: &CStr,
        stat: &Stat,
        below: Below<'_>,
        tell: &mut dyn FnMut(Met<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = join(here.path, name.to_bytes());
        let was = below.merged.get(name)?;
        if is_whiteout(stat) {
            if was.is_none() || below.is_cut {
                return Ok(());
            }
            here.tell(tell)?;
            return tell(Met::Whiteout { path: &path });
        }
        let kind = if was.is_some() { ChangeKind::Changed } else { ChangeKind::Added };
        if !is(stat, FileType::Directory) {
            if self.places.mounts.contains(&path) && self.is_placed(here.dir, name, stat, was.is_some()) {
                return Ok(());
            }
            here.tell(tell)?;
            return tell(Met::Entry { parent: here.dir, name, path: &path, stat, kind });
        }
        let dir = match rustix::fs::openat(here.dir, name, DIR, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other?,
        };
        let deeper = below.merged.child(name)?;
        let next = Pending { above: Some(here), dir: dir.as_fd(), path: &path, kind, told: false.into() };
        let is_made_for_us = was.is_none() && self.leads_to_mount_point(&path);
        if !is_made_for_us && !self.is_unchanged(dir.as_fd(), &deeper)? {
            next.tell(tell)?;
        }
        self.directory(&next, Below { merged: &deeper, depth: below.depth + 1, ..below }, tell)
    }

    /// Whether a directory of the layer says nothing that the one below does not say: it may be there only for what is in
    /// it. The time of one that a mount point was made in is the runtime's doing.
    fn is_unchanged(&self, dir: BorrowedFd<'_>, below: &Merged<'_>) -> io::Result<bool> {
        let Some(was) = below.open()? else { return Ok(false) };
        let (now, before) = (rustix::fs::fstat(dir)?, rustix::fs::fstat(&was)?);
        let is_ours = below.path().is_empty() || self.holds_mount_point(below.path());
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        let owner = (self.owners.own(now.st_uid), self.owners.own(now.st_gid));
        Ok(owner == (before.st_uid, before.st_gid)
            && now.st_mode == before.st_mode
            && (is_ours || time(&now) == time(&before))
            && self.owners.attributes(dir)? == Owners::default().attributes(was.as_fd())?)
    }

    /// Whether what is at a mount point is the runtime's: empty where there was nothing, or a link of its own.
    fn is_placed(&self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat, was_there: bool) -> bool {
        if !is(stat, FileType::Symlink) {
            return stat.st_size == 0 && !was_there;
        }
        let link = rustix::fs::readlinkat(dir, name, Vec::new());
        !self.places.links_to.is_empty() && link.is_ok_and(|link| link.to_bytes().starts_with(&self.places.links_to))
    }

    fn leads_to_mount_point(&self, path: &[u8]) -> bool {
        self.places.mounts.contains(path) || self.below_it(path).next().is_some()
    }

    fn holds_mount_point(&self, path: &[u8]) -> bool {
        self.below_it(path).any(|point| !point[path.len() + 1..].contains(&b'/'))
    }

    fn below_it<'s>(&'s self, path: &[u8]) -> impl Iterator<Item = &'s Vec<u8>> {
        let start = join(path, b"");
        let from = start.clone();
        self.places.mounts.range(from..).take_while(move |point| point.starts_with(&start))
    }
}

/// Some kernels' overlay writes down that a directory was renamed, or that only a file's owner changed, instead of doing it:
/// such a layer means nothing without the ones below, so it is no layer of an image.
fn refuse_references(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    let mut value = [0; 0];
    match rustix::fs::fgetxattr(dir, c"trusted.overlay.redirect", &mut value) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        _ => Err(io::Error::other(format!(
            "/{} was renamed by reference: this kernel's overlay has redirect_dir on \
             (echo N > /sys/module/overlay/parameters/redirect_dir, then make the container again)",
            String::from_utf8_lossy(path)
        ))),
    }
}
