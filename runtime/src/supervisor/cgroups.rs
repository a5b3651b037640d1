//! What the supervisor reads from a container's cgroup: who is in it, whether the kernel killed for memory; and the
//! one write it does itself, `cgroup.kill`.
//!
//! Making, limiting and removing cgroups is `cgroup`'s and `process`'s.

use std::path::{Path, PathBuf};

/// The cgroup directories of one container: v2 (also beside v1, "hybrid") for life, `memory` for its counter.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    unified: PathBuf,
    memory_v1: Option<PathBuf>,
}

impl Cgroup {
    /// `path` is relative to each hierarchy's root.
    pub(crate) fn new(path: &str) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let hybrid = root.join("unified");
        if hybrid.join("cgroup.procs").exists() {
            return Self { unified: hybrid.join(path), memory_v1: Some(root.join("memory").join(path)) };
        }
        Self { unified: root.join(path), memory_v1: None }
    }

    /// Host pids in it, in cgroups below it too.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        let mut dirs = vec![self.unified.clone()];
        while let Some(dir) = dirs.pop() {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            dirs.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        pids
    }

    /// Kills everything in it (`cgroup.kill`, Linux 5.14; works on a v2 tree without controllers as well).
    pub(crate) fn kill(&self) -> std::io::Result<()> {
        std::fs::write(self.unified.join("cgroup.kill"), "1")
    }

    /// How many processes the kernel killed for memory in it.
    pub(crate) fn oom_kills(&self) -> u64 {
        // v1 has the counter in `memory.oom_control` since Linux 4.13, v2 in `memory.events`
        let v1 = self.memory_v1.as_ref().map(|dir| dir.join("memory.oom_control"));
        let files = [Some(self.unified.join("memory.events")), v1];
        let counters = files.into_iter().flatten().filter_map(|file| std::fs::read_to_string(file).ok());
        counters.filter_map(|text| counter(&text)).max().unwrap_or(0)
    }
}

fn counter(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_counter_are_read() {
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(counter("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(counter(""), None);
    }
}
