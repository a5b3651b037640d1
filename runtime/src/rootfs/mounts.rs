//! The list of mounts of a container, parents before children. Pure: from spec and launch to steps.

use std::path::PathBuf;

use oci_spec::runtime::{Mount, Spec};

use super::options::Options;
use crate::spec::depth;
use crate::spec::launch::{Launch, LaunchSource};
use crate::sys::mount::Attr;
use crate::{Error, Result};

/// Where the directory of content files is attached; links lead into it.
pub const FILES_DIR: &str = "/dev/.files";

/// One mount to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Absolute path inside.
    pub target: PathBuf,
    /// What goes there.
    pub what: What,
}

/// What a step mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A new instance of a file system.
    FileSystem {
        /// Its name.
        kind: String,
        /// Its source, where it has one: a block device, say.
        source: Option<String>,
        /// How.
        options: Options,
    },
    /// The prepared /dev.
    Devices,
    /// The container's view of its cgroups.
    Cgroups(CgroupView),
    /// The host's /sys, where no network namespace of its own allows a new one.
    HostSys,
    /// One of the generated files of /etc.
    Etc(&'static str),
    /// The directory of content files.
    Files,
    /// A detached mount from the stage helper: by its number among `Launch::mounts`, or after those by its number among
    /// the mounts of the spec.
    Supplied(usize),
    /// What is mounted there already gets other attributes.
    Change(Options),
    /// A content file: a link into the directory of content files, or a mount of the file where a link would end up
    /// in somebody's volume.
    File {
        /// Its name in the directory of content files.
        name: String,
    },
}

/// How a container sees its cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupView {
    /// Mount attributes.
    pub attributes: Attr,
    /// Every hierarchy of the host, as in `Launch::all_controllers`.
    pub all_controllers: bool,
    /// The path of its directory, which is all it is shown; `None` in a given cgroup namespace, whose root is another's.
    pub directory: Option<String>,
    /// It has a cgroup namespace made for it.
    pub own_namespace: bool,
}

/// What of the container's surroundings decides how mounts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// It has a user namespace that is not the host's.
    pub user: bool,
    /// It has a network namespace that is not the host's.
    pub network: bool,
    /// It has a cgroup namespace that was not made for it.
    pub cgroup_given: bool,
    /// It has a cgroup namespace that was made for it.
    pub cgroup_own: bool,
}

/// The steps of a container. Those of a spec alone are in its order; where there are mounts of ours too, parents come
/// before children.
///
/// # Errors
/// `BadContainer` for a mount the specification does not allow.
pub fn plan(spec: &Spec, launch: &Launch, around: Surroundings) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        let what = what(mount, launch.mounts.len() + number, launch, around)?;
        steps.push(Step { target: mount.destination().clone(), what });
    }
    if launch.etc.is_none() && launch.mounts.is_empty() {
        return Ok(steps);
    }
    let own = |target: &str| launch.mounts.iter().any(|mount| mount.target == target);
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        if launch.etc.is_some() && !own(&target) {
            steps.push(Step { target: target.into(), what: What::Etc(name) });
        }
    }
    if has_files(launch) {
        steps.push(Step { target: FILES_DIR.into(), what: What::Files });
    }
    for (at, mount) in launch.mounts.iter().enumerate() {
        let what = match &mount.source {
            LaunchSource::Volume { .. } | LaunchSource::Bind { .. } => What::Supplied(at),
            LaunchSource::File { name, .. } => What::File { name: name.clone() },
        };
        steps.push(Step { target: mount.target.clone().into(), what });
    }
    steps.sort_by_key(|step| depth(&step.target.to_string_lossy()));
    Ok(steps)
}

fn what(mount: &Mount, number: usize, launch: &Launch, around: Surroundings) -> Result<What> {
    let options = Options::of(mount);
    if options.bind.is_some() {
        return Ok(if options.remount { What::Change(options) } else { What::Supplied(number) });
    }
    if options.remount {
        return Ok(What::Change(options));
    }
    let target = mount.destination();
    Ok(match mount.typ().as_deref() {
        Some("tmpfs") if is_dev(mount) => What::Devices,
        Some("cgroup" | "cgroup2") => What::Cgroups(CgroupView {
            attributes: options.set,
            all_controllers: launch.all_controllers,
            directory: (!around.cgroup_given).then(|| launch.cgroup.clone()),
            own_namespace: around.cgroup_own,
        }),
        Some("sysfs") if around.user && !around.network => What::HostSys,
        Some(kind) if !kind.is_empty() && kind != "none" => {
            let source = mount.source().as_ref().map(|source| source.to_string_lossy().into_owned());
            What::FileSystem { kind: kind.to_owned(), source, options }
        }
        Some(_) | None => {
            let target = target.display();
            return Err(Error::BadContainer(format!(
                "the mount at {target} has neither a type nor one of the options bind and rbind"
            )));
        }
    })
}

/// Whether this is the small file system that becomes /dev.
#[must_use]
pub fn is_dev(mount: &Mount) -> bool {
    let kind = mount.typ().as_deref() == Some("tmpfs");
    kind && mount.destination().components().eq(std::path::Path::new("/dev").components())
}

/// Whether a launch has content files.
#[must_use]
pub fn has_files(launch: &Launch) -> bool {
    launch.mounts.iter().any(|mount| matches!(mount.source, LaunchSource::File { .. }))
}
