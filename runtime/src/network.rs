//! Bridge networks on the host: names, subnets, bridges, rules. One bridge per network, one nftables table per data root.
//!
//! `ipam` and `ruleset` are pure; `bridge` and `nftables` act. What should exist is on disk (`networks/<name>.json`);
//! every call renders the whole rule set from those records and swaps it in one transaction, so there is nothing to
//! drift. Must not know containers beyond their ids, nor who answers DNS or published ports (`switchboard`).

mod bridge;
mod conntrack;
mod findings;
mod forward;
pub mod ipam;
pub mod link;
mod netlink;
mod nftables;
mod record;
pub mod resolver;
pub mod ruleset;
pub mod services;
pub(crate) mod transparent;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

pub use findings::findings;
pub use ruleset::ports::mac_of;

use crate::error::{Doing, chain};
use crate::id::{ContainerId, NetworkName};
use crate::layout::{Layout, make_private_dir};
use crate::runtime::{NETWORKS_MAX, NetworkConfig, NetworkInfo};
use crate::{Error, Result};
use link::Netlink;
use ruleset::{RuleNetwork, Ruleset};

/// The name of a network's bridge: `bx-`, five characters of the data root's tag, seven of the network's.
///
/// 15 bytes, the kernel's limit (`IFNAMSIZ` counts a NUL). Five and seven base-32 characters are 25 and 35 bits.
#[must_use]
pub fn bridge_name(layout: &Layout, network: &NetworkName) -> String {
    format!("bx-{}{}", tag(layout), hash("network", network.as_str(), 7))
}

/// The name of the host's end of a container's veth pair: `bv-`, the data root's tag, seven characters of the container's.
#[must_use]
pub fn veth_name(layout: &Layout, container: &ContainerId) -> String {
    link_name(layout, container, 0)
}

/// The same for its `n`-th interface, counted from 0.
#[must_use]
pub fn link_name(layout: &Layout, container: &ContainerId, n: usize) -> String {
    let kind = if n == 0 { "container".to_owned() } else { format!("container {n}") };
    format!("bv-{}{}", tag(layout), hash(&kind, container.as_str(), 7))
}

/// The host's end of a container's link, a port of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name, see [`link_name`].
    pub name: String,
    /// The container's hardware address.
    pub mac: [u8; 6],
}

/// The kernel did not take the rules of bridge ports when they were last loaded: nobody is to wait for them.
static NO_PORT_RULES: AtomicBool = AtomicBool::new(false);

/// The same of the rules of service addresses.
static NO_SERVICE_RULES: AtomicBool = AtomicBool::new(false);

/// Makes a network present with exactly this configuration: record, bridge with address, rules, forwarding, and the links
/// of its containers attached and up. Idempotent. Where the host has no nf_tables the network works without a way out;
/// [`findings`] says so.
///
/// # Errors
/// `Unsupported` names the missing right or kernel feature; `Conflict` when another interface has the bridge's name, or
/// the subnet of a new network (nothing was changed then).
pub fn ensure(layout: &Layout, config: &NetworkConfig, ports: &[Port]) -> Result<()> {
    let _lock = lock(layout)?;
    let mut netlink = Netlink::open()?;
    if !record::exists(layout, &config.name) {
        let subnet = ipam::Subnet::containing(config.gateway, config.prefix_len);
        let bridge = bridge_name(layout, &config.name);
        if let Some(other) = bridge::Snapshot::take(&mut netlink)?.with_address_in(subnet, &bridge) {
            return Err(Error::Conflict(format!("subnet {subnet} of network `{}` is in use on {other}", config.name)));
        }
    }
    record::write(layout, config)?;
    bridge::ensure(&mut netlink, &bridge_of(layout, config, &services::read(layout)?))?;
    bridge::attach(&mut netlink, &bridge_name(layout, &config.name), ports)?;
    if let Err(e) = transparent::ensure(&mut netlink) {
        tracing::debug!("containers will not see the addresses of clients: {}", chain(&e));
    }
    match apply_rules(layout) {
        Err(Error::Unsupported(why)) => {
            tracing::warn!(network = %config.name, "{why}");
            Ok(())
        }
        other => other,
    }
}

/// Removes a network: rules, bridge, record. With the last one, what was switched on for forwarding is switched off.
///
/// # Errors
/// `NotFound`; `Conflict` naming the interfaces that are attached to the bridge.
pub fn remove(layout: &Layout, name: &NetworkName) -> Result<()> {
    let _lock = lock(layout)?;
    let mut netlink = Netlink::open()?;
    let bridge = bridge_name(layout, name);
    let snapshot = bridge::Snapshot::take(&mut netlink)?;
    if !record::exists(layout, name) && snapshot.named(&bridge).next().is_none() {
        return Err(Error::NotFound { what: "network", name: name.to_string() });
    }
    let attached = snapshot.attached(&bridge);
    if !attached.is_empty() {
        let attached = attached.join(", ");
        return Err(Error::Conflict(format!("network `{name}` is in use: {attached} attached to {bridge}")));
    }
    netlink.delete_link(&bridge)?;
    record::delete(layout, name)?;
    tidy(layout, &mut netlink)
}

