//! Bridges and rules: they come and go whole, keep networks apart, let them out, and drift is repaired.

use std::net::Ipv4Addr;

use runtime::id::NetworkName;
use runtime::network::link::Netlink;
use runtime::network::{self, bridge_name};

use crate::lab::Lab;

fn name(text: &str) -> NetworkName {
    text.parse().expect("cases use legal names")
}

/// Records, bridges, rules and the forward switch appear with the first network and go with the last.
pub(crate) fn comes_and_goes_whole() {
    let lab = Lab::new();
    let shop = lab.network("shop", 1, false);
    let vault = lab.network("vault", 2, true);
    lab.network("shop", 1, false);
    let rules = || {
        let output = std::process::Command::new("ip").args(["rule", "list", "fwmark", "0x6278"]).output();
        output.map_or_else(|_| "no ip program".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    assert!(
        ["no ip program", "25208:\tfrom all fwmark 0x6278 lookup 25208"].contains(&rules().as_str()),
        "{}",
        rules()
    );
    let listed = network::list(&lab.layout).unwrap();
    assert!(listed.iter().all(|n| n.intact), "{listed:?}");
    assert_eq!(listed.into_iter().map(|n| n.config).collect::<Vec<_>>(), [shop.clone(), vault]);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
    assert!(network::host_routes().unwrap().contains(&"10.77.1.0/24".parse().unwrap()));

    let inside = lab.container(&shop, 2);
    let in_use = network::remove(&lab.layout, &shop.name).unwrap_err();
    assert!(in_use.to_string().contains("is in use: bv-"), "{in_use}");
    drop(inside);
    network::remove(&lab.layout, &shop.name).unwrap();
    assert!(network::list(&lab.layout).unwrap().iter().all(|n| n.intact));
    network::remove(&lab.layout, &name("vault")).unwrap();
    assert!(network::remove(&lab.layout, &shop.name).unwrap_err().is_not_found());
    assert_eq!(network::list(&lab.layout).unwrap(), []);
    assert!(["no ip program", ""].contains(&rules().as_str()), "{}", rules());
}

/// Who reaches whom: the matrix of allowed and denied pairs.
pub(crate) fn rules_keep_networks_apart_and_let_them_out() {
    let lab = Lab::new();
    let (shop, vault) = (lab.network("shop", 1, false), lab.network("vault", 2, true));
    let blog = lab.network("blog", 3, false);
    let outside = lab.outside();
    let (web, db) = (lab.container(&shop, 2), lab.container(&shop, 3));
    let (safe, diary) = (lab.container(&vault, 2), lab.container(&blog, 2));
    for (agent, name) in [(&web, "web"), (&db, "db"), (&safe, "safe"), (&diary, "diary"), (&outside, "outside")] {
        assert_eq!(agent.ask(&format!("serve 80 {name}")), "ok");
    }
    let closed = "timeout";
    // Neighbours see each other's own address; the outside sees the host's.
    assert_eq!(web.ask("connect 10.77.1.3:80"), "db 10.77.1.2");
    assert_eq!(web.ask("connect 198.51.100.2:80"), "outside 198.51.100.1");
    assert_eq!(diary.ask("connect 198.51.100.2:80"), "outside 198.51.100.1");
    assert_eq!(safe.ask("connect 198.51.100.2:80"), closed);
    assert_eq!(safe.ask("connect 10.77.2.1:80"), closed);
    for target in ["10.77.2.2:80", "10.77.3.2:80", "169.254.169.254:80"] {
        assert_eq!(web.ask(&format!("connect {target}")), closed, "{target}");
    }
    for target in ["10.77.1.2:80", "10.77.2.2:80"] {
        assert_eq!(outside.ask(&format!("connect {target}")), closed, "{target}");
    }
    // The host reaches containers; a container that borrows a neighbour network's address reaches nobody.
    assert!(std::net::TcpStream::connect("10.77.1.2:80").is_ok());
    assert_eq!(web.ask("address 10.77.3.9"), "ok");
    assert_eq!(web.ask("connect-from 10.77.3.9 198.51.100.2:80"), closed);
    drop((web, db, safe, diary, outside));
    for network in [shop, vault, blog] {
        network::remove(&lab.layout, &network.name).unwrap();
    }
}

/// A deleted bridge, a foreign address, a flushed rule set: `list` says so and `ensure` puts it right.
pub(crate) fn drift_is_noticed_and_repaired() {
    let lab = Lab::new();
    let shop = lab.network("shop", 1, false);
    let bridge = bridge_name(&lab.layout, &shop.name);
    let other = Lab::new();
    let intact = || network::list(&lab.layout).unwrap()[0].intact;
    let repair = || network::ensure(&lab.layout, &shop, &[]).unwrap();
    let mut netlink = Netlink::open().unwrap();
    assert!(intact());

    netlink.delete_link(&bridge).unwrap();
    assert!(!intact());
    repair();
    assert!(intact());

    let link = netlink.link(&bridge).unwrap().unwrap();
    netlink.add_address(link.index, Ipv4Addr::new(10, 99, 0, 1), 24).unwrap();
    assert!(!intact());
    repair();
    assert!(intact());

    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    assert!(!intact());
    repair();
    assert!(intact());

    let refused = network::ensure(&other.layout, &shop, &[]).unwrap_err().to_string();
    assert_eq!(refused, format!("subnet 10.77.1.0/24 of network `shop` is in use on {bridge}"));
    assert_eq!(network::list(&other.layout).unwrap(), []);
    // Another data root on the same host neither disturbs nor is disturbed.
    let blog = other.network("blog", 4, false);
    assert!(intact() && network::list(&other.layout).unwrap()[0].intact);
    network::remove(&lab.layout, &shop.name).unwrap();
    assert!(network::list(&other.layout).unwrap()[0].intact);
    network::remove(&other.layout, &blog.name).unwrap();
}

/// Bridges without a record and veth ends without a container go; others stay.
pub(crate) fn sweep_takes_what_has_no_owner() {
    let lab = Lab::new();
    let (shop, lost) = (lab.network("shop", 1, false), lab.network("lost", 2, false));
    let (alive, dead) = (lab.container(&shop, 2), lab.container(&shop, 3));
    std::fs::remove_file(lab.layout.network_file(&lost.name)).unwrap();
    let live = || Ok([alive.id.clone()].into());
    let swept = network::sweep(&lab.layout, live).unwrap();
    assert_eq!(swept, [network::veth_name(&lab.layout, &dead.id), bridge_name(&lab.layout, &lost.name)]);
    assert_eq!(network::sweep(&lab.layout, live).unwrap(), [""; 0]);
    assert!(network::list(&lab.layout).unwrap()[0].intact);
    drop((alive, dead));
    network::remove(&lab.layout, &shop.name).unwrap();
}

/// A plain host has no findings; a setting that somebody changed behind our back is one.
pub(crate) fn what_stands_in_the_way_is_named() {
    let lab = Lab::new();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    assert_eq!(network::findings(&lab.layout).unwrap(), [], "nothing of ours could meet it");
    let shop = lab.network("shop", 1, false);
    assert_eq!(network::findings(&lab.layout).unwrap(), []);
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    let found = network::findings(&lab.layout).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains("ip_forward is 0"));
    network::remove(&lab.layout, &shop.name).unwrap();
}
