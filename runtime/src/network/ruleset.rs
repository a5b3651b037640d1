//! What our nftables table says, rendered whole from the list of networks. Pure: a value that prints as `nft` text and
//! that `nftables` encodes for the kernel.
//!
//! Must not know sockets, files or what is loaded now. The rules, in words: containers of one network reach each
//! other; they reach the outside unless the network is internal; nobody reaches them by forwarding; nothing reaches
//! another network, the host's loopback or the cloud's metadata address; a container speaks with its own network's
//! addresses only; IPv6 is closed until networks have IPv6 addresses.

use std::fmt;
use std::net::Ipv4Addr;

use super::ipam::Subnet;
use crate::runtime::Protocol;

pub mod door;
pub mod ports;
pub mod services;
pub mod set;

pub use set::{Element, SAME, Set, Type};

/// Every bridge of every data root begins with this.
pub(super) const BRIDGES: &str = "bx-";
/// The link-local range, with every cloud's metadata service (169.254.169.254) in it.
const LINK_LOCAL: (Ipv4Addr, u8) = (Ipv4Addr::new(169, 254, 0, 0), 16);
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// The table that exists exactly while we hold `ip_forward` on: it drops what is not ours. Shared by all data roots.
pub const FORWARD_GUARD_TABLE: &str = "boxship-forward";

/// The table that brings answers for borrowed addresses to the switchboard. Shared by all data roots.
pub const TRANSPARENT_TABLE: &str = "boxship-transparent";
/// The mark of such packets: "bx".
pub const TRANSPARENT_MARK: u32 = 0x6278;

/// One network as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleNetwork {
    /// For the comments.
    pub name: String,
    /// Its bridge's interface name.
    pub bridge: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// No way out.
    pub internal: bool,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub table: String,
    /// What its rules look things up in.
    pub sets: Vec<Set>,
    /// In order of printing.
    pub chains: Vec<Chain>,
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames between the ports of a bridge.
    Bridge,
}

/// One base chain with policy accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it hooks in; names the chain.
    pub hook: Hook,
    /// First match decides.
    pub rules: Vec<Rule>,
}

/// The hooks we use, each with its chain type and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing: type filter, priority -150 (mangle).
    Prerouting,
    /// To the host: type filter, priority 0.
    Input,
    /// Through the host: type filter, priority 0.
    Forward,
    /// From this host: type filter, priority -150 (mangle).
    Output,
    /// Before routing: type nat, priority -100 (dstnat).
    Redirect,
    /// From this host: type nat, priority -100 (dstnat).
    RedirectOutput,
    /// To the host: type filter, priority -10, before other chains of ours.
    Early,
    /// Leaving: type nat, priority 100 (srcnat).
    Postrouting,
    /// In by a port of a bridge: type filter, priority -300.
    Port,
}

/// All matches hold → the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In order of evaluation.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
    /// Why, at most 127 bytes (nft's own limit); unique in its chain, so that drift is seen by it.
    pub comment: String,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The interface a packet came in by.
    Input(Interface),
    /// The interface it leaves by.
    Output(Interface),
    /// Its source address lies in the subnet, or does not when `inside` is false.
    Source {
        /// Which addresses.
        subnet: Subnet,
        /// The sense.
        inside: bool,
    },
    /// Its destination address lies in the subnet.
    Destination(Subnet),
    /// It is IPv6.
    Ipv6,
    /// It belongs to a connection known already, or to an error about one.
    Established,
    /// A socket of this host with IP_TRANSPARENT waits for it.
    Transparent,
    /// Its transport.
    Transport(Protocol),
    /// Bytes of it are these.
    Bytes {
        /// Which.
        at: Place,
        /// What they are, as many as there are in the place.
        value: Vec<u8>,
    },
    /// Two bytes of it are the same: looked up in [`Set::same_bytes`].
    Same(Place, Place),
    /// Its destination address is a member of the set.
    DestinationIn(&'static str),
    /// Its connection has been given another destination.
    Redirected,
}

/// Bytes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Counted from the beginning of which header.
    pub header: Header,
    /// From where on.
    pub offset: u8,
    /// How many, at most 4.
    pub len: u8,
}

/// A header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Of the frame.
    Link,
    /// Of IP or ARP.
    Network,
    /// Of TCP or UDP.
    Transport,
}

/// An interface, or a family of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The name, or how it begins.
    pub name: String,
    /// Only the beginning is given.
    pub prefix: bool,
    /// The sense: any but this when false.
    pub is: bool,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the next chain.
    Accept,
    /// Is gone.
    Drop,
    /// Gets the address of the interface it leaves by.
    Masquerade,
    /// Gets this mark and goes on.
    Mark(u32),
    /// The sender is told that nobody is there: a reset, or ICMP's "port unreachable".
    Reject {
        /// With a reset.
        reset: bool,
    },
    /// Goes to one of `count` destinations, chosen at random and looked up in this map; one that is not there decides nothing.
    Balance {
        /// By destination address and number, and by protocol and port where `ports`.
        map: &'static str,
        /// How many there are.
        count: u32,
        /// Looked up by port, too, and the port is another one.
        ports: bool,
    },
    /// Gets these two bytes of its transport header, checksum included, and goes on.
    Port {
        /// From where on in the header: 0 is the source port, 2 the destination port.
        offset: u8,
        /// What it gets.
        port: u16,
        /// Tells where the checksum is.
        protocol: Protocol,
    },
}

