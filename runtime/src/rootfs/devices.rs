//! /dev and the generated files of /etc as small private tmpfs, filled before anybody sees them. Runs in the stage
//! helper: device nodes take the host's CAP_MKNOD, and these mounts belong to the host's user namespace.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::error::{Doing as _, Result};
use crate::runtime::IdRange;
use crate::spec::launch::EtcFiles;
use crate::sys::mount::{self, Attr};

/// Name and number of each device (`Documentation/admin-guide/devices.txt`).
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

const DIRECTORIES: [&str; 4] = ["pts", "shm", "mqueue", ".files"];

/// Makes a detached /dev owned by container root.
///
/// # Errors
/// `Io`.
pub fn make(ids: IdRange) -> Result<OwnedFd> {
    let doing = || "make /dev";
    let options = [("mode", Some("755")), ("size", Some("64m")), ("source", Some("tmpfs"))];
    let attributes = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC;
    let dev = mount::filesystem("tmpfs", &options, attributes).doing(doing)?;
    let everybody = Mode::from_raw_mode(0o666);
    for (name, major, minor) in NODES {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, everybody, number).doing(doing)?;
        rustix::fs::chmodat(&dev, name, everybody, AtFlags::empty()).doing(doing)?;
        give(dev.as_fd(), name, ids).doing(doing)?;
    }
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, &dev, name).doing(doing)?;
        give(dev.as_fd(), name, ids).doing(doing)?;
    }
    for name in DIRECTORIES {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755)).doing(doing)?;
        give(dev.as_fd(), name, ids).doing(doing)?;
    }
    give(dev.as_fd(), "", ids).doing(doing)?;
    Ok(dev)
}

/// Makes a detached directory with `hosts`, `hostname` and `resolv.conf`: writable inside, bounded, never on a disk.
///
/// # Errors
/// `Io`.
pub fn make_etc(etc: &EtcFiles, ids: IdRange) -> Result<OwnedFd> {
    let doing = || "make the generated files of /etc";
    let options = [("mode", Some("755")), ("size", Some("1m")), ("nr_inodes", Some("16")), ("source", Some("tmpfs"))];
    let attributes = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
    let dir = mount::filesystem("tmpfs", &options, attributes).doing(doing)?;
    let hosts_own = || std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let resolv_conf = etc.resolv_conf.as_ref().map_or_else(hosts_own, |text| text.clone().into_bytes());
    for (name, text) in
        [("hosts", etc.hosts.as_bytes()), ("hostname", etc.hostname.as_bytes()), ("resolv.conf", &resolv_conf)]
    {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o644)).doing(doing)?;
        std::fs::File::from(file).write_all(text).doing(doing)?;
        give(dir.as_fd(), name, ids).doing(doing)?;
    }
    give(dir.as_fd(), "", ids).doing(doing)?;
    Ok(dir)
}

/// Makes container root the owner.
fn give(dir: BorrowedFd<'_>, name: &str, ids: IdRange) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(ids.host_start), Gid::from_raw(ids.host_start));
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags)
}

/// The host's /sys with all that is mounted below it, read-only: for containers in the host's network namespace.
///
/// # Errors
/// `Io`.
pub fn host_sys(sys: BorrowedFd<'_>) -> Result<OwnedFd> {
    let doing = || "copy the mount of /sys";
    let tree = mount::clone_tree(sys, "", true).doing(doing)?;
    let set = Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
    mount::set_attributes(&tree, set, Attr::empty(), true).doing(doing)?;
    Ok(tree)
}
