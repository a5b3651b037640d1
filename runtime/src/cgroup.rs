//! Control groups of containers: create, limit, kill, count, remove. v2, and the hybrid of v1 limits on a v2 tree.
//!
//! Every container has one directory of the same name in each hierarchy in use. Its life is on the v2 tree
//! (CLONE_INTO_CGROUP, `cgroup.kill`); on a hybrid host its limits are on the v1 controllers. Knows names and numbers,
//! not containers.

pub mod devices;
pub mod hierarchy;
pub mod resources;
pub mod usage;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, Timespec};

pub use hierarchy::Hierarchies;

use crate::clock;
use crate::error::{Doing as _, Error, Result};
use crate::id::ContainerId;
use crate::runtime::Resources;
use resources::Setting;

/// How long processes may take to freeze: one that waits for a disk freezes when the disk has answered.
const FREEZE_MS: u64 = 10_000;

/// The directories of one container's cgroup.
#[derive(Debug, Clone, Copy)]
pub struct Cgroup<'a> {
    hierarchies: &'a Hierarchies,
    name: &'a str,
}

impl<'a> Cgroup<'a> {
    /// The cgroup of this name below each hierarchy's root: `boxship-1a2b3c/shop-web-1`.
    #[must_use]
    pub fn new(hierarchies: &'a Hierarchies, name: &'a str) -> Self {
        Self { hierarchies, name }
    }

    /// Its directory on the v2 tree.
    #[must_use]
    pub fn unified(&self) -> PathBuf {
        self.hierarchies.unified.join(self.name)
    }

    /// Makes the directory on the v2 tree and opens it for CLONE_INTO_CGROUP.
    ///
    /// # Errors
    /// `Io`.
    pub fn create_unified(&self) -> Result<OwnedFd> {
        let path = self.unified();
        if let Err(error) = fs::create_dir(&path) {
            match error.kind() {
                io::ErrorKind::AlreadyExists => {}
                io::ErrorKind::NotFound => self.create_parents(&path)?,
                _ => return Err(Error::io(format!("make cgroup {}", path.display()), error)),
            }
        }
        File::open(&path).map(OwnedFd::from).doing(|| format!("open cgroup {}", path.display()))
    }

    fn create_parents(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).doing(|| format!("make cgroup {}", path.display()))?;
        if !self.hierarchies.controllers.is_empty() {
            return Ok(());
        }
        // Pure v2: a controller limits a directory only when every parent passes it on. The ones the host lacks are
        // found out when a limit is set.
        let mut parent = self.hierarchies.unified.clone();
        let mut parts: Vec<&str> = self.name.split('/').collect();
        parts.pop();
        for part in std::iter::once("").chain(parts) {
            parent.push(part);
            for controller in self.hierarchies.passed_on {
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        Ok(())
    }

    /// Makes the v1 directories and sets the limits everywhere. For the start: nothing runs in it yet.
    ///
    /// # Errors
    /// `Unsupported` naming a limit whose controller the host does not have; `Io`.
    pub fn prepare(&self, limits: Option<&LinuxResources>) -> Result<()> {
        for (name, root) in &self.hierarchies.controllers {
            let path = root.join(self.name);
            fs::create_dir_all(&path).doing(|| format!("make cgroup {}", path.display()))?;
            if name == "cpuset" {
                inherit_cpuset(root, self.name)?;
            }
        }
        let Some(limits) = limits else { return Ok(()) };
        let settings = self.settings(limits);
        let limited: Vec<&Setting> = settings.iter().filter(|setting| !setting.is_unlimited()).collect();
        // What goes into one file one after the other, as the rules for devices do, goes through one opening of it.
        limited.chunk_by(|a, b| (a.controller, &a.file) == (b.controller, &b.file)).try_for_each(|same| {
            let Some((first, more)) = same.split_first() else { return Ok(()) };
            let Some(file) = self.set(first)? else { return Ok(()) };
            more.iter().try_for_each(|setting| self.write(&file, setting))
        })?;
        self.shut_devices(limits)
    }

    /// v2 has no files for devices: a program decides.
    fn shut_devices(&self, limits: &LinuxResources) -> Result<()> {
        let Some(rules) = limits.devices().as_ref().filter(|_| self.hierarchies.controllers.is_empty()) else {
            return Ok(());
        };
        let path = self.unified();
        let doing = || format!("shut devices to cgroup {}", path.display());
        let directory = File::open(&path).doing(doing)?;
        crate::sys::bpf::shut_devices(directory.as_fd(), &devices::program::v2(rules)).doing(doing)
    }

    /// Doors to the v1 directories: whoever has one thread and writes `0` into each of them is inside.
    ///
    /// A process that moves itself by `tasks` needs no word with the rest of the kernel; moved by anybody else, or by
    /// `cgroup.procs`, the first after a quiet time waits for a grace period (cgroup_procs_write_start; measured: 7-15 ms
    /// against 90 µs).
    ///
    /// # Errors
    /// `Io`.
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        let open = |root: &Path| {
            let path = root.join(self.name).join("tasks");
            File::options().write(true).open(&path).map(OwnedFd::from).doing(|| format!("open {}", path.display()))
        };
        self.hierarchies.controllers.iter().map(|(_, root)| open(root)).collect()
    }

