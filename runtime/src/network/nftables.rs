//! Rule sets into the kernel: our own nfnetlink batch, so no `nft` program is needed and a swap is atomic.
//!
//! Must not decide any rule (`ruleset` does). Numbers: `linux/netfilter/nf_tables.h`; they are kernel ABI.

use rustix::net::netlink::NETFILTER;

use super::ipam::Subnet;
use super::netlink::{self, ACK, APPEND, CREATE, DUMP, Message, REQUEST, Socket, attribute, text};
use super::ruleset::{Chain, Family, Header, Interface, Match, Place, Rule, Ruleset, SAME, Set, Verdict};
use crate::runtime::Protocol;
use crate::{Error, Result};

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_BRIDGE: u8 = 7;
const NFPROTO_IPV6: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
/// Bytes of `struct nfgenmsg` in front of the attributes.
const GENERIC_BYTES: usize = 4;
const REGISTER: u32 = 1;
/// The second four bytes of [`REGISTER`], `NFT_REG32_01`.
const REGISTER_NEXT: u32 = 9;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
/// `NF_CT_STATE_BIT` of established and related.
const CT_ESTABLISHED_RELATED: u32 = 2 | 4;
/// `IFNAMSIZ`.
const NAME_BYTES: usize = 16;

/// A base chain that somebody else hooked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignChain {
    /// `nft`'s name of the family: `ip`, `ip6`, `inet`, `bridge`.
    pub(super) family: &'static str,
    pub(super) table: String,
    pub(super) chain: String,
    /// `NF_INET_*`: 1 is input, 2 is forward.
    pub(super) hook: u32,
    /// What no rule decides is dropped.
    pub(super) drops: bool,
}

/// Makes the tables be exactly these, in one transaction.
///
/// # Errors
/// `Unsupported` when the kernel has no nf_tables or the right (CAP_NET_ADMIN) is missing.
pub(super) fn replace(rulesets: &[Ruleset]) -> Result<()> {
    let mut batch = Batch::new();
    for ruleset in rulesets {
        batch.family = family(ruleset.family);
        batch.delete_table(&ruleset.table);
        batch.table(&ruleset.table);
        for set in &ruleset.sets {
            batch.set(&ruleset.table, set);
        }
        for chain in &ruleset.chains {
            batch.chain(&ruleset.table, chain);
        }
    }
    batch.commit().map_err(|source| unsupported("load the firewall table", source))
}

/// Deletes tables; absent ones are no error.
///
/// # Errors
/// As [`replace`].
pub(super) fn delete(tables: &[(Family, &str)]) -> Result<()> {
    let mut batch = Batch::new();
    for (of, table) in tables {
        batch.family = family(*of);
        batch.delete_table(table);
    }
    batch.commit().map_err(|source| unsupported("delete the firewall table", source))
}

/// Whether the kernel holds this table, rule by rule. Rules are told by their comments: nobody edits those by accident.
///
/// # Errors
/// As [`replace`].
pub(super) fn holds(ruleset: &Ruleset) -> Result<bool> {
    let mut loaded = Vec::new();
    let mut request = message(GETRULE, REQUEST | DUMP, 1, family(ruleset.family));
    request.string(1, &ruleset.table);
    let answer = dump(request, |_, attrs| {
        let of = |kind| attribute(attrs, kind);
        if of(1).map(text).as_deref() == Some(&ruleset.table) {
            let comment = of(7).and_then(comment_of).unwrap_or_default();
            loaded.push((of(2).map(text).unwrap_or_default(), comment));
        }
    });
    match answer {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(unsupported("list firewall rules", e)),
    }
    let wanted = ruleset.chains.iter().flat_map(|c| c.rules.iter().map(|r| (c.hook.name(), r.comment.as_str())));
    Ok(wanted.eq(loaded.iter().map(|(chain, comment)| (chain.as_str(), comment.as_str()))))
}

