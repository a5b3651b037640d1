//! Extraction of one layer into `/` of the sandbox: entries in any order, whiteouts as overlay wants them.
//!
//! Every path goes through [`Root`], by descriptor and inside the root. The order on each new object is
//! chown, chmod, attributes, times, since each clears or changes what comes before it. Directory times come last.

use std::collections::BTreeSet;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::report::{OPAQUE_MAX, Refusal, Report};
use super::{ENTRIES_MAX, LAYER_BYTES_MAX};
use crate::image::store::tree::{Content, Facts, TreeSum, content};

mod attributes;
mod root;

use attributes::Attributes;
pub(crate) use attributes::pax_time;
use root::{Place, Root};

type Outcome<T> = Result<T, Refusal>;

/// One extraction under way.
pub(super) struct Extractor {
    root: Root,
    report: Report,
    opaque: BTreeSet<Vec<u8>>,
    /// Directories and when they were changed: set when no more files come into them.
    dir_times: Vec<(Vec<u8>, Timespec)>,
    /// The fingerprint, directories apart: those may still change.
    sum: TreeSum,
    buffer: Vec<u8>,
}

/// What a base name means in a layer (OCI image-spec, layer.md §Whiteouts).
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    Plain,
    Opaque,
    Whiteout(&'a [u8]),
    /// Bookkeeping of aufs, which nobody reads any more.
    Skipped,
}

fn meaning(name: &[u8]) -> Outcome<Meaning<'_>> {
    match name.strip_prefix(b".wh.") {
        None => Ok(Meaning::Plain),
        Some(b".wh..opq") => Ok(Meaning::Opaque),
        Some(b"" | b"." | b"..") => Err(Refusal::Untrusted("a whiteout hides nothing or too much".into())),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Meaning::Skipped),
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
    }
}

impl Extractor {
    /// Into the process's own root.
    pub(super) fn new() -> Outcome<Self> {
        Self::below(Root::own()?)
    }

    /// Into this directory.
    pub(super) fn below(root: OwnedFd) -> Outcome<Self> {
        let root = Root::of(root);
        root.set_mode(0o755)?;
        Ok(Self {
            root,
            report: Report::default(),
            opaque: BTreeSet::new(),
            dir_times: Vec::new(),
            sum: TreeSum::default(),
            buffer: vec![0; 128 << 10],
        })
    }

    /// Extracts every entry up to the end mark.
    pub(super) fn extract(&mut self, input: &mut dyn Read) -> Outcome<()> {
        let mut archive = Archive::new(input);
        let entries = archive.entries().map_err(|e| Refusal::io("read the archive", &e))?;
        for entry in entries {
            let mut entry = entry.map_err(|e| Refusal::io("read the archive", &e))?;
            self.report.entries += 1;
            if self.report.entries > ENTRIES_MAX {
                return Err(Refusal::Untrusted(format!("more than {ENTRIES_MAX} entries")));
            }
            let path = entry.path_bytes().into_owned();
            self.entry(&mut entry, &path).map_err(|refusal| within(refusal, &path))?;
        }
        Ok(())
    }

