//! Names and published ports: one table for all, published when it differs from the one in force. It leads to whatever
//! is ready and stays; what this plan stops is left out, and is stopped only after the table without it is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use runtime::runtime::{ContainerState, EndpointTable, Listener};

use super::bug::Bug;
use super::name::{label, network_name};
use super::pass::{Obstacle, Pass, address_of};
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
    let (desired, observed) = (pass.desired, pass.observed);
    for (key, app) in &desired.workloads {
        let mut ready = add_names(pass, key, app, &mut table);
        ready.sort_unstable();
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
        add_aliases(key, app, desired, &mut table);
    }
    if !desired.holds.is_empty() || !pass.kept.is_empty() {
        add_kept(pass, &mut table);
    }
    table.listeners.sort();
    table.listeners.dedup_by(|a, b| a.at == b.at);
    for (id, container) in &observed.containers {
        let is_live = container.state != ContainerState::Stopped && !pass.removed.contains_key(id);
        // One that is being stopped keeps its view to the end: it may have names to look up on its way out.
        let is_live = is_live || (container.state == ContainerState::Running);
        if let Some((network, _)) = address_of(container).filter(|_| is_live) {
            table.views.insert(id.clone(), Pass::view_of(network));
        }
    }
    table.views.append(&mut pass.views.clone());
    table
}

/// Adds an App's name and its replicas' names to its network's zone; returns the addresses that are ready.
fn add_names(pass: &Pass<'_>, key: &ObjectKey, app: &Workload, table: &mut EndpointTable) -> Vec<IpAddr> {
    let mut ready = Vec::new();
    if app.template.host_network {
        return ready;
    }
    let zone = table.zones.entry(network_name(&key.stack)).or_default();
    // Replica by replica: those ready, else whoever runs, so that members of a cluster find each other before they are.
    let mut slots: BTreeMap<u32, (Vec<IpAddr>, Vec<IpAddr>)> = BTreeMap::new();
    for (id, container) in pass.owned.get(key).into_iter().flatten() {
        let Some((_, address)) = address_of(container) else { continue };
        if container.state != ContainerState::Running || pass.leaving.contains(id) {
            continue;
        }
        let slot = slots.entry(container.replica.ordinal).or_default();
        if container.ready_since_boot_ms.is_some() {
            ready.push(IpAddr::V4(address));
            slot.0.push(IpAddr::V4(address));
        } else {
            slot.1.push(IpAddr::V4(address));
        }
    }
    for (ordinal, (ready, running)) in slots {
        let addresses = if ready.is_empty() { running } else { ready };
        zone.entry(label(&format!("{}-{ordinal}", key.name), 63)).or_insert(addresses);
    }
    let mut addresses = ready.clone();
    addresses.sort_unstable();
    zone.insert(key.name.clone(), addresses);
    ready
}

/// Adds the further names of an App, which others may share; the name of an App itself is always its own.
fn add_aliases(key: &ObjectKey, app: &Workload, desired: &DesiredState, table: &mut EndpointTable) {
    if app.aliases.is_empty() || app.template.host_network {
        return;
    }
    let zone = table.zones.entry(network_name(&key.stack)).or_default();
    let own = zone.get(&key.name).cloned().unwrap_or_default();
    for alias in &app.aliases {
        let namesake = ObjectKey { name: alias.clone(), ..key.clone() };
        if desired.workloads.contains_key(&namesake) {
            continue;
        }
        let addresses = zone.entry(alias.clone()).or_default();
        addresses.extend(own.iter().copied());
        addresses.sort_unstable();
        addresses.dedup();
    }
}

/// Apps that stay although no manifest names them keep the names and ports they have in the table in force: nothing else remembers them.
fn add_kept(pass: &Pass<'_>, table: &mut EndpointTable) {
    let Some(in_force) = &pass.observed.published else { return };
    let kept = pass.kept.iter().filter_map(|id| pass.observed.containers.get(*id));
    let held = kept.filter(|container| container.state == ContainerState::Running);
    let held: BTreeSet<IpAddr> = held.filter_map(address_of).map(|(_, address)| IpAddr::V4(address)).collect();
    let all_held = pass.desired.holds.iter().any(Hold::keeps_all);
    for listener in &in_force.listeners {
        let backends: Vec<_> = listener.backends.iter().copied().filter(|b| held.contains(&b.ip())).collect();
        let is_taken = table.listeners.iter().any(|l| l.at == listener.at);
        if !is_taken && (all_held || !backends.is_empty()) {
            table.listeners.push(Listener { backends, ..listener.clone() });
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
