//! Bridges in the kernel: made, verified, removed; and what the host routes, so that subnets can avoid it.
//!
//! Must not know records or rules. Every name is the caller's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Port;
use super::ipam::Subnet;
use super::link::{Link, LinkAddress, Netlink};
use super::netlink::{DUMP, Message, REQUEST, Socket, attribute};
use crate::error::Doing;
use crate::{Error, Result};

/// What a bridge should be.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    pub(super) name: String,
    /// Fixed, so that the bridge's address does not change (and neighbours' caches go stale) with its ports.
    pub(super) mac: [u8; 6],
    pub(super) address: Ipv4Addr,
    pub(super) prefix_len: u8,
    /// Further addresses, each alone.
    pub(super) services: BTreeSet<Ipv4Addr>,
}

impl Bridge {
    fn addresses(&self) -> BTreeSet<(Ipv4Addr, u8)> {
        let services = self.services.iter().map(|address| (*address, 32));
        services.chain([(self.address, self.prefix_len)]).collect()
    }
}

/// The kernel's links and addresses at one moment.
pub(super) struct Snapshot {
    links: Vec<Link>,
    addresses: Vec<LinkAddress>,
}

impl Snapshot {
    /// Reads both.
    pub(super) fn take(netlink: &mut Netlink) -> Result<Self> {
        Ok(Self { links: netlink.links()?, addresses: netlink.addresses()? })
    }

    /// Whether this bridge is as it should be: up, with exactly its addresses.
    pub(super) fn holds(&self, bridge: &Bridge) -> bool {
        let is_ours = |l: &&Link| l.name == bridge.name && l.kind.as_deref() == Some("bridge") && l.up;
        let Some(link) = self.links.iter().find(is_ours) else { return false };
        let addresses = self.addresses.iter().filter(|a| a.index == link.index);
        addresses.map(|a| (a.address, a.prefix_len)).collect::<BTreeSet<_>>() == bridge.addresses()
    }

    /// Names of links that begin like this.
    pub(super) fn named(&self, prefix: &str) -> impl Iterator<Item = &str> {
        self.links.iter().map(|l| l.name.as_str()).filter(move |name| name.starts_with(prefix))
    }

    /// The name of a link that has an address in a subnet, other than this one.
    pub(super) fn with_address_in(&self, subnet: Subnet, but: &str) -> Option<&str> {
        let inside = |a: &&LinkAddress| Subnet::containing(a.address, a.prefix_len).overlaps(subnet);
        let indexes: Vec<u32> = self.addresses.iter().filter(inside).map(|a| a.index).collect();
        self.links.iter().find(|l| indexes.contains(&l.index) && l.name != but).map(|l| l.name.as_str())
    }

    /// Whether a link is up and attached to a bridge; `None` when there is no such link.
    pub(super) fn is_attached(&self, link: &str, bridge: &str) -> Option<bool> {
        let named = |name: &str| self.links.iter().find(|l| l.name == name);
        let master = named(bridge).map(|bridge| bridge.index);
        named(link).map(|link| link.up && link.master.is_some() && link.master == master)
    }

    /// Names of the links attached to a bridge.
    pub(super) fn attached(&self, bridge: &str) -> Vec<&str> {
        let index = self.links.iter().find(|l| l.name == bridge).map(|l| l.index);
        let attached = self.links.iter().filter(|l| l.master.is_some() && l.master == index);
        attached.map(|l| l.name.as_str()).collect()
    }
}

/// Makes a bridge be as it should; attached links are left alone (see [`attach`]).
///
/// # Errors
/// `Conflict` when another kind of interface has the name; `Unsupported` without CAP_NET_ADMIN; `Io`.
pub(super) fn ensure(netlink: &mut Netlink, bridge: &Bridge) -> Result<()> {
    let name = &bridge.name;
    if netlink.link(name)?.is_none() {
        netlink.add_bridge(name, Some(bridge.mac)).map_err(without_right)?;
    }
    let link =
        netlink.link(name)?.ok_or_else(|| Error::Conflict(format!("bridge {name} vanished while it was made")))?;
    if link.kind.as_deref() != Some("bridge") {
        return Err(Error::Conflict(format!("interface {name} exists and is not a bridge")));
    }
    close_ipv6(name)?;
    ensure_addresses(netlink, bridge)?;
    netlink.set_up(link.index)
}

