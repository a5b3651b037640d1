//! Rules as the kernel's expressions: each condition loads something into a register and compares it.
//!
//! Must not decide any rule. Numbers: `linux/netfilter/nf_tables.h`; they are kernel ABI.

use super::super::ipam::Subnet;
use super::super::netlink::{Message, attribute, attributes, text};
use super::super::ruleset::{Header, Interface, Match, Place, SAME, Verdict};
use super::{NFPROTO_IPV4, NFPROTO_IPV6};
use crate::runtime::Protocol;

/// The first register of 16 bytes.
const REGISTER: u32 = 1;
/// Its four parts, `NFT_REG32_00` to `_03`.
const PARTS: [u32; 4] = [8, 9, 10, 11];
/// The second register of 16 bytes, and its second part.
const RESULT: u32 = 2;
const RESULT_NEXT: u32 = 13;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
/// `NF_CT_STATE_BIT` of established and related.
const CT_ESTABLISHED_RELATED: u32 = 2 | 4;
/// `NFT_CT_STATUS`, and its bit `IPS_DST_NAT`.
const CT_STATUS: u32 = 2;
const CT_DNAT: u32 = 1 << 5;
/// `IFNAMSIZ`.
const NAME_BYTES: usize = 16;
const DESTINATION: Place = Place { header: Header::Network, offset: 16, len: 4 };
const DESTINATION_PORT: Place = Place { header: Header::Transport, offset: 2, len: 2 };

fn expression(m: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    m.nested(1, |m| {
        m.string(1, name).nested(2, fill);
    });
}

pub(super) fn encode_match(m: &mut Message, condition: &Match) {
    match condition {
        Match::Input(interface) => encode_interface(m, 6, interface),
        Match::Output(interface) => encode_interface(m, 7, interface),
        Match::Source { subnet, inside } => encode_address(m, 12, *subnet, *inside),
        Match::Destination(subnet) => encode_address(m, 16, *subnet, true),
        Match::Ipv6 => encode_family(m, NFPROTO_IPV6),
        Match::Transport(protocol) => {
            encode_meta(m, 16);
            encode_compare(m, CMP_EQ, &[transport(*protocol)]);
        }
        Match::Bytes { at, value } => {
            encode_payload(m, *at, REGISTER);
            encode_compare(m, CMP_EQ, value);
        }
        Match::Same(a, b) => {
            encode_payload(m, *a, REGISTER);
            encode_payload(m, *b, PARTS[1]);
            expression(m, "lookup", |m| {
                m.string(1, SAME).be32(2, REGISTER);
            });
        }
        Match::DestinationIn(set) => {
            encode_family(m, NFPROTO_IPV4);
            encode_payload(m, DESTINATION, REGISTER);
            expression(m, "lookup", |m| {
                m.string(1, set).be32(2, REGISTER);
            });
        }
        Match::Redirected => {
            expression(m, "ct", |m| {
                m.be32(1, REGISTER).be32(2, CT_STATUS);
            });
            encode_mask(m, &CT_DNAT.to_ne_bytes());
            encode_compare(m, CMP_NEQ, &[0; 4]);
        }
        Match::Transparent => {
            expression(m, "socket", |m| {
                m.be32(1, 0).be32(2, REGISTER);
            });
            encode_compare(m, CMP_EQ, &[1]);
        }
        Match::Established => {
            expression(m, "ct", |m| {
                m.be32(1, REGISTER).be32(2, 0);
            });
            // Connection tracking state is a number in host order.
            encode_mask(m, &CT_ESTABLISHED_RELATED.to_ne_bytes());
            encode_compare(m, CMP_NEQ, &[0; 4]);
        }
    }
}

fn encode_interface(m: &mut Message, key: u32, interface: &Interface) {
    encode_meta(m, key);
    let mut name = interface.name.as_bytes().to_vec();
    if !interface.prefix {
        name.resize(NAME_BYTES, 0);
    }
    encode_compare(m, if interface.is { CMP_EQ } else { CMP_NEQ }, &name);
}

/// An IPv4 address at an offset of the network header; in an inet table the family must be asked first.
fn encode_address(m: &mut Message, offset: u32, subnet: Subnet, inside: bool) {
    encode_family(m, NFPROTO_IPV4);
    expression(m, "payload", |m| {
        m.be32(1, REGISTER).be32(2, 1).be32(3, offset).be32(4, 4);
    });
    encode_mask(m, &subnet.mask().octets());
    encode_compare(m, if inside { CMP_EQ } else { CMP_NEQ }, &subnet.base().octets());
}

fn encode_payload(m: &mut Message, at: Place, register: u32) {
    let base = match at.header {
        Header::Link => 0,
        Header::Network => 1,
        Header::Transport => 2,
    };
    expression(m, "payload", |m| {
        m.be32(1, register).be32(2, base).be32(3, at.offset.into()).be32(4, at.len.into());
    });
}

/// Two bytes of the transport header, with the checksum made right (`NFT_PAYLOAD_CSUM_INET`).
fn encode_port(m: &mut Message, offset: u8, port: u16, protocol: Protocol) {
    let checksum_at = if protocol.is_tcp() { 16 } else { 6 };
    expression(m, "immediate", |m| {
        m.be32(1, REGISTER);
        m.nested(2, |m| {
            m.attribute(1, &port.to_be_bytes());
        });
    });
    expression(m, "payload", |m| {
        m.be32(5, REGISTER).be32(2, 2).be32(3, offset.into()).be32(4, 2).be32(6, 1).be32(7, checksum_at);
    });
}

