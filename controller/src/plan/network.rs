//! Networks: one for each stack with containers to run, repaired when it is not as recorded, removed with the last
//! container; and the addresses on them. Subnets and addresses are chosen by `runtime::network::ipam`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use runtime::id::{ContainerId, NetworkName};
use runtime::network::ipam::{self, Subnet};
use runtime::runtime::{ContainerState, NetworkConfig};

use super::bug::Bug;
use super::name::network_name;
use super::pass::{Obstacle, Pass};
use super::{Action, Reason, StepId, WaitingOn};
use crate::model::{ObjectKey, ObservedState, SourceRef};

/// A network holds 1,021 containers: a Linux bridge has 1,023 ports (`BR_PORT_BITS`), so a wider one would be a lie.
const PREFIX_LEN: u8 = 22;

/// Networks and addresses as a pass goes on.
pub(super) struct Networks {
    subnets: BTreeSet<Subnet>,
    nets: BTreeMap<NetworkName, Net>,
}

#[derive(Default)]
struct Net {
    config: Option<NetworkConfig>,
    /// The step that makes or repairs it.
    step: Option<StepId>,
    /// Addresses of containers that may run.
    live: BTreeSet<Ipv4Addr>,
    /// These and addresses of ended ones, given away last: a cached name leads nowhere rather than to a stranger.
    shunned: BTreeSet<Ipv4Addr>,
    attached: Vec<ContainerId>,
}

impl Networks {
    pub(super) fn new(observed: &ObservedState, bug: Option<Bug>) -> Self {
        let mut nets: BTreeMap<NetworkName, Net> = BTreeMap::new();
        let mut subnets: BTreeSet<_> =
            observed.host_routes.iter().map(|&(address, len)| Subnet::containing(address, len)).collect();
        for (name, network) in &observed.networks {
            subnets.insert(subnet_of(&network.config));
            nets.entry(name.clone()).or_default().config = Some(network.config.clone());
        }
        for (id, container) in &observed.containers {
            let Some((name, address)) = &container.address else { continue };
            if !nets.contains_key(name) {
                nets.insert(name.clone(), Net::default());
            }
            let Some(net) = nets.get_mut(name) else { continue };
            net.attached.push(id.clone());
            let free = match container.state {
                ContainerState::Stopped => true,
                ContainerState::Created => bug == Some(Bug::AddressOfCreatedReused),
                ContainerState::Creating | ContainerState::Running => false,
            };
            if !free {
                net.live.insert(*address);
            }
            if !free || bug != Some(Bug::AddressOfCreatedReused) {
                net.shunned.insert(*address);
            }
        }
        Self { subnets, nets }
    }

    /// The subnet its containers still live in, when the network was removed under them, else one that is free and that
    /// no other network's containers live in (simulation seed 12632).
    fn pick(&self, name: &NetworkName) -> Option<Subnet> {
        let lived_in = |net: &Net| net.live.first().map(|address| Subnet::containing(*address, PREFIX_LEN));
        let others = self.nets.iter().filter(|(other, _)| *other != name);
        let others = others.filter_map(|(_, net)| net.config.as_ref().map(subnet_of).or_else(|| lived_in(net)));
        let others: BTreeSet<Subnet> = others.collect();
        // A route to exactly the own subnet is the bridge's that outlived its record; the runtime refuses a stranger's.
        let is_own = |own: &Subnet| {
            let mut foreign = self.subnets.iter().filter(|subnet| *subnet != own).chain(&others);
            !foreign.any(|subnet| subnet.prefix_len() > 0 && subnet.overlaps(*own))
        };
        let own = self.nets.get(name).and_then(lived_in).filter(is_own);
        own.or_else(|| ipam::pick_subnet(&ipam::DEFAULT_POOL, PREFIX_LEN, &(&self.subnets | &others)))
    }
}

fn subnet_of(config: &NetworkConfig) -> Subnet {
    Subnet::containing(config.gateway, config.prefix_len)
}