/// Makes a bridge have exactly its addresses. Where there is none, as after a reboot, whoever makes it gives it these.
///
/// # Errors
/// `Io`.
pub(super) fn ensure_addresses(netlink: &mut Netlink, bridge: &Bridge) -> Result<()> {
    let Some(link) = netlink.link(&bridge.name)? else { return Ok(()) };
    let found = netlink.addresses()?.into_iter().filter(|a| a.index == link.index);
    let found: BTreeSet<_> = found.map(|a| (a.address, a.prefix_len)).collect();
    let wanted = bridge.addresses();
    for (address, prefix_len) in found.difference(&wanted) {
        netlink.delete_address(link.index, *address, *prefix_len)?;
    }
    for (address, prefix_len) in wanted.difference(&found) {
        netlink.add_address(link.index, *address, *prefix_len)?;
    }
    Ok(())
}

/// Attaches those of these links that exist and are not attached or not up: somebody took the bridge from under them.
///
/// # Errors
/// `Io`.
pub(super) fn attach(netlink: &mut Netlink, bridge: &str, ports: &[Port]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let snapshot = Snapshot::take(netlink)?;
    let master = snapshot.links.iter().find(|link| link.name == bridge).map(|link| link.index);
    let ports: BTreeMap<&str, [u8; 6]> = ports.iter().map(|port| (port.name.as_str(), port.mac)).collect();
    for link in &snapshot.links {
        let Some(mac) = ports.get(link.name.as_str()) else { continue };
        if link.master != master {
            netlink.set_master(link.index, master)?;
            netlink.lock_port(link.index, *mac)?;
        }
        if !link.up {
            netlink.set_up(link.index)?;
        }
    }
    Ok(())
}

/// The IPv4 subnets this host has routes to, in all tables. Broadcast, multicast and its own addresses do not count.
///
/// # Errors
/// `Io`.
pub(super) fn routes() -> Result<BTreeSet<Subnet>> {
    const RTN_UNICAST: u8 = 1;
    const RTN_BLACKHOLE_AND_LATER: std::ops::RangeInclusive<u8> = 6..=9;
    const RTA_DST: u16 = 1;
    const ROUTE_BYTES: usize = 12;
    let mut request = [0_u8; ROUTE_BYTES];
    request[0] = u8::try_from(libc::AF_INET).expect("AF_INET is 2");
    let message = Message::new(libc::RTM_GETROUTE, REQUEST | DUMP, 1, &request);
    let mut found = BTreeSet::new();
    let each = |body: &[u8]| {
        let Some((route, attrs)) = body.split_at_checked(ROUTE_BYTES) else { return };
        let (prefix_len, kind) = (route[1], route[7]);
        if kind == RTN_UNICAST || RTN_BLACKHOLE_AND_LATER.contains(&kind) {
            let octets = attribute(attrs, RTA_DST).and_then(|d| d.first_chunk::<4>()).copied().unwrap_or_default();
            found.insert(Subnet::containing(Ipv4Addr::from(octets), prefix_len));
        }
    };
    Socket::open(None).and_then(|s| s.dump(&message.finish(), each)).doing(|| "list routes")?;
    Ok(found)
}

/// No IPv6 on the bridge: the host's link-local address would be a way around the IPv4 rules. The rules drop IPv6 as
/// well; a read-only /proc/sys or a host without IPv6 is therefore no error.
fn close_ipv6(name: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Err(e) if [libc::ENOENT, libc::EROFS, libc::EACCES].map(Some).contains(&e.raw_os_error()) => Ok(()),
        other => other.doing(|| format!("write {path}")),
    }
}

fn without_right(error: Error) -> Error {
    match &error {
        Error::Io { source, .. } if source.raw_os_error() == Some(libc::EPERM) => {
            Error::Unsupported("CAP_NET_ADMIN is missing: bridge networks cannot be made; run as root".to_owned())
        }
        Error::Io { source, .. } if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Error::Unsupported("the kernel has no bridges (module `bridge`): networks cannot be made".to_owned())
        }
        _ => error,
    }
}
