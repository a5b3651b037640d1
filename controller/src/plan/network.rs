//! Networks: those that containers run on or will, repaired when they are not as recorded, removed with the last
//! container; and the addresses on them. Subnets and addresses are chosen by `runtime::network::ipam`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use runtime::id::{ContainerId, NetworkName};
use runtime::network::ipam::{self, Subnet};
use runtime::network::ruleset::services;
use runtime::runtime::{ContainerState, NetworkAddress, NetworkConfig, NetworkMode};

use super::bug::Bug;
use super::container::Make;
use super::name::{network_name, network_of};
use super::pass::{Found, Obstacle, Pass};
use super::{Action, Reason, StepId, WaitingOn};
use crate::model::{ContainerTemplate, DesiredState, NetworkRange, ObjectKey, ObservedState, SourceRef, Workload};

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
    /// Addresses that manifests ask for by number.
    reserved: BTreeSet<Ipv4Addr>,
    /// Addresses that stand for Apps, in the table in force and in this plan's.
    services: BTreeSet<Ipv4Addr>,
    /// This plan makes a container on it.
    taken: bool,
    attached: Vec<ContainerId>,
}

impl Networks {
    pub(super) fn new(desired: &DesiredState, observed: &ObservedState, bug: Option<Bug>) -> Self {
        let mut nets: BTreeMap<NetworkName, Net> = BTreeMap::new();
        let mut subnets: BTreeSet<_> =
            observed.host_routes.iter().map(|&(address, len)| Subnet::containing(address, len)).collect();
        for (name, network) in &observed.networks {
            subnets.insert(subnet_of(&network.config));
            nets.entry(name.clone()).or_default().config = Some(network.config.clone());
        }
        for (id, container) in &observed.containers {
            let free = match container.state {
                ContainerState::Stopped => true,
                ContainerState::Created => bug == Some(Bug::AddressOfCreatedReused),
                ContainerState::Creating | ContainerState::Running => false,
            };
            for (name, address) in container.addresses() {
                if !nets.contains_key(name) {
                    nets.insert(name.clone(), Net::default());
                }
                let Some(net) = nets.get_mut(name) else { continue };
                net.attached.push(id.clone());
                if !free {
                    net.live.insert(address);
                }
                if !free || bug != Some(Bug::AddressOfCreatedReused) {
                    net.shunned.insert(address);
                }
            }
        }
        for service in observed.published.iter().flat_map(|table| &table.services) {
            nets.entry(service.network.clone()).or_default().services.insert(service.address);
        }
        let mut all = Self { subnets, nets };
        all.reserve(desired);
        all
    }

    /// What manifests say by number is chosen for nobody else.
    fn reserve(&mut self, desired: &DesiredState) {
        self.subnets.extend(desired.networks.values().filter_map(|network| Some(network.range?.subnet)));
        let apps = desired.workloads.values().map(|app| &app.template);
        let templates = apps.chain(desired.jobs.values().map(|job| &job.template));
        for network in templates.flat_map(|template| &template.networks) {
            let Some(address) = network.address else { continue };
            let net = self.nets.entry(network_of(&network.network, network.range.as_ref())).or_default();
            net.shunned.insert(address);
            net.reserved.insert(address);
        }
    }

