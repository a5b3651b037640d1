//! The overlay root: idmapped read-only layers under a plain writable directory. Runs in the stage helper.
//!
//! The layers keep the image's ids on disk and are shown through the container's id map. The upper directory stores
//! shifted ids: an idmapped one would make overlay silently read-only. The mount is made with the host's credentials,
//! so that its own attributes (`trusted.overlay.*`) are out of the container's reach.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, OFlags, StatVfsMountFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountPropagationFlags};

use crate::error::{Doing as _, Error, Result};
use crate::runtime::IdRange;
use crate::spec::launch::RootLayers;
use crate::sys::mount::{self, Attr};
use crate::sys::{clone, path};

/// Most layers overlay takes (OVL_MAX_STACK, fs/overlayfs/params.c).
pub const LAYERS_MAX: usize = 500;

/// Makes the detached overlay mount.
///
/// # Errors
/// `Unsupported` when a file system cannot show other ids; `BadContainer` for too many layers; `Io`.
pub fn overlay(root: &RootLayers, ids: IdRange, userns: BorrowedFd<'_>, attributes: Attr) -> Result<OwnedFd> {
    let layers = prepare(root, ids, userns)?;
    let mounted = match mount_with(root, Lower::Descriptors(&layers), attributes) {
        // Layers by descriptor are of 6.13, detached ones of 6.15.
        Err(error) if is_refusal(&error) => overlay_by_path(root, layers, attributes).map_err(|_| error)?,
        other => other?,
    };
    check_writable(mounted.as_fd(), &root.upper)?;
    Ok(mounted)
}

/// What [`overlay`] does by itself where the kernel wants paths (6.1 to 6.14). Moves the calling thread into a mount
/// namespace of its own for good.
///
/// # Errors
/// As [`overlay`].
pub fn overlay_for_older_kernels(
    root: &RootLayers,
    ids: IdRange,
    userns: BorrowedFd<'_>,
    attributes: Attr,
) -> Result<OwnedFd> {
    let layers = prepare(root, ids, userns)?;
    let mounted = overlay_by_path(root, layers, attributes)?;
    check_writable(mounted.as_fd(), &root.upper)?;
    Ok(mounted)
}

fn prepare(root: &RootLayers, ids: IdRange, userns: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    if root.layers.len() > LAYERS_MAX {
        let count = root.layers.len();
        return Err(Error::BadContainer(format!("the image has {count} layers, the kernel takes {LAYERS_MAX}")));
    }
    prepare_upper(root, ids)?;
    root.layers.iter().map(|layer| idmapped_layer(layer, userns)).collect()
}

/// Layers attached under short names in a private mount namespace, so that the list fits into the one page the
/// older interface has for it.
fn overlay_by_path(root: &RootLayers, layers: Vec<OwnedFd>, attributes: Attr) -> Result<OwnedFd> {
    let doing = || "attach the layers";
    clone::unshare(libc::CLONE_NEWNS).doing(doing)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).doing(doing)?;
    let names = mount::filesystem("tmpfs", &[("mode", Some("700"))], Attr::empty()).doing(doing)?;
    let place = rustix::fs::open("/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    mount::attach(&names, place.doing(doing)?).doing(doing)?;
    rustix::process::fchdir(&names).doing(doing)?;
    let count = layers.len();
    for (number, layer) in layers.into_iter().enumerate() {
        let name = number.to_string();
        rustix::fs::mkdirat(&names, &name, Mode::from_raw_mode(0o700)).doing(doing)?;
        let place = path::open_beneath(&names, Path::new(&name), OFlags::PATH).doing(doing)?;
        mount::attach(layer, place).doing(doing)?;
    }
    let list = (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(":");
    mount_with(root, Lower::Paths(&list), attributes)
}

/// EINVAL from kernels that know the new mount interface for overlay (6.5), EOPNOTSUPP from those that do not.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)))
}