/// The base chains on the input and forward hooks, of all tables.
///
/// # Errors
/// As [`replace`].
pub(super) fn filter_chains() -> Result<Vec<ForeignChain>> {
    let mut chains = Vec::new();
    dump(message(GETCHAIN, REQUEST | DUMP, 1, NFPROTO_UNSPEC), |family, attrs| {
        let family = match family {
            NFPROTO_INET => "inet",
            NFPROTO_IPV4 => "ip",
            NFPROTO_IPV6 => "ip6",
            NFPROTO_BRIDGE => "bridge",
            _ => return,
        };
        let number = |bytes: &[u8]| bytes.first_chunk().map(|b| u32::from_be_bytes(*b));
        let Some(hook) = attribute(attrs, 4).and_then(|h| attribute(h, 1)).and_then(number) else { return };
        let name = |kind| attribute(attrs, kind).map(text).unwrap_or_default();
        let drops = attribute(attrs, 5).and_then(number) == Some(0);
        if (1..=2).contains(&hook) {
            chains.push(ForeignChain { family, table: name(1), chain: name(3), hook, drops });
        }
    })
    .map_err(|source| unsupported("list firewall chains", source))?;
    Ok(chains)
}

fn dump(request: Message, mut each: impl FnMut(u8, &[u8])) -> std::io::Result<()> {
    Socket::open(Some(NETFILTER))?.dump(&request.finish(), |body| {
        if let Some((generic, attrs)) = body.split_at_checked(GENERIC_BYTES) {
            each(generic[0], attrs);
        }
    })
}

/// The comment in a rule's user data: type 0, length, text with NUL (libnftnl's `udata.h`).
fn comment_of(user_data: &[u8]) -> Option<String> {
    let [0, len, rest @ ..] = user_data else { return None };
    rest.get(..usize::from(*len)).map(text)
}

fn unsupported(doing: &str, source: std::io::Error) -> Error {
    use std::io::ErrorKind as Kind;
    match source.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            Error::Unsupported("the kernel has no nf_tables: containers have no way out of their network".to_owned())
        }
        _ if source.kind() == Kind::PermissionDenied => Error::Unsupported(
            "CAP_NET_ADMIN is missing: firewall rules cannot be set, containers have no way out of their network"
                .to_owned(),
        ),
        _ => Error::io(doing, source),
    }
}

fn message(kind: u16, flags: u16, sequence: u32, family: u8) -> Message {
    Message::new((SUBSYSTEM << 8) | kind, flags, sequence, &[family, 0, 0, 0])
}

