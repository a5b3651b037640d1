//! Questions that go on to the host's resolvers: one connected socket each, own ids, a deadline, the next resolver when
//! one does not answer. Packets go through as they are but for the id.
//!
//! Must not know names or who asked beyond an [`Asker`].

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use hickory_proto::op::ResponseCode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::answer::{Transport, failure, question_bytes};
use super::stream::DnsStream;
use crate::clock::boot_ms;
use crate::switchboard::poller::{Interest, Kind, Poller, Token};

/// How long a client waits in all; its own patience is 5 s (resolv.conf(5), `timeout`).
const DEADLINE_MS: u64 = 5_000;
/// How long one resolver has before the next is asked.
const TRY_MS: u64 = 1_500;
/// Questions on their way at once, of all containers. Beyond, they are refused: a flood ends here.
const PENDING_MAX: usize = 1_024;
/// And of one container.
const PENDING_OF_ONE_MAX: usize = 128;
/// Resolvers used (resolv.conf(5), MAXNS).
const SERVERS_MAX: usize = 3;
/// Longest datagram accepted from a resolver.
const DATAGRAM_BYTES: usize = 65_535;

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A datagram to a container's UDP socket, from this address.
    Udp {
        /// The socket's id.
        server: u64,
        /// Where the answer goes.
        from: SocketAddr,
    },
    /// A connection to a container's TCP socket.
    Tcp {
        /// The TCP socket's id: whose container it is.
        server: u64,
        /// The connection's id.
        peer: u64,
    },
}

impl Asker {
    fn server(&self) -> u64 {
        match self {
            Self::Udp { server, .. } | Self::Tcp { server, .. } => *server,
        }
    }

    fn transport(&self) -> Transport {
        match self {
            Self::Udp { .. } => Transport::Udp,
            Self::Tcp { .. } => Transport::Tcp,
        }
    }
}

/// A finished question: who asked, and the packet for them.
pub(super) type Settled = (Asker, Vec<u8>);

enum Channel {
    Udp(OwnedFd),
    Tcp(DnsStream),
}

struct Question {
    asker: Asker,
    packet: Vec<u8>,
    /// The id on the wire to the resolver; the asker's own is in `packet`.
    id: [u8; 2],
    channel: Channel,
    tries: usize,
    give_up_at: u64,
    wake_at: u64,
}

/// All questions on their way.
pub(super) struct Upstream {
    questions: HashMap<u64, Question>,
    resolvers: Resolvers,
    random: RandomState,
}

impl Upstream {
    /// Asks the resolvers that this file names (`/etc/resolv.conf`).
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        let resolvers = Resolvers { path: resolv_conf, stamp: None, servers: Vec::new() };
        Self { questions: HashMap::new(), resolvers, random: RandomState::new() }
    }

    /// Sends a question on. An answer at once means nobody could be asked.
    pub(super) fn ask(&mut self, poller: &mut Poller, asker: Asker, packet: Vec<u8>) -> Option<Settled> {
        let of_one = self.questions.values().filter(|q| q.asker.server() == asker.server()).count();
        if self.questions.len() >= PENDING_MAX || of_one >= PENDING_OF_ONE_MAX {
            let refusal = failure(&packet, ResponseCode::Refused);
            return Some((asker, refusal));
        }
        let give_up_at = boot_ms() + DEADLINE_MS;
        self.attempt(poller, asker, packet, 0, give_up_at)
    }

    /// A resolver's socket woke.
    pub(super) fn event(&mut self, poller: &mut Poller, id: u64) -> Option<Settled> {
        let question = self.questions.get_mut(&id)?;
        match receive(question) {
            Ok(None) => None,
            Ok(Some(mut answer)) => {
                answer[..2].copy_from_slice(&question.packet[..2]);
                let question = self.forget(poller, id)?;
                Some((question.asker, answer))
            }
            Err(()) => self.retry(poller, id),
        }
    }

    /// A resolver took too long.
    pub(super) fn expired(&mut self, poller: &mut Poller, id: u64) -> Option<Settled> {
        self.retry(poller, id)
    }

    /// Whether no question is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.questions.is_empty()
    }

    /// Whether a connection still waits for an answer.
    pub(super) fn has_asker(&self, peer: u64) -> bool {
        self.unanswered(peer).next().is_some()
    }

    /// What a connection still waits to be answered, as it was asked.
    pub(super) fn unanswered(&self, peer: u64) -> impl Iterator<Item = &[u8]> {
        let of = move |q: &&Question| matches!(q.asker, Asker::Tcp { peer: p, .. } if p == peer);
        self.questions.values().filter(of).map(|q| q.packet.as_slice())
    }

    /// Forgets the questions of a container that is gone.
    pub(super) fn drop_of(&mut self, poller: &mut Poller, server: u64) {
        let ids: Vec<u64> =
            self.questions.iter().filter(|(_, q)| q.asker.server() == server).map(|(id, _)| *id).collect();
        for id in ids {
            self.forget(poller, id);
        }
    }

    fn forget(&mut self, poller: &mut Poller, id: u64) -> Option<Question> {
        let question = self.questions.remove(&id)?;
        poller.disarm(question.wake_at, Token { kind: Kind::Upstream, id });
        Some(question)
    }

    fn retry(&mut self, poller: &mut Poller, id: u64) -> Option<Settled> {
        let question = self.forget(poller, id)?;
        self.attempt(poller, question.asker, question.packet, question.tries, question.give_up_at)
    }

    fn attempt(
        &mut self,
        poller: &mut Poller,
        asker: Asker,
        packet: Vec<u8>,
        mut tries: usize,
        give_up_at: u64,
    ) -> Option<Settled> {
        let servers = self.resolvers.current();
        if servers.is_empty() {
            return Some((asker, failure(&packet, ResponseCode::Refused)));
        }
        // Each one twice, as resolv.conf(5)'s `attempts` has it.
        while tries < servers.len() * 2 && boot_ms() < give_up_at {
            let server = servers[tries % servers.len()];
            tries += 1;
            let id = self.random.build_hasher().finish_with(poller.fresh_id());
            let Ok(channel) = open(server, asker.transport(), &packet, id) else { continue };
            let token = Token { kind: Kind::Upstream, id: poller.fresh_id() };
            let fd = match &channel {
                Channel::Udp(fd) => fd,
                Channel::Tcp(stream) => &stream.fd,
            };
            if poller.watch(fd, token, Interest::Changes).is_err() {
                continue;
            }
            let wake_at = give_up_at.min(boot_ms() + TRY_MS);
            poller.arm(wake_at, token);
            self.questions.insert(token.id, Question { asker, packet, id, channel, tries, give_up_at, wake_at });
            return None;
        }
        let failed = failure(&packet, ResponseCode::ServFail);
        Some((asker, failed))
    }
}

