//! DNS for containers: their sockets, made inside their network namespaces, and who waits on which.
//!
//! `answer` decides (pure), `upstream` asks the host's resolvers, `stream` frames. A container is told apart by the
//! socket its question came by, which it cannot forge. Must not know ports or the control socket.

pub(super) mod answer;
mod stream;
mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::fd_store::FdStore;
use super::handover::Parcel;
use super::poller::{Interest, Kind, Poller, Token};
use crate::Result;
use crate::clock::boot_ms;
use crate::error::Doing;
use crate::id::ContainerId;
use answer::{Answer, Names, Transport};
use stream::{DnsStream, Over};
use upstream::{Asker, Settled, Upstream};

/// How the fd store names a container's sockets.
const STORE_PREFIX: &str = "dns/";
/// Datagrams of one container answered before others have their turn.
const TURN: usize = 64;
/// Longest question over UDP: more than EDNS clients announce.
const QUESTION_BYTES: usize = 4_096;
/// Connections of one container at once; the oldest goes when there is another.
const PEERS_MAX: usize = 32;
/// An idle connection is closed after this (RFC 7766 §6.2.3 leaves it to the server).
const PEER_IDLE_MS: u64 = 10_000;

struct Server {
    id: ContainerId,
    udp: OwnedFd,
    tcp: OwnedFd,
    peers: Vec<u64>,
}

struct Peer {
    server: u64,
    stream: DnsStream,
    until: u64,
}

/// DNS for all containers.
pub(super) struct Dns {
    names: Names,
    servers: HashMap<u64, Server>,
    ids: BTreeMap<ContainerId, u64>,
    peers: HashMap<u64, Peer>,
    upstream: Upstream,
    turn: usize,
}

