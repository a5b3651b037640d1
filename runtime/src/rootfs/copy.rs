//! Copying a directory tree out of a container's root: by descriptors only, ids shifted back to the container's own.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use crate::ids::{CAPABILITY, unshift, unshifted_capability};
use crate::runtime::IdRange;

/// Deepest tree that is copied; deeper ones are refused before the stack is in danger.
const DEPTH_MAX: usize = 256;

/// Copies the content of `from` and its own owner, mode and times into the empty directory `to`. Files, directories,
/// links and FIFOs; sockets and devices are left out, hard links become copies.
///
/// # Errors
/// The kernel's; `InvalidInput` for a tree deeper than 256 directories.
pub fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, ids: IdRange) -> io::Result<()> {
    copy_directory(from, to, ids, 0)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, ids: IdRange, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name, ids, depth)?;
        }
    }
    set_attributes(from, to, &rustix::fs::fstat(from)?, ids)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, ids: IdRange, depth: usize) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    // Looked at again after opening: the name may have changed its meaning in between.
    let beneath = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let flags = beneath | OFlags::RDONLY | OFlags::DIRECTORY;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy_directory(source.as_fd(), target.as_fd(), ids, depth + 1)
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, beneath | OFlags::RDONLY, Mode::empty())?;
            let flags = beneath | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            let stat = rustix::fs::fstat(&source)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let (mut source, mut target) = (File::from(source), File::from(target));
            io::copy(&mut source, &mut target)?;
            set_attributes(source.as_fd(), target.as_fd(), &stat, ids)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), to, name)?;
            own(to, name, &stat, ids, AtFlags::SYMLINK_NOFOLLOW)
        }
        FileType::Fifo => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
            rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)?;
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
            own(to, name, &stat, ids, AtFlags::SYMLINK_NOFOLLOW)
        }
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket | FileType::Unknown => Ok(()),
    }
}

/// Owner, then mode (a change of owner clears setuid), then attributes (it clears capabilities too), then times.
fn set_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat, ids: IdRange) -> io::Result<()> {
    own(to, c"", stat, ids, AtFlags::EMPTY_PATH)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_attributes(from, to, ids)?;
    let time = |secs, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(to, &times)?)
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat, ids: IdRange, flags: AtFlags) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(unshift(stat.st_uid, ids)), Gid::from_raw(unshift(stat.st_gid, ids)));
    Ok(rustix::fs::chownat(to, name, Some(uid), Some(gid), flags)?)
}

/// `user.*` and file capabilities; trusted attributes are overlay's own, labels of a security module are the host's.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, ids: IdRange) -> io::Result<()> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0_u8; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") && name != CAPABILITY {
            continue;
        }
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        let value = match name == CAPABILITY {
            true => unshifted_capability(&value[..length], ids),
            false => Some(value[..length].to_vec()),
        };
        if let Some(value) = value {
            rustix::fs::fsetxattr(to, name, &value, rustix::fs::XattrFlags::empty())?;
        }
    }
    Ok(())
}
