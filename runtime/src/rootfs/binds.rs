//! A root file system and bind mounts a spec names by host path, as detached mounts. Runs in the stage helper: the paths
//! are the host's, and may be out of reach for the container's root. Knows nothing of volumes and layers.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, Mount};
use rustix::fs::{CWD, Mode, OFlags};

use super::layers;
use super::options::Options;
use crate::error::{Doing as _, Error, Result};
use crate::sys::mount::{self, Attr, Propagation};
use crate::sys::userns;

/// The root file system in a directory, with what is mounted below it. What is mounted there later spreads in or not
/// as `propagation` (the spec's `rootfsPropagation`) says; `shared` and `unbindable` are for after the entering.
///
/// # Errors
/// `BadContainer` when it is no directory; `Io`.
pub fn root(directory: &Path, propagation: Option<&str>) -> Result<OwnedFd> {
    let shown = directory.display();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = rustix::fs::open(directory, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT => Error::BadContainer(format!("the root file system {shown} does not exist")),
        rustix::io::Errno::NOTDIR => Error::BadContainer(format!("the root file system {shown} is no directory")),
        other => Error::io(format!("open the root file system {shown}"), other),
    })?;
    let tree = mount::clone_tree(source, "", true).doing(|| format!("copy the mount of {shown}"))?;
    let kind = match propagation {
        None | Some("" | "slave" | "rslave") => Propagation::Slave,
        Some(_) => Propagation::Private,
    };
    mount::propagate(&tree, kind, true).doing(|| format!("separate the mount of {shown}"))?;
    Ok(tree)
}

/// One bind mount. `shares` says that the spec's `rootfsPropagation` lets mounts spread to the host: then one that is
/// to be shared stays a peer of the host's.
///
/// # Errors
/// `BadContainer` for a path that does not exist; `Unsupported` when its file system cannot show other ids; `Io`.
pub fn bind(wanted: &Mount, base: &Path, shares: bool, own: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let options = Options::of(wanted);
    let target = wanted.destination().display();
    let Some(source) = wanted.source() else {
        return Err(Error::BadContainer(format!("the bind mount at {target} has no source")));
    };
    // A relative source counts from the bundle (OCI config, "Mounts").
    let path = base.join(source);
    let shown = path.display();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
            Error::BadContainer(format!("{shown} (mounted at {target}) does not exist on the host"))
        }
        other => Error::io(format!("open {shown}"), other),
    })?;
    let doing = || format!("prepare the mount of {shown}");
    let tree = mount::clone_tree(&source, "", options.bind == Some(true)).doing(doing)?;
    let is_shared = matches!(options.propagation, Some((Propagation::Shared, _)));
    if !(is_shared && shares) {
        mount::propagate(&tree, Propagation::Slave, true).doing(doing)?;
    }
    change(tree.as_fd(), &options).doing(doing)?;
    if let Some((kind, below)) = options.propagation {
        mount::propagate(&tree, kind, below).doing(doing)?;
    }
    let maps =
        (wanted.uid_mappings().as_deref().unwrap_or_default(), wanted.gid_mappings().as_deref().unwrap_or_default());
    if options.idmap.is_some() || !maps.0.is_empty() || !maps.1.is_empty() {
        idmap(tree.as_fd(), maps, options.idmap == Some(true), own, &shown.to_string())?;
    }
    Ok(tree)
}

/// Sets and clears what options say.
///
/// # Errors
/// The kernel's.
pub fn change(mounted: BorrowedFd<'_>, options: &Options) -> std::io::Result<()> {
    let none = Attr::empty();
    if options.set_below != none || options.clear_below != none {
        mount::set_attributes(mounted, options.set_below, options.clear_below, true)?;
    }
    if options.set != none || options.clear != none {
        mount::set_attributes(mounted, options.set, options.clear, false)?;
    }
    Ok(())
}

/// By maps of its own, or the container's where it has none.
fn idmap(
    tree: BorrowedFd<'_>,
    (uids, gids): (&[LinuxIdMapping], &[LinuxIdMapping]),
    below: bool,
    own: Option<BorrowedFd<'_>>,
    name: &str,
) -> Result<()> {
    if uids.is_empty() && gids.is_empty() {
        let own = own.ok_or_else(|| {
            Error::BadContainer(format!(
                "{name} is to be shown with other ids, and neither it nor the container has a map"
            ))
        })?;
        return layers::idmap(tree, own, Attr::empty(), below, name);
    }
    let userns = userns::with_maps(&lines(uids), &lines(gids)).doing(|| format!("make a map of ids for {name}"))?;
    layers::idmap(tree, userns.as_fd(), Attr::empty(), below, name)
}

/// Maps as /proc/PID/uid_map takes them (user_namespaces(7)).
#[must_use]
pub fn lines(maps: &[LinuxIdMapping]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())).collect()
}
