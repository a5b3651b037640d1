//! Files of a tree as entries of a tar stream: by descriptor, no link followed, the same tree always the same bytes. Owners
//! and attributes are the container's own. Where the tree is, and which entries of it are wanted, others know.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};

use super::unpack::DEPTH_MAX;
use crate::ids::{ACL, CAPABILITY, mapped_acl, unshift, unshifted_capability};
use crate::runtime::IdRange;

/// How directories are opened.
pub(crate) const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Longest name and longest link a header has room for.
const NAME_BYTES: usize = 100;
/// The kernel's own bound of one attribute, and of the list of their names.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Whose ids the files of a tree have: a container's, in its range, or their own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Owners(pub(crate) Option<IdRange>);

impl Owners {
    /// The container's own id.
    pub(crate) fn own(self, id: u32) -> u32 {
        self.0.map_or(id, |ids| unshift(id, ids))
    }

    /// Extended attributes an image may have, sorted by name. Overlay's own marks and a security module's labels are this
    /// host's business.
    pub(crate) fn attributes(self, fd: BorrowedFd<'_>) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut names = vec![0_u8; XATTR_BYTES_MAX];
        let length = match rustix::fs::flistxattr(fd, &mut names) {
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            other => other?,
        };
        let mut found = BTreeMap::new();
        for name in names[..length].split(|byte| *byte == 0) {
            if name == b"trusted.overlay.metacopy" {
                let why = "has its content in a layer below: this kernel's overlay has metacopy on";
                return Err(io::Error::other(why));
            }
            let is_users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            if !is_users && name != CAPABILITY && !name.starts_with(ACL) {
                continue;
            }
            let mut value = vec![0_u8; XATTR_BYTES_MAX];
            let length = match rustix::fs::fgetxattr(fd, name, &mut value) {
                // taken away since it was listed
                Err(rustix::io::Errno::NODATA) => continue,
                other => other?,
            };
            value.truncate(length);
            let value = match self.0 {
                Some(ids) if name == CAPABILITY => unshifted_capability(&value, ids),
                Some(ids) if name.starts_with(ACL) => Some(mapped_acl(&value, |id| unshift(id, ids))),
                Some(_) | None => Some(value),
            };
            found.extend(value.map(|value| (name.to_vec(), value)));
        }
        Ok(found)
    }
}