impl Dns {
    /// No containers yet. Unknown names go to the resolvers that `resolv_conf` names.
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        Self {
            names: Names::default(),
            servers: HashMap::new(),
            ids: BTreeMap::new(),
            peers: HashMap::new(),
            upstream: Upstream::new(resolv_conf),
            turn: 0,
        }
    }

    /// Takes over the sockets that the store holds.
    pub(super) fn inherit(&mut self, poller: &mut Poller, store: &mut dyn FdStore) -> Result<()> {
        for (name, fds) in store.get_prefix(STORE_PREFIX)? {
            let id = name.strip_prefix(STORE_PREFIX).and_then(|id| id.parse::<ContainerId>().ok());
            if let (Some(id), Ok([udp, tcp])) = (id, <[OwnedFd; 2]>::try_from(fds)) {
                self.serve(poller, id, udp, tcp)?;
            }
        }
        Ok(())
    }

    /// Puts other names in force.
    pub(super) fn set(&mut self, names: Names) {
        self.names = names;
    }

    /// Serves a container from now on.
    pub(super) fn add(
        &mut self,
        poller: &mut Poller,
        store: &mut dyn FdStore,
        id: ContainerId,
        udp: OwnedFd,
        tcp: OwnedFd,
    ) -> Result<()> {
        if let Err(e) = store.put(&format!("{STORE_PREFIX}{id}"), &[&udp, &tcp]) {
            tracing::warn!("names of {id} would not survive the switchboard: {}", crate::error::chain(&e));
        }
        self.serve(poller, id, udp, tcp)
    }

    /// Closes a container's sockets, here and in the store.
    pub(super) fn remove(&mut self, poller: &mut Poller, store: &mut dyn FdStore, id: &ContainerId) -> Result<()> {
        self.close(poller, id);
        store.remove(&format!("{STORE_PREFIX}{id}"))
    }

    /// A UDP socket has questions.
    pub(super) fn datagrams(&mut self, poller: &mut Poller, server: u64) {
        for _ in 0..TURN {
            let Some(of) = self.servers.get(&server) else { return };
            let mut buffer = [0; QUESTION_BYTES];
            let (len, from) = match rustix::net::recvfrom(&of.udp, &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _, Some(from))) => (len, from),
                Ok(_) | Err(Errno::INTR | Errno::CONNREFUSED) => continue,
                Err(_) => return,
            };
            let Ok(from) = SocketAddr::try_from(from) else { continue };
            let packet = &buffer[..len];
            self.turn = self.turn.wrapping_add(1);
            match self.names.answer(&of.id, packet, self.turn, Transport::Udp) {
                Answer::Ignore => {}
                Answer::Reply(reply) => send(of, &reply, from),
                Answer::Forward => {
                    let settled = self.upstream.ask(poller, Asker::Udp { server, from }, packet.to_vec());
                    self.settle(poller, settled);
                }
            }
        }
    }

    /// A TCP socket has connections.
    pub(super) fn accept(&mut self, poller: &mut Poller, server: u64) {
        for _ in 0..TURN {
            let Some(of) = self.servers.get_mut(&server) else { return };
            let Ok(fd) = rustix::net::accept_with(&of.tcp, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else {
                return;
            };
            self.begin(poller, server, DnsStream::new(fd));
        }
    }

    fn begin(&mut self, poller: &mut Poller, server: u64, stream: DnsStream) {
        let Some(of) = self.servers.get_mut(&server) else { return };
        let token = Token { kind: Kind::DnsPeer, id: poller.fresh_id() };
        if poller.watch(&stream.fd, token, Interest::Changes).is_err() {
            return;
        }
        of.peers.push(token.id);
        let oldest = (of.peers.len() > PEERS_MAX).then(|| of.peers[0]);
        let until = boot_ms() + PEER_IDLE_MS;
        poller.arm(until, token);
        self.peers.insert(token.id, Peer { server, stream, until });
        if let Some(oldest) = oldest {
            self.hang_up(poller, oldest);
        }
        self.converse(poller, token.id);
    }

    /// Every connection as it is, for the next switchboard; none is left here.
    pub(super) fn pack(&mut self) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        for (id, peer) in self.peers.drain() {
            let Some(of) = self.servers.get(&peer.server) else { continue };
            match peer.stream.into_parts(self.upstream.unanswered(id)) {
                Ok(fds) => parcels.push(Parcel::Names(of.id.to_string(), fds)),
                Err(error) => tracing::warn!(container = %of.id, %error, "a connection for names is lost"),
            }
        }
        parcels
    }

    /// Goes on with the connections of an earlier switchboard. Names and sockets must be there already.
    pub(super) fn unpack(&mut self, poller: &mut Poller, parcels: Vec<Parcel>) {
        for parcel in parcels {
            if let Parcel::Names(container, fds) = parcel
                && let Some(server) = container.parse().ok().and_then(|id: ContainerId| self.ids.get(&id).copied())
                && let Some(stream) = DnsStream::from_parts(fds)
            {
                self.begin(poller, server, stream);
            }
        }
    }

    /// A connection woke.
    pub(super) fn converse(&mut self, poller: &mut Poller, peer: u64) {
        if self.read_questions(poller, peer).is_err() {
            self.hang_up(poller, peer);
        }
    }

    /// Closes a connection: it was idle for too long, or is over.
    pub(super) fn hang_up(&mut self, poller: &mut Poller, peer: u64) {
        if let Some(gone) = self.peers.remove(&peer) {
            poller.disarm(gone.until, Token { kind: Kind::DnsPeer, id: peer });
            if let Some(server) = self.servers.get_mut(&gone.server) {
                server.peers.retain(|id| *id != peer);
            }
        }
    }

    /// A resolver's socket woke.
    pub(super) fn upstream_event(&mut self, poller: &mut Poller, id: u64) {
        let settled = self.upstream.event(poller, id);
        self.settle(poller, settled);
    }

    /// A resolver took too long.
    pub(super) fn upstream_expired(&mut self, poller: &mut Poller, id: u64) {
        let settled = self.upstream.expired(poller, id);
        self.settle(poller, settled);
    }

    /// Whether no question is on its way to a resolver.
    pub(super) fn is_idle(&self) -> bool {
        self.upstream.is_idle()
    }

    fn serve(&mut self, poller: &mut Poller, id: ContainerId, udp: OwnedFd, tcp: OwnedFd) -> Result<()> {
        let doing = || format!("serve names to {id}");
        self.close(poller, &id);
        rustix::io::ioctl_fionbio(&udp, true).and_then(|()| rustix::io::ioctl_fionbio(&tcp, true)).doing(doing)?;
        let key = poller.fresh_id();
        poller.watch(&udp, Token { kind: Kind::DnsUdp, id: key }, Interest::Read).doing(doing)?;
        poller.watch(&tcp, Token { kind: Kind::DnsTcp, id: key }, Interest::Read).doing(doing)?;
        self.ids.insert(id.clone(), key);
        self.servers.insert(key, Server { id, udp, tcp, peers: Vec::new() });
        Ok(())
    }

    fn close(&mut self, poller: &mut Poller, id: &ContainerId) {
        let Some(key) = self.ids.remove(id) else { return };
        let Some(server) = self.servers.remove(&key) else { return };
        poller.forget(&server.udp);
        poller.forget(&server.tcp);
        for peer in server.peers {
            self.hang_up(poller, peer);
        }
        self.upstream.drop_of(poller, key);
    }

    fn read_questions(&mut self, poller: &mut Poller, id: u64) -> std::result::Result<(), Over> {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
            peer.stream.flush()?;
            let Some(packet) = peer.stream.next()? else {
                let over = peer.stream.has_ended() && !self.upstream.has_asker(id);
                return if over { Err(Over) } else { Ok(()) };
            };
            let token = Token { kind: Kind::DnsPeer, id };
            poller.disarm(peer.until, token);
            peer.until = boot_ms() + PEER_IDLE_MS;
            poller.arm(peer.until, token);
            let server = peer.server;
            let Some(of) = self.servers.get(&server) else { return Err(Over) };
            self.turn = self.turn.wrapping_add(1);
            match self.names.answer(&of.id, &packet, self.turn, Transport::Tcp) {
                Answer::Ignore => return Err(Over),
                Answer::Reply(reply) => peer.stream.push(&reply)?,
                Answer::Forward => {
                    let settled = self.upstream.ask(poller, Asker::Tcp { server, peer: id }, packet);
                    self.settle(poller, settled);
                }
            }
        }
    }

    fn settle(&mut self, poller: &mut Poller, settled: Option<Settled>) {
        match settled {
            None => {}
            Some((Asker::Udp { server, from }, packet)) => {
                if let Some(of) = self.servers.get(&server) {
                    send(of, &packet, from);
                }
            }
            Some((Asker::Tcp { peer: id, .. }, packet)) => {
                let Some(peer) = self.peers.get_mut(&id) else { return };
                let sent = peer.stream.push(&packet).and_then(|()| peer.stream.flush());
                if sent.is_err() || peer.stream.has_ended() && !self.upstream.has_asker(id) {
                    self.hang_up(poller, id);
                }
            }
        }
    }
}

/// A full socket drops the answer, as networks may; the client asks again.
fn send(server: &Server, packet: &[u8], to: SocketAddr) {
    let _ = rustix::net::sendto(&server.udp, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT, &to);
}
