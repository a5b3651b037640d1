//! Published ports: what clients see through relays, swaps of backends, parking, and deaths of the switchboard.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtime::error::Error;
use runtime::network;
use runtime::runtime::{EndpointTable, HostPort, Listener};

use crate::lab::{Agent, DEADLINE, Lab, Switchboard, wait_until};

const PORT: u16 = 8080;

fn table(backends: &[&Agent], park_ms: u32) -> EndpointTable {
    let backends = backends.iter().map(|a| SocketAddr::new(IpAddr::V4(a.address), 80)).collect();
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    EndpointTable {
        listeners: vec![Listener { at: HostPort::tcp(address, PORT), backends, park_ms }],
        ..Default::default()
    }
}

fn other_port() -> HostPort {
    HostPort::tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081)
}

fn connect() -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Connects and says who answers.
fn greet() -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(connect()?).read_line(&mut line)?;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

/// A network with two servers, `old` and `new`, and a switchboard.
fn stage() -> (Lab, Switchboard, Agent, Agent) {
    let lab = Lab::new();
    let switchboard = Switchboard::start(&lab);
    let shop = lab.network("shop", 1, false);
    let (old, new) = (lab.container(&shop, 2), lab.container(&shop, 3));
    assert_eq!(old.ask("serve 80 old"), "ok");
    assert_eq!(new.ask("serve 80 new"), "ok");
    (lab, switchboard, old, new)
}

fn clear((lab, switchboard, old, new): (Lab, Switchboard, Agent, Agent)) {
    drop((switchboard, old, new));
    network::remove(&lab.layout, &"shop".parse().expect("a legal name")).unwrap();
}

/// 20 MB each way come out as they went in; the client ends its half, and still hears the server's farewell.
pub(crate) fn relays_both_ways_and_half_closes() {
    let stage = stage();
    stage.1.set(&table(&[&stage.2], 0));
    let stream = connect().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut greeting = String::new();
    reader.read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("old "), "{greeting}");
    let sent: Vec<u8> = (0..20_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sending = {
        let (mut stream, sent) = (stream.try_clone().unwrap(), sent.clone());
        std::thread::spawn(move || {
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        })
    };
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    let farewell = received.split_off(sent.len().min(received.len()));
    assert_eq!(String::from_utf8_lossy(&farewell), "bye old\n");
    assert!(received == sent, "the bytes differ");
    clear(stage);
}

/// A client that resets is a reset for the server, and the other way round.
pub(crate) fn passes_resets_on() {
    let stage = stage();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reset = table(&[&stage.2], 0);
    reset.listeners[0].backends = vec![listener.local_addr().unwrap()];
    stage.1.set(&reset);
    let abort = |stream: TcpStream| {
        nix::sys::socket::setsockopt(
            &stream,
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap()
    };
    for client_aborts in [true, false] {
        let client = connect().unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(DEADLINE)).unwrap();
        let (aborts, mut hears) = if client_aborts { (client, server) } else { (server, client) };
        abort(aborts);
        let heard = hears.read(&mut [0]).unwrap_err();
        assert_eq!(heard.kind(), std::io::ErrorKind::ConnectionReset, "client aborts: {client_aborts}");
    }
    clear(stage);
}

