//! Load, as orders of an agent in its own network namespace: a server, a client that connects at a rate, one that pulls
//! bytes, one that asks for names. Each answers with numbers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Clients at a time.
const THREADS: u32 = 4;
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Orders beside the agent's own.
pub(crate) fn order(words: &[&str]) -> String {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match *words {
        ["load-serve", port] => serve(port),
        ["load-rate", target, seconds, per_second] => rate(target, number(seconds), number(per_second)),
        ["load-pull", target, seconds] => pull(target, number(seconds)),
        ["load-names", question, seconds] => names(question, number(seconds)),
        ["load-ports"] => ports(),
        _ => format!("no such order: {}", words.join(" ")),
    }
}

/// Room for many connections in turn from one client.
fn ports() -> String {
    for (name, value) in [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("root sets it");
    }
    "ok".into()
}

/// One byte decides: `r` gets one byte back, `t` as many as it takes.
fn serve(port: &str) -> String {
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse().expect("a port"))).expect("it is free in here");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    "ok".into()
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut order = [0];
    stream.read_exact(&mut order)?;
    if order == *b"t" {
        let bytes = vec![b'x'; 256 << 10];
        loop {
            stream.write_all(&bytes)?;
        }
    }
    stream.write_all(b"r")?;
    // The client ends first, so that what waits afterwards waits there.
    stream.read_exact(&mut order)
}

/// New connections for so long, at a rate, or as many as go (0): `COUNT FAILED P50_US P99_US FIRST_HALF`.
fn rate(target: &str, seconds: u64, per_second: u64) -> String {
    let target: SocketAddr = target.parse().expect("address:port");
    let begin = Instant::now();
    let end = Duration::from_secs(seconds);
    let client = move || {
        let (mut times, mut failed, mut first_half) = (Vec::new(), 0_u64, 0_u64);
        let mut next = Duration::ZERO;
        while begin.elapsed() < end {
            if per_second > 0 {
                next += Duration::from_secs(1) * THREADS / u32::try_from(per_second).expect("a rate");
                let left = next.saturating_sub(begin.elapsed()).as_millis();
                let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX)));
            }
            let started = Instant::now();
            if exchange(target).is_ok() {
                times.push(started.elapsed());
                first_half += u64::from(begin.elapsed() < end / 2);
            } else {
                failed += 1;
            }
        }
        (times, failed, first_half)
    };
    let clients: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(client)).collect();
    let (mut times, mut failed, mut first_half) = (Vec::new(), 0, 0);
    for client in clients {
        let (its, its_failed, its_first) = client.join().expect("it ends");
        times.extend(its);
        failed += its_failed;
        first_half += its_first;
    }
    times.sort_unstable();
    let at = |per_cent: usize| times.get(times.len() * per_cent / 100).map_or(0, Duration::as_micros);
    format!("{} {failed} {} {} {first_half}", times.len(), at(50), at(99))
}

fn exchange(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"r")?;
    stream.read_exact(&mut [0])
}

/// Bytes by one connection for so long.
fn pull(target: &str, seconds: u64) -> String {
    let mut stream = TcpStream::connect(target).expect("somebody listens");
    stream.write_all(b"t").expect("it can be sent");
    let (begin, mut buffer, mut bytes) = (Instant::now(), vec![0; 256 << 10], 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        bytes += stream.read(&mut buffer).expect("it goes on");
    }
    format!("{bytes} {}", begin.elapsed().as_millis())
}

/// The same question to 127.0.0.11 for so long, 64 on their way: answers.
fn names(question: &str, seconds: u64) -> String {
    const WINDOW: u64 = 64;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect("127.0.0.11:53").expect("a way");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut packet = vec![0, 77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in question.split('.').filter(|label| !label.is_empty()) {
        packet.push(u8::try_from(label.len()).expect("a short label"));
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    let (begin, mut answered, mut buffer) = (Instant::now(), 0_u64, [0; 1_500]);
    (0..WINDOW).for_each(|_| drop(socket.send(&packet)));
    while begin.elapsed() < Duration::from_secs(seconds) {
        if socket.recv(&mut buffer).is_ok() {
            answered += 1;
            let _ = socket.send(&packet);
        } else {
            (0..WINDOW).for_each(|_| drop(socket.send(&packet)));
        }
    }
    answered.to_string()
}
