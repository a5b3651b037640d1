//! The inside of a container: a process in its own network namespace that takes orders on stdin, one line each, and
//! answers each with one line.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use runtime::layout::Layout;
use runtime::network::link::Netlink;
use runtime::switchboard::SwitchboardClient;

/// How long a connection attempt may take; a dropped SYN shows as `timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Takes orders until stdin ends.
pub(crate) fn run() {
    obeying(|words| format!("no such order: {}", words.join(" ")));
}

/// The same; `further` answers what is no order of ours.
pub(crate) fn obeying(further: impl Fn(&[&str]) -> String) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may unshare");
    println!("ready");
    let mut begun = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("orders are text");
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["up", address, prefix_len, gateway] => up(address, prefix_len, gateway),
            ["serve", port, name] => serve(port, name),
            ["serve-udp", port, name] => serve_udp(port, name),
            ["ask-udp", target, text] => ask_udp(0, target, text),
            ["ask-udp-from", port, target, text] => ask_udp(port.parse().expect("a port"), target, text),
            ["connect", target] => connect(target, CONNECT_TIMEOUT),
            ["connect-patiently", target] => connect(target, Duration::from_secs(5)),
            ["hammer", target, stop] => hammer(target, stop),
            ["address", address] => add_address(address),
            ["mac", mac] => set_mac(mac),
            ["tag", address] => tag(address),
            ["shout-v6"] => shout_v6(),
            ["received", protocol] => received(protocol),
            ["neighbour", address] => neighbour(address),
            ["connect-from", source, target] => connect_from(source, target),
            ["dns", run_dir, id] => hand_over_dns(run_dir, id),
            ["resolve", via, name, kind] => resolve(via, name, kind),
            ["begin", share, name, kind] => begin(&mut begun, share, name, kind),
            ["finish"] => begun.drain(..).map(finish).collect::<Vec<_>>().join(", "),
            ["nameserver", address] => nameserver(address),
            _ => further(&words),
        };
        println!("{answer}");
    }
}

fn up(address: &str, prefix_len: &str, gateway: &str) -> String {
    let mut netlink = Netlink::open().expect("rtnetlink opens");
    let link = netlink.link("eth0").expect("links are listed").expect("eth0 is there");
    netlink.set_up(1).expect("loopback goes up");
    netlink
        .add_address(link.index, address.parse().expect("an address"), prefix_len.parse().expect("a length"))
        .expect("an address can be added");
    netlink.set_up(link.index).expect("it goes up");
    netlink.add_default_route(gateway.parse().expect("a gateway")).expect("a route can be added");
    "ok".into()
}

fn add_address(address: &str) -> String {
    let mut netlink = Netlink::open().expect("rtnetlink opens");
    let link = netlink.link("eth0").expect("links are listed").expect("eth0 is there");
    netlink.add_address(link.index, address.parse().expect("an address"), 32).expect("an address can be added");
    "ok".into()
}

/// Another hardware address: the frames of a container that forges it.
fn set_mac(mac: &str) -> String {
    ip(&["link", "set", "eth0", "address", mac])
}

/// An interface whose frames bear a tag, which hides them from rules that look for IP.
fn tag(address: &str) -> String {
    let made = ip(&["link", "add", "link", "eth0", "name", "eth0.5", "type", "vlan", "id", "5"]);
    let addressed = ip(&["addr", "add", address, "dev", "eth0.5"]);
    let up = ip(&["link", "set", "eth0.5", "up"]);
    if [&made, &addressed, &up].iter().all(|answer| *answer == "ok") { "ok".into() } else { made + &addressed + &up }
}

