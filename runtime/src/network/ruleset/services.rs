//! The table of service addresses: an address of a network that stands for an App and leads to one of its replicas that are
//! ready. Pure.
//!
//! One map for each number of replicas, so that a rule can draw a number and look the replica up; a service whose
//! replicas change moves its elements from one map to another, and no rule changes. What nobody is ready for is dropped
//! for a while, so that clients try again, and refused then. Must not know names, or what is loaded now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Chain, Element, Family, Hook, Interface, Match, Rule, RuleNetwork, Ruleset, Set, Type, Verdict, rule};
use crate::network::ipam::Subnet;
use crate::runtime::{Protocol, Service};

/// Maps for up to so many replicas are always there, so that rolling an App changes no rule.
const COUNTS_ALWAYS: u32 = 4;
/// Maps from address and number to a replica.
const WHOLE: &str = "to";
/// Maps from address, protocol, port and number to a replica and its port.
const PORTS: &str = "port-to";
/// Addresses that are parked.
const PARKED: &str = "parked";
/// All service addresses.
const SERVICES: &str = "services";

/// The name of a data root's table.
#[must_use]
pub fn services_table(tag: &str) -> String {
    format!("boxship-{tag}-services")
}

/// The whole table. `parked` says how long, in milliseconds, connections to an address without a ready replica still wait.
#[must_use]
pub fn render(tag: &str, networks: &[RuleNetwork], services: &[Service], parked: &BTreeMap<Ipv4Addr, u64>) -> Ruleset {
    let all = Maps::of(services);
    let balance = || -> Vec<Rule> {
        let counts = |ports: bool, map: &'static str, what: &str| {
            let maps = if ports { &all.ports } else { &all.whole };
            let rules = maps.keys().map(move |&count| {
                rule(Vec::new(), Verdict::Balance { map, count, ports }, format!("{what} with {count} ready"))
            });
            rules.collect::<Vec<_>>()
        };
        [counts(true, PORTS, "ports of services"), counts(false, WHOLE, "services")].concat()
    };
    let chains = vec![
        Chain { hook: Hook::Redirect, rules: balance() },
        Chain { hook: Hook::RedirectOutput, rules: balance() },
        Chain { hook: Hook::Early, rules: nobody_ready() },
        Chain { hook: Hook::Postrouting, rules: networks.iter().map(way_back).collect() },
    ];
    let mut sets = vec![addresses(SERVICES, false, services.iter().map(|s| (s.address, None)))];
    sets.push(addresses(PARKED, true, parked.iter().map(|(address, ms)| (*address, Some(*ms)))));
    sets.extend(all.into_sets());
    Ruleset { family: Family::Inet, table: services_table(tag), sets, chains }
}

/// What arrives at the host itself found no replica.
fn nobody_ready() -> Vec<Rule> {
    let service = || Match::DestinationIn(SERVICES);
    vec![
        // The host's own connections come back to the address they went to.
        rule(vec![service(), Match::Established], Verdict::Accept, "answers to the host"),
        rule(vec![Match::DestinationIn(PARKED)], Verdict::Drop, "nobody is ready yet: try again"),
        rule(
            vec![service(), Match::Transport(Protocol::Tcp)],
            Verdict::Reject { reset: true },
            "nobody is ready, or no such port",
        ),
        rule(vec![service()], Verdict::Reject { reset: false }, "nobody is ready, or no such port, not TCP"),
    ]
}

/// A neighbour of the replica would get the answer straight from it, and not know whose it is.
fn way_back(network: &RuleNetwork) -> Rule {
    let bridge = Interface { name: network.bridge.clone(), prefix: false, is: true };
    let matches =
        vec![Match::Source { subnet: network.subnet, inside: true }, Match::Output(bridge), Match::Redirected];
    rule(matches, Verdict::Masquerade, format!("network {}: answers of services come back", network.name))
}

type Elements = BTreeMap<Vec<u8>, Element>;

/// Elements by the number of replicas.
struct Maps {
    whole: BTreeMap<u32, Elements>,
    ports: BTreeMap<u32, Elements>,
}

