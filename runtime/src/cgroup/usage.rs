//! What a cgroup uses now: the numbers people look at, alike on both hierarchies. What the host does not count is 0 or
//! none. The whole of it in runc's words is `oci`'s.

use std::fs;

use serde::{Deserialize, Serialize};

use super::{Cgroup, counter};

/// v1 writes "no limit" as the largest number of whole pages; nobody has a host this large.
const NO_LIMIT: u64 = 1 << 60;

/// What the processes of a cgroup use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time since its beginning, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in bytes, without file pages that would be given back first (as Docker counts it).
    pub memory_bytes: u64,
    /// Its limit in bytes.
    pub memory_max: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Their limit.
    pub pids_max: Option<u64>,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

impl Cgroup<'_> {
    /// What it uses now; all 0 when it is gone.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let is_v2 = self.hierarchies.controllers.is_empty();
        let memory = |v2: &str, v1: &str| self.number("memory", if is_v2 { v2 } else { v1 });
        let reclaimable = if is_v2 { "inactive_file" } else { "total_inactive_file" };
        let reclaimable = counter(&self.text("memory", "memory.stat"), reclaimable);
        let (read_bytes, written_bytes) = if is_v2 { self.disks_v2() } else { self.disks_v1() };
        Usage {
            cpu_ns: if is_v2 {
                counter(&self.text("cpu", "cpu.stat"), "usage_usec") * 1_000
            } else {
                self.number("cpuacct", "cpuacct.usage").unwrap_or(0)
            },
            memory_bytes: memory("memory.current", "memory.usage_in_bytes").unwrap_or(0).saturating_sub(reclaimable),
            memory_max: memory("memory.max", "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
            pids: self.number("pids", "pids.current").unwrap_or(0),
            pids_max: self.number("pids", "pids.max"),
            read_bytes,
            written_bytes,
        }
    }

    /// Lines of `8:0 rbytes=1 wbytes=2 …`.
    fn disks_v2(&self) -> (u64, u64) {
        let text = self.text("io", "io.stat");
        let sum = |key: &str| {
            text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
        };
        (sum("rbytes="), sum("wbytes="))
    }

    /// Lines of `8:0 Read 1`.
    fn disks_v1(&self) -> (u64, u64) {
        let text = self.text("blkio", "blkio.throttle.io_service_bytes_recursive");
        let sum = |op: &str| {
            let value = |line: &str| line.split_once(' ')?.1.strip_prefix(op)?.trim().parse::<u64>().ok();
            text.lines().filter_map(value).sum()
        };
        (sum("Read "), sum("Write "))
    }

    fn text(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.hierarchies.root_of(controller).join(self.name).join(file)).unwrap_or_default()
    }

    /// `None` for `max`.
    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.text(controller, file).trim().parse().ok()
    }
}
