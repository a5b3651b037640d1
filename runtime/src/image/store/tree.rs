//! A fingerprint of an unpacked layer: names, types, modes, owners, link targets and content.
//!
//! Each entry is hashed with its path, and the hashes are added up. So whoever unpacks a layer can add entries in the
//! order they come, and need not read anything again; who checks it walks the tree, by descriptor and never following a
//! link, so that an untrusted tree leads nowhere. Content goes in as length and CRC-32: this looks for rot, not for
//! enemies, whom the diffID kept out. Times are left out: nothing depends on them that a power cut could break.

use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use sha2::{Digest as _, Sha256};

use crate::error::{Doing, Result};
use crate::image::unpack::DEPTH_MAX;
use crate::image::{Digest, Pace};

mod sorted;

/// How the fingerprint of a layer was made; kept in its note.
pub(crate) const KIND_SORTED: u8 = 1;
/// The one new layers get.
pub(crate) const KIND_SUM: u8 = 2;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CHUNK_BYTES: usize = 64 << 10;

/// The fingerprint of this kind of everything below `root`; `None` for a kind of a later version.
///
/// # Errors
/// `Io`.
pub(crate) fn fingerprint(root: &Path, kind: u8, pace: Pace<'_>) -> Result<Option<Digest>> {
    let doing = || format!("read the tree {}", root.display());
    let fd = rustix::fs::open(root, DIR, Mode::empty()).doing(doing)?;
    match kind {
        KIND_SORTED => sorted::fingerprint(fd, pace).map(Some),
        KIND_SUM => sum(fd, pace).map(Some),
        _ => Ok(None),
    }
    .doing(doing)
}

fn sum(root: OwnedFd, pace: Pace<'_>) -> std::io::Result<Digest> {
    let mut sum = TreeSum::default();
    sum.add(b"", &Facts::of(&rustix::fs::fstat(&root)?), Content::None);
    walk(&root, &mut Vec::new(), &mut sum, pace, 0)?;
    Ok(sum.finish())
}

fn walk(dir: &OwnedFd, path: &mut Vec<u8>, sum: &mut TreeSum, pace: Pace<'_>, depth: usize) -> std::io::Result<()> {
    for name in names(dir, depth)? {
        let stat = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (facts, kind, before) = (Facts::of(&stat), FileType::from_raw_mode(stat.st_mode), path.len());
        if before > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if kind.is_dir() {
            sum.add(path, &facts, Content::None);
            walk(&rustix::fs::openat(dir, &name, DIR, Mode::empty())?, path, sum, pace, depth + 1)?;
        } else if kind.is_file() {
            let (bytes, crc) = content(dir.as_fd(), name.to_bytes(), pace)?;
            sum.add(path, &facts, Content::File { bytes, crc });
        } else if kind.is_symlink() {
            let target = rustix::fs::readlinkat(dir, &name, Vec::new())?;
            sum.add(path, &facts, Content::Link(target.to_bytes()));
        } else {
            sum.add(path, &facts, Content::None);
        }
        path.truncate(before);
    }
    Ok(())
}

fn names(dir: &OwnedFd, depth: usize) -> std::io::Result<Vec<std::ffi::CString>> {
    if depth > DEPTH_MAX {
        return Err(std::io::Error::other("the tree is too deep"));
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Length and CRC-32 of a file.
pub(crate) fn content(dir: BorrowedFd<'_>, name: &[u8], pace: Pace<'_>) -> std::io::Result<(u64, u32)> {
    let mut file = std::fs::File::from(rustix::fs::openat(dir, name, FILE, Mode::empty())?);
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0_u64;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, crc.finalize())),
            n => {
                bytes += n as u64;
                crc.update(&buffer[..n]);
                pace(n as u64);
            }
        }
    }
}

/// What the file system says about an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// With its type.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u64,
}

impl Facts {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid, rdev: stat.st_rdev }
    }
}

/// What an entry holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    None,
    File { bytes: u64, crc: u32 },
    Link(&'a [u8]),
}

/// A fingerprint under way: the same whatever order entries come in, each path once.
#[derive(Debug, Default)]
pub(crate) struct TreeSum {
    lanes: [u64; 4],
    entries: u64,
}

impl TreeSum {
    /// One entry, by its path from the root without a leading slash.
    pub(crate) fn add(&mut self, path: &[u8], facts: &Facts, content: Content<'_>) {
        let mut hash = Sha256::new();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        for number in [u64::from(facts.mode), u64::from(facts.uid), u64::from(facts.gid), facts.rdev] {
            hash.update(number.to_le_bytes());
        }
        match content {
            Content::None => {}
            Content::File { bytes, crc } => {
                hash.update(bytes.to_le_bytes());
                hash.update(crc.to_le_bytes());
            }
            Content::Link(target) => hash.update(target),
        }
        for (lane, bytes) in self.lanes.iter_mut().zip(hash.finalize().chunks_exact(8)) {
            *lane = lane.wrapping_add(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        }
        self.entries += 1;
    }

    pub(crate) fn finish(&self) -> Digest {
        let mut bytes = self.entries.to_le_bytes().to_vec();
        bytes.extend(self.lanes.iter().flat_map(|lane| lane.to_le_bytes()));
        Digest::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on disks must be known for ever.
    #[test]
    fn both_kinds_of_fingerprints_stay_as_they_are() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("b")).unwrap();
        std::fs::write(at("b/file"), "content").unwrap();
        symlink("../to", at("a")).unwrap();
        for (name, mode) in [("", 0o755), ("b", 0o700), ("b/file", 0o640)] {
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let own = rustix::process::geteuid().as_raw() == 0 && rustix::process::getegid().as_raw() == 0;
        let found = [KIND_SORTED, KIND_SUM, 3].map(|kind| fingerprint(dir.path(), kind, &|_| ()).unwrap());
        assert_eq!(found[2], None);
        if !own {
            println!("skipped: the fingerprints hold root's ids");
            return;
        }
        let known = [
            "6d0b889cb053f451336669541612499cbdf3b1fe96c488b298c5d3233f146d75",
            "450529d83aa54d4c55f1edb7fceb8d7640ddb8c037d9a6277794de78fee013ff",
        ];
        assert_eq!([0, 1].map(|n| found[n].as_ref().unwrap().hex().to_owned()), known);
    }

    #[test]
    fn a_sum_tells_every_difference_and_no_order() {
        let facts = Facts { mode: 0o100_644, uid: 0, gid: 0, rdev: 0 };
        let sum = |entries: &[(&[u8], Facts, Content<'_>)]| {
            let mut sum = TreeSum::default();
            entries.iter().for_each(|(path, facts, content)| sum.add(path, facts, *content));
            sum.finish()
        };
        let file = |crc| Content::File { bytes: 3, crc };
        let one = sum(&[(b"a", facts, file(1)), (b"b", facts, file(2))]);
        assert_eq!(one, sum(&[(b"b", facts, file(2)), (b"a", facts, file(1))]));
        let others = [
            sum(&[(b"a", facts, file(2)), (b"b", facts, file(1))]),
            sum(&[(b"a", facts, file(1)), (b"b", Facts { uid: 1, ..facts }, file(2))]),
            sum(&[(b"a", facts, file(1))]),
            sum(&[(b"a", facts, file(1)), (b"b", facts, file(2)), (b"c", facts, Content::None)]),
            sum(&[(b"a", facts, Content::Link(b"x")), (b"b", facts, file(2))]),
        ];
        assert!(others.iter().all(|other| *other != one));
    }
}
