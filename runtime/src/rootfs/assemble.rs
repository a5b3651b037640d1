//! Init's half: attaching the prepared mounts, making the others, hiding paths, becoming the root. All targets are
//! resolved inside the container's root by openat2; none is a path of the host.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::mounts::{CgroupView, FILES_DIR, Step, What, is_dev};
use super::options::Options;
use super::{binds, files};
use crate::cgroup::Hierarchies;
use crate::error::{Doing as _, Error, Result};
use crate::runtime::IdRange;
use crate::sys::mount::{self, Attr, Propagation};
use crate::sys::path::{self, Missing};

/// What the stage helper hands over.
#[derive(Debug)]
pub struct Supplies {
    /// The overlay.
    pub root: OwnedFd,
    /// /dev.
    pub devices: OwnedFd,
    /// The generated files of /etc, where there are any.
    pub etc: Option<OwnedFd>,
    /// The directory of content files, when there are any.
    pub files: Option<OwnedFd>,
    /// One for each volume and bind, in the order of `Launch::mounts`.
    pub mounts: Vec<(usize, OwnedFd)>,
}

/// The container's root, attached but not yet entered.
#[derive(Debug)]
pub struct Assembly {
    supplies: Supplies,
    host: Host,
    root_mount: u64,
    own_mounts: bool,
}

/// Two directories of the old root, opened while this process may still look into it.
#[derive(Debug)]
pub struct Host {
    dev: OwnedFd,
    sys: OwnedFd,
}

impl Host {
    /// Opens them; in the mount namespace of the container, since only there can something be attached.
    ///
    /// # Errors
    /// `Io`.
    pub fn open() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path| rustix::fs::open(path, flags, Mode::empty()).doing(|| format!("open {path}"));
        Ok(Self { dev: open("/dev")?, sys: open("/sys")? })
    }
}

