//! What foreign hosts do to us: every combination of bridged packets shown to the host's rules, and of firewalls that drop
//! by policy. Each cell works, or what stands in its way is named with a command that helps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use runtime::network::{self, services};
use runtime::runtime::{DnsView, EndpointTable, HostPort, Listener, NetworkConfig};

use crate::lab::{Agent, Lab, Switchboard};
use crate::services::service;

const BRIDGE_NF: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const CLOSED: &str = "timeout";

/// A firewall as Docker, ufw and firewalld set one up.
struct Firewall {
    forward: bool,
    input: bool,
}

impl Firewall {
    fn set_up(&self) {
        nft("add table ip filter");
        for (chain, hook, drops) in [("FORWARD", "forward", self.forward), ("INPUT", "input", self.input)] {
            let policy = if drops { "drop" } else { "accept" };
            nft(&format!("add chain ip filter {chain} {{ type filter hook {hook} priority 0; policy {policy}; }}"));
        }
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        nft("delete table ip filter");
    }
}

fn nft(command: &str) {
    let output = Command::new("nft").arg(command).output().expect("nft can be run");
    assert!(output.status.success(), "nft {command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Names, a neighbour, the way out, and a published port, by {bridge-nf} x {FORWARD} x {INPUT}.
pub(crate) fn each_cell_works_or_names_its_cause() {
    if Command::new("nft").arg("--version").output().is_err() {
        println!("  skipped: there is no nft program to set up foreign firewalls with");
        return;
    }
    let lab = Lab::new();
    let switchboard = Switchboard::start(&lab);
    let shop = lab.network("shop", 1, false);
    let (web, db, outside) = (lab.container(&shop, 2), lab.container(&shop, 3), lab.outside());
    for (agent, name) in [(&db, "db"), (&outside, "outside")] {
        assert_eq!(agent.ask(&format!("serve 80 {name}")), "ok");
    }
    assert_eq!(web.ask(&format!("dns {} {}", lab.layout.run_dir.display(), web.id)), "ok");
    let at = HostPort::tcp("0.0.0.0".parse().expect("an address"), 8080);
    let db_address = IpAddr::V4(db.address);
    let listener = Listener { at, backends: vec![(db_address, 80).into()], park_ms: 0 };
    let view = DnsView { networks: vec![shop.name.clone()], forward: true };
    switchboard.set(&EndpointTable {
        listeners: vec![listener],
        zones: [(shop.name.clone(), BTreeMap::from([("db".to_owned(), vec![db_address])]))].into(),
        services: Vec::new(),
        views: [(web.id.clone(), view)].into(),
    });
    // A kernel without br_netfilter shows bridged packets to nobody.
    let before = std::fs::read_to_string(BRIDGE_NF).ok();
    for bridge_nf in [false, true] {
        if before.is_some() {
            std::fs::write(BRIDGE_NF, if bridge_nf { "1" } else { "0" }).expect("root sets it");
        } else if bridge_nf {
            continue;
        }
        for (forward, input) in [(false, false), (true, false), (false, true), (true, true)] {
            let firewall = Firewall { forward, input };
            firewall.set_up();
            cell(&lab, &shop, [&web, &db, &outside], bridge_nf, &firewall);
        }
    }
    if let Some(before) = before {
        std::fs::write(BRIDGE_NF, before).expect("root sets it");
    }
    drop((web, db, outside));
    network::remove(&lab.layout, &shop.name).expect("nothing is attached");
}

fn cell(lab: &Lab, shop: &NetworkConfig, [web, db, outside]: [&Agent; 3], bridge_nf: bool, firewall: &Firewall) {
    let name = format!("bridge-nf {bridge_nf}, FORWARD drops {}, INPUT drops {}", firewall.forward, firewall.input);
    let or_closed = |works: bool, answer: &str| if works { answer.to_owned() } else { CLOSED.to_owned() };
    let look = |neighbours: bool, egress: bool, published: bool, accepted: bool| {
        assert_eq!(web.ask("resolve udp db. A"), "NoError 10.77.1.3", "names: {name}");
        assert_eq!(web.ask("resolve tcp db. A"), "NoError 10.77.1.3", "names: {name}");
        assert_eq!(web.ask("connect 10.77.1.3:80"), or_closed(neighbours, "db 10.77.1.2"), "neighbour: {name}");
        // Names lead there only where they can: else they lead to the replicas.
        let leads = services::publish(&lab.layout, &[service(shop, &[db])]).expect("it can be tried");
        assert_eq!(leads, !firewall.forward || accepted, "services: {name}");
        if leads {
            assert_eq!(db.ask("connect 10.77.1.254:80"), "db 10.77.1.1", "service of itself: {name}");
            assert_eq!(web.ask("connect 10.77.1.254:80"), "db 10.77.1.1", "service: {name}");
        }
        let out = or_closed(egress, "outside 198.51.100.1");
        assert_eq!(web.ask("connect 198.51.100.2:80"), out, "egress: {name}");
        let port = or_closed(published, "db 198.51.100.2");
        assert_eq!(outside.ask("connect 198.51.100.1:8080"), port, "published: {name}");
    };
    look(!(firewall.forward && bridge_nf), !firewall.forward, !firewall.input, false);
    let found = network::findings(&lab.layout).expect("the host can be looked at");
    let of =
        |chain: &str| found.iter().find(|finding| finding.what.contains(&format!("`{chain}` of table `ip filter`")));
    assert_eq!(found.len(), usize::from(firewall.forward) + usize::from(firewall.input), "{name}: {found:?}");
    assert_eq!(of("INPUT").is_some(), firewall.input, "{name}: {found:?}");
    assert_eq!(of("FORWARD").is_some(), firewall.forward, "{name}: {found:?}");
    if let Some(finding) = of("FORWARD") {
        assert_eq!(finding.effect.contains("nor their neighbours"), bridge_nf, "{name}: {finding:?}");
        // What is told to do is done, word by word, and helps.
        let output = Command::new("sh").args(["-c", &finding.fix]).output().expect("a shell");
        assert!(output.status.success(), "{}: {}", finding.fix, String::from_utf8_lossy(&output.stderr));
        look(true, true, !firewall.input, true);
    }
}
