//! Names and published ports: one table for all, published when it differs from the one in force. It leads to whatever
//! is ready and stays; what this plan stops is left out, and is stopped only after the table without it is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use runtime::id::NetworkName;
use runtime::runtime::{ContainerState, EndpointTable, Listener, Service};

use super::bug::Bug;
use super::name::label;
use super::network::networks_of;
use super::pass::{Obstacle, Pass};
use super::service::Services;
use super::{Action, Reason};
use crate::model::{DesiredState, Hold, ObjectKey, Workload};

/// How long a new connection waits for a backend (DESIGN §5b).
pub const PARK_MS: u32 = 10_000;

/// Plans the table, and puts it before the stops and starts that rely on it.
pub(super) fn plan_endpoints(pass: &mut Pass<'_>) {
    let table = table(pass);
    if pass.observed.published.as_ref() == Some(&table) && !pass.has_bug(Bug::TableNeverEqual) {
        return;
    }
    if pass.is_publish_blocked() {
        if let Some(Obstacle::Wait(super::WaitingOn::BackOff { until_boot_ms, .. })) = pass.obstacle_of("endpoints") {
            pass.wake(until_boot_ms);
        }
        return;
    }
    let (drains, starts) = (std::mem::take(&mut pass.drains), std::mem::take(&mut pass.viewless_starts));
    let reason = if drains.is_empty() { Reason::EndpointsChanged } else { Reason::Draining };
    if let Some(step) = pass.push(Action::PublishEndpoints { table }, None, reason, None, Vec::new()) {
        pass.add_edges(&drains, step);
        pass.add_edges(&starts, step);
    }
}

fn table(pass: &mut Pass<'_>) -> EndpointTable {
    let mut table = EndpointTable::default();
    let mut services = Services::default();
    let (desired, observed) = (pass.desired, pass.observed);
    for (key, app) in &desired.workloads {
        let (mut ready, on) = add_names(pass, key, app, &mut table);
        ready.sort_unstable();
        for (network, ready) in on {
            services.add(pass, key, app, &network, &ready);
        }
        for port in &app.ports {
            if let Some(obstacle) = pass.obstacle_of(&Action::listener_subject(port.at)) {
                pass.blocked(key, obstacle);
                continue;
            }
            let backends = ready.iter().map(|address| SocketAddr::new(*address, port.container_port)).collect();
            let listener = Listener { at: port.at, backends, park_ms: PARK_MS };
            table.listeners.push(listener);
        }
    }
    for (key, app) in &desired.workloads {
        add_aliases(key, app, desired, &mut table, &mut services);
    }
    table.services = services.into_table();
    add_full_names(desired, &mut table);
    if !desired.holds.is_empty() || !pass.kept.is_empty() {
        add_kept(pass, &mut table);
    }
    table.services.sort();
    table.listeners.sort();
    table.listeners.dedup_by(|a, b| a.at == b.at);
    for (id, container) in &observed.containers {
        let is_live = container.state != ContainerState::Stopped && !pass.removed.contains_key(id);
        // One that is being stopped keeps its view to the end: it may have names to look up on its way out.
        let is_live = is_live || (container.state == ContainerState::Running);
        if is_live && container.address.is_some() {
            table.views.insert(id.clone(), pass.view_of(container.addresses().map(|(network, _)| network)));
        }
    }
    table.views.append(&mut pass.views.clone());
    table
}

/// Addresses of one replica on one network.
#[derive(Default)]
struct Slot {
    ready: Vec<IpAddr>,
    running: Vec<IpAddr>,
}

/// Adds an App's name and its replicas' names to the zones of its networks; returns the addresses that are ready, on the
/// networks that lead out, and on each of its networks.
fn add_names(
    pass: &Pass<'_>,
    key: &ObjectKey,
    app: &Workload,
    table: &mut EndpointTable,
) -> (Vec<IpAddr>, BTreeMap<NetworkName, Vec<IpAddr>>) {
    let mut ready = Vec::new();
    if !app.template.is_bridged() {
        return (ready, BTreeMap::new());
    }
    // Replica by replica: those ready, else whoever runs, so that members of a cluster find each other before they are.
    let mut slots: BTreeMap<(&NetworkName, u32), Slot> = BTreeMap::new();
    for (id, container) in pass.owned.get(key).into_iter().flatten() {
        if container.state != ContainerState::Running || pass.leaving.contains(id) {
            continue;
        }
        let is_ready = container.ready_since_boot_ms.is_some();
        for (n, (network, address)) in container.addresses().enumerate() {
            let slot = slots.entry((network, container.replica.ordinal)).or_default();
            if is_ready {
                slot.ready.push(IpAddr::V4(address));
            } else {
                slot.running.push(IpAddr::V4(address));
            }
            if is_ready && n == 0 {
                ready.push(IpAddr::V4(address));
            }
        }
    }
    let mut all: BTreeMap<&NetworkName, Vec<IpAddr>> = BTreeMap::new();
    for ((network, ordinal), slot) in slots {
        all.entry(network).or_default().extend(&slot.ready);
        let addresses = if slot.ready.is_empty() { slot.running } else { slot.ready };
        let zone = zone(table, network);
        zone.entry(label(&format!("{}-{ordinal}", key.name), 63)).or_insert(addresses);
    }
    let own = networks_of(&app.template, &key.stack);
    for network in &own {
        all.entry(network).or_default();
    }
    let mut on = BTreeMap::new();
    for (network, mut addresses) in all {
        addresses.sort_unstable();
        zone(table, network).insert(key.name.clone(), addresses.clone());
        if own.contains(network) {
            on.insert(network.clone(), addresses);
        }
    }
    (ready, on)
}

