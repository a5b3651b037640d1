//! Service addresses: one address that leads to whatever is ready behind it, and stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use runtime::network::{self, services};
use runtime::runtime::{DnsView, EndpointTable, NetworkConfig, Protocol, Service, ServicePort};

use crate::lab::{Agent, Lab, Switchboard, wait_until};

/// The address of the case's only service.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 254);

/// A service `db` that leads to these.
pub(crate) fn service(network: &NetworkConfig, backends: &[&Agent]) -> Service {
    Service {
        network: network.name.clone(),
        address: SERVICE,
        names: vec!["db".to_owned()],
        ports: Vec::new(),
        backends: backends.iter().map(|agent| agent.address).collect(),
    }
}

fn publish(lab: &Lab, all: &[Service]) {
    let may = services::publish(&lab.layout, all).unwrap_or_else(|e| panic!("{}", runtime::error::chain(&e)));
    assert!(may, "this host has what services need");
}

/// Each connection goes to somebody who is ready; a client that never asks again follows every replacement, by UDP as well,
/// and so does the host; a replica may reach itself.
pub(crate) fn lead_to_what_is_ready_and_stay() {
    let lab = Lab::new();
    let shop = lab.network("shop", 1, false);
    let [web, one, two, three] = [2, 3, 4, 5].map(|last| lab.container(&shop, last));
    for (agent, name) in [(&one, "one"), (&two, "two"), (&three, "three")] {
        assert_eq!(agent.ask(&format!("serve 80 {name}")), "ok");
        assert_eq!(agent.ask(&format!("serve-udp 90 {name}")), "ok");
    }
    let at = |port: u16| format!("{SERVICE}:{port}");
    for (agent, name) in [(&one, "one"), (&two, "two"), (&one, "one"), (&three, "three")] {
        publish(&lab, &[service(&shop, &[agent])]);
        // From the gateway, or the answer would go past the service.
        assert_eq!(web.ask(&format!("connect {}", at(80))), format!("{name} 10.77.1.1"));
        assert_eq!(web.ask(&format!("ask-udp-from 5353 {} x", at(90))), format!("{name} x"));
        assert_eq!(agent.ask(&format!("connect {}", at(80))), format!("{name} 10.77.1.1"));
        assert!(TcpStream::connect(at(80)).is_ok(), "the host reaches it");
    }
    publish(&lab, &[service(&shop, &[&one, &two, &three])]);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..90 {
        *seen.entry(web.ask(&format!("connect {}", at(80)))).or_default() += 1;
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().all(|count| *count > 8), "{seen:?}");
    // Somebody deletes what is in the map: it is noticed, and put back.
    assert!(network::list(&lab.layout).unwrap()[0].intact);
    if Command::new("nft").arg("--version").output().is_ok() {
        let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft runs").stdout;
        let tables = String::from_utf8_lossy(&tables).into_owned();
        let table = tables.lines().find(|line| line.ends_with("-services")).expect("there is one");
        let flushed = Command::new("nft").arg(format!("flush map {} to3", &table["table ".len()..])).status();
        assert!(flushed.expect("nft runs").success());
        assert!(!network::list(&lab.layout).unwrap()[0].intact);
        network::ensure(&lab.layout, &shop, &[]).unwrap();
        assert!(network::list(&lab.layout).unwrap()[0].intact);
        assert!(web.ask(&format!("connect {}", at(80))).ends_with("10.77.1.1"));
    }
    drop((web, one, two, three));
    network::remove(&lab.layout, &shop.name).unwrap();
}

/// Nobody ready: connections wait, and are refused in the end; a port that is not the service's is refused at once, and so
/// is what would reach a program of the host.
pub(crate) fn wait_for_somebody_and_refuse_in_the_end() {
    let lab = Lab::new();
    let vault = lab.network("vault", 1, true);
    let [web, db] = [2, 3].map(|last| lab.container(&vault, last));
    assert_eq!(db.ask("serve 5432 db"), "ok");
    let host = std::net::TcpListener::bind("0.0.0.0:5432").expect("the port is free in here");
    let leads_to = |port: u16, backends: Vec<SocketAddrV4>| Service {
        ports: vec![ServicePort { protocol: Protocol::Tcp, port, backends }],
        ..service(&vault, &[])
    };
    let ready = || vec![SocketAddrV4::new(db.address, 5432)];
    publish(&lab, &[leads_to(80, Vec::new())]);
    web.tell(&format!("connect-patiently {SERVICE}:80"));
    assert_eq!(db.ask(&format!("connect {SERVICE}:80")), "timeout");
    publish(&lab, &[leads_to(80, ready())]);
    assert_eq!(web.answer(), "db 10.77.1.1", "it waited");
    assert_eq!(web.ask(&format!("connect {SERVICE}:5432")), "ConnectionRefused");
    publish(&lab, &[leads_to(80, Vec::new())]);
    // It never is the program of the host, and ends by itself.
    let mut answer = String::new();
    wait_until("it is refused", || {
        answer = web.ask(&format!("connect {SERVICE}:5432"));
        answer != "timeout"
    });
    assert_eq!(answer, "ConnectionRefused");
    assert_eq!(web.ask(&format!("connect {SERVICE}:80")), "ConnectionRefused");
    drop((host, web, db));
    network::remove(&lab.layout, &vault.name).unwrap();
    publish_nothing(&lab);
}

