//! The list of mounts of a container, parents before children. Pure: from spec and launch to steps.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

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
        /// `key` or `key=value`.
        options: Vec<String>,
        /// Mount attributes.
        attributes: Attr,
    },
    /// The prepared /dev.
    Devices,
    /// The container's view of its cgroups.
    Cgroups {
        /// Mount attributes.
        attributes: Attr,
    },
    /// The host's /sys, where no network namespace of its own allows a new one.
    HostSys,
    /// One of the generated files of /etc.
    Etc(&'static str),
    /// The directory of content files.
    Files,
    /// A detached mount from the stage helper, by its number among `Launch::mounts`.
    Supplied(usize),
    /// A content file: a link into the directory of content files, or a mount of the file where a link would end up
    /// in somebody's volume.
    File {
        /// Its name in the directory of content files.
        name: String,
    },
}

/// The steps of a container.
///
/// # Errors
/// `Unsupported` for a mount type or option of the spec that we do not know.
pub fn plan(spec: &Spec, launch: &Launch, own_network: bool) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for mount in spec.mounts().as_deref().unwrap_or_default() {
        let target = mount.destination().clone();
        let kind = mount.typ().as_deref().unwrap_or("none");
        let (attributes, options) = attributes(mount.options().as_deref().unwrap_or_default())?;
        let what = match kind {
            "tmpfs" if target.as_os_str() == "/dev" => What::Devices,
            "cgroup" | "cgroup2" => What::Cgroups { attributes },
            "sysfs" if !own_network => What::HostSys,
            "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" => {
                What::FileSystem { kind: kind.to_owned(), options, attributes }
            }
            _ => {
                let target = target.display();
                return Err(Error::Unsupported(format!(
                    "the mount at {target} has the type `{kind}`, which is not supported"
                )));
            }
        };
        steps.push(Step { target, what });
    }
    let own = |target: &str| launch.mounts.iter().any(|mount| mount.target == target);
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        if !own(&target) {
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

/// Whether a launch has content files.
#[must_use]
pub fn has_files(launch: &Launch) -> bool {
    launch.mounts.iter().any(|mount| matches!(mount.source, LaunchSource::File { .. }))
}

/// Tells mount attributes from options of the file system.
fn attributes(options: &[String]) -> Result<(Attr, Vec<String>)> {
    let mut set = Attr::empty();
    let mut rest = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => set |= Attr::MOUNT_ATTR_RDONLY,
            "nosuid" => set |= Attr::MOUNT_ATTR_NOSUID,
            "nodev" => set |= Attr::MOUNT_ATTR_NODEV,
            "noexec" => set |= Attr::MOUNT_ATTR_NOEXEC,
            "noatime" => set |= Attr::MOUNT_ATTR_NOATIME,
            "strictatime" => set |= Attr::MOUNT_ATTR_STRICTATIME,
            "rw" | "suid" | "dev" | "exec" | "relatime" | "newinstance" => {}
            "bind" | "rbind" => return Err(Error::Unsupported("bind mounts in a spec are not supported".into())),
            _ => rest.push(option.clone()),
        }
    }
    Ok((set, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_options_are_told_apart() {
        let options = ["nosuid", "ro", "size=64k", "newinstance", "gid=5"].map(str::to_owned);
        let (set, rest) = attributes(&options).unwrap();
        assert_eq!(set, Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_RDONLY);
        assert_eq!(rest, ["size=64k", "gid=5"]);
        assert!(attributes(&["rbind".to_owned()]).is_err());
    }
}