/// How overlay is told its read-only layers.
enum Lower<'a> {
    Descriptors(&'a [OwnedFd]),
    /// Relative to the working directory, separated by `:`.
    Paths(&'a str),
}

fn mount_with(root: &RootLayers, lower: Lower<'_>, attributes: Attr) -> Result<OwnedFd> {
    let doing = || format!("mount the overlay with upper {}", root.upper.display());
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    if let Err(error) = configure(context.as_fd(), root, lower) {
        let said = mount::context_messages(context.as_fd());
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        return Err(Error::io(format!("{}{said}", doing()), error));
    }
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing(doing)
}

fn configure(context: BorrowedFd<'_>, root: &RootLayers, lower: Lower<'_>) -> std::io::Result<()> {
    match lower {
        Lower::Descriptors(layers) => {
            for layer in layers {
                rustix::mount::fsconfig_set_fd(context, "lowerdir+", layer)?;
            }
        }
        Lower::Paths(list) => rustix::mount::fsconfig_set_string(context, "lowerdir", list)?,
    }
    rustix::mount::fsconfig_set_string(context, "upperdir", root.upper.as_path())?;
    rustix::mount::fsconfig_set_string(context, "workdir", root.work.as_path())?;
    // Most containers are never started twice, so nobody reads their upper directory after a power cut; without this, the
    // end of each container would sync the whole file system below.
    if !root.lasting {
        rustix::mount::fsconfig_set_flag(context, "volatile")?;
    }
    rustix::mount::fsconfig_set_string(context, "source", "boxship")?;
    Ok(rustix::mount::fsconfig_create(context)?)
}

/// The root directory of a merged tree has the owner and mode of the upper one: those of the image's, shifted.
fn prepare_upper(root: &RootLayers, ids: IdRange) -> Result<()> {
    let doing = || format!("prepare {}", root.upper.display());
    let top = root.layers.first().ok_or_else(|| Error::BadContainer("the image has no layers".into()))?;
    let image = std::fs::metadata(top).doing(|| format!("look at layer {}", top.display()))?;
    let shift = |id: u32| if id < ids.len { ids.host_start + id } else { ids.host_start };
    let upper = rustix::fs::open(&root.upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let upper = upper.doing(doing)?;
    let (uid, gid) = (Uid::from_raw(shift(image.uid())), Gid::from_raw(shift(image.gid())));
    rustix::fs::fchown(&upper, Some(uid), Some(gid)).doing(doing)?;
    rustix::fs::fchmod(&upper, Mode::from_raw_mode(image.mode() & 0o7777)).doing(doing)?;
    // Left by a start that failed after its mount: overlay refuses a second volatile mount of the same directories.
    let stale = root.work.join("work/incompat/volatile");
    match std::fs::remove_dir_all(&stale) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", stale.display()), error))
        }
        _ => Ok(()),
    }
}

fn idmapped_layer(layer: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let text = layer.to_string_lossy();
    let tree = mount::clone_tree(CWD, &text, false).doing(|| format!("open layer {text}"))?;
    idmap(tree.as_fd(), userns, Attr::MOUNT_ATTR_RDONLY, false, &text)?;
    Ok(tree)
}

/// Maps a detached mount into the container's user namespace, naming the file system that cannot.
pub(super) fn idmap(
    tree: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    set: Attr,
    recursive: bool,
    name: &str,
) -> Result<()> {
    mount::idmap(tree, userns, set, recursive).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::EPERM) => Error::Unsupported(format!(
            "{name} is on {}, which cannot show its files with a container's ids (no idmapped mounts); \
             use another file system for it",
            mount::filesystem_name(tree)
        )),
        _ => Error::io(format!("map the ids of {name}"), error),
    })
}

/// Overlay falls back to read-only instead of failing when it cannot use its upper directory.
fn check_writable(mounted: BorrowedFd<'_>, upper: &Path) -> Result<()> {
    let stat = rustix::fs::fstatvfs(mounted).doing(|| format!("look at the overlay with upper {}", upper.display()))?;
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let name = std::fs::File::open(upper).map_or_else(|_| "its file system".into(), mount::filesystem_name);
        let upper = upper.display();
        return Err(Error::Unsupported(format!(
            "{upper} is on {name}, which cannot be the writable layer of an overlay"
        )));
    }
    Ok(())
}