    /// Sets what had to wait and gives the report.
    pub(super) fn finish(mut self) -> Outcome<Report> {
        let mut seen = BTreeSet::from([Vec::new()]);
        self.sum.add(b"", &facts(&self.root.reopen()?)?, Content::None);
        for (path, time) in std::mem::take(&mut self.dir_times) {
            if let Some(dir) = self.root.existing_dir(&path)? {
                set_times(&dir, time)?;
                if !seen.contains(&path) {
                    self.sum.add(&path, &facts(&dir)?, Content::None);
                    seen.insert(path);
                }
            }
        }
        self.report.tree = self.root.is_exact.then(|| self.sum.finish());
        self.report.opaque = self.opaque.iter().map(|path| STANDARD.encode(path)).collect();
        Ok(self.report)
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &[u8]) -> Outcome<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let attributes = Attributes::read(entry)?;
        self.report.id_max = self.report.id_max.max(attributes.uid).max(attributes.gid);
        let place = self.root.place(path)?;
        for hiding in std::mem::take(&mut self.root.over_whiteouts) {
            self.mark_opaque(hiding)?;
        }
        // the same archive gives the same tree on every host; an entry for the directory may still follow
        let implied = std::mem::take(&mut self.root.implied);
        self.dir_times.extend(implied.into_iter().map(|path| (path, Timespec { tv_sec: 0, tv_nsec: 0 })));
        if place.name.is_empty() {
            return if kind.is_dir() {
                self.finish_dir(&self.root.reopen()?, &place, &attributes)
            } else {
                Err(Refusal::Untrusted("an entry that is no directory replaces the root".into()))
            };
        }
        match meaning(&place.name)? {
            Meaning::Skipped => Ok(()),
            Meaning::Opaque => self.mark_opaque(place.parent_path()),
            Meaning::Whiteout(hidden) => self.whiteout(&place, hidden),
            Meaning::Plain => self.plain(entry, kind, &place, &attributes),
        }
    }

    fn mark_opaque(&mut self, path: Vec<u8>) -> Outcome<()> {
        if self.opaque.len() >= OPAQUE_MAX {
            return Err(Refusal::Untrusted(format!("more than {OPAQUE_MAX} opaque directories")));
        }
        self.opaque.insert(path);
        Ok(())
    }

    /// A whiteout hides lower layers only: what this layer itself brings under that name stays.
    fn whiteout(&mut self, place: &Place, hidden: &[u8]) -> Outcome<()> {
        let place = place.renamed(hidden);
        match self.root.stat(&place)? {
            None => {
                self.root.make_whiteout(&place)?;
                // nobody gives it an owner
                self.root.is_exact &= place.parent.is_plain;
                let facts = Facts { mode: FileType::CharacterDevice.as_raw_mode(), uid: 0, gid: 0, rdev: 0 };
                self.sum.add(&place.path, &facts, Content::None);
                Ok(())
            }
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => self.mark_opaque(place.path.clone()),
            Some(_) => Ok(()),
        }
    }

    fn plain(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        kind: EntryType,
        place: &Place,
        attributes: &Attributes,
    ) -> Outcome<()> {
        if kind.is_dir() {
            let cleared = self.root.clear_for_dir(place)?;
            if cleared.was_whiteout {
                self.mark_opaque(place.path.clone())?;
            }
            let dir = self.root.make_dir(place)?;
            return self.finish_dir(&dir, place, attributes);
        }
        match kind {
            EntryType::Char | EntryType::Block => {
                // /dev is ours in every container, so a node in a layer is never seen; it is left out and counted
                self.report.devices_skipped += 1;
                Ok(())
            }
            EntryType::Link => self.hard_link(entry, place),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, place, attributes),
            EntryType::Symlink => self.symlink(entry, place, attributes),
            EntryType::Fifo => self.fifo(place, attributes),
            other => Err(Refusal::Untrusted(format!("an entry of the unknown kind {other:?}"))),
        }
    }

    fn finish_dir(&mut self, dir: &OwnedFd, place: &Place, attributes: &Attributes) -> Outcome<()> {
        attributes.apply(dir, false)?;
        if attributes.has_default_acl() || attributes.gid != 0 || attributes.mode & 0o2000 != 0 {
            self.root.note_heirs(attributes.has_default_acl());
        }
        self.dir_times.push((place.path.clone(), attributes.time));
        Ok(())
    }

    /// Makes something new; what has its name is taken away.
    fn make<T>(&mut self, place: &Place, what: &str, make: impl Fn() -> rustix::io::Result<T>) -> Outcome<T> {
        let mut made = make();
        if matches!(made, Err(Errno::EXIST)) {
            self.root.clear(place)?;
            made = make();
        }
        made.map_err(|e| Refusal::io(format!("create a {what}"), &e.into()))
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, place: &Place, attributes: &Attributes) -> Outcome<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let is_plain = place.parent.is_plain;
        let mode = attributes.first_mode(is_plain);
        let fd = self.make(place, "file", || rustix::fs::openat(&place.parent, &*place.name, flags, mode))?;
        let mut file = std::fs::File::from(fd);
        let (mut bytes, mut crc) = (0_u64, crc32fast::Hasher::new());
        loop {
            let n = entry.read(&mut self.buffer).map_err(|e| Refusal::io("read the archive", &e))?;
            if n == 0 {
                break;
            }
            bytes += n as u64;
            self.report.bytes += n as u64;
            if self.report.bytes > LAYER_BYTES_MAX {
                return Err(Refusal::Untrusted(format!("more than {LAYER_BYTES_MAX} bytes of files")));
            }
            crc.update(&self.buffer[..n]);
            file.write_all(&self.buffer[..n]).map_err(|e| Refusal::io("write a file", &e))?;
        }
        let fd = OwnedFd::from(file);
        attributes.apply(&fd, is_plain)?;
        set_times(&fd, attributes.time)?;
        let facts = attributes.facts(FileType::RegularFile, attributes.mode);
        self.sum.add(&place.path, &facts, Content::File { bytes, crc: crc.finalize() });
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry<'_, impl Read>, place: &Place, attributes: &Attributes) -> Outcome<()> {
        let target = entry.link_name_bytes().filter(|t| !t.is_empty());
        let target = target.ok_or_else(|| Refusal::Untrusted("a symbolic link to nothing".into()))?;
        self.make(place, "symbolic link", || rustix::fs::symlinkat(&*target, &place.parent, &*place.name))?;
        finish_by_name(place, attributes)?;
        self.sum.add(&place.path, &attributes.facts(FileType::Symlink, 0o777), Content::Link(&target));
        Ok(())
    }

    fn fifo(&mut self, place: &Place, attributes: &Attributes) -> Outcome<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.make(place, "FIFO", || rustix::fs::mknodat(&place.parent, &*place.name, FileType::Fifo, mode, 0))?;
        // waits for no writer
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.parent, &*place.name, flags, Mode::empty())
            .map_err(|e| Refusal::io("create a FIFO", &e.into()))?;
        attributes.apply(&fd, false)?;
        set_times(&fd, attributes.time)?;
        self.sum.add(&place.path, &attributes.facts(FileType::Fifo, attributes.mode), Content::None);
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry<'_, impl Read>, place: &Place) -> Outcome<()> {
        let target = entry.link_name_bytes().filter(|t| !t.is_empty());
        let target = target.ok_or_else(|| Refusal::Untrusted("a hard link to nothing".into()))?;
        let source = self.root.existing_place(&target)?;
        let missing = || {
            let name = String::from_utf8_lossy(&target).into_owned();
            Refusal::Untrusted(format!("a hard link to `{name}`, which is not in this layer"))
        };
        let source = source.ok_or_else(missing)?;
        let Some(stat) = self.root.stat(&source)? else { return Err(missing()) };
        let link = || rustix::fs::linkat(&source.parent, &*source.name, &place.parent, &*place.name, AtFlags::empty());
        let mut linked = link();
        if matches!(linked, Err(Errno::EXIST)) {
            if self.root.stat(place)?.is_some_and(|there| there.st_ino == stat.st_ino) {
                return Ok(());
            }
            self.root.clear(place)?;
            linked = link();
        }
        linked.map_err(|e| Refusal::io("create a hard link", &e.into()))?;
        self.sum_again(place, &stat)
    }

    /// Adds a further name of something that is there.
    fn sum_again(&mut self, place: &Place, stat: &Stat) -> Outcome<()> {
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            self.root.is_exact = false;
        }
        if self.root.is_exact {
            let (bytes, crc) =
                content(place.parent.as_fd(), &place.name, &|_| ()).map_err(|e| Refusal::io("read", &e))?;
            self.sum.add(&place.path, &Facts::of(stat), Content::File { bytes, crc });
        }
        Ok(())
    }
}

