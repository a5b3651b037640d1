//! A container's cgroup as the supervisor needs it: by name, and who is in it. The rest is `cgroup`'s.

use crate::cgroup::{self, Hierarchies};
use crate::error::Result;
use crate::runtime::Resources;

/// The cgroup of one container, by its path below each hierarchy's root.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    path: String,
}

impl Cgroup {
    pub(crate) fn new(path: &str) -> Self {
        Self { path: path.to_owned() }
    }

    fn with<T>(&self, act: impl FnOnce(cgroup::Cgroup<'_>) -> Result<T>) -> Result<T> {
        act(cgroup::Cgroup::new(Hierarchies::of_host()?, &self.path))
    }

    /// Host pids in it and below.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        let mut dirs: Vec<_> = self.with(|cgroup| Ok(cgroup.unified())).into_iter().collect();
        while let Some(dir) = dirs.pop() {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            dirs.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        pids
    }

    /// Kills everything in it.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn kill(&self) -> Result<()> {
        self.with(|cgroup| cgroup.kill())
    }

    /// How many of its processes the kernel killed for memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.with(|cgroup| Ok(cgroup.oom_kills())).unwrap_or(0)
    }

    /// Changes limits in place, and lets it run if somebody froze it.
    ///
    /// # Errors
    /// `Unsupported`, `Io`.
    pub(crate) fn update(&self, resources: &Resources) -> Result<()> {
        self.with(|cgroup| {
            cgroup.update(resources)?;
            if cgroup.is_frozen() { cgroup.freeze(false) } else { Ok(()) }
        })
    }
}
