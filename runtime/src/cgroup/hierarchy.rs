//! Which cgroup hierarchies this host has, from its mount table. The parser is pure.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::resources::{ALL_CONTROLLERS, ALL_CONTROLLERS_V2, CONTROLLERS};
use crate::error::{Doing as _, Error, Result};
use crate::spec::launch::Launch;

/// Room for the mount table of most hosts, which is then read at once; it grows for others.
const MOUNTINFO_BYTES: usize = 16 << 10;

/// The hierarchies containers are put into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    /// Root of the v2 tree.
    pub unified: PathBuf,
    /// v1 controllers with their roots; empty on a host with v2 only. Co-mounted ones are listed once.
    pub controllers: Vec<(String, PathBuf)>,
    /// The v2 controllers a cgroup's parents have to pass on.
    pub passed_on: &'static [&'static str],
}

impl Hierarchies {
    /// Those of this host that limit our own containers; looked up once.
    ///
    /// # Errors
    /// `Unsupported` without a v2 tree; `Io`.
    pub fn of_host() -> Result<&'static Self> {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        Self::look_up(&FOUND, Self::parse)
    }

    /// With every controller this host has; looked up once.
    ///
    /// # Errors
    /// As [`Self::of_host`].
    pub fn all_of_host() -> Result<&'static Self> {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        Self::look_up(&FOUND, Self::parse_all)
    }

    /// Those one container takes part in.
    ///
    /// # Errors
    /// As [`Self::of_host`].
    pub fn of_launch(launch: &Launch) -> Result<&'static Self> {
        if launch.all_controllers { Self::all_of_host() } else { Self::of_host() }
    }

    fn look_up(once: &'static OnceLock<Self>, parse: fn(&str) -> Option<Self>) -> Result<&'static Self> {
        if let Some(found) = once.get() {
            return Ok(found);
        }
        let mut table = String::with_capacity(MOUNTINFO_BYTES);
        let read = std::fs::File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_string(&mut table));
        read.doing(|| "read /proc/self/mountinfo")?;
        let found = parse(&table).ok_or_else(|| {
            Error::Unsupported("no cgroup v2 tree is mounted; mount one at /sys/fs/cgroup/unified".into())
        })?;
        Ok(once.get_or_init(|| found))
    }

    /// From the text of a mountinfo file (proc_pid_mountinfo(5)); `None` without a v2 tree.
    #[must_use]
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let wanted = |name: &str| CONTROLLERS.contains(&name) || name == "cpuacct";
        Some(Self { passed_on: &CONTROLLERS, ..Self::parse_wanted(mountinfo, wanted)? })
    }

    /// The same with every controller.
    #[must_use]
    pub fn parse_all(mountinfo: &str) -> Option<Self> {
        Self::parse_wanted(mountinfo, |name| ALL_CONTROLLERS.contains(&name))
    }

    fn parse_wanted(mountinfo: &str, wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let mut unified = None;
        let mut controllers: Vec<(String, PathBuf)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(place) = left.split(' ').nth(4) else { continue };
            let mut right = right.splitn(3, ' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) if unified.is_none() => unified = Some(PathBuf::from(place)),
                (Some("cgroup"), Some(options)) => {
                    for name in options.split(',').filter(|name| wanted(name)) {
                        if controllers.iter().all(|(known, _)| known != name) {
                            controllers.push((name.to_owned(), PathBuf::from(place)));
                        }
                    }
                }
                _ => {}
            }
        }
        let controllers = without_twins(controllers);
        Some(Self { unified: unified?, controllers, passed_on: &ALL_CONTROLLERS_V2 })
    }

    /// Root of the hierarchy a controller is in, under whatever name of a co-mount; the v2 tree for all others.
    #[must_use]
    pub fn root_of(&self, controller: &str) -> &Path {
        let is_it = |name: &str, root: &Path| {
            let base = root.file_name().map(|base| base.to_string_lossy()).unwrap_or_default();
            name == controller || base.contains(',') && base.split(',').any(|part| part == controller)
        };
        self.controllers.iter().find(|(name, root)| is_it(name, root)).map_or(&self.unified, |(_, root)| root)
    }
}

/// One entry per directory: the first controller of a co-mount stands for it, under the name settings use.
fn without_twins(mut controllers: Vec<(String, PathBuf)>) -> Vec<(String, PathBuf)> {
    controllers.sort_by_key(|(name, _)| (name == "cpuacct", name.clone()));
    let mut seen: Vec<(String, PathBuf)> = Vec::new();
    for (name, root) in controllers {
        if !seen.iter().any(|(_, known): &(_, PathBuf)| same(known, &root)) {
            seen.push((name, root));
        }
    }
    seen
}

fn same(a: &Path, b: &Path) -> bool {
    a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mountinfo: &str) -> Option<(String, Vec<String>)> {
        let found = Hierarchies::parse(mountinfo)?;
        let list = found.controllers.iter().map(|(name, root)| format!("{name}={}", root.display())).collect();
        Some((found.unified.display().to_string(), list))
    }

    #[test]
    fn a_hybrid_host() {
        let text = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        let (unified, list) = found(text).unwrap();
        assert_eq!(unified, "/sys/fs/cgroup/unified");
        assert_eq!(list, ["cpu=/sys/fs/cgroup/cpu", "memory=/sys/fs/cgroup/memory", "cpuacct=/sys/fs/cgroup/cpuacct"]);
    }

    #[test]
    fn controllers_mounted_together_are_one_directory() {
        let text = "1 2 0:3 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n4 5 0:6 / /c/u rw - cgroup2 none rw\n";
        assert_eq!(found(text).unwrap().1, ["cpu=/c/cpu,cpuacct"]);
    }

    #[test]
    fn a_v2_host_and_one_without() {
        let (unified, list) = found("1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n").unwrap();
        assert_eq!((unified.as_str(), list.len()), ("/sys/fs/cgroup", 0));
        assert!(found("garbage\n1 2 - \n").is_none());
    }
}