/// For links, which cannot be opened: owner and times, without following. Their modes mean nothing.
fn finish_by_name(place: &Place, attributes: &Attributes) -> Outcome<()> {
    let at = AtFlags::SYMLINK_NOFOLLOW;
    if !attributes.is_ours(place.parent.is_plain) {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::chownat(&place.parent, &*place.name, Some(uid), Some(gid), at)
            .map_err(|e| Refusal::io("set the owner", &e.into()))?;
    }
    rustix::fs::utimensat(&place.parent, &*place.name, &both(attributes.time), at)
        .map_err(|e| Refusal::io("set the time", &e.into()))
}

fn facts(fd: &OwnedFd) -> Outcome<Facts> {
    rustix::fs::fstat(fd).map(|stat| Facts::of(&stat)).map_err(|e| Refusal::io("stat a directory", &e.into()))
}

fn both(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

fn set_times(fd: &OwnedFd, time: Timespec) -> Outcome<()> {
    rustix::fs::futimens(fd, &both(time)).map_err(|e| Refusal::io("set the time", &e.into()))
}

fn within(refusal: Refusal, path: &[u8]) -> Refusal {
    let shown: String = String::from_utf8_lossy(path).chars().take(200).collect();
    match refusal {
        Refusal::Untrusted(why) => Refusal::Untrusted(format!("entry `{}`: {why}", shown.escape_debug())),
        Refusal::Io { doing, errno } => Refusal::Io { doing: format!("{doing} `{}`", shown.escape_debug()), errno },
        other @ (Refusal::NoSpace | Refusal::Unsupported(_)) => other,
    }
}