/// A message id that an off-path attacker cannot guess: a keyed hash (the keys are random) of a counter.
trait FinishWith {
    fn finish_with(self, counter: u64) -> [u8; 2];
}

impl FinishWith for std::hash::DefaultHasher {
    fn finish_with(mut self, counter: u64) -> [u8; 2] {
        self.write_u64(counter);
        let hash = self.finish().to_be_bytes();
        [hash[0], hash[1]]
    }
}

/// A connected socket with the question sent: the kernel picks a random source port and drops what others send.
fn open(server: SocketAddr, via: Transport, packet: &[u8], id: [u8; 2]) -> Result<Channel, Errno> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match via {
        Transport::Udp => SocketType::DGRAM,
        Transport::Tcp => SocketType::STREAM,
    };
    let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match rustix::net::connect(&fd, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(other) => return Err(other),
    }
    let mut question = packet.to_vec();
    question[..2].copy_from_slice(&id);
    match via {
        Transport::Udp => {
            rustix::net::send(&fd, &question, SendFlags::NOSIGNAL)?;
            Ok(Channel::Udp(fd))
        }
        Transport::Tcp => {
            let mut stream = DnsStream::new(fd);
            stream.push(&question).and_then(|()| stream.flush()).map_err(|_| Errno::PIPE)?;
            Ok(Channel::Tcp(stream))
        }
    }
}

/// The answer, if it is there; `Err` when this resolver will not give one. Answers to something else are passed over.
fn receive(question: &mut Question) -> Result<Option<Vec<u8>>, ()> {
    loop {
        let answer = match &mut question.channel {
            Channel::Udp(fd) => {
                let mut buffer = vec![0; DATAGRAM_BYTES];
                match rustix::net::recv(&*fd, &mut buffer[..], RecvFlags::empty()) {
                    Ok((count, _)) => {
                        buffer.truncate(count);
                        buffer
                    }
                    Err(Errno::AGAIN) => return Ok(None),
                    Err(Errno::INTR) => continue,
                    Err(_) => return Err(()),
                }
            }
            Channel::Tcp(stream) => {
                stream.flush().map_err(|_| ())?;
                match stream.next().map_err(|_| ())? {
                    Some(answer) => answer,
                    None if stream.has_ended() => return Err(()),
                    None => return Ok(None),
                }
            }
        };
        let is_answer = answer.len() >= 12 && answer[..2] == question.id && answer[2] & 0x80 != 0;
        let asked = question_bytes(&question.packet).map(<[u8]>::to_ascii_lowercase);
        if is_answer && question_bytes(&answer).is_none_or(|q| Some(q.to_ascii_lowercase()) == asked) {
            return Ok(Some(answer));
        }
    }
}

/// The host's resolvers, read again when their file changed.
struct Resolvers {
    path: PathBuf,
    stamp: Option<(SystemTime, u64)>,
    servers: Vec<SocketAddr>,
}

impl Resolvers {
    fn current(&mut self) -> Vec<SocketAddr> {
        let stamp = std::fs::metadata(&self.path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        if stamp.is_none() || stamp != self.stamp {
            self.stamp = stamp;
            self.servers = parse(&std::fs::read_to_string(&self.path).unwrap_or_default());
        }
        self.servers.clone()
    }
}

/// The `nameserver` lines of resolv.conf(5).
fn parse(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = (words.next()? == "nameserver").then(|| words.next())??.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    addresses.take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_of_resolv_conf() {
        let text =
            "# x\nsearch a\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver ::1\n nameserver 1.1.1.1 # c\n";
        let servers: Vec<String> = parse(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "1.1.1.1:53"]);
    }
}
