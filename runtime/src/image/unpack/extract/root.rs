//! Paths inside the sandbox's root, resolved by descriptor. Nothing here can name something outside of it: the root is
//! the process's own root, and each look-up says IN_ROOT and NO_MAGICLINKS besides.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::super::DEPTH_MAX;
use super::super::report::Refusal;
use super::Outcome;

/// Longest path of an entry, in bytes: the kernel's PATH_MAX less its end mark.
const PATH_BYTES_MAX: usize = 4095;

/// The extraction's root, with the last parent looked up.
pub(super) struct Root {
    fd: OwnedFd,
    last: Option<(Vec<u8>, Rc<Parent>)>,
    /// New objects may get another mode than asked for: a directory has an access list for them.
    has_default_acl: bool,
    /// Every entry so far is where its path says and nothing was replaced by another.
    pub(super) is_exact: bool,
    /// Parents made where a whiteout was: they hide what is below them. For the extractor to take.
    pub(super) over_whiteouts: Vec<Vec<u8>>,
    /// Parents the archive did not name (so far).
    pub(super) implied: Vec<Vec<u8>>,
}

/// A directory that entries go into.
pub(super) struct Parent {
    fd: OwnedFd,
    /// New objects in it belong to us and have the mode asked for.
    pub(super) is_plain: bool,
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where an entry goes: an open parent and a single name in it.
pub(super) struct Place {
    pub(super) parent: Rc<Parent>,
    /// Empty for the root itself.
    pub(super) name: Vec<u8>,
    /// The cleaned path from the root, without a leading slash.
    pub(super) path: Vec<u8>,
}

impl Place {
    pub(super) fn parent_path(&self) -> Vec<u8> {
        self.path[..self.path.len() - self.name.len()].strip_suffix(b"/").unwrap_or_default().to_vec()
    }

    /// Another name in the same directory.
    pub(super) fn renamed(&self, name: &[u8]) -> Self {
        let mut path = self.parent_path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self { parent: Rc::clone(&self.parent), name: name.to_vec(), path }
    }
}

/// What was in the way.
#[derive(Default)]
pub(super) struct Cleared {
    pub(super) was_whiteout: bool,
}

/// What a directory gives new objects in it, acl(5).
pub(super) const DEFAULT_ACL: &str = "system.posix_acl_default";

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// The process's own root.
    pub(super) fn own() -> Outcome<OwnedFd> {
        rustix::fs::openat(rustix::fs::CWD, "/", DIR, Mode::empty())
            .map_err(|e| Refusal::io("open the root", &e.into()))
    }

    pub(super) fn of(fd: OwnedFd) -> Self {
        // where it cannot be asked, it may be there
        let asked = rustix::fs::fgetxattr(&fd, DEFAULT_ACL, &mut [0_u8; 0][..]);
        let has_default_acl = !matches!(asked, Err(Errno::NODATA | Errno::OPNOTSUPP));
        Self { fd, last: None, has_default_acl, is_exact: true, over_whiteouts: Vec::new(), implied: Vec::new() }
    }

    pub(super) fn reopen(&self) -> Outcome<OwnedFd> {
        self.fd.try_clone().map_err(|e| Refusal::io("open the root", &e))
    }

