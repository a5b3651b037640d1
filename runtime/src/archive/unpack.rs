//! An archive unpacked into a directory by descriptor: no entry leaves it, no link in it is followed. A directory that is
//! there stays, a file that is there is replaced, and neither becomes the other.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::{Copied, Owner};
use crate::ids::{ACL, CAPABILITY};
use crate::sys::path::open_beneath;

/// Deepest path, in names: no deeper than layers may be.
const DEPTH_MAX: usize = 128;
/// Largest extended attribute taken, in bytes: the kernel's own bound.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// What is a hole if it is all zeros, in bytes: the block of most file systems, many times.
const HOLE_BYTES: usize = 64 << 10;
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// Unpacks everything in `input` into `directory`.
///
/// # Errors
/// The kernel's, with the entry's name; `InvalidData` for what is no archive or wants to leave the directory. Entries before
/// the bad one are there then.
pub(super) fn unpack(input: &mut dyn Read, directory: BorrowedFd<'_>, owner: Owner) -> io::Result<Copied> {
    let mut copied = Copied::default();
    // times of directories change with what comes into them
    let mut later: BTreeMap<PathBuf, (OwnedFd, Timespec)> = BTreeMap::new();
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        let path = clean(&entry.path_bytes())?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if path.as_os_str().is_empty() {
            // The directory itself: whose it is said to be counts where everything is taken as said.
            if owner == Owner::AsSaid && entry.header().entry_type().is_dir() {
                let said = Said::read(&mut entry)?;
                said.apply(directory, owner)?;
                later.insert(path, (directory.try_clone_to_owned()?, said.time));
            }
            continue;
        }
        let made = one(&mut entry, directory, &path, owner).map_err(named)?;
        match made {
            Made::Directory(fd, time) => drop(later.insert(path, (fd, time))),
            Made::Other => {}
            Made::LeftOut => copied.left_out += 1,
        }
        // one descriptor for each directory under way is enough
        if later.len() > 64 {
            set_times(&mut later)?;
        }
    }
    set_times(&mut later)?;
    Ok(copied)
}

enum Made {
    Directory(OwnedFd, Timespec),
    Other,
    LeftOut,
}

fn set_times(later: &mut BTreeMap<PathBuf, (OwnedFd, Timespec)>) -> io::Result<()> {
    for (fd, time) in std::mem::take(later).into_values() {
        rustix::fs::futimens(fd, &Timestamps { last_access: time, last_modification: time })?;
    }
    Ok(())
}

/// Its names; a leading `/` and `.` mean nothing, `..` is refused.
fn clean(raw: &[u8]) -> io::Result<PathBuf> {
    let refuse = |why: &str| {
        let shown = String::from_utf8_lossy(raw).escape_debug().to_string();
        io::Error::new(io::ErrorKind::InvalidData, format!("entry `{shown}` {why}"))
    };
    let names: Vec<&[u8]> = raw.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&&b".."[..]) || raw.contains(&0) {
        return Err(refuse("leads out of where it is unpacked"));
    }
    if names.len() > DEPTH_MAX {
        return Err(refuse("is too deep"));
    }
    Ok(names.into_iter().map(OsStr::from_bytes).collect())
}

