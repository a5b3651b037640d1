//! The first kind of fingerprint, of layers that older versions unpacked: one hash over everything in name order. Only
//! read any more.

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use sha2::{Digest as _, Sha256};

use super::{CHUNK_BYTES, DIR, FILE, names};
use crate::image::{Digest, Pace};

pub(super) fn fingerprint(root: OwnedFd, pace: Pace<'_>) -> std::io::Result<Digest> {
    let mut hash = Sha256::new();
    let stat = rustix::fs::fstat(&root)?;
    hash.update(format!("{:o} {} {}\0", stat.st_mode, stat.st_uid, stat.st_gid));
    walk(&root, &mut hash, pace, 0)?;
    Ok(Digest::from_hash(&hash.finalize().into()))
}

fn walk(dir: &OwnedFd, hash: &mut Sha256, pace: Pace<'_>, depth: usize) -> std::io::Result<()> {
    let mut names = names(dir, depth)?;
    names.sort();
    for name in names {
        let stat = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        hash.update(name.to_bytes());
        hash.update(format!("\0{:o} {} {} {}\0", stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev));
        if kind.is_dir() {
            walk(&rustix::fs::openat(dir, &name, DIR, Mode::empty())?, hash, pace, depth + 1)?;
            hash.update(b"/\0");
        } else if kind.is_file() {
            content(rustix::fs::openat(dir, &name, FILE, Mode::empty())?, hash, pace)?;
        } else if kind.is_symlink() {
            hash.update(rustix::fs::readlinkat(dir.as_fd(), &name, Vec::new())?.to_bytes());
            hash.update(b"\0");
        }
    }
    Ok(())
}

fn content(fd: OwnedFd, hash: &mut Sha256, pace: Pace<'_>) -> std::io::Result<()> {
    let mut file = std::fs::File::from(fd);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0_u64;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => {
                total += n as u64;
                hash.update(&buffer[..n]);
                pace(n as u64);
            }
        }
    }
    hash.update(total.to_le_bytes());
    Ok(())
}