/// One transaction. Only its last message asks for an acknowledgement (errors come anyway): 400 of them would not fit
/// into the socket's receive buffer.
struct Batch {
    /// Of the messages that follow.
    family: u8,
    bytes: Vec<u8>,
    sequence: u32,
    last_at: usize,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self { family: NFPROTO_INET, bytes: Vec::new(), sequence: 0, last_at: 0 };
        batch.boundary(BATCH_BEGIN);
        batch
    }

    fn boundary(&mut self, kind: u16) {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let fixed = [NFPROTO_UNSPEC, 0, high, low];
        self.bytes.extend(Message::new(kind, REQUEST, self.sequence, &fixed).finish());
    }

    fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) {
        self.sequence += 1;
        let mut message = message(kind, REQUEST | flags, self.sequence, self.family);
        fill(&mut message);
        self.last_at = self.bytes.len();
        self.bytes.extend(message.finish());
    }

    fn commit(mut self) -> std::io::Result<()> {
        let last = self.sequence;
        netlink::add_flags(&mut self.bytes[self.last_at..], ACK);
        self.sequence += 1;
        self.boundary(BATCH_END);
        Socket::open(Some(NETFILTER))?.transact(&self.bytes, last)
    }

    fn table(&mut self, name: &str) {
        self.push(NEWTABLE, CREATE, |m| {
            m.string(1, name);
        });
    }

    /// Adding first makes deleting an absent one succeed; the kernel has "destroy" only since 6.3.
    fn delete_table(&mut self, name: &str) {
        self.table(name);
        self.push(DELTABLE, 0, |m| {
            m.string(1, name);
        });
    }

    /// Pairs of bytes, each byte in a register of its own. To `nft` they are pairs of protocol numbers, the one type of
    /// its types that has one byte and is good for any of them.
    fn set(&mut self, table: &str, set: &Set) {
        const CONSTANT: u32 = 2;
        const INET_PROTO: u32 = 12;
        let len = u32::try_from(set.pairs.len()).expect("a set of ours has at most some hundreds of members");
        self.push(NEWSET, CREATE, |m| {
            m.string(1, table).string(2, set.name).be32(3, CONSTANT).be32(4, (INET_PROTO << 6) | INET_PROTO).be32(5, 8);
            m.nested(9, |m| {
                m.be32(1, len);
            });
            m.be32(10, 1);
        });
        self.push(NEWSETELEM, CREATE, |m| {
            m.string(1, table).string(2, set.name);
            m.nested(3, |m| {
                for [a, b] in &set.pairs {
                    m.nested(1, |m| {
                        m.nested(1, |m| {
                            m.attribute(1, &[*a, 0, 0, 0, *b, 0, 0, 0]);
                        });
                    });
                }
            });
            m.be32(4, 1);
        });
    }

    fn chain(&mut self, table: &str, chain: &Chain) {
        let hook = match chain.hook {
            super::ruleset::Hook::Prerouting | super::ruleset::Hook::Port => 0,
            super::ruleset::Hook::Input => 1,
            super::ruleset::Hook::Forward => 2,
            super::ruleset::Hook::Output => 3,
            super::ruleset::Hook::Postrouting => 4,
        };
        self.push(NEWCHAIN, CREATE, |m| {
            m.string(1, table).string(3, chain.hook.name());
            m.nested(4, |m| {
                m.be32(1, hook).be32(2, chain.hook.priority().cast_unsigned());
            });
            m.be32(5, 1).string(7, chain.hook.chain_type());
        });
        for rule in &chain.rules {
            self.rule(table, chain.hook.name(), rule);
        }
    }

    fn rule(&mut self, table: &str, chain: &str, rule: &Rule) {
        self.push(NEWRULE, CREATE | APPEND, |m| {
            m.string(1, table).string(2, chain);
            m.nested(4, |m| {
                for condition in &rule.matches {
                    encode_match(m, condition);
                }
                encode_verdict(m, rule.verdict);
            });
            let comment = rule.comment.as_bytes();
            let len = u8::try_from(comment.len() + 1).expect("comments are at most 127 bytes");
            m.attribute(7, &[&[0, len], comment, &[0]].concat());
        });
    }
}

fn expression(m: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    m.nested(1, |m| {
        m.string(1, name).nested(2, fill);
    });
}

fn encode_match(m: &mut Message, condition: &Match) {
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
            encode_payload(m, *b, REGISTER_NEXT);
            expression(m, "lookup", |m| {
                m.string(1, SAME).be32(2, REGISTER).be32(4, 1);
            });
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

fn family(family: Family) -> u8 {
    match family {
        Family::Inet => NFPROTO_INET,
        Family::Bridge => NFPROTO_BRIDGE,
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

fn encode_verdict(m: &mut Message, verdict: Verdict) {
    let code = match verdict {
        Verdict::Masquerade => return expression(m, "masq", |_| {}),
        Verdict::Mark(mark) => return encode_mark(m, mark),
        Verdict::Port { offset, port, protocol } => return encode_port(m, offset, port, protocol),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_reads_back_from_user_data() {
        assert_eq!(comment_of(&[0, 3, b'h', b'i', 0]).as_deref(), Some("hi"));
        for bad in [&[][..], &[0], &[1, 1, 0], &[0, 9, b'h']] {
            assert_eq!(comment_of(bad), None);
        }
        assert_eq!(super::super::netlink::attributes(&[9, 0, 0, 0]).count(), 0);
    }
}