/// Networks on disk and whether the kernel has them as they should be. Where there is no nf_tables, rules do not count.
///
/// # Errors
/// `Io`.
pub fn list(layout: &Layout) -> Result<Vec<NetworkInfo>> {
    let records = record::all(layout)?;
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let snapshot = bridge::Snapshot::take(&mut Netlink::open()?)?;
    let rules = match holds_rules(layout, &records) {
        Ok(holds) => holds && forward::is_on()?,
        Err(Error::Unsupported(_)) => true,
        Err(other) => return Err(other),
    };
    let published = services::read(layout)?;
    let info = |config: NetworkConfig| {
        let intact = rules && snapshot.holds(&bridge_of(layout, &config, &published));
        NetworkInfo { config, intact }
    };
    Ok(records.into_iter().map(info).collect())
}

/// How the host's ends of containers' links are now.
///
/// # Errors
/// `Io`.
pub(crate) fn host_ends(layout: &Layout) -> Result<HostEnds> {
    let snapshot = bridge::Snapshot::take(&mut Netlink::open()?)?;
    Ok(HostEnds { layout: layout.clone(), snapshot })
}

/// The links of the host at one moment.
pub(crate) struct HostEnds {
    layout: Layout,
    snapshot: bridge::Snapshot,
}

impl HostEnds {
    /// Whether a container's `n`-th link is up and on its network's bridge; `None` when there is none.
    pub(crate) fn is_attached(&self, container: &ContainerId, n: usize, network: &NetworkName) -> Option<bool> {
        self.snapshot.is_attached(&link_name(&self.layout, container, n), &bridge_name(&self.layout, network))
    }
}

/// Deletes bridges of this data root without a record, and veth ends of containers that are not in what `live` says.
/// Returns the names deleted. `live` is asked after the interfaces were listed: a container is written down before it
/// gets one, so that none of a container being made is taken for an orphan's.
///
/// # Errors
/// `Io`; what could be deleted is.
pub fn sweep(layout: &Layout, live: impl FnOnce() -> Result<BTreeSet<ContainerId>>) -> Result<Vec<String>> {
    let _lock = lock(layout)?;
    let mut netlink = Netlink::open()?;
    let snapshot = bridge::Snapshot::take(&mut netlink)?;
    let live = live()?;
    let links = live.iter().flat_map(|id| (0..NETWORKS_MAX).map(move |n| link_name(layout, id, n)));
    let mut owned: BTreeSet<String> = links.collect();
    owned.extend(record::all(layout)?.iter().map(|n| bridge_name(layout, &n.name)));
    let tag = tag(layout);
    let (bridges, veths) = (format!("bx-{tag}"), format!("bv-{tag}"));
    let dead = snapshot.named(&veths).chain(snapshot.named(&bridges)).filter(|name| !owned.contains(*name));
    let dead: Vec<String> = dead.map(str::to_owned).collect();
    for name in &dead {
        netlink.delete_link(name)?;
    }
    tidy(layout, &mut netlink)?;
    Ok(dead)
}

/// The subnets this host has routes to, for [`ipam::pick_subnet`]: our own bridges' among them.
///
/// # Errors
/// `Io`.
pub fn host_routes() -> Result<BTreeSet<ipam::Subnet>> {
    bridge::routes()
}

/// Loads the rules of all records, and switches forwarding on: on an internal network, too, services are forwarded from
/// a bridge to itself.
fn apply_rules(layout: &Layout) -> Result<()> {
    let records = record::all(layout)?;
    let ruleset = ruleset_of(layout, &records);
    if !nftables::holds(&ruleset)? {
        nftables::replace(&[ruleset])?;
    }
    match nftables::update(&services::read(layout)?.ruleset(layout, &records)) {
        // Nobody is sent there (`services::publish`).
        Err(Error::Unsupported(why)) => {
            NO_SERVICE_RULES.store(true, Ordering::Relaxed);
            tracing::debug!("{why}");
        }
        other => {
            other?;
            NO_SERVICE_RULES.store(false, Ordering::Relaxed);
        }
    }
    guard_ports(layout);
    forward::switch_on()
}

/// Loads the filter of the bridges' ports. Where the kernel has no tables for bridges, hardware addresses are all that is
/// fixed, and nobody is kept from running.
fn guard_ports(layout: &Layout) {
    let ports = ruleset::ports::ports(&tag(layout));
    let loaded = nftables::holds(&ports).and_then(|holds| if holds { Ok(()) } else { nftables::replace(&[ports]) });
    let failed = loaded.is_err();
    // Told once: it is tried again with each network.
    if let (Err(error), false) = (loaded, NO_PORT_RULES.swap(failed, Ordering::Relaxed)) {
        tracing::warn!("containers may forge addresses of their neighbours: {}", chain(&error));
    }
}