    /// Changes limits in place; `None` fields become unlimited, or as every other container has them.
    ///
    /// # Errors
    /// `Unsupported`, `Io`; EBUSY when memory in use cannot be brought below a new limit.
    pub fn update(&self, limits: &Resources) -> Result<()> {
        self.change(&resources::to_oci(limits))?;
        let lifted = resources::lifted(limits, self.hierarchies.controllers.is_empty());
        lifted.iter().try_for_each(|one| self.set(one).map(drop))
    }

    /// Changes the limits that are named, in place.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn change(&self, limits: &LinuxResources) -> Result<()> {
        let settings = self.settings(limits);
        let mut refused = Vec::new();
        for setting in settings {
            // v1 wants memory ≤ memory+swap at every moment, so which of the two goes first depends on the direction.
            if let Err(error) = self.set(&setting).map(drop) {
                match &error {
                    Error::Io { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => refused.push(setting),
                    _ => return Err(error),
                }
            }
        }
        refused.iter().try_for_each(|setting| self.set(setting).map(drop))?;
        self.shut_devices(limits)
    }

    fn settings(&self, limits: &LinuxResources) -> Vec<Setting> {
        if self.hierarchies.controllers.is_empty() { resources::v2(limits) } else { resources::v1(limits) }
    }

    /// Whether these limits are in force and nothing is frozen. A file that is not there or cannot be read contradicts
    /// nothing: a host without it could not be asked for the limit.
    #[must_use]
    pub fn holds(&self, limits: &Resources) -> bool {
        let read = |path: PathBuf| fs::read_to_string(path).ok();
        let settings = self.settings(&resources::to_oci(limits));
        let in_force = |setting: &Setting| read(self.file_of(setting)).is_none_or(|found| setting.is_shown_as(&found));
        !self.is_frozen() && settings.iter().all(in_force)
    }

    fn file_of(&self, setting: &Setting) -> PathBuf {
        self.hierarchies.root_of(setting.controller).join(self.name).join(setting.file.as_ref())
    }