fn publish_nothing(lab: &Lab) {
    services::publish(&lab.layout, &[]).unwrap();
}

/// Its name is the service's address, and `tasks.` before it names the replicas; without a service the name does.
pub(crate) fn have_names() {
    let lab = Lab::new();
    let switchboard = Switchboard::start(&lab);
    let shop = lab.network("shop", 1, false);
    let web = lab.container(&shop, 2);
    assert_eq!(web.ask(&format!("dns {} {}", lab.layout.run_dir.display(), web.id)), "ok");
    let replicas = vec![IpAddr::V4(Ipv4Addr::new(10, 77, 1, 3)), IpAddr::V4(Ipv4Addr::new(10, 77, 1, 4))];
    let view = DnsView { networks: vec![shop.name.clone()], forward: false };
    let mut table = EndpointTable {
        zones: [(shop.name.clone(), BTreeMap::from([("db".to_owned(), replicas)]))].into(),
        views: [(web.id.clone(), view)].into(),
        services: vec![service(&shop, &[])],
        ..EndpointTable::default()
    };
    switchboard.set(&table);
    assert_eq!(web.ask("resolve udp db. A"), "NoError 10.77.1.254");
    assert_eq!(web.ask("resolve udp db.shop. A"), "NoError 10.77.1.254");
    assert_eq!(web.ask("resolve udp tasks.db. A"), "NoError 10.77.1.3 10.77.1.4");
    assert_eq!(web.ask("resolve udp 254.1.77.10.in-addr.arpa. PTR"), "NoError db.shop.");
    table.services.clear();
    switchboard.set(&table);
    assert_eq!(web.ask("resolve udp db. A"), "NoError 10.77.1.3 10.77.1.4");
    drop(web);
    network::remove(&lab.layout, &shop.name).unwrap();
}

/// Five hundred endpoints change again and again while others talk: not one of their datagrams is lost. How long a change
/// takes is for the benchmark.
pub(crate) fn change_by_hundreds_and_lose_nothing() {
    let lab = Lab::new();
    let big = NetworkConfig {
        name: "big".parse().expect("a legal name"),
        gateway: Ipv4Addr::new(10, 77, 0, 1),
        prefix_len: 20,
        internal: false,
    };
    network::ensure(&lab.layout, &big, &[]).unwrap();
    let steady = lab.container(&NetworkConfig { gateway: Ipv4Addr::new(10, 77, 0, 1), ..big.clone() }, 2);
    assert_eq!(steady.ask("serve-udp 90 steady"), "ok");
    let crowd = |round: u32| -> Vec<Service> {
        let of = |n: u32| Service {
            network: big.name.clone(),
            address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 15, 250)) - n),
            names: Vec::new(),
            ports: Vec::new(),
            backends: (0..1 + (n + round) % 3)
                .map(|k| Ipv4Addr::from(0x0a4d_0100 + (n * 5 + k + round) % 900))
                .collect(),
        };
        let stays = Service { backends: vec![steady.address], ..of(300) };
        (0..250).map(of).chain([stays]).collect()
    };
    publish(&lab, &crowd(0));
    let before: BTreeSet<Ipv4Addr> = crowd(0).iter().flat_map(Service::leads_to).collect();
    assert!(before.len() > 200, "{}", before.len());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect((Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 15, 250)) - 300), 90)).expect("a way");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            let mut said = 0_u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let text = said.to_string();
                socket.send(text.as_bytes()).expect("it goes out");
                let mut buffer = [0; 64];
                let count = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("datagram {said} was lost: {e}"));
                assert_eq!(&buffer[..count], format!("steady {text}").as_bytes());
                said += 1;
            }
            said
        });
        for round in 1..=10 {
            publish(&lab, &crowd(round));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(talk.join().expect("nothing was lost") > 0);
    });
    drop(steady);
    network::remove(&lab.layout, &big.name).unwrap();
}

