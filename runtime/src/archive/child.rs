//! The program that copies: it becomes the container's root inside the container's mounts, then reads or writes there. A
//! process of one thread. Archives go over its standard input and output, what came of it over standard error.

use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::process::ExitCode;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Copied, Copy, Kind, Order, Outcome, Root, unpack};
use crate::error::{Doing as _, Error, Result, chain};
use crate::image::pack::{Owners, Packer};
use crate::rootfs::{layers, volumes};
use crate::runtime::IdRange;
use crate::spec::depth;
use crate::spec::launch::{LaunchMount, LaunchSource, RootLayers};
use crate::sys::mount::{self, Attr, Propagation};
use crate::sys::path::{Missing, is_directory, open_in_root, open_or_make};
use crate::sys::{clone, privilege, userns};

/// Entry of the hidden verb `copy`: an order as JSON is its only argument.
#[must_use]
pub fn copy_child(args: &[String]) -> ExitCode {
    let outcome = match args.first().map(|text| serde_json::from_str::<Order>(text)) {
        Some(Ok(order)) => run(&order).unwrap_or_else(|error| Outcome::Failed(chain(&error))),
        _ => Outcome::Failed("it was started without an order".to_owned()),
    };
    let bytes = serde_json::to_vec(&outcome).unwrap_or_default();
    match io::stderr().write_all(&bytes) {
        Ok(()) if !matches!(outcome, Outcome::Failed(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run(order: &Order) -> Result<Outcome> {
    match &order.root {
        Root::Of { pid, cgroup } => join(*pid, cgroup)?,
        Root::Layers { layers, ids, mounts } => assemble(layers, *ids, mounts)?,
    }
    rustix::process::umask(Mode::empty());
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.doing(|| "open /")?;
    match &order.copy {
        Copy::Look { path, follow } => {
            let found = find(&root, path, *follow).doing(|| format!("look at {}", path.display()))?;
            Ok(found.map_or_else(|| missing(path), |found| Outcome::Found(found.kind)))
        }
        Copy::Out { path, name, follow } => {
            out(&root, path, name, *follow).doing(|| format!("read {}", path.display()))
        }
        Copy::In { directory, owner } => {
            let doing = || format!("unpack into {}", directory.display());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let dir = match open_in_root(&root, directory, flags) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(missing(directory)),
                other => other.doing(doing)?,
            };
            unpack::unpack(&mut io::stdin().lock(), dir.as_fd(), *owner).doing(doing).map(Outcome::Done)
        }
    }
}

fn missing(path: &Path) -> Outcome {
    Outcome::Missing(path.display().to_string())
}

/// Into the users and mounts of a running container.
fn join(pid: i32, cgroup: &str) -> Result<()> {
    let doing = || format!("enter the container of process {pid}");
    let gone = || Error::Conflict("the container ended meanwhile".to_owned());
    let pidfd = pidfd_open(Pid::from_raw(pid).ok_or_else(gone)?, PidfdFlags::empty()).map_err(|_| gone())?;
    let is_in = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(cgroup));
    if !is_in {
        return Err(gone());
    }
    let own = std::fs::read_link("/proc/self/ns/user").doing(doing)?;
    let theirs = std::fs::read_link(format!("/proc/{pid}/ns/user")).doing(doing)?;
    // a container that shares the host's users has only its mounts to be entered
    let user = if own == theirs { 0 } else { libc::CLONE_NEWUSER };
    clone::setns(pidfd.as_fd(), libc::CLONE_NEWNS | user).doing(doing)?;
    if user != 0 {
        privilege::become_user(0, 0, &[]).doing(|| "become root of the container")?;
    }
    Ok(())
}

/// A root as a start would make it, in mounts of this process's own.
fn assemble(root: &RootLayers, ids: IdRange, mounts: &[LaunchMount]) -> Result<()> {
    let doing = || "put the container's files together";
    clone::unshare(libc::CLONE_NEWNS).doing(doing)?;
    let here = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing(doing)?;
    mount::propagate(&here, Propagation::Private, true).doing(doing)?;
    let map = format!("0 {} {}\n", ids.host_start, ids.len);
    let users = userns::with_maps(&map, &map).doing(doing)?;
    let overlay = layers::overlay(root, ids, users.as_fd(), Attr::MOUNT_ATTR_NODEV)?;
    let place = rustix::fs::open("/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    mount::attach(&overlay, place.doing(doing)?).doing(doing)?;
    let mut mounts: Vec<&LaunchMount> = mounts.iter().collect();
    mounts.sort_by_key(|mount| depth(&mount.target));
    for one in mounts {
        let tree = match volumes::open(one, overlay.as_fd(), ids, users.as_fd()) {
            // what is not on the host any more is not there to be copied
            Err(Error::BadContainer(_)) if matches!(one.source, LaunchSource::Bind { .. }) => continue,
            other => other?,
        };
        let Some(tree) = tree else { continue };
        let kind = if is_directory(&tree).doing(doing)? { Missing::Directory } else { Missing::File };
        let target = open_or_make(&overlay, Path::new(&one.target), kind).doing(|| format!("mount {}", one.target))?;
        mount::attach(&tree, target).doing(|| format!("mount {}", one.target))?;
    }
    mount::pivot(&overlay).doing(doing)?;
    clone::join(users.as_fd(), libc::CLONE_NEWUSER).doing(|| "enter the container's users")?;
    privilege::become_user(0, 0, &[]).doing(|| "become root of the container")
}

/// Something in the root.
struct Found {
    kind: Kind,
    at: At,
}

enum At {
    /// By its name in this directory.
    Name(OwnedFd, CString),
    /// Itself (O_PATH), every link on the way followed.
    Itself(OwnedFd),
}

/// `None` when it is not there.
fn find(root: &OwnedFd, path: &Path, follow: bool) -> io::Result<Option<Found>> {
    let text = path.as_os_str().as_bytes();
    let ends_in_directory = text.ends_with(b"/") || text.ends_with(b"/.");
    let name = match path.components().next_back() {
        Some(Component::Normal(name)) if !follow && !ends_in_directory => CString::new(name.as_bytes())?,
        _ => return find_followed(root, path),
    };
    let above = path.parent().unwrap_or(Path::new("/"));
    let parent = match open_in_root(root, above, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other?,
    };
    match rustix::fs::statat(&parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        other => Ok(Some(Found { kind: kind(other?.st_mode), at: At::Name(parent, name) })),
    }
}

/// Every link followed, inside the root.
fn find_followed(root: &OwnedFd, path: &Path) -> io::Result<Option<Found>> {
    let fd = match open_in_root(root, path, OFlags::PATH) {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other?,
    };
    Ok(Some(Found { kind: kind(rustix::fs::fstat(&fd)?.st_mode), at: At::Itself(fd) }))
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENOTDIR)
}

fn kind(mode: u32) -> Kind {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Link,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            Kind::Other
        }
    }
}

