//! A fingerprint of an unpacked layer: names, types, modes, owners, link targets and content, in name order.
//!
//! Walks by descriptor and never follows a link, so that an untrusted tree leads nowhere. Times are left out: nothing
//! depends on them that a power cut could break.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::error::{Doing, Result};
use crate::image::Digest;
use crate::image::unpack::DEPTH_MAX;

/// The fingerprint of everything below `root`.
///
/// # Errors
/// `Io`.
pub(super) fn fingerprint(root: &Path) -> Result<Digest> {
    let doing = || format!("read the tree {}", root.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty()).doing(doing)?;
    let mut hash = Sha256::new();
    let stat = rustix::fs::fstat(&fd).doing(doing)?;
    hash.update(format!("{:o} {} {}\0", stat.st_mode, stat.st_uid, stat.st_gid));
    walk(fd, &mut hash, 0).doing(doing)?;
    Ok(Digest::from_hash(&hash.finalize().into()))
}

fn walk(dir: OwnedFd, hash: &mut Sha256, depth: usize) -> std::io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(std::io::Error::other("the tree is too deep"));
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let name = entry?.file_name().to_owned();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let stat = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        hash.update(name.to_bytes());
        hash.update(format!("\0{:o} {} {} {}\0", stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if kind.is_dir() {
            let child = rustix::fs::openat(&dir, &name, flags | OFlags::DIRECTORY, Mode::empty())?;
            walk(child, hash, depth + 1)?;
            hash.update(b"/\0");
        } else if kind.is_file() {
            content(rustix::fs::openat(&dir, &name, flags, Mode::empty())?, hash)?;
        } else if kind.is_symlink() {
            hash.update(rustix::fs::readlinkat(dir.as_fd(), &name, Vec::new())?.to_bytes());
            hash.update(b"\0");
        }
    }
    Ok(())
}

fn content(fd: OwnedFd, hash: &mut Sha256) -> std::io::Result<()> {
    let mut file = std::fs::File::from(fd);
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0_u64;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        total += n as u64;
        hash.update(&buffer[..n]);
    }
    hash.update(total.to_le_bytes());
    Ok(())
}