    /// Whether a network has a way to the outside; one that nobody knows has none.
    pub(super) fn leads_out(&self, name: &NetworkName) -> bool {
        let config = self.nets.get(name).and_then(|net| net.config.as_ref());
        config.is_some_and(|config| !config.internal)
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

impl Networks {
    /// The address that stands for `name` on a network: the one it `had`, else one of its own choosing, so that it would
    /// be the same if nobody remembered. `None` where there is no room for such addresses.
    pub(super) fn service_address(
        &mut self,
        network: &NetworkName,
        name: &str,
        had: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        let net = self.nets.get_mut(network)?;
        let config = net.config.as_ref()?;
        let places: Vec<Ipv4Addr> = services::places(subnet_of(config)).collect();
        let is_free = |address: &Ipv4Addr| *address != config.gateway && !net.shunned.contains(address);
        if let Some(address) = had.filter(|address| places.contains(address) && is_free(address)) {
            return Some(address);
        }
        let first = label_hash(name) % places.len().max(1);
        let mut candidates = places[first..].iter().chain(&places[..first]);
        let address = *candidates.find(|address| is_free(address) && !net.services.contains(address))?;
        net.services.insert(address);
        Some(address)
    }
}

/// A number that differs between names.
fn label_hash(name: &str) -> usize {
    // FNV-1a, 32 bits.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash as usize
}

fn subnet_of(config: &NetworkConfig) -> Subnet {
    Subnet::containing(config.gateway, config.prefix_len)
}

/// A network as a template asks for it.
struct Wanted<'a> {
    object: &'a ObjectKey,
    source: Option<&'a SourceRef>,
    /// `None`: as it is.
    internal: Option<bool>,
    range: Option<NetworkRange>,
}

/// The networks of a template, the one that leads out first.
pub(super) fn networks_of(template: &ContainerTemplate, stack: &str) -> Vec<NetworkName> {
    if template.networks.is_empty() {
        return vec![network_name(stack)];
    }
    template.networks.iter().map(|network| network_of(&network.network, network.range.as_ref())).collect()
}

/// Plans the networks that containers run on or will: those of stacks with something to run, and those with something
/// running that nobody asks for any more.
pub(super) fn plan_networks<'a>(pass: &mut Pass<'a>) {
    let mut wanted: BTreeMap<NetworkName, Wanted<'a>> = BTreeMap::new();
    let mut stack_before: Option<&str> = None;
    // One that wants the host's may have to go back to a revision that had its stack's (simulation seed 8923).
    let revisions = &pass.observed.revisions;
    let goes_back = |key: &ObjectKey| revisions.get(key).into_iter().flatten().any(|r| r.template.is_bridged());
    let is_bridged = |key: &ObjectKey, app: &Workload| app.template.is_bridged() || goes_back(key);
    let apps = pass.desired.workloads.iter().filter(|(key, app)| app.replicas > 0 && is_bridged(key, app));
    let jobs = pass.desired.jobs.iter().filter(|(_, job)| job.template.is_bridged());
    let apps = apps.map(|(key, app)| (key, &app.template, &app.source));
    for (key, template, source) in apps.chain(jobs.map(|(key, job)| (key, &job.template, &job.source))) {
        if !template.networks.is_empty() {
            want_declared(&mut wanted, key, template, source);
        } else if stack_before != Some(key.stack.as_str()) {
            // Keys are sorted by stack: one name for a run of them is enough.
            let own = || Wanted { object: key, source: Some(source), internal: Some(false), range: None };
            wanted.entry(network_name(&key.stack)).or_insert_with(own);
            stack_before = Some(key.stack.as_str());
        }
    }
    for container in pass.observed.containers.values().filter(|c| c.state == ContainerState::Running) {
        for (name, _) in container.addresses() {
            if !wanted.contains_key(name) {
                let object = &container.replica.workload;
                wanted.insert(name.clone(), Wanted { object, source: None, internal: None, range: None });
            }
        }
    }
    for (name, wanted) in wanted {
        plan_network(pass, name, &wanted);
    }
}

fn want_declared<'a>(
    wanted: &mut BTreeMap<NetworkName, Wanted<'a>>,
    key: &'a ObjectKey,
    template: &'a ContainerTemplate,
    source: &'a SourceRef,
) {
    for network in &template.networks {
        let name = network_of(&network.network, network.range.as_ref());
        let own = || Wanted { object: key, source: Some(source), internal: Some(false), range: network.range };
        let entry = wanted.entry(name).or_insert_with(own);
        // One that is kept as it was may know an older version: the closed one counts.
        entry.internal = Some(entry.internal == Some(true) || network.internal);
    }
}

fn plan_network<'a>(pass: &mut Pass<'a>, name: NetworkName, wanted: &Wanted<'a>) {
    let found = pass.observed.networks.get(&name);
    let (config, reason) = match found {
        Some(network) => {
            let internal = wanted.internal.unwrap_or(network.config.internal);
            let reason = match (network.intact, internal == network.config.internal) {
                (true, true) => return,
                (false, _) => Reason::Drifted,
                (true, false) => Reason::NetworkChanged,
            };
            (NetworkConfig { internal, ..network.config.clone() }, reason)
        }
        None => {
            let declared = wanted.range.map(|range| (range.subnet, range.gateway));
            let picked = || pass.networks.pick(&name).map(|subnet| (subnet, subnet.gateway()));
            let Some((subnet, gateway)) = declared.or_else(picked) else {
                pass.wait(wanted.object, WaitingOn::Exhausted { what: "subnets".to_owned() });
                return;
            };
            pass.networks.subnets.insert(subnet);
            let internal = wanted.internal.unwrap_or(false);
            let config = NetworkConfig { name: name.clone(), gateway, prefix_len: subnet.prefix_len(), internal };
            (config, Reason::Missing)
        }
    };
    let action = Action::CreateNetwork { config: config.clone() };
    let step = pass.push(action, Some(wanted.object), reason, wanted.source, Vec::new());
    let net = pass.networks.nets.entry(name).or_default();
    net.config = Some(config);
    net.step = step;
}

/// Removes networks whose last container goes with this plan, or went before.
pub(super) fn remove_networks(pass: &mut Pass<'_>) {
    let apps = pass.desired.workloads.iter().map(|(key, app)| (key, &app.template));
    let mut wanted: BTreeSet<NetworkName> = BTreeSet::new();
    let mut stack_before: Option<&str> = None;
    for (key, template) in apps.chain(pass.desired.jobs.iter().map(|(key, job)| (key, &job.template))) {
        if !template.networks.is_empty() {
            wanted.extend(networks_of(template, &key.stack));
        } else if stack_before != Some(key.stack.as_str()) {
            wanted.insert(network_name(&key.stack));
            stack_before = Some(key.stack.as_str());
        }
    }
    let unwanted: Vec<_> = pass.observed.networks.keys().filter(|name| !wanted.contains(name)).collect();
    for name in unwanted {
        let Some(net) = pass.networks.nets.get(name) else { continue };
        // A roll back of this plan may need what no manifest names.
        if net.taken {
            continue;
        }
        let after: Option<Vec<StepId>> = net.attached.iter().map(|id| pass.removed.get(id).copied()).collect();
        let Some(after) = after else { continue };
        pass.push(Action::RemoveNetwork { name: name.clone() }, None, Reason::Undeclared, None, after);
    }
}

