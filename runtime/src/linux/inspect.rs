//! What somebody changed of a running container from outside, read from the kernel: limits, the host's end of its link, its
//! interface and routes.
//!
//! A look costs a handful of small files for each container, so results are kept for some seconds; what was repaired is
//! forgotten at once. Decides nothing, and what cannot be read counts as unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cgroup::{Cgroup, Hierarchies};
use crate::clock;
use crate::error::chain;
use crate::id::ContainerId;
use crate::layout::Layout;
use crate::network::{self, HostEnds};
use crate::runtime::{Alteration, ContainerConfig, ContainerInfo, ContainerState, NetworkMode};

/// How long a result is taken for the truth, in milliseconds.
const FRESH_MS: u64 = 5_000;

/// Looks, and remembers for [`FRESH_MS`] what it saw.
#[derive(Default)]
pub(super) struct Inspector {
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    at_boot_ms: Option<u64>,
    found: BTreeMap<ContainerId, BTreeSet<Alteration>>,
}

impl Inspector {
    /// Fills in what was altered of the running ones.
    pub(super) fn inspect(&self, layout: &Layout, cgroup_parent: &str, containers: &mut [ContainerInfo]) {
        let now = clock::boot_ms();
        let is_fresh = self.lock().at_boot_ms.is_some_and(|at| now < at + FRESH_MS);
        if !is_fresh {
            let found = look(layout, cgroup_parent, containers);
            *self.lock() = Last { at_boot_ms: Some(now), found };
        }
        let last = self.lock();
        for info in containers.iter_mut().filter(|info| info.state == ContainerState::Running) {
            info.altered = last.found.get(&info.config.id).cloned().unwrap_or_default();
        }
    }

    /// These were put right, or somebody tried.
    pub(super) fn forget(&self, ids: &[ContainerId]) {
        let mut last = self.lock();
        for id in ids {
            last.found.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(
    layout: &Layout,
    cgroup_parent: &str,
    containers: &[ContainerInfo],
) -> BTreeMap<ContainerId, BTreeSet<Alteration>> {
    let running = || containers.iter().filter(|info| info.state == ContainerState::Running);
    let hierarchies = Hierarchies::of_host().ok();
    let is_bridged = |info: &ContainerInfo| matches!(info.config.network, NetworkMode::Bridge { .. });
    let host = running().any(is_bridged).then(|| network::host_ends(layout));
    let host = host.and_then(|ends| {
        ends.inspect_err(|error| tracing::debug!(error = %chain(error), "links could not be looked at")).ok()
    });
    let mut found = BTreeMap::new();
    for info in running() {
        let mut altered = BTreeSet::new();
        let name = format!("{cgroup_parent}/{}", info.config.id);
        if hierarchies.is_some_and(|all| !Cgroup::new(all, &name).holds(&info.config.resources)) {
            altered.insert(Alteration::Limits);
        }
        if let (Some(host), Some(pid)) = (&host, info.pid) {
            altered.extend(altered_network(host, &info.config, pid));
        }
        if !altered.is_empty() {
            found.insert(info.config.id.clone(), altered);
        }
    }
    found
}

fn altered_network(host: &HostEnds, config: &ContainerConfig, pid: i32) -> Option<Alteration> {
    // A member has its holder's link.
    if config.holder().is_some() {
        return None;
    }
    for (n, (network, _)) in config.network.addresses().enumerate() {
        match host.is_attached(&config.id, n, network) {
            None => return Some(Alteration::Network),
            Some(false) => return Some(Alteration::Link),
            Some(true) => {}
        }
    }
    let addresses: Vec<Ipv4Addr> = config.network.addresses().map(|(_, address)| address).collect();
    if addresses.is_empty() {
        return None;
    }
    // one that may administer its own network (a VPN) has its reasons
    if config.security.cap_add.iter().any(|cap| cap.ends_with("NET_ADMIN") || cap == "ALL") {
        return None;
    }
    let routes = std::fs::read_to_string(format!("/proc/{pid}/net/route")).ok()?;
    (!is_connected(&routes, &addresses)).then_some(Alteration::Network)
}

/// Whether `/proc/<pid>/net/route` has a route to each address's own subnet, and one to everywhere else: the kernel takes
/// them away with the interface, its address, or when it goes down.
fn is_connected(routes: &str, addresses: &[Ipv4Addr]) -> bool {
    // addresses are printed as the machine's own integers, in network order in memory (net/ipv4/fib_trie.c)
    let field = |text: &str| u32::from_str_radix(text, 16).ok().map(|raw| u32::from_be_bytes(raw.to_ne_bytes()));
    let mut to_subnets: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let mut to_others = false;
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(to), Some(mask)) = (fields.get(1).and_then(|f| field(f)), fields.get(7).and_then(|f| field(f)))
        else {
            continue;
        };
        to_others |= mask == 0;
        to_subnets.extend(addresses.iter().filter(|address| mask != 0 && u32::from(**address) & mask == to));
    }
    to_others && addresses.iter().all(|address| to_subnets.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_its_routes_is_cut_off() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let default = "eth0\t00000000\t0101580A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let subnet = "eth0\t0000580A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0\n";
        let address = &[Ipv4Addr::new(10, 88, 1, 7)];
        assert!(is_connected(&format!("{head}{default}{subnet}"), address));
        assert!(!is_connected(&format!("{head}{subnet}"), address), "no way out");
        assert!(!is_connected(&format!("{head}{default}"), address), "no address");
        assert!(!is_connected(head, address) && !is_connected("", address));
        assert!(!is_connected(&format!("{head}{default}{subnet}"), &[Ipv4Addr::new(10, 99, 1, 7)]), "another subnet");
    }
}
