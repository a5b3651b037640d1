//! The host's side of a copy: what a person may read is packed, what they may write is unpacked, with their own rights.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::{Copied, Owner};
use crate::error::{Doing as _, Result};
use crate::image::pack::{DIR, Owners, Packer, is};

/// Packs a file or directory of the host, called `name` in the archive; an empty name: only what is in the directory.
/// `follow`: a link at its end is followed.
///
/// # Errors
/// `Io`, also of `out`.
pub fn pack(path: &Path, name: &str, follow: bool, out: &mut dyn Write) -> Result<Copied> {
    let doing = || format!("read {}", path.display());
    pack_at(path, name, follow, out).doing(doing)
}

fn pack_at(path: &Path, name: &str, follow: bool, out: &mut dyn Write) -> io::Result<Copied> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let stat = rustix::fs::statat(CWD, path, flags)?;
    let mut packer = Packer::new(out, Owners::default());
    if is(&stat, FileType::Directory) {
        let dir = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        packer.tree(dir.as_fd(), name.as_bytes(), 0)?;
    } else {
        let real = if follow { std::fs::canonicalize(path)? } else { path.to_owned() };
        let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent =
            rustix::fs::openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let base = CString::new(real.file_name().unwrap_or_default().as_bytes())?;
        packer.entry(parent.as_fd(), &base, name.as_bytes(), &stat)?;
    }
    let copied = Copied { left_out: packer.left_out };
    packer.finish()?.flush()?;
    Ok(copied)
}

/// Unpacks an archive into a directory of the host.
///
/// # Errors
/// `Io`: entries before the bad one are there then.
pub fn unpack(directory: &Path, owner: Owner, input: &mut dyn Read) -> Result<Copied> {
    let doing = || format!("unpack into {}", directory.display());
    // the directory is what a person named: its links are theirs
    let flags = DIR.difference(OFlags::NOFOLLOW);
    let fd = rustix::fs::open(directory, flags, Mode::empty()).doing(doing)?;
    super::unpack::unpack(input, fd.as_fd(), owner).doing(doing)
}
