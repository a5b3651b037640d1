//! The table inside a container that leads questions at 127.0.0.11:53 to the switchboard's sockets on another port, so that
//! a program of the container may have port 53 on every address for itself. Pure.
//!
//! Without connection tracking, which would cost every packet of the container: the port is rewritten on the way out in
//! both directions, and what is on its way out of loopback comes in again unchanged.

use std::net::Ipv4Addr;

use super::{Chain, Family, Header, Hook, Match, Place, Rule, Ruleset, Verdict};
use crate::network::ipam::Subnet;
use crate::runtime::Protocol;

/// The table's name, inside the container's network namespace.
pub const DOOR_TABLE: &str = "boxship-names";
/// Where the sockets are: above the ports that the kernel gives out by itself (32768-60999), so that no client of the
/// container ever has it.
pub const DOOR_PORT: u16 = 61_053;
const DNS_PORT: u16 = 53;

/// The table for a resolver at this address.
#[must_use]
pub fn door(resolver: Ipv4Addr) -> Ruleset {
    let rules = [Protocol::Udp, Protocol::Tcp].into_iter().flat_map(|protocol| both_ways(resolver, protocol)).collect();
    let chains = vec![Chain { hook: Hook::Output, rules }];
    Ruleset { family: Family::Inet, table: DOOR_TABLE.to_owned(), sets: Vec::new(), chains }
}

fn both_ways(resolver: Ipv4Addr, protocol: Protocol) -> [Rule; 2] {
    let subnet = Subnet::containing(resolver, 32);
    let rule = |address: Match, offset: u8, from: u16, to: u16, what: &str| {
        let at = Place { header: Header::Transport, offset, len: 2 };
        let port = Match::Bytes { at, value: from.to_be_bytes().to_vec() };
        Rule {
            matches: vec![address, Match::Transport(protocol), port],
            verdict: Verdict::Port { offset, port: to, protocol },
            comment: format!("{what} by {}", if protocol.is_tcp() { "TCP" } else { "UDP" }),
        }
    };
    [
        rule(Match::Destination(subnet), 2, DNS_PORT, DOOR_PORT, "questions"),
        rule(Match::Source { subnet, inside: true }, 0, DOOR_PORT, DNS_PORT, "answers"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_in_words() {
        expect_test::expect![[r#"
            table inet boxship-names {
            	chain output {
            		type filter hook output priority -150; policy accept;
            		ip daddr 127.0.0.11/32 meta l4proto udp @th,16,16 0x0035 @th,16,16 set 61053 comment "questions by UDP"
            		ip saddr 127.0.0.11/32 meta l4proto udp @th,0,16 0xee7d @th,0,16 set 53 comment "answers by UDP"
            		ip daddr 127.0.0.11/32 meta l4proto tcp @th,16,16 0x0035 @th,16,16 set 61053 comment "questions by TCP"
            		ip saddr 127.0.0.11/32 meta l4proto tcp @th,0,16 0xee7d @th,0,16 set 53 comment "answers by TCP"
            	}
            }
        "#]]
        .assert_eq(&door(Ipv4Addr::new(127, 0, 0, 11)).to_string());
    }
}