impl Maps {
    fn of(services: &[Service]) -> Self {
        let empty = || (1..=COUNTS_ALWAYS).map(|count| (count, Elements::new())).collect();
        let mut maps = Self { whole: empty(), ports: empty() };
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        for service in services {
            let backends: BTreeSet<Ipv4Addr> = service.backends.iter().copied().collect();
            for (slot, backend) in (0_u32..).zip(&backends) {
                let key = [service.address.octets(), slot.to_ne_bytes()].concat();
                let to = Element { value: backend.octets().to_vec(), ends_in_ms: None };
                maps.whole.entry(count(backends.len())).or_default().insert(key, to);
            }
            for port in &service.ports {
                let backends: BTreeSet<SocketAddrV4> = port.backends.iter().copied().collect();
                let transport = match port.protocol {
                    Protocol::Tcp => 6,
                    Protocol::Udp => 17,
                };
                let [high, low] = port.port.to_be_bytes();
                for (slot, backend) in (0_u32..).zip(&backends) {
                    let address = service.address.octets();
                    let key = [address, [transport, 0, 0, 0], [high, low, 0, 0], slot.to_ne_bytes()].concat();
                    let [high, low] = backend.port().to_be_bytes();
                    let value = [backend.ip().octets(), [high, low, 0, 0]].concat();
                    let elements = maps.ports.entry(count(backends.len())).or_default();
                    elements.insert(key, Element { value, ends_in_ms: None });
                }
            }
        }
        maps
    }

    fn into_sets(self) -> impl Iterator<Item = Set> {
        let whole = self.whole.into_iter().map(|(count, elements)| Set {
            name: format!("{WHOLE}{count}"),
            key: &[Type::Address, Type::Number],
            value: &[Type::Address],
            changes: true,
            ends: false,
            elements,
        });
        let ports = self.ports.into_iter().map(|(count, elements)| Set {
            name: format!("{PORTS}{count}"),
            key: &[Type::Address, Type::Protocol, Type::Port, Type::Number],
            value: &[Type::Address, Type::Port],
            changes: true,
            ends: false,
            elements,
        });
        whole.chain(ports)
    }
}

fn addresses(name: &str, ends: bool, members: impl Iterator<Item = (Ipv4Addr, Option<u64>)>) -> Set {
    let element = |ends_in_ms| Element { value: Vec::new(), ends_in_ms };
    let elements = members.map(|(address, ends_in_ms)| (address.octets().to_vec(), element(ends_in_ms))).collect();
    Set { name: name.to_owned(), key: &[Type::Address], value: &[], changes: true, ends, elements }
}

