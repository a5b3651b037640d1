//! Mounts as descriptors: fsopen, fsconfig, fsmount, open_tree, move_mount (5.2), mount_setattr (5.12).
//!
//! Nothing here takes a path that a container could have prepared: sources and targets are descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

pub use rustix::mount::MountAttrFlags as Attr;

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` (`linux/mount.h`).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Makes a detached mount of a new file system instance; an option without a value is a flag.
///
/// # Errors
/// The kernel's; ENODEV for a file system it does not have.
pub fn filesystem(kind: &str, options: &[(&str, Option<&str>)], attr: Attr) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value)?,
            None => rustix::mount::fsconfig_set_flag(&context, *key)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attr)?)
}

/// What the kernel has to say about a failed fsconfig: the lines waiting in a file system context.
#[must_use]
pub fn context_messages(context: BorrowedFd<'_>) -> String {
    let mut said = Vec::new();
    let mut line = [0_u8; 512];
    while let Ok(count) = rustix::io::read(context, &mut line) {
        if count == 0 || said.len() == 8 {
            break;
        }
        // Each line begins with `e `, `w ` or `i `.
        let text = String::from_utf8_lossy(&line[..count]);
        said.push(text.get(2..).unwrap_or(&text).trim().to_owned());
    }
    said.join("; ")
}

/// A detached copy of the mount at `path` below `dir`; an empty path is `dir` itself.
///
/// # Errors
/// The kernel's.
pub fn clone_tree(dir: impl AsFd, path: &str, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

/// Attaches a detached mount at the file or directory behind `target`.
///
/// # Errors
/// The kernel's.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Sets and clears attributes of a mount (and those below it).
///
/// # Errors
/// The kernel's.
pub fn set_attributes(mount: impl AsFd, set: Attr, clear: Attr, recursive: bool) -> io::Result<()> {
    let attr =
        MountAttr { attr_set: u64::from(set.bits()), attr_clr: u64::from(clear.bits()), propagation: 0, userns_fd: 0 };
    mount_setattr(mount.as_fd(), &attr, recursive)
}

/// How mounts made below a mount spread to its copies, and theirs to it (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the original only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it cannot be copied.
    Unbindable,
}

/// Sets how mounts below a mount (and below those below it) spread.
///
/// # Errors
/// The kernel's.
pub fn propagate(mount: impl AsFd, propagation: Propagation, recursive: bool) -> io::Result<()> {
    let propagation = match propagation {
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    };
    let attr = MountAttr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 };
    mount_setattr(mount.as_fd(), &attr, recursive)
}

/// Makes a detached mount show its ids through the map of a user namespace.
///
/// # Errors
/// EINVAL when the file system cannot; EPERM when the mount is attached.
pub fn idmap(mount: impl AsFd, userns: impl AsFd, set: Attr, recursive: bool) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: u64::from(set.bits()) | MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_fd().as_raw_fd() as u64,
    };
    mount_setattr(mount.as_fd(), &attr, recursive)
}

fn mount_setattr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static empty string, attr is live and of the size given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the mount behind `root` the root of the calling process's mount namespace and lets the old one go.
///
/// # Errors
/// The kernel's.
pub fn pivot(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // pivot_root(".", ".") stacks the old root on the new one (pivot_root(2), NOTES), so that no directory is needed.
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH)?,
        // A host that runs from its initial ramdisk has a root that cannot be exchanged. Covering it is as good: from
        // the mount on a namespace's root, `..` leads nowhere else.
        Err(rustix::io::Errno::INVAL) => {
            rustix::mount::mount_move(".", "/")?;
            rustix::process::chroot(".")?;
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(rustix::process::chdir("/")?)
}

/// Makes the directory behind `root` the root of the calling process, whose mount namespace stays as it is.
///
/// # Errors
/// The kernel's.
pub fn change_root(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// The name of the file system behind a descriptor, for messages.
#[must_use]
pub fn filesystem_name(fd: impl AsFd) -> String {
    let Ok(stat) = rustix::fs::fstatfs(fd) else { return "unknown file system".into() };
    let name = match stat.f_type.cast_unsigned() {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x6969 => "nfs",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x794c_7630 => "overlay",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x2fc1_2fc1 => "zfs",
        0x4d44 => "vfat",
        other => return format!("file system {other:#x}"),
    };
    name.into()
}
