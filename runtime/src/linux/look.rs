//! A look into containers: their processes, what they use, and all that is known of one in the words of `docker inspect`.
//! Reads the kernel and the disk, and changes nothing.

mod describe;

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::LinuxRuntime;
use crate::cgroup::usage::Usage;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::clock;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::ids::unshift;
use crate::runtime::ContainerConfig;
use crate::sys::path::read_in_root;
use crate::user;

/// Largest passwd file that is looked into, in bytes.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

/// Clock ticks a second as the kernel tells them, whatever it counts in itself (`USER_HZ` of x86-64 and aarch64).
const USER_HZ: u64 = 100;

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// On the host.
    pub pid: i32,
    /// Inside.
    pub inside_pid: i32,
    /// Its parent's, on the host.
    pub parent_pid: i32,
    /// By the container's own passwd file; a number where that has no name.
    pub user: String,
    /// The kernel's letter: R runs, S sleeps, D waits for a disk, Z is a zombie.
    pub state: char,
    /// Processor time so far, in milliseconds.
    pub cpu_ms: u64,
    /// Memory in RAM, in bytes.
    pub memory_bytes: u64,
    /// Program and arguments; `[name]` where they are not known. Untrusted text.
    pub command: String,
}

/// What a container uses at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Which.
    pub id: ContainerId,
    /// Its labels, which say what it is called.
    pub labels: BTreeMap<String, String>,
    /// When, in CLOCK_BOOTTIME milliseconds.
    pub at_boot_ms: u64,
    /// Of its cgroup.
    pub usage: Usage,
    /// Memory of the host, in bytes: the limit of who has none.
    pub host_memory_bytes: u64,
    /// Bytes that came and went over its own links; none with the host's network.
    pub network: Option<(u64, u64)>,
}

impl LinuxRuntime {
    /// The processes of a container, by pid; none when it does not run.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<Process>> {
        let config = self.containers.get(id)?;
        let name = format!("{}/{id}", self.cgroup_parent);
        let pids = Cgroup::new(Hierarchies::of_host()?, &name).pids()?;
        let passwd = pids.first().map(|pid| passwd_of(*pid)).unwrap_or_default();
        // one that ended since is none of them any more
        Ok(pids.into_iter().filter_map(|pid| process(pid, &config, &passwd)).collect())
    }

    /// What the running ones of these containers use; of all when none is named.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn samples(&self, ids: &[ContainerId]) -> Result<Vec<Sample>> {
        let configs = match ids {
            [] => self.containers.list()?,
            ids => ids.iter().map(|id| self.containers.get(id)).collect::<Result<_>>()?,
        };
        let hierarchies = Hierarchies::of_host()?;
        let host_memory_bytes = host_memory();
        let mut all = Vec::new();
        for config in configs {
            let name = format!("{}/{}", self.cgroup_parent, config.id);
            let cgroup = Cgroup::new(hierarchies, &name);
            let pids = cgroup.pids()?;
            let Some(first) = pids.first() else { continue };
            let is_hosts = config.network == crate::runtime::NetworkMode::Host;
            all.push(Sample {
                id: config.id.clone(),
                labels: config.labels.clone(),
                at_boot_ms: clock::boot_ms(),
                usage: cgroup.usage(),
                host_memory_bytes,
                network: if is_hosts { None } else { traffic(&read(&format!("/proc/{first}/net/dev"))) },
            });
        }
        match (ids, all.is_empty()) {
            ([id], true) => Err(Error::Conflict(format!("container `{id}` is not running"))),
            _ => Ok(all),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The container's own names of users, from the root its process sees.
fn passwd_of(pid: i32) -> String {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()) else { return String::new() };
    let bytes = read_in_root(root, Path::new("/etc/passwd"), PASSWD_BYTES_MAX).ok().flatten();
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn process(pid: i32, config: &ContainerConfig, passwd: &str) -> Option<Process> {
    let status = read(&format!("/proc/{pid}/status"));
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let uid = unshift(field("Uid:")?.split_ascii_whitespace().next()?.parse().ok()?, config.ids);
    let words =
        read(&format!("/proc/{pid}/cmdline")).split('\0').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let (state, parent_pid, ticks) = of_stat(&read(&format!("/proc/{pid}/stat")))?;
    Some(Process {
        pid,
        inside_pid: field("NSpid:")?.split_ascii_whitespace().next_back()?.parse().ok()?,
        parent_pid,
        user: user::name_of(uid, passwd).map_or_else(|| uid.to_string(), str::to_owned),
        state,
        cpu_ms: ticks.saturating_mul(1_000) / USER_HZ,
        memory_bytes: field("VmRSS:")
            .and_then(|text| text.trim_end_matches(" kB").trim().parse::<u64>().ok())
            .unwrap_or(0)
            * 1024,
        command: if words.is_empty() { format!("[{}]", field("Name:").unwrap_or_default()) } else { words },
    })
}

/// State, parent and clock ticks of user and system time (proc_pid_stat(5)). The name before them may hold anything, so
/// the last bracket counts.
fn of_stat(text: &str) -> Option<(char, i32, u64)> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?, ticks))
}

/// Received and sent bytes of every interface but loopback, from `/proc/<pid>/net/dev`.
fn traffic(text: &str) -> Option<(u64, u64)> {
    let mut sum = None;
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        if let (false, Some(received), Some(sent)) = (name.trim() == "lo", numbers.first(), numbers.get(8)) {
            let (all_received, all_sent) = sum.unwrap_or((0, 0));
            sum = Some((all_received + received, all_sent + sent));
        }
    }
    sum
}

fn host_memory() -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let text = "12 (a) R 99 (b) S 7 12 12 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(of_stat(text), Some(('S', 7, 200)));
        assert_eq!(of_stat(""), None);
        assert_eq!(of_stat("1 (x) S"), None);
    }

    #[test]
    fn loopback_is_no_traffic() {
        let head = "Inter-|   Receive  |  Transmit\n face |bytes    packets\n";
        let lo = "    lo:     900      9 0 0 0 0 0 0      900 9 0 0 0 0 0 0\n";
        let eth = "  eth0:    1000      9 0 0 0 0 0 0      200 9 0 0 0 0 0 0\n";
        assert_eq!(traffic(&format!("{head}{lo}")), None);
        assert_eq!(traffic(&format!("{head}{lo}{eth}{eth}")), Some((2000, 400)));
    }
}
