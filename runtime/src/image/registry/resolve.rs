//! Names to addresses without libc: literal addresses, the hosts file, then the name servers of resolv.conf.
//!
//! getaddrinfo would load the host's name service modules into a static binary; see the design's dependency rules.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

/// Name servers and search domains used at most.
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
/// Addresses taken from one answer.
const ADDRESSES_MAX: usize = 16;
/// Wait for one answer of one server.
const ANSWER_WAIT: Duration = Duration::from_millis(1_500);
/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PORT: u16 = 53;

/// Where names are looked up.
pub(super) struct Resolver {
    pub(super) hosts_file: PathBuf,
    pub(super) resolv_conf: PathBuf,
}

/// Why there is no address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// The name servers say that the name does not exist.
    Unknown,
    /// No name server answered usefully: it may pass.
    NoAnswer(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Servers {
    addresses: Vec<IpAddr>,
    search: Vec<String>,
}

impl Resolver {
    /// Addresses of a host, best first; IPv4 before IPv6.
    pub(super) fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, NoAddress> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let listed = hosts(&read(&self.hosts_file), host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let servers = servers(&read(&self.resolv_conf));
        let mut names = vec![host.to_owned()];
        if !host.contains('.') {
            names.splice(0..0, servers.search.iter().map(|domain| format!("{host}.{domain}")));
        }
        let mut last = NoAddress::Unknown;
        for name in names {
            match ask_all(&servers.addresses, &name) {
                Ok(found) => return Ok(found),
                Err(why) => last = why,
            }
        }
        Err(last)
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = std::fs::File::open(path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// hosts(5): address, then names.
fn hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
    let mut found: Vec<IpAddr> = lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        })
        .take(ADDRESSES_MAX)
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// resolv.conf(5): `nameserver`, and the last of `search` and `domain`.
fn servers(text: &str) -> Servers {
    let mut found = Servers::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => found.addresses.extend(words.next().and_then(|a| a.parse::<IpAddr>().ok())),
            Some("search" | "domain") => found.search = words.take(SEARCH_MAX).map(str::to_owned).collect(),
            _ => {}
        }
    }
    found.addresses.truncate(SERVERS_MAX);
    if found.addresses.is_empty() {
        found.addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    found
}

fn ask_all(servers: &[IpAddr], host: &str) -> Result<Vec<IpAddr>, NoAddress> {
    let name = Name::from_ascii(format!("{}.", host.trim_end_matches('.')))
        .map_err(|e| NoAddress::NoAnswer(format!("it is no DNS name: {e}")))?;
    let mut why = String::new();
    for server in servers {
        let both = ask(*server, &name, RecordType::A).and_then(|mut found| {
            // IPv6 is a bonus: its failure does not matter when there is an IPv4 address
            match ask(*server, &name, RecordType::AAAA) {
                Ok(more) => found.extend(more),
                Err(e) if found.is_empty() => return Err(e),
                Err(_) => {}
            }
            Ok(found)
        });
        match both {
            Ok(found) if found.is_empty() => return Err(NoAddress::Unknown),
            Ok(found) => return Ok(found),
            Err(e) => why = format!("name server {server}: {e}"),
        }
    }
    Err(NoAddress::NoAnswer(why))
}

/// One question to one server; an empty list when the name or the type does not exist.
fn ask(server: IpAddr, name: &Name, kind: RecordType) -> std::io::Result<Vec<IpAddr>> {
    let id = query_id()?;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let query = message.to_vec().map_err(std::io::Error::other)?;
    let mut answer = over_udp(server, &query, id)?;
    if answer.metadata.truncation {
        answer = over_tcp(server, &query, id)?;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(std::io::Error::other(format!("answered {code}"))),
    }
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    });
    Ok(addresses.take(ADDRESSES_MAX).collect())
}

/// Hard to guess, so that an answer cannot be forged blindly (RFC 5452); the port is the kernel's choice.
fn query_id() -> std::io::Result<u16> {
    let mut bytes = [0; 2];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

fn over_udp(server: IpAddr, query: &[u8], id: u16) -> std::io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(SocketAddr::new(server, PORT))?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    socket.send(query)?;
    let mut buffer = [0; 4096];
    // a stray or forged datagram is passed over; each read has its own deadline, so their number is bounded
    for _ in 0..4 {
        let n = socket.recv(&mut buffer)?;
        if let Some(message) = matching(&buffer[..n], query, id) {
            return Ok(message);
        }
    }
    Err(std::io::Error::other("answered nonsense"))
}

fn over_tcp(server: IpAddr, query: &[u8], id: u16) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, PORT), ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    let len = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], query].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut buffer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut buffer)?;
    matching(&buffer, query, id).ok_or_else(|| std::io::Error::other("answered nonsense"))
}

/// The answer to exactly this question.
fn matching(bytes: &[u8], query: &[u8], id: u16) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let asked = Message::from_vec(query).ok()?;
    let fits = message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && message.queries == asked.queries;
    fits.then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_their_manual_pages_say() {
        let text =
            "127.0.0.1 localhost\n::1 Reg.example\n10.0.0.1 reg.example r # other.example\n# 1.1.1.1 reg.example";
        let found = hosts(text, "reg.example");
        assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert!(hosts(text, "other.example").is_empty());
        let conf = servers("# x\nnameserver 10.0.0.2\nsearch a.example b.example\nnameserver fe80::1%eth0\n");
        assert_eq!(conf.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!(servers("").addresses.len(), 1);
    }
}