/// The name of a data root's table. `tag` is the data root's mark in interface names.
#[must_use]
pub fn table_name(tag: &str) -> String {
    format!("boxship-{tag}")
}

/// The whole table of one data root. The order of `networks` is the order of the rules.
#[must_use]
pub fn render(tag: &str, networks: &[RuleNetwork]) -> Ruleset {
    let mine = Interface { name: format!("{BRIDGES}{tag}"), prefix: true, is: true };
    Ruleset {
        family: Family::Inet,
        table: table_name(tag),
        sets: Vec::new(),
        chains: vec![
            Chain { hook: Hook::Input, rules: input(&mine, networks) },
            Chain { hook: Hook::Forward, rules: forward(&mine, networks) },
            Chain { hook: Hook::Postrouting, rules: postrouting(networks) },
        ],
    }
}

/// The table that keeps the host from forwarding for others although we switched `ip_forward` on.
#[must_use]
pub fn forward_guard() -> Ruleset {
    let not_ours = Interface { name: BRIDGES.to_owned(), prefix: true, is: false };
    let matches = vec![Match::Input(not_ours.clone()), Match::Output(not_ours)];
    let rules = vec![rule(matches, Verdict::Drop, "boxship switched ip_forward on, only for its own networks")];
    let chains = vec![Chain { hook: Hook::Forward, rules }];
    Ruleset { family: Family::Inet, table: FORWARD_GUARD_TABLE.to_owned(), sets: Vec::new(), chains }
}

/// The table behind the switchboard's borrowed source addresses: what a container answers to a client's address, and a
/// transparent socket of ours waits for, is marked; the mark's routing table delivers it here.
#[must_use]
pub fn transparent() -> Ruleset {
    let ours = Interface { name: BRIDGES.to_owned(), prefix: true, is: true };
    let matches = vec![Match::Input(ours), Match::Transparent];
    let rules = vec![rule(matches, Verdict::Mark(TRANSPARENT_MARK), "answers to clients of published ports")];
    let chains = vec![Chain { hook: Hook::Prerouting, rules }];
    Ruleset { family: Family::Inet, table: TRANSPARENT_TABLE.to_owned(), sets: Vec::new(), chains }
}

fn input(mine: &Interface, networks: &[RuleNetwork]) -> Vec<Rule> {
    let from_mine = || Match::Input(mine.clone());
    let mut rules = vec![rule(vec![from_mine(), Match::Ipv6], Verdict::Drop, "no IPv6 on these networks")];
    rules.extend(networks.iter().map(spoofed));
    rules.extend([
        rule(vec![from_mine(), destination(LOOPBACK)], Verdict::Drop, "host loopback is closed"),
        rule(vec![from_mine(), destination(LINK_LOCAL)], Verdict::Drop, "metadata and link-local are closed"),
        rule(vec![from_mine(), Match::Established], Verdict::Accept, "answers to the host"),
    ]);
    rules.extend(networks.iter().filter(|n| n.internal).map(|n| {
        rule(vec![Match::Input(bridge(n))], Verdict::Drop, format!("network {}: internal, the host is closed", n.name))
    }));
    rules
}

fn forward(mine: &Interface, networks: &[RuleNetwork]) -> Vec<Rule> {
    let from_mine = || Match::Input(mine.clone());
    let to_mine = || Match::Output(mine.clone());
    let any = Interface { name: BRIDGES.to_owned(), prefix: true, is: true };
    let mut rules = vec![
        rule(vec![from_mine(), Match::Ipv6], Verdict::Drop, "no IPv6 from these networks"),
        rule(vec![to_mine(), Match::Ipv6], Verdict::Drop, "no IPv6 to these networks"),
    ];
    rules.extend(networks.iter().map(spoofed));
    rules.extend([
        rule(vec![from_mine(), destination(LINK_LOCAL)], Verdict::Drop, "metadata and link-local are closed"),
        rule(vec![to_mine(), Match::Established], Verdict::Accept, "answers to containers"),
    ]);
    rules.extend(networks.iter().map(|n| {
        let matches = vec![Match::Input(bridge(n)), Match::Output(bridge(n))];
        rule(matches, Verdict::Accept, format!("network {}: neighbours", n.name))
    }));
    rules.extend(networks.iter().filter(|n| n.internal).map(|n| {
        rule(vec![Match::Input(bridge(n))], Verdict::Drop, format!("network {}: internal, no way out", n.name))
    }));
    rules.extend([
        rule(vec![from_mine(), Match::Output(any)], Verdict::Drop, "networks are closed to each other"),
        rule(vec![to_mine()], Verdict::Drop, "containers are reached by published ports only"),
    ]);
    rules
}