impl<'a> Pass<'a> {
    /// What keeps a container from being attached to its networks, if those in `freed` were gone.
    pub(super) fn network_obstacle(&self, make: &Make<'a>, freed: &[Found<'a>]) -> Option<Obstacle> {
        let names = networks_of(make.template, &make.object.stack);
        let obstacle = names.iter().find_map(|name| self.obstacle_on(name, make));
        obstacle.or_else(|| {
            let id = self
                .address_holders(make)
                .find(|id| !freed.iter().any(|(gone, _)| gone == id) && !self.stopped.contains_key(*id));
            id.map(|id| Obstacle::Wait(WaitingOn::Exclusive { id: id.clone() }))
        })
    }

    fn obstacle_on(&self, name: &NetworkName, make: &Make<'a>) -> Option<Obstacle> {
        let subject = || format!("network {name}");
        let full = || Obstacle::Wait(WaitingOn::Exhausted { what: format!("addresses on network `{name}`") });
        let net = self.networks.nets.get(name);
        let Some((net, config)) = net.and_then(|net| Some((net, net.config.as_ref()?))) else {
            // One that only an older revision names is planned with its first container.
            let planned_later = !make.template.networks.is_empty();
            return self.obstacle_of(&subject()).or_else(|| (!planned_later).then(full));
        };
        let intact = self.observed.networks.get(name).is_some_and(|network| network.intact);
        if !intact && net.step.is_none() {
            return Some(self.obstacle_of(&subject()).unwrap_or(Obstacle::InFlight));
        }
        // Broadcast, network and gateway are not for containers.
        let size = (1_usize << (32 - config.prefix_len.min(31))) - 3;
        let size = size.saturating_sub(net.services.len());
        (net.live.union(&net.reserved).count() > size || net.live.len() >= size).then(full)
    }

    /// Containers that have an address which this one asks for by number.
    fn address_holders(&self, make: &Make<'a>) -> impl Iterator<Item = &'a ContainerId> {
        let fixed = make
            .template
            .networks
            .iter()
            .filter_map(|network| Some((network_of(&network.network, network.range.as_ref()), network.address?)));
        let fixed: Vec<(NetworkName, Ipv4Addr)> = fixed.collect();
        let alive = self.observed.containers.iter().filter(|(_, c)| c.state != ContainerState::Stopped);
        let holds = move |container: &crate::model::ObservedContainer| {
            container.addresses().any(|(name, address)| fixed.iter().any(|(n, a)| n == name && *a == address))
        };
        alive.filter(move |(_, container)| holds(container)).map(|(id, _)| id)
    }

    /// Addresses on the networks of a container to be made; `after` gets the steps that make the networks, and that end
    /// whoever has an address it asks for.
    pub(super) fn take_addresses(&mut self, make: &Make<'a>, after: &mut Vec<StepId>) -> Option<NetworkMode> {
        let holders: Vec<&ContainerId> = self.address_holders(make).collect();
        after.extend(holders.into_iter().filter_map(|id| self.stopped.get(id)));
        let names = networks_of(make.template, &make.object.stack);
        let mut taken = Vec::with_capacity(names.len());
        for (n, network) in names.into_iter().enumerate() {
            let declared = make.template.networks.get(n);
            let known = self.networks.nets.get(&network).is_some_and(|net| net.config.is_some());
            if let Some(declared) = declared.filter(|_| !known) {
                let internal = Some(declared.internal);
                let wanted = Wanted { object: make.object, source: Some(make.source), internal, range: declared.range };
                plan_network(self, network.clone(), &wanted);
            }
            let net = self.networks.nets.get_mut(&network)?;
            let address = net.take(declared.and_then(|declared| declared.address))?;
            after.extend(net.step);
            taken.push(NetworkAddress { network, address });
        }
        let mut taken = taken.into_iter();
        let NetworkAddress { network, address } = taken.next()?;
        Some(NetworkMode::Bridge { network, address, more: taken.collect() })
    }
}

impl Net {
    /// The address asked for, else the lowest that nobody had of late, else the lowest that is free.
    fn take(&mut self, fixed: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let config = self.config.as_ref()?;
        let subnet = subnet_of(config);
        let pick = |used: &BTreeSet<Ipv4Addr>| ipam::pick_address(subnet, config.gateway, &(used | &self.services));
        let address = fixed.or_else(|| pick(&self.shunned)).or_else(|| {
            if self.reserved.is_empty() { pick(&self.live) } else { pick(&(&self.live | &self.reserved)) }
        })?;
        self.live.insert(address);
        self.shunned.insert(address);
        self.taken = true;
        Some(address)
    }
}
