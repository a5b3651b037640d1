//! What a container must not be able to say: that it is a neighbour, that it is a router, anything at all from an
//! internal network.

use std::collections::BTreeMap;

use runtime::network;
use runtime::runtime::{DnsView, EndpointTable};

use crate::lab::{Lab, Switchboard, wait_until};

const CLOSED: &str = "timeout";

/// Nobody answered: in time, or the sender's own kernel has given up to look for the neighbour.
fn is_closed(answer: &str) -> bool {
    [CLOSED, "HostUnreachable"].contains(&answer)
}

/// Frames with a neighbour's address, in Ethernet, IP or ARP, tagged frames and IPv6 do not come through the port; honest
/// ones do, before and after.
pub(crate) fn forged_addresses_stop_at_the_port() {
    let lab = Lab::new();
    let shop = lab.network("shop", 1, false);
    let (web, db, thief) = (lab.container(&shop, 2), lab.container(&shop, 3), lab.container(&shop, 4));
    for (agent, name) in [(&web, "web"), (&db, "db"), (&thief, "thief")] {
        assert_eq!(agent.ask(&format!("serve 80 {name}")), "ok");
    }
    assert_eq!(web.ask("connect 10.77.1.3:80"), "db 10.77.1.2");
    assert_eq!(thief.ask("connect 10.77.1.3:80"), "db 10.77.1.4");
    let mac_of_db = web.ask("neighbour 10.77.1.3");
    assert_eq!(mac_of_db, "02:42:0a:4d:01:03");

    // It calls itself 10.77.1.3 and tells everybody who listens: ARP with an address that is not its own.
    assert_eq!(thief.ask("address 10.77.1.3"), "ok");
    assert!(is_closed(&thief.ask("connect-from 10.77.1.3 10.77.1.2:80")));
    assert_eq!(web.ask("neighbour 10.77.1.3"), mac_of_db);
    // An address of nobody, but not its own either: towards a neighbour, the host and the outside.
    let outside = lab.outside();
    assert_eq!(outside.ask("serve 80 outside"), "ok");
    assert_eq!(thief.ask("connect 198.51.100.2:80"), "outside 198.51.100.1");
    assert_eq!(thief.ask("address 10.77.1.99"), "ok");
    for target in ["10.77.1.2:80", "10.77.1.1:80", "198.51.100.2:80"] {
        assert!(is_closed(&thief.ask(&format!("connect-from 10.77.1.99 {target}"))), "{target}");
    }
    // Frames that hide what they carry.
    // Not every kernel has tags.
    if web.ask("tag 10.78.0.2/24") == "ok" && thief.ask("tag 10.78.0.4/24") == "ok" {
        assert!(is_closed(&thief.ask("connect 10.78.0.2:80")));
    }
    // Router advertisements go to every IPv6 host on the link.
    let before = web.ask("received v6");
    assert_eq!(thief.ask("shout-v6"), "ok");
    // Its own kernel asks for a neighbour in the name of the packet that waits longest: a forged one, for some seconds.
    let is_honest = || thief.ask("connect 10.77.1.2:80") == "web 10.77.1.4";
    wait_until("honest frames come through again", is_honest);
    assert_eq!(web.ask("received v6"), before);

    // A neighbour's hardware address: the port is locked to its own.
    assert_eq!(thief.ask("mac 02:42:0a:4d:01:03"), "ok");
    assert!(is_closed(&thief.ask("connect 10.77.1.2:80")));
    assert_eq!(web.ask("connect 10.77.1.3:80"), "db 10.77.1.2", "nothing of the neighbour's went astray");
    assert_eq!(thief.ask("mac 02:42:0a:4d:01:04"), "ok");
    wait_until("its own address is good again", is_honest);
    drop((web, db, thief, outside));
    network::remove(&lab.layout, &shop.name).unwrap();
}

/// Names that would carry secrets out, connections, datagrams: not one packet of an internal network arrives outside.
pub(crate) fn internal_networks_send_nothing_out() {
    let lab = Lab::new();
    let resolv_conf = lab.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 198.51.100.2\n").unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&resolv_conf), "/etc/resolv.conf", None::<&str>, bind, None::<&str>).unwrap();
    let switchboard = Switchboard::start(&lab);
    let (shop, vault) = (lab.network("shop", 1, false), lab.network("vault", 2, true));
    let (open, closed) = (lab.container(&shop, 2), lab.container(&vault, 2));
    let outside = lab.outside();
    assert_eq!(outside.ask("nameserver 198.51.100.2"), "ok");
    let mut table = EndpointTable::default();
    for (network, agent, forward) in [(&shop, &open, true), (&vault, &closed, false)] {
        assert_eq!(agent.ask(&format!("dns {} {}", lab.layout.run_dir.display(), agent.id)), "ok");
        table.zones.insert(network.name.clone(), BTreeMap::new());
        table.views.insert(agent.id.clone(), DnsView { networks: vec![network.name.clone()], forward });
    }
    switchboard.set(&table);
    let before = outside.ask("received v4");
    for secret in ["aGVsbG8.example.org.", "d29ybGQ.example.org.", "web.shop."] {
        for via in ["udp", "tcp"] {
            for kind in ["A", "AAAA", "TXT", "PTR"] {
                assert_eq!(closed.ask(&format!("resolve {via} {secret} {kind}")), "NXDomain");
            }
        }
    }
    assert_eq!(closed.ask("connect 198.51.100.2:53"), CLOSED);
    assert_eq!(closed.ask("connect 198.51.100.1:53"), CLOSED);
    assert_eq!(outside.ask("received v4"), before, "something got out");
    assert_eq!(open.ask("resolve udp aGVsbG8.example.org. A"), "NoError 203.0.113.7");
    assert_ne!(outside.ask("received v4"), before, "what is not internal is counted");
    nix::mount::umount("/etc/resolv.conf").unwrap();
    drop((open, closed, outside));
    for network in [shop, vault] {
        network::remove(&lab.layout, &network.name).unwrap();
    }
}