fn transport(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn encode_family(m: &mut Message, family: u8) {
    encode_meta(m, 15);
    encode_compare(m, CMP_EQ, &[family]);
}

fn encode_meta(m: &mut Message, key: u32) {
    expression(m, "meta", |m| {
        m.be32(1, REGISTER).be32(2, key);
    });
}

fn encode_mask(m: &mut Message, mask: &[u8; 4]) {
    expression(m, "bitwise", |m| {
        m.be32(1, REGISTER).be32(2, REGISTER).be32(3, 4);
        m.nested(4, |m| {
            m.attribute(1, mask);
        });
        m.nested(5, |m| {
            m.attribute(1, &[0; 4]);
        });
    });
}

fn encode_compare(m: &mut Message, operator: u32, value: &[u8]) {
    expression(m, "cmp", |m| {
        m.be32(1, REGISTER).be32(2, operator);
        m.nested(3, |m| {
            m.attribute(1, value);
        });
    });
}

pub(super) fn encode_verdict(m: &mut Message, verdict: Verdict) {
    let code = match verdict {
        Verdict::Masquerade => return expression(m, "masq", |_| {}),
        Verdict::Mark(mark) => return encode_mark(m, mark),
        Verdict::Port { offset, port, protocol } => return encode_port(m, offset, port, protocol),
        Verdict::Balance { map, count, ports } => return encode_balance(m, &format!("{map}{count}"), count, ports),
        Verdict::Reject { reset } => return encode_reject(m, reset),
        Verdict::Drop => 0,
        Verdict::Accept => 1,
    };
    expression(m, "immediate", |m| {
        m.be32(1, 0);
        m.nested(2, |m| {
            m.nested(2, |m| {
                m.be32(1, code);
            });
        });
    });
}

/// The mark is a number in host order.
fn encode_mark(m: &mut Message, mark: u32) {
    expression(m, "immediate", |m| {
        m.be32(1, REGISTER);
        m.nested(2, |m| {
            m.attribute(1, &mark.to_ne_bytes());
        });
    });
    expression(m, "meta", |m| {
        m.be32(2, 3).be32(3, REGISTER);
    });
}

/// A destination drawn from a map: address, protocol and port where `ports`, and a random number below `count`.
fn encode_balance(m: &mut Message, map: &str, count: u32, ports: bool) {
    const RANDOM: u32 = 1;
    const DNAT: u32 = 1;
    encode_family(m, NFPROTO_IPV4);
    encode_payload(m, DESTINATION, PARTS[0]);
    if ports {
        expression(m, "meta", |m| {
            m.be32(1, PARTS[1]).be32(2, 16);
        });
        encode_payload(m, DESTINATION_PORT, PARTS[2]);
    }
    expression(m, "numgen", |m| {
        m.be32(1, PARTS[if ports { 3 } else { 1 }]).be32(2, count).be32(3, RANDOM).be32(4, 0);
    });
    expression(m, "lookup", |m| {
        m.string(1, map).be32(2, REGISTER).be32(3, RESULT);
    });
    expression(m, "nat", |m| {
        m.be32(1, DNAT).be32(2, NFPROTO_IPV4.into()).be32(3, RESULT);
        if ports {
            m.be32(5, RESULT_NEXT);
        }
    });
}

fn encode_reject(m: &mut Message, reset: bool) {
    const TCP_RST: u32 = 1;
    const ICMPX_UNREACH: u32 = 2;
    const PORT_UNREACHABLE: u8 = 1;
    expression(m, "reject", |m| {
        m.be32(1, if reset { TCP_RST } else { ICMPX_UNREACH }).attribute(2, &[PORT_UNREACHABLE]);
    });
}

/// Of a rule's expressions: the key of `meta` (`iifname`, `oifname`) when it accepts everything whose interface begins like
/// this, and asks for nothing else.
pub(super) fn accepted_interface(expressions: &[u8], prefix: &str) -> Option<u32> {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|b| u32::from_be_bytes(*b));
    let (mut key, mut is_ours, mut accepts) = (None, false, false);
    for (_, expression) in attributes(expressions) {
        let data = attribute(expression, 2).unwrap_or_default();
        match attribute(expression, 1).map(text).as_deref() {
            Some("meta") if key.is_none() => key = attribute(data, 2).and_then(number),
            Some("cmp") if !is_ours => {
                let is_equal = attribute(data, 2).and_then(number) == Some(CMP_EQ);
                let value = attribute(data, 3).and_then(|value| attribute(value, 1)).unwrap_or_default();
                is_ours = is_equal && value == prefix.as_bytes();
                if !is_ours {
                    return None;
                }
            }
            Some("counter") => {}
            Some("immediate") => {
                let verdict = attribute(data, 2).and_then(|value| attribute(value, 2));
                accepts = verdict.and_then(|verdict| attribute(verdict, 1)).and_then(number) == Some(1);
            }
            _ => return None,
        }
    }
    key.filter(|_| is_ours && accepts)
}
