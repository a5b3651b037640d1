//! What the kernel remembers of datagrams on their way to a replica: forgotten when the replica leaves, or a client that
//! keeps sending would be sent to nobody for as long as it does.
//!
//! Connections are left alone: they end with the replica, which may still serve them. Numbers:
//! `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::Ipv4Addr;

use rustix::net::netlink::NETFILTER;

use super::netlink::{ACK, Message, REQUEST, Socket};
use crate::Result;
use crate::error::Doing as _;

const SUBSYSTEM: u16 = 1;
const DELETE: u16 = 2;
const FAMILY: u8 = 2;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const PROTO_NUM: u16 = 1;
const FILTER: u16 = 25;
const FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_IP_SRC)` and `(CTA_PROTO_NUM)`.
const BY_SOURCE_AND_PROTOCOL: u32 = 1 | 8;
const UDP: u8 = 17;

/// Forgets all UDP flows that a replica with this address answers.
///
/// # Errors
/// `Io`: the kernel cannot choose among flows (module `nf_conntrack_netlink`), say.
pub(super) fn forget_datagrams(replica: Ipv4Addr) -> Result<()> {
    // Version 1: only flows of the family.
    let mut message = Message::new((SUBSYSTEM << 8) | DELETE, REQUEST | ACK, 1, &[FAMILY, 1, 0, 0]);
    message.nested(TUPLE_REPLY, |m| {
        m.nested(TUPLE_IP, |m| {
            m.attribute(IP_V4_SRC, &replica.octets());
        });
        m.nested(TUPLE_PROTO, |m| {
            m.attribute(PROTO_NUM, &[UDP]);
        });
    });
    message.nested(FILTER, |m| {
        m.attribute(FILTER_REPLY_FLAGS, &BY_SOURCE_AND_PROTOCOL.to_ne_bytes());
    });
    let forgotten = Socket::open(Some(NETFILTER)).and_then(|socket| socket.transact(&message.finish(), 1));
    forgotten.doing(|| format!("forget datagrams on their way to {replica}"))
}