fn zone<'t>(table: &'t mut EndpointTable, network: &NetworkName) -> &'t mut BTreeMap<String, Vec<IpAddr>> {
    if !table.zones.contains_key(network) {
        table.zones.insert(network.clone(), BTreeMap::new());
    }
    table.zones.get_mut(network).expect("it was put there")
}

/// Adds the further names of an App, which others may share; the name of an App itself is always its own.
fn add_aliases(
    key: &ObjectKey,
    app: &Workload,
    desired: &DesiredState,
    table: &mut EndpointTable,
    services: &mut Services,
) {
    if !app.template.is_bridged() || app.aliases.is_empty() && app.template.networks.is_empty() {
        return;
    }
    for (n, network) in networks_of(&app.template, &key.stack).iter().enumerate() {
        let on_it = app.template.networks.get(n).map(|of| &of.aliases);
        let zone = zone(table, network);
        let own = zone.get(&key.name).cloned().unwrap_or_default();
        for alias in app.aliases.iter().chain(on_it.into_iter().flatten()) {
            let namesake = desired.workloads.get(&ObjectKey { name: alias.clone(), ..key.clone() });
            if namesake.is_some_and(|other| networks_of(&other.template, &key.stack).contains(network)) {
                continue;
            }
            services.alias(network, &key.name, alias);
            let addresses = zone.entry(alias.clone()).or_default();
            addresses.extend(own.iter().copied());
            addresses.sort_unstable();
            addresses.dedup();
        }
    }
}

/// On a network that is not called as its stack, names with the stack behind them lead to the same.
fn add_full_names(desired: &DesiredState, table: &mut EndpointTable) {
    let apps = desired.workloads.iter().filter(|(_, app)| !app.template.networks.is_empty());
    let mut stacks: BTreeMap<NetworkName, &str> = BTreeMap::new();
    for (key, app) in apps {
        stacks.extend(networks_of(&app.template, &key.stack).into_iter().map(|name| (name, key.stack.as_str())));
    }
    for (network, stack) in stacks {
        let Some(zone) = table.zones.get_mut(&network).filter(|_| network.as_str() != stack) else { continue };
        let suffix = format!(".{stack}");
        let short = zone.iter().filter(|(name, _)| !name.ends_with(&suffix));
        let full: Vec<_> = short.map(|(name, addresses)| (format!("{name}{suffix}"), addresses.clone())).collect();
        for (name, addresses) in full {
            zone.entry(name).or_insert(addresses);
        }
        for service in table.services.iter_mut().filter(|service| service.network == network) {
            let short = service.names.iter().filter(|name| !name.ends_with(&suffix));
            let full: Vec<String> = short.map(|name| format!("{name}{suffix}")).collect();
            service.names.extend(full);
        }
    }
}

/// Apps that stay although no manifest names them keep the names and ports they have in the table in force: nothing else remembers them.
fn add_kept(pass: &Pass<'_>, table: &mut EndpointTable) {
    let Some(in_force) = &pass.observed.published else { return };
    let kept = pass.kept.iter().filter_map(|id| pass.observed.containers.get(*id));
    let held = kept.filter(|container| container.state == ContainerState::Running);
    let held: BTreeSet<IpAddr> =
        held.flat_map(|container| container.addresses().map(|(_, address)| IpAddr::V4(address))).collect();
    let all_held = pass.desired.holds.iter().any(Hold::keeps_all);
    for listener in &in_force.listeners {
        let backends: Vec<_> = listener.backends.iter().copied().filter(|b| held.contains(&b.ip())).collect();
        let is_taken = table.listeners.iter().any(|l| l.at == listener.at);
        if !is_taken && (all_held || !backends.is_empty()) {
            table.listeners.push(Listener { backends, ..listener.clone() });
        }
    }
    for service in &in_force.services {
        let is_held = |address: &Ipv4Addr| held.contains(&IpAddr::V4(*address));
        let is_taken = |other: &Service| {
            other.network == service.network && (other.address == service.address || other.names == service.names)
        };
        let mut kept = service.clone();
        kept.backends.retain(is_held);
        kept.ports.iter_mut().for_each(|port| port.backends.retain(|backend| is_held(backend.ip())));
        let leads_somewhere = kept.leads_to().next().is_some();
        if !table.services.iter().any(is_taken) && (all_held || leads_somewhere) {
            table.services.push(kept);
        }
    }
    for (network, names) in &in_force.zones {
        for (name, addresses) in names {
            let kept: Vec<_> = addresses.iter().copied().filter(|address| held.contains(address)).collect();
            if !kept.is_empty() {
                table.zones.entry(network.clone()).or_default().entry(name.clone()).or_insert(kept);
            }
        }
    }
}