    /// The file, for further settings of it; `None` where the host has none and needs none.
    fn set(&self, setting: &Setting) -> Result<Option<File>> {
        let path = self.file_of(setting);
        match File::options().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && (setting.optional || setting.is_unlimited()) => {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Unsupported(format!(
                "this host cannot limit {}: the cgroup controller `{}` is not available",
                setting.controller, setting.controller
            ))),
            other => {
                let file = other.doing(|| format!("write {} to {}", setting.value, path.display()))?;
                self.write(&file, setting)?;
                Ok(Some(file))
            }
        }
    }

    fn write(&self, mut file: &File, setting: &Setting) -> Result<()> {
        let doing = || format!("write {} to {}", setting.value, self.file_of(setting).display());
        file.write_all(setting.value.as_bytes()).doing(doing)
    }

    /// Kills every process in it and below, at once. One that is gone is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn kill(&self) -> Result<()> {
        let path = self.unified().join("cgroup.kill");
        match fs::write(&path, "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.doing(|| format!("write {}", path.display())),
        }
    }

    /// Stops every process in it and below, or lets them go on. Returns when all have.
    ///
    /// # Errors
    /// `Io`.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let path = self.unified().join("cgroup.freeze");
        let wanted = u64::from(frozen);
        fs::write(&path, wanted.to_string()).doing(|| format!("write {wanted} to {}", path.display()))?;
        if self
            .wait_for(FREEZE_MS, |events| counter(events, "frozen") == wanted || counter(events, "populated") == 0)?
        {
            return Ok(());
        }
        let _ = fs::write(&path, "0");
        Err(Error::Unsupported("its processes did not freeze within 10 s; they run on".into()))
    }

    /// Waits until no process is in it or below.
    ///
    /// # Errors
    /// `Unsupported` when there still is one after `ms` milliseconds; `Io`.
    pub fn wait_empty(&self, ms: u64) -> Result<()> {
        if self.wait_for(ms, |events| counter(events, "populated") == 0)? {
            return Ok(());
        }
        Err(Error::Unsupported(format!("processes in cgroup {} do not die", self.unified().display())))
    }

    /// Watches `cgroup.events` until it holds what is waited for, at most so long; a cgroup that is gone has it all.
    fn wait_for(&self, ms: u64, holds: impl Fn(&str) -> bool) -> Result<bool> {
        let path = self.unified().join("cgroup.events");
        let doing = || format!("watch {}", path.display());
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other.doing(doing)?,
        };
        let until = clock::boot_ms() + ms;
        loop {
            // The kernel tells a change by POLLPRI, counted from the last read (cgroup-v2.rst, "cgroup.events").
            let mut text = String::new();
            match file.seek(io::SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(true),
                other => other.doing(doing)?,
            };
            let left = until.saturating_sub(clock::boot_ms());
            if holds(&text) || left == 0 {
                return Ok(holds(&text));
            }
            let nanoseconds = i64::try_from(left % 1000 * 1_000_000).unwrap_or(0);
            let time = Timespec { tv_sec: i64::try_from(left / 1000).unwrap_or(i64::MAX), tv_nsec: nanoseconds };
            let mut polled = [PollFd::new(&file, PollFlags::PRI)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&time))).doing(doing)?;
        }
    }

    /// Whether its processes are frozen, or on the way to it.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.unified().join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// The host pids of every process in it and below.
    ///
    /// # Errors
    /// `Io`.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        let mut todo = vec![self.unified()];
        while let Some(directory) = todo.pop() {
            let doing = || format!("read {}", directory.display());
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.doing(doing)?,
            };
            todo.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
            let text = fs::read_to_string(directory.join("cgroup.procs")).doing(doing)?;
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// Whether a process is in it or below.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_populated(&self) -> Result<bool> {
        let path = self.unified().join("cgroup.events");
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => Ok(counter(&other.doing(|| format!("read {}", path.display()))?, "populated") != 0),
        }
    }

    /// How many of its processes the kernel has killed for memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let memory = self.hierarchies.controllers.iter().find(|(name, _)| name == "memory");
        let path = match memory {
            Some((_, root)) => root.join(self.name).join("memory.oom_control"),
            None => self.unified().join("memory.events"),
        };
        fs::read_to_string(path).map_or(0, |text| counter(&text, "oom_kill"))
    }

    /// Removes all its directories, children first, after killing what is left in them. Idempotent.
    ///
    /// # Errors
    /// `Io`; EBUSY while the last processes are still dying. The other hierarchies are done all the same.
    pub fn remove(&self) -> Result<()> {
        let roots =
            std::iter::once(&self.hierarchies.unified).chain(self.hierarchies.controllers.iter().map(|(_, root)| root));
        let mut first_error = None;
        for (at, root) in roots.enumerate() {
            let path = root.join(self.name);
            let mut answer = remove_tree(&path);
            if at == 0 && answer.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
                self.kill()?;
                answer = remove_tree(&path);
            }
            if let Err(error) = answer {
                first_error.get_or_insert(Error::io(format!("remove cgroup {}", path.display()), error));
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// Moves the calling process, which must have one thread, through [`Cgroup::doors`].
///
/// # Errors
/// `Io`.
pub fn enter(doors: &[OwnedFd]) -> Result<()> {
    let write = |door| rustix::io::write(door, b"0").map(drop);
    doors.iter().try_for_each(write).doing(|| "move into the cgroup")
}

/// A new v1 cpuset has no CPU and no memory node, and nothing can be moved into it: it gets its parents'.
fn inherit_cpuset(root: &Path, name: &str) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut place = root.to_owned();
        let mut inherited = None;
        for part in name.split('/').filter(|part| !part.is_empty()) {
            let parent = place.join(file);
            place.push(part);
            let doing = || format!("copy {file} to {}", place.display());
            let mut own = short_text(&place.join(file)).doing(doing)?;
            if own.is_empty() {
                own = inherited.map_or_else(|| short_text(&parent), Ok).doing(doing)?;
                let mut file = File::options().write(true).open(place.join(file)).doing(doing)?;
                file.write_all(own.as_bytes()).doing(doing)?;
            }
            inherited = Some(own);
        }
    }
    Ok(())
}

