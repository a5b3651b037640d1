//! What the switchboard needs to dial containers with the client's own address: a marking rule, a routing rule, a route.
//!
//! All three are shared by all data roots and go with the last bridge. A host that cannot have them dials from the
//! bridge's address; nothing else is different. Must not know sockets.

use super::ipam::Subnet;
use super::link::Netlink;
use super::ruleset::{Family, TRANSPARENT_MARK, TRANSPARENT_TABLE, transparent};
use super::{nftables, record};
use crate::Result;
use crate::layout::Layout;

/// The routing table that delivers marked packets here; the mark's own number, far from what people use.
const ROUTES: u32 = TRANSPARENT_MARK;
/// Index of the loopback interface, the same in every network namespace.
const LOOPBACK: u32 = 1;

/// Puts the three in place.
pub(super) fn ensure(netlink: &mut Netlink) -> Result<()> {
    netlink.add_local_route(LOOPBACK, ROUTES)?;
    netlink.add_mark_rule(TRANSPARENT_MARK, ROUTES)?;
    let ruleset = transparent();
    if nftables::holds(&ruleset)? { Ok(()) } else { nftables::replace(&[ruleset]) }
}

/// Takes them away again.
pub(super) fn remove(netlink: &mut Netlink) -> Result<()> {
    netlink.delete_mark_rule(TRANSPARENT_MARK, ROUTES)?;
    netlink.delete_local_route(LOOPBACK, ROUTES)?;
    nftables::delete(&[(Family::Inet, TRANSPARENT_TABLE)])
}

/// The subnets whose containers can be dialled with foreign source addresses now: none unless the rule is loaded, and
/// no internal networks, which need not have a way back.
pub(crate) fn subnets(layout: &Layout) -> Result<Vec<Subnet>> {
    let records = record::all(layout)?;
    if records.is_empty() || !nftables::holds(&transparent())? {
        return Ok(Vec::new());
    }
    let open = records.iter().filter(|n| !n.internal);
    Ok(open.map(|n| Subnet::containing(n.gateway, n.prefix_len)).collect())
}