impl Assembly {
    /// Attaches the root, and what single files are copied out of, somewhere in the old root, all of which goes away
    /// with [`Self::enter`]. (Copying a file's mount out of a directory needs the directory attached: open_tree(2).)
    /// A root that is a directory of the host is attached there, where hooks expect it, if that can be reached; without
    /// mounts of its own (`own_mounts`) the container has no other place, and nothing of the host is covered.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(
        supplies: Supplies,
        host: Host,
        steps: &[Step],
        directory: Option<&Path>,
        own_mounts: bool,
    ) -> Result<Self> {
        let doing = || "attach the root file system";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let reached = directory.map(|path| rustix::fs::open(path, flags, Mode::empty()));
        if own_mounts {
            if let Some(etc) = &supplies.etc {
                mount::attach(etc, &host.dev).doing(doing)?;
            }
            if !steps.iter().any(|step| step.what == What::Devices) {
                mount::attach(&supplies.devices, &host.dev).doing(doing)?;
            }
        }
        let place = match reached {
            Some(Ok(reached)) => Some(reached),
            Some(Err(errno)) if !own_mounts => return Err(Error::io("reach the root file system", errno)),
            Some(Err(_)) | None => None,
        };
        mount::attach(&supplies.root, place.as_ref().unwrap_or(&host.dev)).doing(doing)?;
        let root_mount = path::mount_id(&supplies.root).doing(doing)?;
        Ok(Self { supplies, host, root_mount, own_mounts })
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.supplies.root.as_fd()
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// `BadContainer` when the target cannot be a mount point; `Io`.
    pub fn mount(&self, step: &Step) -> Result<()> {
        let doing = || format!("mount {}", step.target.display());
        let mounted = match &step.what {
            What::FileSystem { kind, source, options } => {
                if matches!(kind.as_str(), "proc" | "sysfs") {
                    self.refuse_link(&step.target, kind)?;
                }
                return self.mount_filesystem(&step.target, kind, source.as_deref(), options);
            }
            What::Devices => return self.attach(self.supplies.devices.as_fd(), &step.target, Missing::Directory),
            What::HostSys => {
                self.refuse_link(&step.target, "sysfs")?;
                super::devices::host_sys(self.host.sys.as_fd())?
            }
            What::Cgroups(view) => return self.mount_cgroups(&step.target, view),
            What::Etc(name) => {
                let etc = self.supplies.etc.as_ref().expect("the plan has this step only with generated files");
                let file = mount::clone_tree(etc, name, false).doing(doing)?;
                return self.attach(file.as_fd(), &step.target, Missing::File);
            }
            What::Files => {
                let files = self.supplies.files.as_ref().expect("the plan has this step only with content files");
                return self.attach(files.as_fd(), &step.target, Missing::Directory);
            }
            What::Supplied(number) => return self.attach_supplied(*number, &step.target),
            What::Change(options) => {
                let place = path::open_in_root(self.root(), &step.target, OFlags::PATH).doing(doing)?;
                return binds::change(place.as_fd(), options).doing(doing);
            }
            What::File { name } => return self.link_file(name, &step.target),
        };
        self.attach(mounted.as_fd(), &step.target, Missing::Directory)
    }

    /// Whoever made the image could lead these two elsewhere, and what is masked and read-only is looked for at their
    /// own places (CVE-2019-19921). In the words engines know.
    fn refuse_link(&self, target: &Path, kind: &str) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        match path::open_in_root(self.root(), target, flags).and_then(|place| path::is_directory(&place)) {
            Ok(false) => Err(Error::BadContainer(format!(
                "`{kind}` must be mounted on ordinary directory: {} is none in the image",
                target.display()
            ))),
            // What is missing is made, what is wrong is told there.
            Ok(true) | Err(_) => Ok(()),
        }
    }

    fn mount_filesystem(&self, target: &Path, kind: &str, source: Option<&str>, options: &Options) -> Result<()> {
        let mut data: Vec<(&str, Option<&str>)> = options
            .data
            .iter()
            .map(|option| option.split_once('=').map_or((option.as_str(), None), |(key, value)| (key, Some(value))))
            .collect();
        if let Some(source) = source {
            data.push(("source", Some(source)));
        }
        let read_only = options.set & Attr::MOUNT_ATTR_RDONLY;
        if !matches!(kind, "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue") && !read_only.is_empty() {
            // A disk that is only readable must be told so, not only the mount of it.
            data.push(("ro", None));
        }
        let mounted = mount::filesystem(kind, &data, options.set - read_only).map_err(|error| refused(kind, error))?;
        let doing = || format!("mount {}", target.display());
        if options.copy_up {
            let from = path::open_in_root(self.root(), target, OFlags::RDONLY | OFlags::DIRECTORY);
            if let Ok(from) = from {
                let ids = IdRange { host_start: 0, len: u32::MAX };
                let to =
                    path::open_beneath(&mounted, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY).doing(doing)?;
                super::copy::tree(from.as_fd(), to.as_fd(), ids).doing(doing)?;
            }
        }
        if !read_only.is_empty() {
            mount::set_attributes(&mounted, read_only, Attr::empty(), false).doing(doing)?;
        }
        self.attach(mounted.as_fd(), target, Missing::Directory)?;
        match options.propagation {
            Some((kind, below)) => mount::propagate(&mounted, kind, below).doing(doing),
            None => Ok(()),
        }
    }

    fn attach_supplied(&self, number: usize, target: &Path) -> Result<()> {
        let (_, mounted) = self
            .supplies
            .mounts
            .iter()
            .find(|(known, _)| *known == number)
            .expect("stage sends a mount for every volume and bind, or fails");
        let is_directory =
            path::is_directory(mounted).doing(|| format!("look at the mount for {}", target.display()))?;
        self.attach(mounted.as_fd(), target, if is_directory { Missing::Directory } else { Missing::File })
    }

    fn attach(&self, mounted: BorrowedFd<'_>, target: &Path, missing: Missing) -> Result<()> {
        let place = self.place(target, missing)?;
        mount::attach(mounted, &place).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTDIR) => Error::BadContainer(format!(
                "{} is a {} in the image, and what is mounted there is not",
                target.display(),
                if missing == Missing::Directory { "file" } else { "directory" }
            )),
            _ => Error::io(format!("mount {}", target.display()), error),
        })
    }

    fn place(&self, target: &Path, missing: Missing) -> Result<OwnedFd> {
        path::open_or_make(self.root(), target, missing).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => Error::BadContainer(format!(
                "{} cannot be a mount point: a part of the path is no directory in the image",
                target.display()
            )),
            _ => Error::io(format!("make the mount point {}", target.display()), error),
        })
    }

    /// v2 at the target itself; on a hybrid host a small tmpfs with the hierarchies we put the container into.
    fn mount_cgroups(&self, target: &Path, view: &CgroupView) -> Result<()> {
        let doing = || format!("mount {}", target.display());
        let hierarchies = if view.all_controllers { Hierarchies::all_of_host()? } else { Hierarchies::of_host()? };
        if hierarchies.controllers.is_empty() {
            let mounted = view.unified(hierarchies).doing(doing)?;
            return self.attach(mounted.as_fd(), target, Missing::Directory);
        }
        let options = [("mode", Some("755")), ("size", Some("64k")), ("source", Some("tmpfs"))];
        let writable = view.attributes - Attr::MOUNT_ATTR_RDONLY;
        let directory = mount::filesystem("tmpfs", &options, writable).doing(doing)?;
        self.attach(directory.as_fd(), target, Missing::Directory)?;
        for (name, root) in &hierarchies.controllers {
            rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)).doing(doing)?;
            let place = path::open_beneath(&directory, Path::new(name), OFlags::PATH).doing(doing)?;
            mount::attach(view.hierarchy(hierarchies, name, root).doing(doing)?, place).doing(doing)?;
        }
        rustix::fs::mkdirat(&directory, "unified", Mode::from_raw_mode(0o755)).doing(doing)?;
        let place = path::open_beneath(&directory, Path::new("unified"), OFlags::PATH).doing(doing)?;
        mount::attach(view.unified(hierarchies).doing(doing)?, place).doing(doing)?;
        mount::set_attributes(&directory, view.attributes, Attr::empty(), false).doing(doing)
    }

    /// A link in the root's own layer; a mount where the target lies in another mount.
    fn link_file(&self, name: &str, target: &Path) -> Result<()> {
        let doing = || format!("make the link {}", target.display());
        let parent = target.parent().unwrap_or(Path::new("/"));
        let directory = path::make_directories(self.root(), parent).doing(doing)?;
        if path::mount_id(&directory).doing(doing)? != self.root_mount {
            let files = self.supplies.files.as_ref().expect("the plan has this step only with content files");
            let file = path::open_in_root(files, Path::new(files::CURRENT).join(name).as_path(), OFlags::PATH);
            let file = mount::clone_tree(file.doing(doing)?, "", false).doing(doing)?;
            return self.attach(file.as_fd(), target, Missing::File);
        }
        let link = format!("{FILES_DIR}/{}/{name}", files::CURRENT);
        let own_name = target.file_name().ok_or_else(|| Error::BadContainer("a file needs a name".into()))?;
        match rustix::fs::unlinkat(&directory, own_name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {
                let target = target.display();
                return Err(Error::BadContainer(format!(
                    "{target} is a directory in the image, and a file is mounted there"
                )));
            }
            Err(errno) => return Err(Error::io(doing(), errno)),
        }
        rustix::fs::symlinkat(link, &directory, own_name).doing(doing)
    }

    /// Covers paths: files by /dev/null, directories by an empty read-only one. What is not there needs no cover.
    ///
    /// # Errors
    /// `Io`.
    pub fn mask(&self, paths: &[String]) -> Result<()> {
        let mut empty: Option<OwnedFd> = None;
        for masked in paths {
            let doing = || format!("mask {masked}");
            let Some(place) = self.existing(masked)? else { continue };
            let cover = if !path::is_directory(&place).doing(doing)? {
                mount::clone_tree(&self.supplies.devices, "null", false).doing(doing)?
            } else if let Some(first) = &empty {
                mount::clone_tree(first, "", false).doing(doing)?
            } else {
                let options = [("size", Some("0")), ("nr_inodes", Some("1")), ("mode", Some("755"))];
                mount::filesystem("tmpfs", &options, Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOEXEC).doing(doing)?
            };
            mount::attach(&cover, place).doing(doing)?;
            if path::is_directory(&cover).doing(doing)? && empty.is_none() {
                empty = Some(cover);
            }
        }
        Ok(())
    }

    /// Mounts paths read-only over themselves.
    ///
    /// # Errors
    /// `Io`.
    pub fn protect(&self, paths: &[String]) -> Result<()> {
        for protected in paths {
            let doing = || format!("make {protected} read-only");
            let Some(place) = self.existing(protected)? else { continue };
            let copy = mount::clone_tree(&place, "", true).doing(doing)?;
            mount::set_attributes(&copy, Attr::MOUNT_ATTR_RDONLY, Attr::empty(), true).doing(doing)?;
            mount::attach(copy, place).doing(doing)?;
        }
        Ok(())
    }

    fn existing(&self, path: &str) -> Result<Option<OwnedFd>> {
        match path::open_in_root(self.root(), Path::new(path), OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("open {path}"), error)),
        }
    }

    /// Makes the devices of a spec that are not in the prepared /dev, and where /dev is no mount at all, everything
    /// that belongs there. Nothing where /dev is somebody else's.
    ///
    /// # Errors
    /// `BadContainer`, `Io`.
    pub fn make_devices(&self, spec: &Spec, ids: IdRange) -> Result<()> {
        let more = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        for device in more.iter().filter(|device| !device.path().starts_with("/dev")) {
            super::devices::add(self.root(), device.path(), device, ids)?;
        }
        let at_dev = |mount: &Mount| mount.destination().components().eq(Path::new("/dev").components());
        match spec.mounts().iter().flatten().find(|mount| at_dev(mount)) {
            None => super::devices::make_in_root(self.root(), self.supplies.devices.as_fd(), more),
            // Now that everything is in it.
            Some(mount) if is_dev(mount) && Options::of(mount).set.contains(Attr::MOUNT_ATTR_RDONLY) => {
                let dev = &self.supplies.devices;
                mount::set_attributes(dev, Attr::MOUNT_ATTR_RDONLY, Attr::empty(), false)
                    .doing(|| "make /dev read-only")
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes it the root of this process's mount namespace and lets everything of the host go.
    ///
    /// # Errors
    /// `BadContainer` for a `propagation` that is none; `Io`.
    pub fn enter(self, read_only: bool, propagation: Option<&str>) -> Result<()> {
        let doing = || "enter the root file system";
        if read_only {
            mount::set_attributes(self.root(), Attr::MOUNT_ATTR_RDONLY, Attr::empty(), false).doing(doing)?;
        }
        if !self.own_mounts {
            return mount::change_root(self.root()).doing(doing);
        }
        mount::pivot(self.root()).doing(doing)?;
        // A root that cannot be exchanged while it is shared is shared only now.
        let (kind, below) = match propagation {
            Some("shared") => (Propagation::Shared, false),
            Some("rshared") => (Propagation::Shared, true),
            Some("unbindable") => (Propagation::Unbindable, false),
            Some("runbindable") => (Propagation::Unbindable, true),
            None | Some("" | "private" | "rprivate" | "slave" | "rslave") => return Ok(()),
            Some(other) => {
                return Err(Error::BadContainer(format!("`{other}` is no propagation of a root file system")));
            }
        };
        mount::propagate(self.root(), kind, below).doing(doing)
    }
}

/// A user namespace gets no fresh /proc or /sys where the host's own is partly covered (mount_too_revealing, 4.8).
#[must_use]
pub fn refused(kind: &str, error: io::Error) -> Error {
    if error.raw_os_error() == Some(libc::EPERM) && matches!(kind, "proc" | "sysfs") {
        return Error::Unsupported(format!(
            "the kernel refuses a container its own {kind}: parts of this host's are covered by other mounts, as in a \
             container that is itself not privileged"
        ));
    }
    Error::io(format!("make a mount of {kind}"), error)
}

impl CgroupView {
    fn unified(&self, hierarchies: &Hierarchies) -> io::Result<OwnedFd> {
        match &self.directory {
            Some(directory) if !self.own_namespace => self.shown(&hierarchies.unified, directory),
            // Cheap on v2, and never in the way of what a directory above lets its user see.
            Some(_) | None => mount::filesystem("cgroup2", &[("source", Some("cgroup"))], self.attributes),
        }
    }

    fn hierarchy(&self, hierarchies: &Hierarchies, name: &str, root: &Path) -> io::Result<OwnedFd> {
        if let Some(directory) = &self.directory {
            match self.shown(root, directory) {
                Err(error) if self.own_namespace && error.kind() == io::ErrorKind::PermissionDenied => {}
                shown => return shown,
            }
        }
        // Another set of controllers than the host's is another hierarchy: name all that are mounted together.
        let together = controllers_at(hierarchies, name);
        let mut options: Vec<(&str, Option<&str>)> = together.iter().map(|name| (name.as_str(), None)).collect();
        options.push(("source", Some("cgroup")));
        mount::filesystem("cgroup", &options, self.attributes)
    }

    /// The host's mount, from the container's directory on: what a mount of its own would show in a new cgroup namespace.
    /// That one would make the kernel walk through every cgroup of the host (cgroup_lock_and_drain_offline), under the lock
    /// all of them share.
    fn shown(&self, root: &Path, directory: &str) -> io::Result<OwnedFd> {
        let tree = mount::clone_tree(rustix::fs::CWD, &root.join(directory).to_string_lossy(), false)?;
        mount::set_attributes(&tree, self.attributes, Attr::empty(), false)?;
        Ok(tree)
    }
}

/// The controllers mounted in the same directory as this one, itself included.
fn controllers_at(hierarchies: &Hierarchies, name: &str) -> Vec<String> {
    let root = hierarchies.controllers.iter().find(|(known, _)| known == name).map(|(_, root)| root);
    let together = root.and_then(|root| root.file_name()).map(|base| base.to_string_lossy().into_owned());
    match together {
        // The usual name of a co-mount is the list itself: `cpu,cpuacct`.
        Some(base) if base.split(',').any(|part| part == name) => base.split(',').map(str::to_owned).collect(),
        _ => vec![name.to_owned()],
    }
}
