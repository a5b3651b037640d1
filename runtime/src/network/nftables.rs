//! Rule sets into the kernel: our own nfnetlink batch, so no `nft` program is needed and a swap is atomic.
//!
//! Must not decide any rule (`ruleset` does). Numbers: `linux/netfilter/nf_tables.h`; they are kernel ABI.

use rustix::net::netlink::NETFILTER;

use super::netlink::{self, ACK, APPEND, CREATE, DUMP, Message, REQUEST, Socket, attribute, text};
use super::ruleset::{Chain, Family, Hook, Rule, Ruleset};
use crate::{Error, Result};

mod elements;
mod encode;

pub(super) use elements::{are_loaded, update};

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
/// Bytes of `struct nfgenmsg` in front of the attributes.
const GENERIC_BYTES: usize = 4;

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
        for (id, set) in (1..).zip(&ruleset.sets) {
            batch.set(&ruleset.table, id, set);
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

/// Whether a foreign chain has rules of its own that accept whatever comes in, and whatever goes out, by interfaces that
/// begin like this: somebody did what a finding told.
///
/// # Errors
/// As [`replace`].
pub(super) fn accepts(chain: &ForeignChain, prefix: &str) -> Result<bool> {
    const IIFNAME: u32 = 6;
    const OIFNAME: u32 = 7;
    let of = match chain.family {
        "inet" => NFPROTO_INET,
        "ip" => NFPROTO_IPV4,
        "bridge" => NFPROTO_BRIDGE,
        _ => NFPROTO_IPV6,
    };
    let mut request = message(GETRULE, REQUEST | DUMP, 1, of);
    request.string(1, &chain.table).string(2, &chain.chain);
    let mut accepted = Vec::new();
    dump(request, |_, attrs| {
        let of = |kind| attribute(attrs, kind);
        if of(1).map(text).as_deref() == Some(&chain.table) && of(2).map(text).as_deref() == Some(&chain.chain) {
            accepted.extend(of(4).and_then(|list| encode::accepted_interface(list, prefix)));
        }
    })
    .map_err(|source| unsupported("list firewall rules", source))?;
    Ok([IIFNAME, OIFNAME].iter().all(|key| accepted.contains(key)))
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

/// nf_tables' number of a family.
fn family(family: Family) -> u8 {
    match family {
        Family::Inet => NFPROTO_INET,
        Family::Bridge => NFPROTO_BRIDGE,
    }
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

    fn chain(&mut self, table: &str, chain: &Chain) {
        let hook = match chain.hook {
            Hook::Prerouting | Hook::Port | Hook::Redirect => 0,
            Hook::Input | Hook::Early => 1,
            Hook::Forward => 2,
            Hook::Output | Hook::RedirectOutput => 3,
            Hook::Postrouting => 4,
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
                    encode::encode_match(m, condition);
                }
                encode::encode_verdict(m, rule.verdict);
            });
            let comment = rule.comment.as_bytes();
            let len = u8::try_from(comment.len() + 1).expect("comments are at most 127 bytes");
            m.attribute(7, &[&[0, len], comment, &[0]].concat());
        });
    }
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