/// Clients that connect anew all the time see no error while the backend changes 40 times, and after each change was
/// confirmed none of them gets the backend that left.
pub(crate) fn swaps_backends_without_refusing() {
    let stage = stage();
    let (_, switchboard, old, new) = &stage;
    switchboard.set(&table(&[old], 0));
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let who = greet().expect("no connection is refused or reset");
                    assert!(who == "old" || who == "new", "{who}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..40 {
        let (name, backend) = if round % 2 == 0 { ("new", new) } else { ("old", old) };
        switchboard.set(&table(&[backend], 0));
        for _ in 0..5 {
            assert_eq!(greet().unwrap(), name, "round {round}");
        }
        let before = served.load(Ordering::Relaxed);
        wait_until("clients go on", || served.load(Ordering::Relaxed) > before + 20);
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    clear(stage);
}

/// In turn; past one that refuses; a connection made before a backend left goes on.
pub(crate) fn goes_round_and_past_dead_backends() {
    let stage = stage();
    let (_, switchboard, old, new) = &stage;
    switchboard.set(&table(&[old, new], 0));
    let mut seen: Vec<String> = (0..4).map(|_| greet().unwrap()).collect();
    assert_ne!(seen[0], seen[1]);
    seen.sort();
    assert_eq!(seen, ["new", "new", "old", "old"]);

    let mut lasting = connect().unwrap();
    let mut refusing = table(&[new, new], 0);
    refusing.listeners[0].backends[0].set_port(81);
    switchboard.set(&refusing);
    for _ in 0..4 {
        assert_eq!(greet().unwrap(), "new");
    }
    lasting.write_all(b"still there\n").unwrap();
    let lines: Vec<String> = BufReader::new(&lasting).lines().take(2).map(Result::unwrap).collect();
    assert_eq!(lines[1], "still there");

    // Only dead ones: an end, and soon.
    refusing.listeners[0].backends.truncate(1);
    switchboard.set(&refusing);
    assert_eq!(greet().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    clear(stage);
}

/// Without a backend a connection waits until there is one, or until its time is over.
pub(crate) fn parks_until_there_is_a_backend() {
    let stage = stage();
    let (_, switchboard, old, _) = &stage;
    switchboard.set(&table(&[], 8_000));
    let waiting: Vec<_> = (0..20).map(|_| std::thread::spawn(greet)).collect();
    let mut early = connect().unwrap();
    early.write_all(b"said while parked\n").unwrap();
    switchboard.set(&table(&[old], 8_000));
    for client in waiting {
        assert_eq!(client.join().unwrap().unwrap(), "old");
    }
    let lines: Vec<String> = BufReader::new(&early).lines().take(2).map(Result::unwrap).collect();
    assert_eq!(lines[1], "said while parked");

    switchboard.set(&table(&[], 300));
    let began = Instant::now();
    assert_eq!(greet().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // Clocks of milliseconds may lose one.
    assert!((Duration::from_millis(299)..DEADLINE / 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    clear(stage);
}

/// 4 kills: nobody is refused; connections that were open end, new ones wait for the successor.
pub(crate) fn survives_kills_of_the_switchboard() {
    let stage = stage();
    let (_, switchboard, old, _) = &stage;
    switchboard.set(&table(&[old], 0));
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let client = {
        let (stop, served) = (stop.clone(), served.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut stream = connect().expect("nobody is refused");
                let mut line = Vec::new();
                let heard = stream.read_to_end_of_line(&mut line);
                served.fetch_add(u64::from(heard), Ordering::Relaxed);
            }
        })
    };
    for _ in 0..4 {
        let before = served.load(Ordering::Relaxed);
        switchboard.kill();
        wait_until("clients are served again", || served.load(Ordering::Relaxed) > before + 5);
    }
    stop.store(true, Ordering::Relaxed);
    client.join().unwrap();
    // A port that leaves the table is closed everywhere, the keeper included.
    switchboard.set(&EndpointTable::default());
    wait_until("the port is closed", || connect().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused));
    clear(stage);
}

/// The container sees who really connects: a host outside, but not a neighbour on its own bridge, nor loopback. When
/// somebody takes down the way back, the port goes on with the bridge's address.
pub(crate) fn shows_containers_the_clients_own_address() {
    let stage = stage();
    let (lab, switchboard, old, new) = &stage;
    let outside = lab.outside();
    let mut wanted = table(&[old], 0);
    wanted.listeners[0].at.address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    switchboard.set(&wanted);
    assert_eq!(outside.ask("connect-patiently 198.51.100.1:8080"), "old 198.51.100.2");
    assert_eq!(new.ask("connect 10.77.1.1:8080"), "old 10.77.1.1");
    let mut line = String::new();
    BufReader::new(connect().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "old 10.77.1.1\n");

    let mut netlink = runtime::network::link::Netlink::open().unwrap();
    netlink.delete_mark_rule(0x6278, 0x6278).unwrap();
    let seen: Vec<String> = (0..4).map(|_| outside.ask("connect-patiently 198.51.100.1:8080")).collect();
    assert_eq!(seen, ["old 10.77.1.1"; 4]);
    let began = Instant::now();
    assert_eq!(outside.ask("connect 198.51.100.1:8080"), "old 10.77.1.1");
    assert!(began.elapsed() < Duration::from_millis(700), "it has learned by now");
    network::ensure(&lab.layout, &network::list(&lab.layout).unwrap()[0].config, &[]).unwrap();
    switchboard.set(&wanted);
    assert_eq!(outside.ask("connect 198.51.100.1:8080"), "old 198.51.100.2");
    drop(outside);
    clear(stage);
}

/// 5 upgrades in the middle of slow transfers, with a parked connection and clients that connect anew: every byte
/// arrives, nobody is refused or reset.
pub(crate) fn loses_nothing_in_an_upgrade() {
    let stage = stage();
    let (_, switchboard, old, _) = &stage;
    let mut wanted = table(&[old], 0);
    wanted.listeners.push(Listener { at: other_port(), backends: vec![], park_ms: 60_000 });
    switchboard.set(&wanted);
    let parked = TcpStream::connect((Ipv4Addr::LOCALHOST, 8081)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let anew = {
        let (stop, served) = (stop.clone(), served.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(greet().expect("no connection is refused or reset"), "old");
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let transfers: Vec<_> = (0..3_u32).map(|seed| transfer(seed, stop.clone())).collect();
    for _ in 0..5 {
        let before = served.load(Ordering::Relaxed);
        wait_until("clients are served", || served.load(Ordering::Relaxed) > before + 5);
        switchboard.upgrade();
    }
    wanted.listeners[1].backends = wanted.listeners[0].backends.clone();
    switchboard.set(&wanted);
    let mut line = String::new();
    BufReader::new(parked).read_line(&mut line).unwrap();
    assert!(line.starts_with("old "), "{line}");
    stop.store(true, Ordering::Relaxed);
    anew.join().unwrap();
    for (sending, receiving) in transfers {
        let (sent, received) = (sending.join().unwrap(), receiving.join().unwrap());
        assert!(sent > 1 << 20, "{sent} bytes are no transfer");
        assert_eq!(sent, received);
    }
    clear(stage);
}

/// Sends numbers through the echo until told to stop, and checks each that comes back. Both return the bytes they saw.
fn transfer(seed: u32, stop: Arc<AtomicBool>) -> (std::thread::JoinHandle<usize>, std::thread::JoinHandle<usize>) {
    let stream = connect().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    let sending = std::thread::spawn(move || {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            let block: Vec<u8> = (0..4_096_u32).flat_map(|n| (sent as u32 / 4 + n + seed).to_be_bytes()).collect();
            writer.write_all(&block).unwrap();
            sent += block.len();
        }
        writer.shutdown(Shutdown::Write).unwrap();
        sent
    });
    let receiving = std::thread::spawn(move || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut received = 0;
        let mut word = [0; 4];
        loop {
            reader.read_exact(&mut word).unwrap();
            if &word == b"bye " {
                return received;
            }
            assert_eq!(u32::from_be_bytes(word), received as u32 / 4 + seed, "a byte is lost or doubled");
            received += 4;
        }
    });
    (sending, receiving)
}

/// Reading one line that may be cut by a reset.
trait ReadLine {
    fn read_to_end_of_line(&mut self, line: &mut Vec<u8>) -> bool;
}

impl ReadLine for TcpStream {
    fn read_to_end_of_line(&mut self, line: &mut Vec<u8>) -> bool {
        BufReader::new(self).read_until(b'\n', line).is_ok() && line.ends_with(b"\n")
    }
}

/// The error names who has the port, everything else of the table is in force, and the port is ours once it is free.
pub(crate) fn in_use_names_the_process() {
    let stage = stage();
    let (_, switchboard, old, _) = &stage;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 8081)).unwrap();
    let mut both = table(&[old], 0);
    both.listeners.insert(0, Listener { at: other_port(), ..both.listeners[0].clone() });
    let error = switchboard.client.set_table(&both).unwrap_err();
    assert!(matches!(error, Error::PortInUse { at: HostPort { port: 8081, .. }, .. }), "{error:?}");
    let me = std::fs::read_to_string("/proc/self/comm").unwrap();
    let expected = format!("port 8081 is already in use on 127.0.0.1 by {} (pid {})", me.trim(), std::process::id());
    assert_eq!(error.to_string(), expected);
    assert_eq!(greet().unwrap(), "old");
    drop(taken);
    switchboard.set(&both);
    let mut line = String::new();
    BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, 8081)).unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("old "), "{line}");

    both.listeners[0].at.address = "192.0.2.77".parse().unwrap();
    let error = switchboard.client.set_table(&both).unwrap_err();
    assert_eq!(error.to_string(), "port 8081 cannot be published on 192.0.2.77: this host has no such address");
    clear(stage);
}