fn ip(args: &[&str]) -> String {
    match std::process::Command::new("ip").args(args).output() {
        Ok(output) if output.status.success() => "ok".into(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "),
        Err(error) => error.to_string(),
    }
}

/// A datagram to every IPv6 host on the link, as a router advertisement goes.
fn shout_v6() -> String {
    let index =
        Netlink::open().and_then(|mut n| n.link("eth0")).expect("links are listed").expect("eth0 is there").index;
    let everybody = std::net::SocketAddrV6::new("ff02::1".parse().expect("an address"), 9, 0, index);
    let sent = UdpSocket::bind("[::]:0").and_then(|socket| socket.send_to(b"x", everybody));
    sent.map_or_else(|error| error.to_string(), |_| "ok".into())
}

/// How many packets have arrived here so far.
fn received(protocol: &str) -> String {
    if protocol == "v6" {
        let text = std::fs::read_to_string("/proc/net/dev_snmp6/eth0").expect("the kernel has IPv6");
        let line = text.lines().find_map(|line| line.strip_prefix("Ip6InReceives"));
        return line.expect("it counts").trim().to_owned();
    }
    let text = std::fs::read_to_string("/proc/net/snmp").expect("the kernel counts");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let names = lines.next().expect("names").split(' ');
    let values = lines.next().expect("values").split(' ');
    let mut pairs = names.zip(values);
    pairs.find(|(name, _)| *name == "InReceives").expect("it is there").1.to_owned()
}

/// The hardware address that is believed to be a neighbour's.
fn neighbour(address: &str) -> String {
    let table = std::fs::read_to_string("/proc/net/arp").expect("the kernel tells");
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(address));
    line.and_then(|line| line.split_whitespace().nth(3)).unwrap_or("nobody").to_owned()
}

/// A server that says `NAME PEER_ADDRESS`, echoes until the peer is done, says `bye NAME` and closes.
fn serve(port: &str, name: &str) -> String {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.parse().expect("a port"));
    let listener = TcpListener::bind(address).expect("the port is free in here");
    let name = name.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || echo(stream, &name));
        }
    });
    "ok".into()
}

/// An echo that says `NAME ` before what it got.
fn serve_udp(port: &str, name: &str) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port.parse().expect("a port"))).expect("it is free in here");
    let name = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
            let answer = [name.as_bytes(), b" ", &buffer[..count]].concat();
            // nobody there any more is for the peer to find out
            let _ = socket.send_to(&answer, peer);
        }
    });
    "ok".into()
}

fn ask_udp(port: u16, target: &str, text: &str) -> String {
    let exchange = || -> std::io::Result<String> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(target)?;
        socket.send(text.as_bytes())?;
        let mut buffer = vec![0; 64 << 10];
        let count = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    exchange().unwrap_or_else(|e| format!("{:?}", e.kind()))
}

fn echo(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let peer = stream.peer_addr()?.ip();
    stream.write_all(format!("{name} {peer}\n").as_bytes())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return stream.write_all(format!("bye {name}\n").as_bytes());
        }
        stream.write_all(&buffer[..count])?;
    }
}

/// The first line the server says, or why there is none.
fn connect(target: &str, patience: Duration) -> String {
    let target = target.parse().expect("address:port");
    outcome(TcpStream::connect_timeout(&target, patience), patience)
}

/// Connects again and again until a file is there: how often it went well, and how often not.
fn hammer(target: &str, stop: &str) -> String {
    let (mut went, mut failed) = (0, 0);
    while !std::path::Path::new(stop).exists() {
        let said = connect(target, PATIENCE);
        if said.contains(' ') {
            went += 1;
        } else {
            failed += 1;
            eprintln!("connection {}: {said}", went + failed);
        }
    }
    format!("{went} {failed}")
}

/// As `connect`, from a source address.
fn connect_from(source: &str, target: &str) -> String {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt::SendTimeout,
    };
    use std::os::fd::AsRawFd as _;
    let source: Ipv4Addr = source.parse().expect("an address");
    let target: std::net::SocketAddrV4 = target.parse().expect("address:port");
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    bind(fd.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(source, 0))).expect("our address");
    setsockopt(&fd, SendTimeout, &nix::sys::time::TimeVal::new(0, 700_000)).expect("a timeout");
    let connected = connect(fd.as_raw_fd(), &SockaddrIn::from(target));
    outcome(connected.map(|()| TcpStream::from(fd)).map_err(std::io::Error::from), CONNECT_TIMEOUT)
}