    pub(super) fn set_mode(&self, mode: u32) -> Outcome<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode)).map_err(|e| Refusal::io("set a mode", &e.into()))
    }

    /// Cleans a path from the archive and opens (making where missing) its parent.
    pub(super) fn place(&mut self, raw: &[u8]) -> Outcome<Place> {
        let parts = clean(raw)?;
        let Some((name, parents)) = parts.split_last() else {
            let parent = Rc::new(self.as_parent(self.reopen()?)?);
            return Ok(Place { parent, name: Vec::new(), path: Vec::new() });
        };
        let parent_path = parents.join(&b'/');
        let parent = match &self.last {
            Some((path, fd)) if *path == parent_path => Rc::clone(fd),
            _ => {
                let fd = self.parent(parents)?;
                let parent = Rc::new(self.as_parent(fd)?);
                self.last = Some((parent_path, Rc::clone(&parent)));
                parent
            }
        };
        Ok(Place { parent, name: name.to_vec(), path: parts.join(&b'/') })
    }

    /// The same for something that must be there; `None` when its parent is not.
    pub(super) fn existing_place(&self, raw: &[u8]) -> Outcome<Option<Place>> {
        let parts = clean(raw)?;
        let Some((name, parents)) = parts.split_last() else { return Ok(None) };
        let parent = match self.walk(&parents.join(&b'/'), DIR) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(Refusal::io("open a directory", &e.into())),
        };
        let parent = Rc::new(Parent { fd: parent, is_plain: false });
        Ok(Some(Place { parent, name: name.to_vec(), path: parts.join(&b'/') }))
    }

    /// The directory itself, links not followed at its end; `None` when it is gone or another thing by now.
    pub(super) fn existing_dir(&self, path: &[u8]) -> Outcome<Option<OwnedFd>> {
        match self.walk(path, DIR | OFlags::NOFOLLOW) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(Refusal::io("open a directory", &e.into())),
        }
    }

    fn walk(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.walk_by(path, flags, ResolveFlags::empty())
    }

    fn walk_by(&self, path: &[u8], flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)
    }

    /// Says that a directory has, from now on, a group or an access list for what is made in it.
    pub(super) fn note_heirs(&mut self, has_default_acl: bool) {
        self.has_default_acl |= has_default_acl;
        self.last = None;
    }

    fn as_parent(&self, fd: OwnedFd) -> Outcome<Parent> {
        let stat = rustix::fs::fstat(&fd).map_err(|e| Refusal::io("stat a directory", &e.into()))?;
        // set-group-id, and the mount option grpid, give a directory's group to what is made in it
        let is_plain = !self.has_default_acl && stat.st_gid == 0 && stat.st_mode & 0o2000 == 0;
        Ok(Parent { fd, is_plain })
    }

    fn parent(&mut self, parts: &[&[u8]]) -> Outcome<OwnedFd> {
        let mut path = parts.join(&b'/');
        let mut found = self.walk_by(&path, DIR, ResolveFlags::NO_SYMLINKS);
        if matches!(found, Err(Errno::LOOP)) {
            self.is_exact = false;
            found = self.walk(&path, DIR);
        }
        match found {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(Refusal::io("open a directory", &e.into())),
        }
        path.clear();
        let mut fd = self.reopen()?;
        for part in parts {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
            fd = match self.walk(&path, DIR) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parent(&fd, part, &path)?,
                Err(e) => return Err(Refusal::io("open a directory", &e.into())),
            };
        }
        Ok(fd)
    }

    /// A parent the archive did not name, or named as something else before.
    fn make_parent(&mut self, at: &OwnedFd, name: &[u8], path: &[u8]) -> Outcome<OwnedFd> {
        if let Some(stat) = self.stat_at(at, name)? {
            if FileType::from_raw_mode(stat.st_mode).is_char_device() {
                self.over_whiteouts.push(path.to_vec());
            }
            self.is_exact = false;
            remove_at(at, name, 0)?;
        }
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(at, name, mode).map_err(|e| Refusal::io("make a directory", &e.into()))?;
        self.implied.push(path.to_vec());
        self.walk(path, DIR).map_err(|e| Refusal::io("open a directory", &e.into()))
    }

    pub(super) fn stat(&self, place: &Place) -> Outcome<Option<Stat>> {
        self.stat_at(&place.parent, &place.name)
    }

    fn stat_at(&self, at: &impl AsFd, name: &[u8]) -> Outcome<Option<Stat>> {
        match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Refusal::io("stat", &e.into())),
        }
    }

    /// Removes whatever has this name.
    pub(super) fn clear(&mut self, place: &Place) -> Outcome<()> {
        match self.stat(place)? {
            None => Ok(()),
            Some(_) => {
                // a directory, or a link to one, may have been looked up as a parent
                self.last = None;
                self.is_exact = false;
                remove_at(&place.parent, &place.name, 0)
            }
        }
    }

    /// Removes whatever has this name, unless it is a directory.
    pub(super) fn clear_for_dir(&mut self, place: &Place) -> Outcome<Cleared> {
        match self.stat(place)? {
            Some(stat) if !FileType::from_raw_mode(stat.st_mode).is_dir() => {
                // the archive's own devices are never made, so this one is a whiteout of ours
                let was_whiteout = FileType::from_raw_mode(stat.st_mode).is_char_device();
                self.last = None;
                self.is_exact = false;
                remove_at(&place.parent, &place.name, 0)?;
                Ok(Cleared { was_whiteout })
            }
            _ => Ok(Cleared::default()),
        }
    }

    pub(super) fn make_dir(&self, place: &Place) -> Outcome<OwnedFd> {
        let failed = |e: Errno| Refusal::io("make a directory", &e.into());
        match rustix::fs::mkdirat(&place.parent, &*place.name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed(e)),
        }
        rustix::fs::openat(&place.parent, &*place.name, DIR | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)
    }

    /// A character device 0/0: what overlay takes for "not there" (and the kernel lets anyone make).
    pub(super) fn make_whiteout(&self, place: &Place) -> Outcome<()> {
        rustix::fs::mknodat(&place.parent, &*place.name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| Refusal::io("make a whiteout", &e.into()))
    }
}

/// Splits a path of an archive into names. A leading `/` and `.` parts mean nothing; `..` is refused.
fn clean(raw: &[u8]) -> Outcome<Vec<&[u8]>> {
    if raw.len() > PATH_BYTES_MAX {
        return Err(Refusal::Untrusted(format!("its path is longer than {PATH_BYTES_MAX} bytes")));
    }
    if raw.contains(&0) {
        return Err(Refusal::Untrusted("its path has a zero byte".into()));
    }
    let parts: Vec<&[u8]> = raw.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(Refusal::Untrusted("its path leads out of the root".into()));
    }
    if parts.len() > DEPTH_MAX {
        return Err(Refusal::Untrusted(format!("it is deeper than {DEPTH_MAX} directories")));
    }
    Ok(parts)
}

/// Removes a name and what is below it. Depth is bounded by what [`clean`] lets in.
fn remove_at(at: &impl AsFd, name: &[u8], depth: usize) -> Outcome<()> {
    let failed = |e: Errno| Refusal::io("replace an earlier entry", &e.into());
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth <= DEPTH_MAX * 2 => {}
        Err(e) => return Err(failed(e)),
    }
    let dir = rustix::fs::openat(at, name, DIR | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    for name in names {
        remove_at(&dir, &name, depth + 1)?;
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR).map_err(failed)
}
