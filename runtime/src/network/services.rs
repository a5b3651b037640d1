//! Service addresses: on their bridge, in the rules, and written down, so that every rendering of the rules has them.
//!
//! The record is in the run directory, since a reboot takes containers and rules alike. Must not know names or DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ipam::Subnet;
use super::link::Netlink;
use super::ruleset::{Ruleset, services};
use super::{bridge, bridge_of, conntrack, findings, lock, nftables, record, rule_network, tag};
use crate::clock::boot_ms;
use crate::error::{Doing as _, chain};
use crate::id::NetworkName;
use crate::layout::Layout;
use crate::runtime::{NetworkConfig, Service};
use crate::{Error, Result};

/// How long connections to a service with nobody ready wait before they are refused (DESIGN §5b).
const PARK_MS: u64 = 10_000;

/// What is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    services: Vec<Service>,
    /// Until when connections wait at those with nobody ready, in milliseconds of boot time.
    parked_until: BTreeMap<Ipv4Addr, u64>,
}

impl Published {
    /// What follows: who has lost the last replica parks connections from now on.
    fn followed_by(&self, services: Vec<Service>, now: u64) -> Self {
        let nobody = services.iter().filter(|service| service.leads_to().next().is_none());
        let until = |address| self.parked_until.get(address).copied().unwrap_or(now + PARK_MS);
        let parked_until = nobody.map(|service| (service.address, until(&service.address))).collect();
        Self { services, parked_until }
    }

    /// Everybody some service leads to.
    fn replicas(&self) -> BTreeSet<Ipv4Addr> {
        self.services.iter().flat_map(Service::leads_to).collect()
    }

    /// The service addresses on a network.
    pub(super) fn on(&self, network: &NetworkName) -> BTreeSet<Ipv4Addr> {
        self.services.iter().filter(|service| service.network == *network).map(|service| service.address).collect()
    }

    /// The rules for these networks.
    pub(super) fn ruleset(&self, layout: &Layout, networks: &[NetworkConfig]) -> Ruleset {
        let now = boot_ms();
        let left = |(address, until): (&Ipv4Addr, &u64)| Some((*address, until.checked_sub(now).filter(|ms| *ms > 0)?));
        let parked = self.parked_until.iter().filter_map(left).collect();
        let networks: Vec<_> = networks.iter().map(|config| rule_network(layout, config)).collect();
        services::render(&tag(layout), &networks, &self.services, &parked)
    }
}

/// Puts these services in force and takes away all others. When it returns, nothing new goes to a replica that none of
/// them names. Whether names may lead to them: not where the host has no nf_tables, nor where a foreign chain drops what
/// passes from a bridge to itself, while neighbours reach each other; there they are taken away.
///
/// # Errors
/// `Io`.
pub fn publish(layout: &Layout, services: &[Service]) -> Result<bool> {
    let before = read(layout)?;
    if services.is_empty() && before == Published::default() {
        return Ok(false);
    }
    let _lock = lock(layout)?;
    let networks = record::all(layout)?;
    let usable = findings::foreign_forward_drop(layout);
    let may = match usable {
        Ok(drop) => !drop,
        Err(Error::Unsupported(_)) => false,
        Err(other) => return Err(other),
    };
    let fits = |service: &&Service| {
        let network = networks.iter().find(|config| config.name == service.network);
        let has_place = |config: &NetworkConfig| {
            let subnet = Subnet::containing(config.gateway, config.prefix_len);
            subnet.contains(service.address) && service.address != config.gateway
        };
        may && network.is_some_and(has_place)
    };
    let after = before.followed_by(services.iter().filter(fits).cloned().collect(), boot_ms());
    write(layout, &after)?;
    let ruleset = after.ruleset(layout, &networks);
    // The table goes with the last network, and does not come back for nobody.
    let loaded = match networks.is_empty() {
        true => nftables::delete(&[(ruleset.family, &ruleset.table)]),
        false => nftables::update(&ruleset),
    };
    match loaded {
        Err(Error::Unsupported(_)) => return Ok(false),
        other => other?,
    }
    let mut netlink = Netlink::open()?;
    for config in networks.iter().filter(|config| before.on(&config.name) != after.on(&config.name)) {
        bridge::ensure_addresses(&mut netlink, &bridge_of(layout, config, &after))?;
    }
    for gone in before.replicas().difference(&after.replicas()) {
        if let Err(error) = conntrack::forget_datagrams(*gone) {
            tracing::debug!("datagrams may still go to {gone}: {}", chain(&error));
        }
    }
    Ok(may)
}

/// What is in force as far as the record says.
pub(super) fn read(layout: &Layout) -> Result<Published> {
    let path = file(layout);
    match std::fs::read(&path) {
        // A record that does not read back is of another version: the next table writes it anew.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Published::default()),
        Err(e) => Err(e).doing(|| format!("read {}", path.display())),
    }
}

fn write(layout: &Layout, published: &Published) -> Result<()> {
    let path = file(layout);
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(published).map_err(std::io::Error::from).doing(doing)?;
    let next = path.with_extension("json.new");
    std::fs::write(&next, bytes).and_then(|()| std::fs::rename(&next, &path)).doing(doing)
}

fn file(layout: &Layout) -> PathBuf {
    layout.run_dir.join("services.json")
}