fn outcome(stream: std::io::Result<TcpStream>, patience: Duration) -> String {
    let read = stream.and_then(|stream| {
        stream.set_read_timeout(Some(patience))?;
        let mut line = String::new();
        std::io::BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    });
    read.unwrap_or_else(|e| match e.raw_os_error() {
        Some(libc_code) if libc_code == nix::errno::Errno::EINPROGRESS as i32 => "timeout".into(),
        _ if e.kind() == std::io::ErrorKind::TimedOut => "timeout".into(),
        _ => format!("{:?}", e.kind()),
    })
}

/// What a container's init does: sockets that are asked at 127.0.0.11:53 in here, handed to the switchboard.
fn hand_over_dns(run_dir: &str, id: &str) -> String {
    let [udp, tcp] = runtime::network::resolver::open(Ipv4Addr::new(127, 0, 0, 11)).expect("sockets open");
    let client = SwitchboardClient::new(&Layout::new("/nowhere", run_dir));
    let outcome = client.add_dns(&id.parse().expect("a name"), &udp, &tcp);
    outcome.map_or_else(|e| runtime::error::chain(&e), |()| "ok".into())
}

/// Asks 127.0.0.11 as a program would: `CODE DATA…`.
fn resolve(via: &str, name: &str, kind: &str) -> String {
    show(exchange(via, &question(name, kind)))
}

fn question(name: &str, kind: &str) -> Vec<u8> {
    let kind: RecordType = kind.parse().expect("a record type");
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message.to_vec().expect("it encodes")
}

fn show(answer: std::io::Result<Vec<u8>>) -> String {
    match answer {
        Err(e) => format!("{:?}", e.kind()),
        Ok(answer) => {
            let answer = Message::from_vec(&answer).expect("an answer");
            assert_eq!(answer.metadata.id, 77);
            let mut data: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
            data.sort();
            format!("{:?} {}", answer.metadata.response_code, data.join(" ")).trim_end().to_owned()
        }
    }
}

/// A connection to 127.0.0.11, and what is still to be said on it.
type Begun = (TcpStream, Vec<u8>);

/// Says `none`, `half` or `all` of a question on a new connection, which stays open.
fn begin(begun: &mut Vec<Begun>, share: &str, name: &str, kind: &str) -> String {
    let mut message = framed(&question(name, kind));
    let said = match share {
        "none" => 0,
        "half" => message.len() / 2,
        _ => message.len(),
    };
    let mut stream = TcpStream::connect("127.0.0.11:53").expect("somebody listens");
    stream.write_all(&message[..said]).expect("it can be sent");
    begun.push((stream, message.split_off(said)));
    "ok".into()
}

/// Says the rest and reads the answer.
fn finish((mut stream, rest): Begun) -> String {
    show(stream.write_all(&rest).and_then(|()| read_framed(&mut stream)))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).expect("a short message").to_be_bytes();
    [&len, message].concat()
}

fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(head))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn exchange(via: &str, question: &[u8]) -> std::io::Result<Vec<u8>> {
    if via == "udp" {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect("127.0.0.11:53")?;
        socket.send(question)?;
        let mut buffer = vec![0; 4_096];
        let count = socket.recv(&mut buffer)?;
        buffer.truncate(count);
        return Ok(buffer);
    }
    let mut stream = TcpStream::connect("127.0.0.11:53")?;
    stream.write_all(&framed(question))?;
    read_framed(&mut stream)
}

/// A resolver of the outside world: every A is 203.0.113.7, every other question has no such name.
fn nameserver(address: &str) -> String {
    let udp = UdpSocket::bind((address, 53)).expect("the port is free in here");
    let tcp = TcpListener::bind((address, 53)).expect("the port is free in here");
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok((count, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&world(&buffer[..count]), from);
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let question = read_framed(&mut stream).expect("a question");
            let _ = stream.write_all(&framed(&world(&question)));
        }
    });
    "ok".into()
}

fn world(question: &[u8]) -> Vec<u8> {
    let question = Message::from_vec(question).expect("the switchboard passes questions on as they are");
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    let query = question.queries[0].clone();
    if query.query_type() == RecordType::A {
        let data = RData::A(Ipv4Addr::new(203, 0, 113, 7).into());
        answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    } else {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.add_query(query);
    answer.to_vec().expect("it encodes")
}
