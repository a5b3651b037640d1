//! Golden texts of the table: a change of the rules is reviewed here, in nft's own language.

use expect_test::expect;

use super::*;

fn network(name: &str, bridge: &str, subnet: &str, internal: bool) -> RuleNetwork {
    RuleNetwork { name: name.into(), bridge: bridge.into(), subnet: subnet.parse().unwrap(), internal }
}

#[test]
fn no_network_no_openings() {
    expect![[r#"
        table inet boxship-abcde {
        	chain input {
        		type filter hook input priority 0; policy accept;
        		iifname "bx-abcde*" meta nfproto ipv6 drop comment "no IPv6 on these networks"
        		iifname "bx-abcde*" ip daddr 127.0.0.0/8 drop comment "host loopback is closed"
        		iifname "bx-abcde*" ip daddr 169.254.0.0/16 drop comment "metadata and link-local are closed"
        		iifname "bx-abcde*" ct state established,related accept comment "answers to the host"
        	}
        	chain forward {
        		type filter hook forward priority 0; policy accept;
        		iifname "bx-abcde*" meta nfproto ipv6 drop comment "no IPv6 from these networks"
        		oifname "bx-abcde*" meta nfproto ipv6 drop comment "no IPv6 to these networks"
        		iifname "bx-abcde*" ip daddr 169.254.0.0/16 drop comment "metadata and link-local are closed"
        		oifname "bx-abcde*" ct state established,related accept comment "answers to containers"
        		iifname "bx-abcde*" oifname "bx-*" drop comment "networks are closed to each other"
        		oifname "bx-abcde*" drop comment "containers are reached by published ports only"
        	}
        	chain postrouting {
        		type nat hook postrouting priority 100; policy accept;
        	}
        }
    "#]]
    .assert_eq(&render("abcde", &[]).to_string());
}

#[test]
fn an_ordinary_and_an_internal_network() {
    let networks = [
        network("shop", "bx-abcdeshopaaa", "10.88.0.0/24", false),
        network("vault", "bx-abcdevaultaa", "10.88.1.0/24", true),
    ];
    expect![[r#"
        table inet boxship-abcde {
        	chain input {
        		type filter hook input priority 0; policy accept;
        		iifname "bx-abcde*" meta nfproto ipv6 drop comment "no IPv6 on these networks"
        		iifname "bx-abcdeshopaaa" ip saddr != 10.88.0.0/24 drop comment "network shop: not an address of 10.88.0.0/24"
        		iifname "bx-abcdevaultaa" ip saddr != 10.88.1.0/24 drop comment "network vault: not an address of 10.88.1.0/24"
        		iifname "bx-abcde*" ip daddr 127.0.0.0/8 drop comment "host loopback is closed"
        		iifname "bx-abcde*" ip daddr 169.254.0.0/16 drop comment "metadata and link-local are closed"
        		iifname "bx-abcde*" ct state established,related accept comment "answers to the host"
        		iifname "bx-abcdevaultaa" drop comment "network vault: internal, the host is closed"
        	}
        	chain forward {
        		type filter hook forward priority 0; policy accept;
        		iifname "bx-abcde*" meta nfproto ipv6 drop comment "no IPv6 from these networks"
        		oifname "bx-abcde*" meta nfproto ipv6 drop comment "no IPv6 to these networks"
        		iifname "bx-abcdeshopaaa" ip saddr != 10.88.0.0/24 drop comment "network shop: not an address of 10.88.0.0/24"
        		iifname "bx-abcdevaultaa" ip saddr != 10.88.1.0/24 drop comment "network vault: not an address of 10.88.1.0/24"
        		iifname "bx-abcde*" ip daddr 169.254.0.0/16 drop comment "metadata and link-local are closed"
        		oifname "bx-abcde*" ct state established,related accept comment "answers to containers"
        		iifname "bx-abcdeshopaaa" oifname "bx-abcdeshopaaa" accept comment "network shop: neighbours"
        		iifname "bx-abcdevaultaa" oifname "bx-abcdevaultaa" accept comment "network vault: neighbours"
        		iifname "bx-abcdevaultaa" drop comment "network vault: internal, no way out"
        		iifname "bx-abcde*" oifname "bx-*" drop comment "networks are closed to each other"
        		oifname "bx-abcde*" drop comment "containers are reached by published ports only"
        	}
        	chain postrouting {
        		type nat hook postrouting priority 100; policy accept;
        		ip saddr 10.88.0.0/24 oifname != "bx-abcdeshopaaa" masquerade comment "network shop: egress"
        	}
        }
    "#]].assert_eq(&render("abcde", &networks).to_string());
}

#[test]
fn the_forward_guard() {
    expect![[r#"
        table inet boxship-forward {
        	chain forward {
        		type filter hook forward priority 0; policy accept;
        		iifname != "bx-*" oifname != "bx-*" drop comment "boxship switched ip_forward on, only for its own networks"
        	}
        }
    "#]]
    .assert_eq(&forward_guard().to_string());
}

#[test]
fn answers_for_borrowed_addresses() {
    expect![[r#"
        table inet boxship-transparent {
        	chain prerouting {
        		type filter hook prerouting priority -150; policy accept;
        		iifname "bx-*" socket transparent 1 meta mark set 0x6278 comment "answers to clients of published ports"
        	}
        }
    "#]]
    .assert_eq(&transparent().to_string());
}

#[test]
fn comments_are_unique_in_their_chain_and_short_enough() {
    let long = "x".repeat(63);
    let networks = [
        network(&long, "bx-abcdeaaaaaaa", "100.100.100.0/24", true),
        network("b", "bx-abcdebbbbbbb", "100.100.101.0/24", false),
    ];
    for chain in render("abcde", &networks).chains {
        let comments: std::collections::BTreeSet<&str> = chain.rules.iter().map(|r| r.comment.as_str()).collect();
        assert_eq!(comments.len(), chain.rules.len());
        assert!(comments.iter().all(|c| c.len() <= 127), "{comments:?}");
    }
}
