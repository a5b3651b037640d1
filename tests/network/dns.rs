//! Names as programs in containers ask for them: by UDP and TCP, each container its own view.

use std::collections::BTreeMap;
use std::net::IpAddr;

use runtime::network;
use runtime::runtime::{DnsView, EndpointTable, NetworkConfig};

use crate::lab::{Agent, Lab, Switchboard, wait_until};

/// A table in which each network's `web` has these last numbers, and the agents see their own network.
fn table(networks: &[(&NetworkConfig, &[u8], &Agent, bool)]) -> EndpointTable {
    let mut table = EndpointTable::default();
    for (network, numbers, agent, forward) in networks {
        let [a, b, c, _] = network.gateway.octets();
        let addresses = numbers.iter().map(|n| IpAddr::from([a, b, c, *n])).collect();
        table.zones.insert(network.name.clone(), BTreeMap::from([("web".to_owned(), addresses)]));
        let view = DnsView { networks: vec![network.name.clone()], forward: *forward };
        table.views.insert(agent.id.clone(), view);
    }
    table
}

fn hand_over(lab: &Lab, agent: &Agent) {
    assert_eq!(agent.ask(&format!("dns {} {}", lab.layout.run_dir.display(), agent.id)), "ok");
}

/// Own names resolve by either transport, change at once, and stay within the network; closing ends the service.
pub(crate) fn names_by_udp_and_tcp_for_each_view() {
    let lab = Lab::new();
    let switchboard = Switchboard::start(&lab);
    let (shop, blog) = (lab.network("shop", 1, false), lab.network("blog", 2, true));
    let (buyer, author) = (lab.container(&shop, 2), lab.container(&blog, 2));
    // One that is a name server itself, on every address; and one where the door's port is somebody's already.
    assert_eq!(author.ask("serve 61053 other"), "ok");
    hand_over(&lab, &buyer);
    hand_over(&lab, &author);
    assert_eq!((buyer.ask("serve 53 own"), buyer.ask("serve-udp 53 own")), ("ok".into(), "ok".into()));
    assert_eq!(buyer.ask("ask-udp 10.77.1.2:53 hello"), "own hello");
    assert_eq!(buyer.ask("connect 10.77.1.2:53"), "own 10.77.1.2");
    assert_eq!(buyer.ask("resolve udp web. A"), "ServFail");
    switchboard.set(&table(&[(&shop, &[10, 11], &buyer, false), (&blog, &[20], &author, false)]));
    for via in ["udp", "tcp"] {
        assert_eq!(buyer.ask(&format!("resolve {via} web. A")), "NoError 10.77.1.10 10.77.1.11");
        assert_eq!(buyer.ask(&format!("resolve {via} web.shop. A")), "NoError 10.77.1.10 10.77.1.11");
        assert_eq!(buyer.ask(&format!("resolve {via} web. AAAA")), "NoError");
        assert_eq!(buyer.ask(&format!("resolve {via} web.blog. A")), "NXDomain");
        assert_eq!(author.ask(&format!("resolve {via} web. A")), "NoError 10.77.2.20");
        assert_eq!(author.ask(&format!("resolve {via} 20.2.77.10.in-addr.arpa. PTR")), "NoError web.blog.");
        assert_eq!(author.ask(&format!("resolve {via} 10.1.77.10.in-addr.arpa. PTR")), "NXDomain");
    }
    switchboard.set(&table(&[(&shop, &[12], &buyer, false), (&blog, &[], &author, false)]));
    assert_eq!(buyer.ask("resolve udp web. A"), "NoError 10.77.1.12");
    assert_eq!(author.ask("resolve udp web. A"), "NoError");

    switchboard.client.drop_dns(&author.id).unwrap();
    wait_until("the sockets are closed everywhere", || author.ask("resolve udp web. A") == "ConnectionRefused");
    switchboard.client.drop_dns(&author.id).unwrap();
    drop((buyer, author));
    for network in [shop, blog] {
        network::remove(&lab.layout, &network.name).unwrap();
    }
}