fn one(
    entry: &mut tar::Entry<'_, impl Read>,
    directory: BorrowedFd<'_>,
    path: &Path,
    owner: Owner,
) -> io::Result<Made> {
    let parent = make_parents(directory, path.parent().unwrap_or(Path::new("")))?;
    let name = path.file_name().unwrap_or_default().to_owned();
    let kind = entry.header().entry_type();
    let said = Said::read(entry)?;
    if kind.is_dir() {
        match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) if is_directory(&parent, &name) => {}
            Err(Errno::EXIST) => return Err(io::Error::other("it is there and no directory; it was not replaced")),
            Err(error) => return Err(error.into()),
        }
        let made = open_beneath(&parent, Path::new(&name), DIR)?;
        said.apply(made.as_fd(), owner)?;
        return Ok(Made::Directory(made, said.time));
    }
    if matches!(kind, EntryType::Char | EntryType::Block) {
        return Ok(Made::LeftOut);
    }
    if kind == EntryType::Link {
        let target = clean(&entry.link_name_bytes().unwrap_or_default())?;
        let from = make_parents(directory, target.parent().unwrap_or(Path::new("")))?;
        let target = target.file_name().unwrap_or_default().to_owned();
        clear(&parent, &name)?;
        rustix::fs::linkat(from, &target, &parent, &name, AtFlags::empty())?;
        return Ok(Made::Other);
    }
    clear(&parent, &name)?;
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o600))?);
            let size = entry.size();
            if copy_with_holes(entry, &mut file)? != size {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of it"));
            }
            said.apply(file.as_fd(), owner)?;
            rustix::fs::futimens(&file, &said.both())?;
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            rustix::fs::symlinkat(OsString::from_vec(target), &parent, &name)?;
            if owner == Owner::AsSaid {
                rustix::fs::chownat(&parent, &name, said.uid(), said.gid(), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::utimensat(&parent, &name, &said.both(), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        EntryType::Fifo => {
            rustix::fs::mknodat(&parent, &name, FileType::Fifo, Mode::from_raw_mode(said.mode & 0o777), 0)?;
            if owner == Owner::AsSaid {
                rustix::fs::chownat(&parent, &name, said.uid(), said.gid(), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        other => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an entry of the unknown kind {other:?}")));
        }
    }
    Ok(Made::Other)
}

/// Blocks of zeros become holes: an archive does not tell them apart, and a sparse file may be larger than the disk.
fn copy_with_holes(from: &mut impl Read, to: &mut File) -> io::Result<u64> {
    use std::io::{Seek as _, SeekFrom, Write as _};
    let mut block = vec![0_u8; HOLE_BYTES];
    let mut length: u64 = 0;
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match from.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        length += filled as u64;
        if filled == block.len() && block.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(HOLE_BYTES as i64))?;
        } else {
            to.write_all(&block[..filled])?;
        }
        if filled < block.len() {
            return to.set_len(length).map(|()| length);
        }
    }
}

/// Opens a directory below, making what is missing of it; a link on the way is refused.
fn make_parents(directory: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return directory.try_clone_to_owned();
    }
    match open_beneath(directory, path, DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(io::Error::other("a part of its path is a link, which is not followed"));
        }
        other => return other,
    }
    let parent = make_parents(directory, path.parent().unwrap_or(Path::new("")))?;
    let name = path.file_name().unwrap_or_default();
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open_beneath(&parent, Path::new(name), DIR),
        Err(error) => Err(error.into()),
    }
}

fn is_directory(parent: impl AsFd, name: &OsStr) -> bool {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn clear(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if is_directory(&parent, name) => {
            Err(io::Error::other("it is there and a directory; it was not replaced"))
        }
        Err(error) => Err(error.into()),
    }
}

