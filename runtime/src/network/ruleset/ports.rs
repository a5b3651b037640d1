//! The table of the bridges' ports: what a container sends must bear its own addresses. Pure.
//!
//! A container's hardware address is made of its IPv4 address, and its port is locked to it (`network::bridge`). So four
//! rules are enough for any number of containers: the last four bytes of the sender's hardware address are the address
//! that the packet, or the ARP message, says it comes from. All else is dropped: other hardware addresses in ARP, IPv6
//! with its router advertisements, tagged frames.

use super::{Chain, Family, Header, Hook, Interface, Match, Place, Rule, Ruleset, Set, Verdict};

/// Every container's end of every data root begins with this.
const LINKS: &str = "bv-";
/// How hardware addresses of containers begin; an IPv4 address follows.
const MAC_PREFIX: [u8; 2] = [0x02, 0x42];
const ETHERTYPE: Place = Place { header: Header::Link, offset: 12, len: 2 };
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// Where a frame has its sender's hardware address.
const FRAME_SENDER: u8 = 6;
/// Where an IPv4 header has the source address.
const IP_SOURCE: u8 = 12;
/// Where ARP has the sender's hardware address, and its IPv4 address (RFC 826, for Ethernet).
const ARP_SENDER: u8 = 8;
const ARP_SENDER_IP: u8 = 14;

/// The hardware address of a container, from its IPv4 address.
#[must_use]
pub fn mac_of(address: std::net::Ipv4Addr) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (MAC_PREFIX, address.octets());
    [a, b, c, d, e, f]
}

/// The table of one data root's ports. `tag` is the data root's mark in interface names.
#[must_use]
pub fn ports(tag: &str) -> Ruleset {
    let others = Interface { name: format!("{LINKS}{tag}"), prefix: true, is: false };
    let is = |value: [u8; 2]| Match::Bytes { at: ETHERTYPE, value: value.to_vec() };
    let prefix = |header, offset| Match::Bytes { at: Place { header, offset, len: 2 }, value: MAC_PREFIX.to_vec() };
    let mut ip = vec![is(IPV4), prefix(Header::Link, FRAME_SENDER)];
    ip.extend(same((Header::Link, FRAME_SENDER + 2), IP_SOURCE));
    let mut arp = vec![is(ARP), prefix(Header::Link, FRAME_SENDER), prefix(Header::Network, ARP_SENDER)];
    arp.extend(same((Header::Link, FRAME_SENDER + 2), ARP_SENDER_IP));
    arp.extend(same((Header::Network, ARP_SENDER + 2), ARP_SENDER_IP));
    let rule = |matches, verdict, comment: &str| Rule { matches, verdict, comment: comment.to_owned() };
    let rules = vec![
        rule(vec![Match::Input(others)], Verdict::Accept, "other ports are not ours"),
        rule(ip, Verdict::Accept, "a container with its own address"),
        rule(arp, Verdict::Accept, "a container that tells its own address"),
        rule(Vec::new(), Verdict::Drop, "forged addresses, IPv6, tagged frames"),
    ];
    let chains = vec![Chain { hook: Hook::Port, rules }];
    Ruleset { family: Family::Bridge, table: super::table_name(tag), sets: vec![Set::same_bytes()], chains }
}

/// Four bytes somewhere are four bytes of the network header.
fn same((header, offset): (Header, u8), other: u8) -> impl Iterator<Item = Match> {
    (0..4).map(move |n| {
        let byte = |header, offset| Place { header, offset, len: 1 };
        Match::Same(byte(header, offset + n), byte(Header::Network, other + n))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ports_in_words() {
        expect_test::expect![[r#"
            table bridge boxship-abcde {
            	set same { type inet_proto . inet_proto; 256 elements }
            	chain prerouting {
            		type filter hook prerouting priority -300; policy accept;
            		iifname != "bv-abcde*" accept comment "other ports are not ours"
            		@ll,96,16 0x0800 @ll,48,16 0x0242 @ll,64,8 . @nh,96,8 @same @ll,72,8 . @nh,104,8 @same @ll,80,8 . @nh,112,8 @same @ll,88,8 . @nh,120,8 @same accept comment "a container with its own address"
            		@ll,96,16 0x0806 @ll,48,16 0x0242 @nh,64,16 0x0242 @ll,64,8 . @nh,112,8 @same @ll,72,8 . @nh,120,8 @same @ll,80,8 . @nh,128,8 @same @ll,88,8 . @nh,136,8 @same @nh,80,8 . @nh,112,8 @same @nh,88,8 . @nh,120,8 @same @nh,96,8 . @nh,128,8 @same @nh,104,8 . @nh,136,8 @same accept comment "a container that tells its own address"
            		drop comment "forged addresses, IPv6, tagged frames"
            	}
            }
        "#]]
        .assert_eq(&super::ports("abcde").to_string());
        assert_eq!(super::mac_of([10, 88, 0, 7].into()), [2, 0x42, 10, 88, 0, 7]);
    }
}