/// What is not ours is asked for outside, where the view allows it; without a resolver the answer comes at once.
pub(crate) fn unknown_names_go_to_the_hosts_resolver() {
    let lab = Lab::new();
    let resolv_conf = lab.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "").unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&resolv_conf), "/etc/resolv.conf", None::<&str>, bind, None::<&str>).unwrap();
    let switchboard = Switchboard::start(&lab);
    let (shop, vault) = (lab.network("shop", 1, false), lab.network("vault", 2, true));
    let (open, closed) = (lab.container(&shop, 2), lab.container(&vault, 2));
    let outside = lab.outside();
    assert_eq!(outside.ask("nameserver 198.51.100.2"), "ok");
    hand_over(&lab, &open);
    hand_over(&lab, &closed);
    switchboard.set(&table(&[(&shop, &[10], &open, true), (&vault, &[20], &closed, false)]));
    assert_eq!(open.ask("resolve udp example.org. A"), "Refused");

    // The first resolver is nobody: the second answers.
    std::fs::write(&resolv_conf, "nameserver 127.0.0.77\nnameserver 198.51.100.2\n").unwrap();
    for via in ["udp", "tcp"] {
        assert_eq!(open.ask(&format!("resolve {via} example.org. A")), "NoError 203.0.113.7");
        assert_eq!(open.ask(&format!("resolve {via} example.org. TXT")), "NXDomain");
        assert_eq!(open.ask(&format!("resolve {via} web. A")), "NoError 10.77.1.10");
        assert_eq!(closed.ask(&format!("resolve {via} example.org. A")), "NXDomain");
    }
    std::fs::write(&resolv_conf, "nameserver 198.51.100.99\n# longer\n").unwrap();
    assert_eq!(open.ask("resolve udp example.org. A"), "ServFail");
    nix::mount::umount("/etc/resolv.conf").unwrap();
    drop((open, closed, outside));
    for network in [shop, vault] {
        network::remove(&lab.layout, &network.name).unwrap();
    }
}

/// The sockets live in the keeper: a question asked while nobody serves is answered by the successor.
pub(crate) fn survive_kills_of_the_switchboard() {
    let lab = Lab::new();
    let switchboard = Switchboard::start(&lab);
    let shop = lab.network("shop", 1, false);
    let buyer = lab.container(&shop, 2);
    hand_over(&lab, &buyer);
    switchboard.set(&table(&[(&shop, &[10], &buyer, false)]));
    for _ in 0..3 {
        switchboard.kill();
        for via in ["udp", "tcp"] {
            assert_eq!(buyer.ask(&format!("resolve {via} web. A")), "NoError 10.77.1.10");
        }
    }
    drop(buyer);
    network::remove(&lab.layout, &shop.name).unwrap();
}

/// Connections go on, whatever was said on them: nothing yet, half a question, or one that no resolver has answered.
pub(crate) fn survive_upgrades_of_the_switchboard() {
    let lab = Lab::new();
    let resolv_conf = lab.path().join("resolv.conf");
    // a resolver that says nothing
    std::fs::write(&resolv_conf, "nameserver 198.51.100.99\n").unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&resolv_conf), "/etc/resolv.conf", None::<&str>, bind, None::<&str>).unwrap();
    let switchboard = Switchboard::start(&lab);
    let shop = lab.network("shop", 1, false);
    let buyer = lab.container(&shop, 2);
    let outside = lab.outside();
    hand_over(&lab, &buyer);
    switchboard.set(&table(&[(&shop, &[10], &buyer, true)]));
    for (share, name) in [("none", "web."), ("half", "web."), ("all", "example.org.")] {
        assert_eq!(buyer.ask(&format!("begin {share} {name} A")), "ok");
    }
    assert_eq!(buyer.ask("resolve tcp web. A"), "NoError 10.77.1.10");
    assert_eq!(outside.ask("nameserver 198.51.100.2"), "ok");
    std::fs::write(&resolv_conf, "nameserver 198.51.100.2\n").unwrap();
    switchboard.upgrade();
    assert_eq!(buyer.ask("finish"), "NoError 10.77.1.10, NoError 10.77.1.10, NoError 203.0.113.7");
    nix::mount::umount("/etc/resolv.conf").unwrap();
    drop((buyer, outside));
    network::remove(&lab.layout, &shop.name).unwrap();
}