/// What an entry says about itself.
struct Said {
    uid: u32,
    gid: u32,
    mode: u32,
    time: Timespec,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Said {
    fn read(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Self> {
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let header = entry.header();
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "its owner is no number of 32 bits");
        let secs = i64::try_from(header.mtime()?).unwrap_or(0);
        let mut said = Self {
            uid: id(header.uid()?).ok_or_else(bad)?,
            gid: id(header.gid()?).ok_or_else(bad)?,
            mode: header.mode()? & 0o7777,
            time: Timespec { tv_sec: secs, tv_nsec: 0 },
            attributes: Vec::new(),
        };
        for record in entry.pax_extensions()?.into_iter().flatten() {
            let record = record?;
            let (key, value) = (record.key_bytes(), record.value_bytes());
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            match key {
                b"uid" => said.uid = number().and_then(id).ok_or_else(bad)?,
                b"gid" => said.gid = number().and_then(id).ok_or_else(bad)?,
                b"mtime" => said.time = crate::image::pax_time(value),
                _ => {
                    let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else { continue };
                    let is_wanted = name.starts_with(b"user.") || name == CAPABILITY || name.starts_with(ACL);
                    if is_wanted && value.len() <= XATTR_BYTES_MAX {
                        said.attributes.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(said)
    }

    fn uid(&self) -> Option<Uid> {
        Some(Uid::from_raw(self.uid))
    }

    fn gid(&self) -> Option<Gid> {
        Some(Gid::from_raw(self.gid))
    }

    fn both(&self) -> Timestamps {
        Timestamps { last_access: self.time, last_modification: self.time }
    }

    /// Owner, then mode (a change of owner clears set-id bits), then attributes (it clears capabilities too).
    fn apply(&self, fd: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
        let mode = match owner {
            Owner::AsSaid => {
                rustix::fs::fchown(fd, self.uid(), self.gid())?;
                self.mode
            }
            // a program that was root's in a container must not become root's on the host
            Owner::Maker => self.mode & 0o1777,
        };
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
        for (name, value) in &self.attributes {
            if owner == Owner::Maker && !name.starts_with(b"user.") {
                continue;
            }
            match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                // a file system without attributes still holds the file
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        build(&mut tar);
        tar.into_inner().unwrap()
    }

    fn entry(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, data: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(data.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }

    fn unpacked(dir: &Path, bytes: &[u8]) -> io::Result<Copied> {
        let dir = File::open(dir).unwrap();
        unpack(&mut &*bytes, dir.as_fd(), Owner::Maker)
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let top = tempfile::tempdir().unwrap();
        let (inside, outside) = (top.path().join("in"), top.path().join("out"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let up = tar(|tar| entry(tar, EntryType::Regular, "a/../../x", "", b"x"));
        assert!(unpacked(&inside, &up).unwrap_err().to_string().contains("leads out"));
        let through = tar(|tar| {
            entry(tar, EntryType::Symlink, "l", "../out", b"");
            entry(tar, EntryType::Regular, "l/x", "", b"x");
        });
        assert!(unpacked(&inside, &through).unwrap_err().to_string().contains("link"));
        let over = tar(|tar| {
            entry(tar, EntryType::Symlink, "m", "../out/x", b"");
            entry(tar, EntryType::Regular, "m", "", b"x");
            entry(tar, EntryType::Regular, "/abs", "", b"y");
        });
        unpacked(&inside, &over).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(std::fs::read(inside.join("m")).unwrap(), b"x", "the link is replaced, not followed");
        assert_eq!(std::fs::read(inside.join("abs")).unwrap(), b"y");
        let hard = tar(|tar| entry(tar, EntryType::Link, "h", "../out", b""));
        assert!(unpacked(&inside, &hard).is_err());
    }

    #[test]
    fn files_and_directories_do_not_become_each_other_and_nobody_gains_rights() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("f"), "old").unwrap();
        assert!(unpacked(dir.path(), &tar(|tar| entry(tar, EntryType::Regular, "d", "", b"x"))).is_err());
        assert!(unpacked(dir.path(), &tar(|tar| entry(tar, EntryType::Directory, "f", "", b""))).is_err());
        let copied = unpacked(
            dir.path(),
            &tar(|tar| {
                entry(tar, EntryType::Regular, "f", "", b"new");
                entry(tar, EntryType::Regular, "d/deep/g", "", b"g");
                entry(tar, EntryType::Link, "d/h", "f", b"");
                entry(tar, EntryType::Char, "null", "", b"");
            }),
        );
        assert_eq!(copied.unwrap(), Copied { left_out: 1 });
        assert_eq!(std::fs::read(dir.path().join("d/h")).unwrap(), b"new");
        assert_eq!(std::fs::metadata(dir.path().join("f")).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn nonsense_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(unpacked(dir.path(), &[7; 700]).is_err());
        assert_eq!(unpacked(dir.path(), b"").unwrap(), Copied::default());
    }
}
