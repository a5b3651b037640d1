//! Published UDP ports: what clients see through swaps of backends, waiting, upgrades and deaths of the switchboard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use runtime::error::Error;
use runtime::network;
use runtime::runtime::{EndpointTable, HostPort, Listener, Protocol};

use crate::lab::{Agent, DEADLINE, Lab, Switchboard, wait_until};

const PORT: u16 = 5353;

fn table(backends: &[&Agent]) -> EndpointTable {
    let backends = backends.iter().map(|a| SocketAddr::new(IpAddr::V4(a.address), 53)).collect();
    let at = HostPort { protocol: Protocol::Udp, ..HostPort::tcp(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT) };
    EndpointTable { listeners: vec![Listener { at, backends, park_ms: 10_000 }], ..Default::default() }
}

/// A network with two echoes, `old` and `new`, and a switchboard.
fn stage() -> (Lab, Switchboard, Agent, Agent) {
    let lab = Lab::new();
    let switchboard = Switchboard::start(&lab);
    let shop = lab.network("shop", 1, false);
    let (old, new) = (lab.container(&shop, 2), lab.container(&shop, 3));
    assert_eq!(old.ask("serve-udp 53 old"), "ok");
    assert_eq!(new.ask("serve-udp 53 new"), "ok");
    (lab, switchboard, old, new)
}

fn clear((lab, switchboard, old, new): (Lab, Switchboard, Agent, Agent)) {
    drop((switchboard, old, new));
    network::remove(&lab.layout, &"shop".parse().expect("a legal name")).unwrap();
}

/// A client of one address of the host: what comes from another one is not for it.
fn client(host: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((host, PORT)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Asks once; the answer, or why there is none.
fn ask(client: &UdpSocket, text: &str) -> std::io::Result<String> {
    let mut buffer = [0; 2_048];
    client.send(text.as_bytes())?;
    loop {
        let len = client.recv(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
        // the answer to a question that was given up comes late, if it comes
        if answer.ends_with(&format!(" {text}")) {
            return Ok(answer);
        }
    }
}

/// A client that asks one question after another; an unanswered one has failed.
struct Asking {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Asking {
    fn start(patience: Duration) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (stop.clone(), answered.clone());
        let thread = std::thread::spawn(move || {
            let client = client(Ipv4Addr::LOCALHOST);
            client.set_read_timeout(Some(patience)).unwrap();
            let mut lost = 0;
            for number in 0_u64.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                match ask(&client, &number.to_string()) {
                    Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => lost += 1,
                }
            }
            lost
        });
        Self { stop, answered, thread }
    }

    /// Waits for some more answers.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("questions are answered", || self.answered.load(Ordering::Relaxed) > before + 20);
    }

    /// How many questions got no answer.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Answers come from the address that was asked; a client stays with its backend, clients take turns; large datagrams pass;
/// a port that is no longer published answers nobody.
pub(crate) fn answers_come_from_where_was_asked() {
    let stage = stage();
    let (_, switchboard, old, new) = &stage;
    switchboard.set(&table(&[old, new]));
    let clients: Vec<UdpSocket> = (1..=4).map(|last| client(Ipv4Addr::new(127, 0, 0, last))).collect();
    let first: Vec<String> = clients.iter().map(|client| ask(client, "who").unwrap()).collect();
    assert_eq!(first, ["old who", "new who", "old who", "new who"]);
    let again: Vec<String> = clients.iter().map(|client| ask(client, "who").unwrap()).collect();
    assert_eq!(again, first);
    let long = "x".repeat(1_900);
    assert_eq!(ask(&clients[0], &long).unwrap(), format!("old {long}"));
    assert_eq!(new.ask("ask-udp 10.77.1.1:5353 neighbour"), "old neighbour");
    switchboard.set(&EndpointTable::default());
    wait_until("the port is closed", || ask(&clients[0], "who").is_err());
    clear(stage);
}

/// 20 swaps of the backend and 5 times without any: every question is answered.
pub(crate) fn swaps_backends_and_loses_nothing() {
    let stage = stage();
    let (_, switchboard, old, new) = &stage;
    switchboard.set(&table(&[old]));
    let asking: Vec<Asking> = (0..3).map(|_| Asking::start(DEADLINE)).collect();
    for round in 0..20 {
        asking.iter().for_each(Asking::goes_on);
        if round % 4 == 3 {
            switchboard.set(&table(&[]));
        }
        switchboard.set(&table(&[if round % 2 == 0 { new } else { old }]));
    }
    asking.iter().for_each(Asking::goes_on);
    assert_eq!(asking.into_iter().map(Asking::stop).sum::<u64>(), 0);
    assert_eq!(ask(&client(Ipv4Addr::LOCALHOST), "now").unwrap(), "old now");
    clear(stage);
}

/// What is asked while there is no backend is answered by the first one.
pub(crate) fn waits_for_a_backend() {
    let stage = stage();
    let (_, switchboard, old, _) = &stage;
    switchboard.set(&table(&[]));
    let clients: Vec<UdpSocket> = (0..5).map(|_| client(Ipv4Addr::LOCALHOST)).collect();
    clients.iter().for_each(|client| assert_eq!(client.send(b"first").unwrap(), 5));
    // read by now: the table's answer comes after what was there before it
    switchboard.set(&table(&[]));
    // and kept by its successor
    switchboard.upgrade();
    switchboard.set(&table(&[old]));
    for client in &clients {
        let mut buffer = [0; 100];
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"old first");
    }
    clear(stage);
}

/// 5 upgrades lose no question; 5 kills at most the one that is on its way.
pub(crate) fn survives_upgrades_and_kills() {
    let stage = stage();
    let (_, switchboard, old, _) = &stage;
    switchboard.set(&table(&[old]));
    let asking = Asking::start(DEADLINE);
    for _ in 0..5 {
        asking.goes_on();
        switchboard.upgrade();
    }
    asking.goes_on();
    assert_eq!(asking.stop(), 0, "questions lost in 5 upgrades");
    let asking = Asking::start(Duration::from_secs(2));
    for _ in 0..5 {
        asking.goes_on();
        switchboard.kill();
    }
    asking.goes_on();
    let lost = asking.stop();
    assert!(lost <= 5, "{lost} questions lost in 5 kills");
    clear(stage);
}

/// A taken UDP port names who has it; the TCP port of the same number is another one.
pub(crate) fn in_use_names_the_process() {
    let stage = stage();
    let (_, switchboard, old, _) = &stage;
    let taken = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    let mut wanted = table(&[old]);
    let at = HostPort { protocol: Protocol::Tcp, ..wanted.listeners[0].at };
    wanted.listeners.push(Listener { at, ..wanted.listeners[0].clone() });
    let error = switchboard.client.set_table(&wanted).unwrap_err();
    assert!(matches!(error, Error::PortInUse { at: HostPort { protocol: Protocol::Udp, .. }, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("port 5353/udp is already in use on 0.0.0.0 by "), "{text}");
    assert!(text.ends_with(&format!("(pid {})", std::process::id())), "{text}");
    drop(taken);
    switchboard.set(&wanted);
    assert_eq!(ask(&client(Ipv4Addr::LOCALHOST), "now").unwrap(), "old now");
    clear(stage);
}