/// Addresses of a network that can stand for services: the upper quarter, the highest first; none where that would leave
/// containers less than 190 addresses.
pub fn places(subnet: Subnet) -> impl Iterator<Item = Ipv4Addr> {
    const PREFIX_LEN_MAX: u8 = 24;
    let last = u32::from(subnet.last());
    let count = if subnet.prefix_len() > PREFIX_LEN_MAX { 0 } else { (1_u32 << (32 - subnet.prefix_len())) / 4 };
    (1..count).map(move |n| Ipv4Addr::from(last - n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ServicePort;

    fn example() -> Ruleset {
        let networks = [RuleNetwork {
            name: "shop".to_owned(),
            bridge: "bx-abcdeshopaaa".to_owned(),
            subnet: "10.88.0.0/24".parse().unwrap(),
            internal: false,
        }];
        let address = |last| Ipv4Addr::new(10, 88, 0, last);
        let port = ServicePort {
            protocol: Protocol::Tcp,
            port: 80,
            backends: vec![SocketAddrV4::new(address(2), 8080), SocketAddrV4::new(address(3), 8080)],
        };
        let service = |last, backends, ports| Service {
            network: "shop".parse().unwrap(),
            address: address(last),
            names: Vec::new(),
            ports,
            backends,
        };
        let services = [
            service(254, vec![address(2)], Vec::new()),
            service(253, (2..8).map(address).collect(), vec![port]),
            service(252, Vec::new(), Vec::new()),
        ];
        render("abcde", &networks, &services, &[(address(252), 10_000)].into())
    }

    #[test]
    fn the_table_of_services_in_words() {
        let ruleset = example();
        expect_test::expect![[r#"
            table inet boxship-abcde-services {
            	set services { type ipv4_addr; 3 elements }
            	set parked { type ipv4_addr; flags timeout; 1 elements }
            	map to1 { type ipv4_addr . mark : ipv4_addr; 1 elements }
            	map to2 { type ipv4_addr . mark : ipv4_addr; 0 elements }
            	map to3 { type ipv4_addr . mark : ipv4_addr; 0 elements }
            	map to4 { type ipv4_addr . mark : ipv4_addr; 0 elements }
            	map to6 { type ipv4_addr . mark : ipv4_addr; 6 elements }
            	map port-to1 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; 0 elements }
            	map port-to2 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; 2 elements }
            	map port-to3 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; 0 elements }
            	map port-to4 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; 0 elements }
            	chain prerouting {
            		type nat hook prerouting priority -100; policy accept;
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @port-to1 comment "ports of services with 1 ready"
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @port-to2 comment "ports of services with 2 ready"
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @port-to3 comment "ports of services with 3 ready"
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 4 map @port-to4 comment "ports of services with 4 ready"
            		dnat ip to ip daddr . numgen random mod 1 map @to1 comment "services with 1 ready"
            		dnat ip to ip daddr . numgen random mod 2 map @to2 comment "services with 2 ready"
            		dnat ip to ip daddr . numgen random mod 3 map @to3 comment "services with 3 ready"
            		dnat ip to ip daddr . numgen random mod 4 map @to4 comment "services with 4 ready"
            		dnat ip to ip daddr . numgen random mod 6 map @to6 comment "services with 6 ready"
            	}
            	chain output {
            		type nat hook output priority -100; policy accept;
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @port-to1 comment "ports of services with 1 ready"
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @port-to2 comment "ports of services with 2 ready"
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @port-to3 comment "ports of services with 3 ready"
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 4 map @port-to4 comment "ports of services with 4 ready"
            		dnat ip to ip daddr . numgen random mod 1 map @to1 comment "services with 1 ready"
            		dnat ip to ip daddr . numgen random mod 2 map @to2 comment "services with 2 ready"
            		dnat ip to ip daddr . numgen random mod 3 map @to3 comment "services with 3 ready"
            		dnat ip to ip daddr . numgen random mod 4 map @to4 comment "services with 4 ready"
            		dnat ip to ip daddr . numgen random mod 6 map @to6 comment "services with 6 ready"
            	}
            	chain input {
            		type filter hook input priority -10; policy accept;
            		ip daddr @services ct state established,related accept comment "answers to the host"
            		ip daddr @parked drop comment "nobody is ready yet: try again"
            		ip daddr @services meta l4proto tcp reject with tcp reset comment "nobody is ready, or no such port"
            		ip daddr @services reject with icmpx port-unreachable comment "nobody is ready, or no such port, not TCP"
            	}
            	chain postrouting {
            		type nat hook postrouting priority 100; policy accept;
            		ip saddr 10.88.0.0/24 oifname "bx-abcdeshopaaa" ct status dnat masquerade comment "network shop: answers of services come back"
            	}
            }
        "#]]
        .assert_eq(&ruleset.to_string());
        let keys: usize = ruleset.sets.iter().flat_map(|set| set.elements.keys()).map(Vec::len).sum();
        assert_eq!(keys, 3 * 4 + 4 + 8 + 6 * 8 + 2 * 16);
    }

    #[test]
    fn places_are_at_the_top_and_leave_room() {
        let of = |subnet: &str| places(subnet.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(of("10.88.0.0/22").first(), Some(&Ipv4Addr::new(10, 88, 3, 254)));
        assert_eq!((of("10.88.0.0/22").len(), of("10.88.0.0/24").len(), of("10.88.0.0/25").len()), (255, 63, 0));
        assert_eq!(of("10.88.0.0/24").last(), Some(&Ipv4Addr::new(10, 88, 0, 192)));
    }
}