fn postrouting(networks: &[RuleNetwork]) -> Vec<Rule> {
    let egress = |n: &RuleNetwork| {
        let elsewhere = Interface { is: false, ..bridge(n) };
        let matches = vec![Match::Source { subnet: n.subnet, inside: true }, Match::Output(elsewhere)];
        rule(matches, Verdict::Masquerade, format!("network {}: egress", n.name))
    };
    networks.iter().filter(|n| !n.internal).map(egress).collect()
}

fn spoofed(network: &RuleNetwork) -> Rule {
    let matches = vec![Match::Input(bridge(network)), Match::Source { subnet: network.subnet, inside: false }];
    rule(matches, Verdict::Drop, format!("network {}: not an address of {}", network.name, network.subnet))
}

fn bridge(network: &RuleNetwork) -> Interface {
    Interface { name: network.bridge.clone(), prefix: false, is: true }
}

fn destination((address, prefix_len): (Ipv4Addr, u8)) -> Match {
    Match::Destination(Subnet::containing(address, prefix_len))
}

fn rule(matches: Vec<Match>, verdict: Verdict, comment: impl Into<String>) -> Rule {
    Rule { matches, verdict, comment: comment.into() }
}

impl Hook {
    /// The chain's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting | Self::Port | Self::Redirect => "prerouting",
            Self::Output | Self::RedirectOutput => "output",
            Self::Input | Self::Early => "input",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
        }
    }

    /// nftables' chain type.
    #[must_use]
    pub fn chain_type(self) -> &'static str {
        match self {
            Self::Prerouting | Self::Input | Self::Early | Self::Forward | Self::Output | Self::Port => "filter",
            Self::Postrouting | Self::Redirect | Self::RedirectOutput => "nat",
        }
    }

    /// Order among the chains of the hook, as numbered in `linux/netfilter_ipv4.h`.
    #[must_use]
    pub fn priority(self) -> i32 {
        match self {
            Self::Prerouting | Self::Output => -150,
            Self::Redirect | Self::RedirectOutput => -100,
            Self::Early => -10,
            Self::Port => -300,
            Self::Input | Self::Forward => 0,
            Self::Postrouting => 100,
        }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family.name(), self.table)?;
        for set in &self.sets {
            writeln!(f, "\t{set}")?;
        }
        for chain in &self.chains {
            let (hook, kind) = (chain.hook.name(), chain.hook.chain_type());
            writeln!(f, "\tchain {hook} {{")?;
            writeln!(f, "\t\ttype {kind} hook {hook} priority {}; policy accept;", chain.hook.priority())?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        match self.verdict {
            Verdict::Accept => f.write_str("accept")?,
            Verdict::Drop => f.write_str("drop")?,
            Verdict::Masquerade => f.write_str("masquerade")?,
            Verdict::Mark(mark) => write!(f, "meta mark set {mark:#x}")?,
            Verdict::Reject { reset: true } => f.write_str("reject with tcp reset")?,
            Verdict::Reject { reset: false } => f.write_str("reject with icmpx port-unreachable")?,
            Verdict::Balance { map, count, ports } => {
                let ports = if ports { ". meta l4proto . th dport " } else { "" };
                write!(f, "dnat ip to ip daddr {ports}. numgen random mod {count} map @{map}{count}")?;
            }
            Verdict::Port { offset, port, .. } => write!(f, "@th,{},16 set {port}", u16::from(offset) * 8)?,
        }
        write!(f, " comment \"{}\"", self.comment)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(interface) => write!(f, "iifname {interface}"),
            Self::Output(interface) => write!(f, "oifname {interface}"),
            Self::Source { subnet, inside: true } => write!(f, "ip saddr {subnet}"),
            Self::Source { subnet, inside: false } => write!(f, "ip saddr != {subnet}"),
            Self::Destination(subnet) => write!(f, "ip daddr {subnet}"),
            Self::Ipv6 => f.write_str("meta nfproto ipv6"),
            Self::Established => f.write_str("ct state established,related"),
            Self::Transparent => f.write_str("socket transparent 1"),
            Self::Transport(Protocol::Tcp) => f.write_str("meta l4proto tcp"),
            Self::Transport(Protocol::Udp) => f.write_str("meta l4proto udp"),
            Self::Bytes { at, value } => {
                write!(f, "{at} 0x")?;
                value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Same(a, b) => write!(f, "{a} . {b} @{SAME}"),
            Self::DestinationIn(set) => write!(f, "ip daddr @{set}"),
            Self::Redirected => f.write_str("ct status dnat"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = match self.header {
            Header::Link => "ll",
            Header::Network => "nh",
            Header::Transport => "th",
        };
        write!(f, "@{header},{},{}", u16::from(self.offset) * 8, u16::from(self.len) * 8)
    }
}

impl Family {
    /// As `nft` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.is { "" } else { "!= " };
        let star = if self.prefix { "*" } else { "" };
        write!(f, "{not}\"{}{star}\"", self.name)
    }
}

#[cfg(test)]
mod tests;