/// Whether the rules are loaded; of a kernel without tables for bridges only those it can have.
fn holds_rules(layout: &Layout, records: &[NetworkConfig]) -> Result<bool> {
    if !nftables::holds(&ruleset_of(layout, records))? {
        return Ok(false);
    }
    let services = services::read(layout)?.ruleset(layout, records);
    let lacks = NO_SERVICE_RULES.load(Ordering::Relaxed);
    if !lacks && (!nftables::holds(&services)? || !nftables::are_loaded(&services)?) {
        return Ok(false);
    }
    Ok(NO_PORT_RULES.load(Ordering::Relaxed) || nftables::holds(&ruleset::ports::ports(&tag(layout)))?)
}

/// After removals: rules without what went; nothing at all when nothing is left.
fn tidy(layout: &Layout, netlink: &mut Netlink) -> Result<()> {
    let outcome = if record::all(layout)?.is_empty() {
        let others = bridge::Snapshot::take(netlink)?.named("bx-").next().is_some();
        if !others && let Err(e) = transparent::remove(netlink) {
            tracing::debug!("what brought answers to clients may stay: {}", chain(&e));
        }
        let table = ruleset::table_name(&tag(layout));
        if let Err(error) = nftables::delete(&[(ruleset::Family::Bridge, &table)]) {
            tracing::debug!("no tables for bridges: {}", chain(&error));
        }
        let services = ruleset::services::services_table(&tag(layout));
        nftables::delete(&[(ruleset::Family::Inet, &table), (ruleset::Family::Inet, &services)])
            .and_then(|()| if others { Ok(()) } else { forward::switch_off() })
    } else {
        apply_rules(layout)
    };
    match outcome {
        Err(Error::Unsupported(_)) => Ok(()),
        other => other,
    }
}

fn ruleset_of(layout: &Layout, records: &[NetworkConfig]) -> Ruleset {
    ruleset::render(&tag(layout), &records.iter().map(|config| rule_network(layout, config)).collect::<Vec<_>>())
}

fn rule_network(layout: &Layout, config: &NetworkConfig) -> RuleNetwork {
    RuleNetwork {
        name: config.name.to_string(),
        bridge: bridge_name(layout, &config.name),
        subnet: ipam::Subnet::containing(config.gateway, config.prefix_len),
        internal: config.internal,
    }
}

fn bridge_of(layout: &Layout, config: &NetworkConfig, published: &services::Published) -> bridge::Bridge {
    let name = bridge_name(layout, &config.name);
    let hash = Sha256::digest(name.as_bytes());
    // Locally administered, unicast.
    let mac = [0x02, 0xb5, hash[0], hash[1], hash[2], hash[3]];
    let services = published.on(&config.name);
    bridge::Bridge { name, mac, address: config.gateway, prefix_len: config.prefix_len, services }
}

/// One change at a time, over all threads and processes of the data root.
fn lock(layout: &Layout) -> Result<OwnedFd> {
    let path = layout.data_root.join("networks");
    make_private_dir(&path)?;
    let dir = std::fs::File::open(&path).doing(|| format!("open {}", path.display()))?;
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).doing(|| format!("lock {}", path.display()))?;
    Ok(dir.into())
}

/// Whether an interface bears the mark of this data root.
#[must_use]
pub fn is_ours(layout: &Layout, interface: &str) -> bool {
    let tag = tag(layout);
    ["bx-", "bv-"].iter().any(|kind| interface.strip_prefix(kind).is_some_and(|rest| rest.starts_with(&tag)))
}

/// What marks interfaces and tables of one data root: 25 bits of its path's hash.
fn tag(layout: &Layout) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    base32(&Sha256::digest(layout.data_root.as_os_str().as_bytes()), 5)
}

/// A short hash that differs between kinds of things with equal names.
fn hash(kind: &str, name: &str, len: usize) -> String {
    base32(&Sha256::digest(format!("{kind}/{name}").as_bytes()), len)
}

/// The first `len` characters of RFC 4648 base 32 in small letters: legal in interface and table names.
fn base32(bytes: &[u8], len: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |n: usize| (bytes[n / 8] >> (7 - n % 8)) & 1;
    (0..len).map(|at| char::from(ALPHABET[(0..5).fold(0, |v, n| v * 2 + usize::from(bit(at * 5 + n)))])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel_and_tell_their_owner() {
        let layout = Layout::new("/var/lib/boxship", "/run/boxship");
        let other = Layout::new("/var/lib/other", "/run/other");
        let shop: NetworkName = "shop".parse().unwrap();
        let name = bridge_name(&layout, &shop);
        assert_eq!(name.len(), 15);
        assert_eq!(name[..8], bridge_name(&layout, &"x".repeat(63).parse().unwrap())[..8]);
        assert_ne!(name[..8], bridge_name(&other, &shop)[..8]);
        assert_eq!(name[8..], bridge_name(&other, &shop)[8..]);
        assert!(veth_name(&layout, &"shop".parse().unwrap()).starts_with("bv-"));
    }

    #[test]
    fn base32_is_the_one_of_the_rfc() {
        assert_eq!(base32(b"foobar", 9), "mzxw6ytbo");
    }
}