/// Plans the networks that containers run on or will: those of stacks with something to run, and those with something
/// running that nobody asks for any more.
pub(super) fn plan_networks<'a>(pass: &mut Pass<'a>) {
    let mut wanted: BTreeMap<NetworkName, (&'a ObjectKey, Option<&'a SourceRef>)> = BTreeMap::new();
    let mut stack_before: Option<&str> = None;
    let apps = pass.desired.workloads.iter().filter(|(_, app)| app.replicas > 0 && !app.template.host_network);
    let jobs = pass.desired.jobs.iter().filter(|(_, job)| !job.template.host_network);
    let owners = apps.map(|(key, app)| (key, &app.source)).chain(jobs.map(|(key, job)| (key, &job.source)));
    for (key, source) in owners {
        // Keys are sorted by stack: one name for a run of them is enough.
        if stack_before != Some(key.stack.as_str()) {
            wanted.entry(network_name(&key.stack)).or_insert((key, Some(source)));
            stack_before = Some(key.stack.as_str());
        }
    }
    for container in pass.observed.containers.values().filter(|c| c.state == ContainerState::Running) {
        let Some((name, _)) = &container.address else { continue };
        if !wanted.contains_key(name) {
            wanted.insert(name.clone(), (&container.replica.workload, None));
        }
    }
    for (name, (object, source)) in wanted {
        plan_network(pass, name, object, source);
    }
}

fn plan_network<'a>(pass: &mut Pass<'a>, name: NetworkName, object: &'a ObjectKey, source: Option<&'a SourceRef>) {
    let found = pass.observed.networks.get(&name);
    let (config, reason) = match found {
        Some(network) if network.intact => return,
        Some(network) => (network.config.clone(), Reason::Drifted),
        None => {
            let Some(subnet) = pass.networks.pick(&name) else {
                pass.wait(object, WaitingOn::Exhausted { what: "subnets".to_owned() });
                return;
            };
            pass.networks.subnets.insert(subnet);
            let config = NetworkConfig {
                name: name.clone(),
                gateway: subnet.gateway(),
                prefix_len: subnet.prefix_len(),
                internal: false,
            };
            (config, Reason::Missing)
        }
    };
    let step = pass.push(Action::CreateNetwork { config: config.clone() }, Some(object), reason, source, Vec::new());
    let net = pass.networks.nets.entry(name).or_default();
    net.config = Some(config);
    net.step = step;
}

/// Removes networks whose last container goes with this plan, or went before.
pub(super) fn remove_networks(pass: &mut Pass<'_>) {
    let stacks = pass.desired.workloads.keys().chain(pass.desired.jobs.keys());
    let wanted: BTreeSet<&str> = stacks.map(|key| key.stack.as_str()).collect();
    let wanted: BTreeSet<NetworkName> = wanted.into_iter().map(network_name).collect();
    let unwanted: Vec<_> = pass.observed.networks.keys().filter(|name| !wanted.contains(name)).collect();
    for name in unwanted {
        let Some(net) = pass.networks.nets.get(name) else { continue };
        let after: Option<Vec<StepId>> = net.attached.iter().map(|id| pass.removed.get(id).copied()).collect();
        let Some(after) = after else { continue };
        pass.push(Action::RemoveNetwork { name: name.clone() }, None, Reason::Undeclared, None, after);
    }
}

impl Pass<'_> {
    /// What keeps a container from being attached to its stack's network.
    pub(super) fn network_obstacle(&self, stack: &str) -> Option<Obstacle> {
        let name = network_name(stack);
        let subject = || format!("network {name}");
        let full = || Obstacle::Wait(WaitingOn::Exhausted { what: format!("addresses on network `{name}`") });
        let Some(net) = self.networks.nets.get(&name) else { return Some(full()) };
        let Some(config) = &net.config else { return Some(full()) };
        let intact = self.observed.networks.get(&name).is_some_and(|network| network.intact);
        if !intact && net.step.is_none() {
            return Some(self.obstacle_of(&subject()).unwrap_or(Obstacle::InFlight));
        }
        // Broadcast, network and gateway are not for containers.
        let size = (1_usize << (32 - config.prefix_len.min(31))) - 3;
        (net.live.len() >= size).then(full)
    }

    /// An address on the stack's network for a container to be made, and the step that makes the network.
    pub(super) fn take_address(&mut self, stack: &str) -> Option<(NetworkName, Ipv4Addr, Option<StepId>)> {
        let name = network_name(stack);
        let net = self.networks.nets.get_mut(&name)?;
        let config = net.config.as_ref()?;
        let subnet = subnet_of(config);
        let address = ipam::pick_address(subnet, config.gateway, &net.shunned)
            .or_else(|| ipam::pick_address(subnet, config.gateway, &net.live))?;
        net.live.insert(address);
        net.shunned.insert(address);
        Some((name, address, net.step))
    }
}