/// What a short file says, read at once.
fn short_text(path: &Path) -> io::Result<String> {
    let mut text = [0; 4096];
    let length = File::open(path)?.read(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).trim().to_owned())
}

/// Removes a data root's cgroups that bear the id of no owner, after killing what is left in them; returns their paths.
/// `owners` is asked after the cgroups were listed, so that none of a container being made is taken for an orphan's.
///
/// # Errors
/// `Io`, and those of `owners`.
pub fn sweep(parent: &str, owners: impl FnOnce() -> Result<BTreeSet<ContainerId>>) -> Result<Vec<String>> {
    let hierarchies = Hierarchies::of_host()?;
    let controllers = hierarchies.controllers.iter().map(|(_, root)| root);
    let mut found = BTreeSet::new();
    for root in std::iter::once(&hierarchies.unified).chain(controllers) {
        let dirs = match fs::read_dir(root.join(parent)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            dirs => dirs.doing(|| format!("read {}", root.join(parent).display()))?,
        };
        let dirs = dirs.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(dirs.filter_map(|entry| entry.file_name().to_str()?.parse::<ContainerId>().ok()));
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let owners = owners()?;
    let mut swept = Vec::new();
    for id in found.difference(&owners) {
        let name = format!("{parent}/{id}");
        Cgroup::new(hierarchies, &name).remove()?;
        swept.push(name);
    }
    Ok(swept)
}

/// Removes the directories that held a data root's cgroups, where nothing is in them any more. Best effort: what is not
/// empty is in use, and stays.
pub fn remove_empty(parent: &str) {
    let Ok(hierarchies) = Hierarchies::all_of_host() else { return };
    let controllers = hierarchies.controllers.iter().map(|(_, root)| root);
    for root in std::iter::once(&hierarchies.unified).chain(controllers) {
        // EBUSY and ENOENT are both as it should be
        let _ = fs::remove_dir(root.join(parent));
    }
}

/// Removes a directory and those below it; the files of a cgroup need and allow no removal.
fn remove_tree(path: &Path) -> io::Result<()> {
    // Mostly there are no children: try first, look later.
    match fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The number after `key` in a file of `key number` lines; 0 when it is not there.
fn counter(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(counter(text, "oom_kill"), 3);
        assert_eq!(counter(text, "nothing"), 0);
    }
}