/// Replaced again and again under clients that never stop: nothing is refused, reset or lost.
pub(crate) fn are_replaced_under_load() {
    let lab = Lab::new();
    let shop = lab.network("shop", 1, false);
    let replicas = [3, 4, 5, 6].map(|last| lab.container(&shop, last));
    for (n, replica) in replicas.iter().enumerate() {
        assert_eq!(replica.ask(&format!("serve 80 r{n}")), "ok");
    }
    let clients = [10, 11].map(|last| lab.container(&shop, last));
    publish(&lab, &[service(&shop, &[&replicas[0]])]);
    let stop = lab.path().join("stop");
    clients.iter().for_each(|client| client.tell(&format!("hammer {SERVICE}:80 {}", stop.display())));
    for n in 0..20 {
        let (old, new) = (&replicas[n % 4], &replicas[(n + 1) % 4]);
        publish(&lab, &[service(&shop, &[old, new])]);
        publish(&lab, &[service(&shop, &[new])]);
        // From now on nobody comes to the old one.
        assert_eq!(new.ask(&format!("connect {SERVICE}:80")), format!("r{} 10.77.1.1", (n + 1) % 4));
    }
    std::fs::write(&stop, "").unwrap();
    for client in &clients {
        let said = client.answer();
        let (went, failed) = said.split_once(' ').expect("two numbers");
        assert!(went.parse::<u32>().expect("a number") > 20 && failed == "0", "{said}");
    }
    drop((replicas, clients));
    network::remove(&lab.layout, &shop.name).unwrap();
}

/// How often a case goes round: a slice of it in the gate, all of it with `BOXSHIP_CAMPAIGN=1`.
fn rounds(slice: u32, campaign: u32) -> u32 {
    if std::env::var_os("BOXSHIP_CAMPAIGN").is_some() { campaign } else { slice }
}

/// One container replaced a thousand times under a resolver that asks all the time: an answer to what was asked after an
/// address left never names it.
pub(crate) fn no_answer_names_a_dead_address() {
    let lab = Lab::new();
    let switchboard = Switchboard::start(&lab);
    let shop = lab.network("shop", 1, false);
    let web = lab.container(&shop, 2);
    assert_eq!(web.ask(&format!("dns {} {}", lab.layout.run_dir.display(), web.id)), "ok");
    let address = |n: u32| Ipv4Addr::from(0x0a4d_0000 + n);
    let table = |n: u32| {
        let named = |name: &str| (name.to_owned(), vec![IpAddr::V4(address(n))]);
        let view = DnsView { networks: vec![shop.name.clone()], forward: false };
        EndpointTable {
            zones: [(shop.name.clone(), BTreeMap::from([named("db"), named("db-1"), named("plain")]))].into(),
            views: [(web.id.clone(), view)].into(),
            services: vec![service(&shop, &[])],
            ..EndpointTable::default()
        }
    };
    let dead_below = std::sync::atomic::AtomicU32::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    switchboard.set(&table(0));
    let last = rounds(60, 1_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=last {
                switchboard.set(&table(n));
                dead_below.store(n, order);
            }
        });
        let mut asked = 0;
        while dead_below.load(order) < last || asked < 60 {
            let dead = dead_below.load(order);
            let name = ["plain.", "db-1.", "tasks.db."][asked % 3];
            let via = ["udp", "tcp"][asked / 3 % 2];
            let said = web.ask(&format!("resolve {via} {name} A"));
            let named: Ipv4Addr = said.strip_prefix("NoError ").and_then(|it| it.parse().ok()).expect("one address");
            assert!(u32::from(named) >= u32::from(address(dead)), "{name} is {said}, dead below {}", address(dead));
            assert_eq!(web.ask("resolve udp db. A"), format!("NoError {SERVICE}"));
            asked += 1;
        }
    });
    drop(web);
    network::remove(&lab.layout, &shop.name).unwrap();
}

/// Networks with a container and a service come and go: bridges, links, rules, switches and descriptors are as before.
pub(crate) fn cycles_leave_nothing() {
    let tables = || {
        let said = Command::new("nft").args(["list", "tables"]).output().map(|output| output.stdout);
        said.map_or_else(|_| "no nft program".to_owned(), |said| String::from_utf8_lossy(&said).into_owned())
    };
    let lab = Lab::new();
    let before = (crate::lab::leftovers(), tables());
    for n in 0..rounds(12, 1_000) {
        let shop = lab.network("shop", 1, n % 2 == 1);
        let db = lab.container(&shop, 3);
        publish(&lab, &[service(&shop, &[&db])]);
        if n % 3 == 0 {
            publish_nothing(&lab);
        }
        drop(db);
        network::remove(&lab.layout, &shop.name).unwrap();
        publish_nothing(&lab);
        assert_eq!((crate::lab::leftovers(), tables()), before, "round {n}");
    }
}