fn out(root: &OwnedFd, path: &Path, name: &str, follow: bool) -> io::Result<Outcome> {
    let Some(found) = find(root, path, follow)? else { return Ok(missing(path)) };
    let mut packer = Packer::new(io::BufWriter::with_capacity(128 << 10, io::stdout().lock()), Owners::default());
    let dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match (found.kind, found.at) {
        (Kind::Directory, At::Name(parent, own)) => {
            let dir = rustix::fs::openat(&parent, own.as_c_str(), dir, Mode::empty())?;
            packer.tree(dir.as_fd(), name.as_bytes(), 0)?;
        }
        (Kind::Directory, At::Itself(fd)) => {
            let dir = rustix::fs::openat(&fd, c".", dir, Mode::empty())?;
            packer.tree(dir.as_fd(), name.as_bytes(), 0)?;
        }
        (Kind::File | Kind::Link | Kind::Other, At::Name(parent, own)) => {
            let stat = rustix::fs::statat(&parent, own.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            packer.entry(parent.as_fd(), &own, name.as_bytes(), &stat)?;
        }
        (Kind::File | Kind::Link | Kind::Other, At::Itself(_)) => {
            // NONBLOCK: by now it may be a FIFO that nobody ever writes
            let file = open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            if !packer.opened(file.into(), name.as_bytes())? {
                packer.left_out += 1;
            }
        }
    }
    let copied = Copied { left_out: packer.left_out };
    packer.finish()?.flush()?;
    Ok(Outcome::Done(copied))
}