/// A tar stream under way.
pub(crate) struct Packer<W: Write> {
    tar: tar::Builder<W>,
    owners: Owners,
    /// Files with several names: the first one packed, by device and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    /// Sockets and devices, which no archive of ours holds.
    pub(crate) left_out: u64,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W, owners: Owners) -> Self {
        Self { tar: tar::Builder::new(out), owners, links: BTreeMap::new(), left_out: 0 }
    }

    /// Writes the end mark and gives back what was written to.
    pub(crate) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }

    /// A directory, without what is in it.
    pub(crate) fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
        let stat = rustix::fs::fstat(dir)?;
        let attributes = self.owners.attributes(dir)?;
        let mut name = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        name.push(b'/');
        self.append(
            &Entry { path: &name, kind: tar::EntryType::Directory, stat: &stat, size: 0, link: b"" },
            attributes,
            io::empty(),
        )
    }

    /// Whatever else `name` in `parent` is, called `path`. One that is gone by now, or a directory by now, is passed over.
    pub(crate) fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8], stat: &Stat) -> io::Result<()> {
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&key).cloned() {
            let entry = Entry { path, kind: tar::EntryType::Link, stat, size: 0, link: &first };
            return self.append(&entry, BTreeMap::new(), io::empty());
        }
        if self.single(parent, name, path, stat)? && stat.st_nlink > 1 {
            self.links.insert(key, path.to_vec());
        }
        Ok(())
    }

    /// False when there is nothing of it in the archive.
    fn single(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8], stat: &Stat) -> io::Result<bool> {
        let (kind, link) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(parent, name, path),
            FileType::Symlink => match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => return Ok(false),
                other => (tar::EntryType::Symlink, other?.into_bytes()),
            },
            FileType::Fifo => (tar::EntryType::Fifo, Vec::new()),
            FileType::Directory => return Ok(false),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket | FileType::Unknown => {
                self.left_out += 1;
                return Ok(false);
            }
        };
        self.append(&Entry { path, kind, stat, size: 0, link: &link }, BTreeMap::new(), io::empty())?;
        Ok(true)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<bool> {
        // NONBLOCK: by now the name may be a FIFO that nobody ever writes
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(false),
            other => File::from(other?),
        };
        self.opened(file, path)
    }

    /// A file that is open. False when it is none.
    pub(crate) fn opened(&mut self, file: File, path: &[u8]) -> io::Result<bool> {
        let stat = rustix::fs::fstat(&file)?;
        if !is(&stat, FileType::RegularFile) {
            return Ok(false);
        }
        let attributes = self.owners.attributes(file.as_fd())?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // who writes to it meanwhile does not change how long it is here: the header has said so
        let content = file.chain(io::repeat(0)).take(size);
        self.append(&Entry { path, kind: tar::EntryType::Regular, stat: &stat, size, link: b"" }, attributes, content)?;
        Ok(true)
    }

    /// An empty file of root's, dated 1970: the marks of a layer.
    pub(crate) fn mark(&mut self, path: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.write(header, path, b"", Vec::new(), io::empty())
    }

    /// A directory of a tree with everything in it; `path` is what it is called in the archive.
    pub(crate) fn tree(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("it is deeper than {DEPTH_MAX} directories")));
        }
        self.directory(dir, path)?;
        for name in names(dir)? {
            let stat = match rustix::fs::statat(dir, name.as_c_str(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                other => other?,
            };
            let below = join(path, name.to_bytes());
            if is(&stat, FileType::Directory) {
                match rustix::fs::openat(dir, name.as_c_str(), DIR, Mode::empty()) {
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
                    other => self.tree(other?.as_fd(), &below, depth + 1)?,
                }
            } else {
                self.entry(dir, &name, &below, &stat)?;
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        entry: &Entry<'_>,
        attributes: BTreeMap<Vec<u8>, Vec<u8>>,
        content: impl Read,
    ) -> io::Result<()> {
        let Entry { path, kind, stat, size, link } = *entry;
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(self.owners.own(stat.st_uid).into());
        header.set_gid(self.owners.own(stat.st_gid).into());
        header.set_size(size);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        if stat.st_mtime < 0 || stat.st_mtime_nsec != 0 {
            records.push(("mtime".to_owned(), time(stat).into_bytes()));
        }
        for (name, value) in attributes {
            records.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(&name)), value));
        }
        self.write(header, path, link, records, content)
    }

    fn write(
        &mut self,
        mut header: tar::Header,
        path: &[u8],
        link: &[u8],
        mut records: Vec<(String, Vec<u8>)>,
        content: impl Read,
    ) -> io::Result<()> {
        let old = header.as_old_mut();
        for (field, text, key) in [(&mut old.name, path, "path"), (&mut old.linkname, link, "linkpath")] {
            let fitting = text.len().min(NAME_BYTES);
            field[..fitting].copy_from_slice(&text[..fitting]);
            if text.len() > NAME_BYTES {
                records.push((key.to_owned(), text.to_vec()));
            }
        }
        if !records.is_empty() {
            self.tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        }
        header.set_cksum();
        self.tar.append(&header, content)
    }
}

/// What a header says.
struct Entry<'a> {
    path: &'a [u8],
    kind: tar::EntryType,
    stat: &'a Stat,
    size: u64,
    link: &'a [u8],
}

pub(crate) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// `a/b`; only the name where there is nothing before it.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::CString>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            all.push(name);
        }
    }
    all.sort();
    Ok(all)
}

/// As PAX writes times: `12.5`, and before 1970 `-1.25`.
fn time(stat: &Stat) -> String {
    let (secs, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
    if secs < 0 && nanos > 0 {
        return format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos);
    }
    format!("{secs}.{nanos:09}")
}
