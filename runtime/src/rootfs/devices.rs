//! /dev and the generated files of /etc as small private tmpfs, filled before anybody sees them. Runs in the stage
//! helper: device nodes take the host's CAP_MKNOD, and these mounts belong to the host's user namespace.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::options::Options;
use crate::error::{Doing as _, Error, Result};
use crate::runtime::IdRange;
use crate::spec::launch::EtcFiles;
use crate::sys::mount::{self, Attr};
use crate::sys::path;

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

const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

/// Makes a detached /dev owned by container root, with the devices every container has and `more` of a spec.
/// `options` are those of its mount; it stays writable, since mount points are still to be made in it.
///
/// # Errors
/// `BadContainer` for a device that cannot be; `Io`.
pub fn make(ids: IdRange, options: &Options, more: &[LinuxDevice]) -> Result<OwnedFd> {
    let doing = || "make /dev";
    let mut data: Vec<(&str, Option<&str>)> = vec![("source", Some("tmpfs"))];
    data.extend(options.data.iter().map(|one| one.split_once('=').map_or((one.as_str(), None), |(k, v)| (k, Some(v)))));
    let dev = mount::filesystem("tmpfs", &data, options.set - Attr::MOUNT_ATTR_RDONLY).doing(doing)?;
    let everybody = Mode::from_raw_mode(0o666);
    let before = rustix::process::umask(Mode::empty());
    let made = NODES.iter().try_for_each(|(name, major, minor)| {
        rustix::fs::mknodat(&dev, *name, FileType::CharacterDevice, everybody, rustix::fs::makedev(*major, *minor))
    });
    rustix::process::umask(before);
    made.doing(doing)?;
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, &dev, name).doing(doing)?;
    }
    for name in DIRECTORIES {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755)).doing(doing)?;
    }
    // What we make is ours already.
    if !(ids.host_start == 0 && rustix::process::geteuid().is_root() && rustix::process::getegid().is_root()) {
        let links = LINKS.iter().map(|(name, _)| *name);
        let all = NODES.iter().map(|(name, ..)| *name).chain(links).chain(DIRECTORIES);
        all.chain([""]).try_for_each(|name| give(dev.as_fd(), name, ids)).doing(doing)?;
    }
    for device in more {
        if let Ok(inside) = device.path().strip_prefix("/dev") {
            add(dev.as_fd(), inside, device, ids)?;
        }
    }
    Ok(dev)
}

/// Makes a node, whatever the umask.
fn make_node(
    dir: BorrowedFd<'_>,
    name: &Path,
    kind: FileType,
    mode: Mode,
    number: rustix::fs::Dev,
) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, name, kind, mode, number)?;
    rustix::fs::chmodat(dir, name, mode, AtFlags::empty())
}

/// Makes one device of a spec at `path` in `root`; one that is there already must be the same.
///
/// # Errors
/// `BadContainer` when something else is there; `Io`.
pub fn add(root: BorrowedFd<'_>, path: &Path, device: &LinuxDevice, ids: IdRange) -> Result<()> {
    let doing = || format!("make the device {}", device.path().display());
    let unsigned = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let (kind, number) = match device.typ() {
        LinuxDeviceType::B => {
            (FileType::BlockDevice, rustix::fs::makedev(unsigned(device.major()), unsigned(device.minor())))
        }
        LinuxDeviceType::C | LinuxDeviceType::U | LinuxDeviceType::A => {
            (FileType::CharacterDevice, rustix::fs::makedev(unsigned(device.major()), unsigned(device.minor())))
        }
        LinuxDeviceType::P => (FileType::Fifo, 0),
    };
    let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777);
    let name = path
        .file_name()
        .ok_or_else(|| Error::BadContainer(format!("{} is no place for a device", device.path().display())))?;
    let parent = path::make_directories(root, path.parent().unwrap_or(Path::new("/"))).doing(doing)?;
    match make_node(parent.as_fd(), name.as_ref(), kind, mode, number) {
        Err(rustix::io::Errno::EXIST) => {
            let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
            if FileType::from_raw_mode(there.st_mode) != kind || there.st_rdev != number {
                let path = device.path().display();
                return Err(Error::BadContainer(format!("{path} is there already, and is not that device")));
            }
        }
        other => other.doing(doing)?,
    }
    let shift = |id: Option<u32>| ids.host_start + id.unwrap_or(0);
    let (uid, gid) = (Uid::from_raw(shift(device.uid())), Gid::from_raw(shift(device.gid())));
    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(doing)
}

/// Makes what every container has in a /dev that is a directory of its root file system: links, and the nodes, as a
/// copy of the prepared ones where the container's own root may not make any.
///
/// # Errors
/// `Io`.
pub fn make_in_root(root: BorrowedFd<'_>, prepared: BorrowedFd<'_>, more: &[LinuxDevice]) -> Result<()> {
    let doing = || "make the devices in /dev";
    let dev = path::make_directories(root, Path::new("/dev")).doing(doing)?;
    let everybody = Mode::from_raw_mode(0o666);
    let mut refused = Vec::new();
    for (name, major, minor) in NODES {
        let number = rustix::fs::makedev(major, minor);
        match make_node(dev.as_fd(), name.as_ref(), FileType::CharacterDevice, everybody, number) {
            Err(rustix::io::Errno::PERM) => refused.push(Path::new(name).to_owned()),
            Err(rustix::io::Errno::EXIST) => {}
            other => other.doing(doing)?,
        }
    }
    for (name, to) in LINKS {
        match rustix::fs::symlinkat(to, &dev, name) {
            Err(rustix::io::Errno::EXIST) => {}
            other => other.doing(doing)?,
        }
    }
    for device in more {
        let Ok(inside) = device.path().strip_prefix("/dev") else { continue };
        match add(dev.as_fd(), inside, device, IdRange { host_start: 0, len: u32::MAX }) {
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                refused.push(inside.to_owned())
            }
            other => other?,
        }
    }
    for name in refused {
        let doing = || format!("show the device {}", name.display());
        let node = mount::clone_tree(prepared, &name.to_string_lossy(), false).doing(doing)?;
        let place = path::open_or_make(&dev, &name, path::Missing::File).doing(doing)?;
        mount::attach(node, place).doing(doing)?;
    }
    Ok(())
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
