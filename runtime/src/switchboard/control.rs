//! The control socket: connections, frames and descriptors in, requests out, answers back. Never blocks.
//!
//! Who may connect is decided by the run directory (mode 0700). Must not know what a request does.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::poller::{Interest, Kind, Poller, Token};
use super::wire::{Request, Response, body_len, encode, receive_with_fds};
use crate::Result;
use crate::error::Doing;
use crate::layout::Layout;

/// Connections at once. The runtime and the supervisor have one each, for moments.
const PEERS_MAX: usize = 64;
/// Bytes taken at once.
const READ_BYTES: usize = 64 << 10;

struct Peer {
    socket: OwnedFd,
    inbound: Vec<u8>,
    fds: Vec<OwnedFd>,
    outbound: Vec<u8>,
}

/// The listening socket and its connections.
pub(super) struct Control {
    socket: OwnedFd,
    peers: HashMap<u64, Peer>,
}

/// The connection is over, or said something that is not ours.
struct Over;

impl Control {
    /// Listens in the run directory. Whoever listened there before is dead: the keeper runs one switchboard at a time.
    pub(super) fn bind(layout: &Layout, poller: &Poller) -> Result<Self> {
        let path = layout.socket("switchboard");
        let doing = || format!("listen on {}", path.display());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).doing(doing)?;
        let next = path.with_extension("sock.new");
        let _ = std::fs::remove_file(&next);
        rustix::net::bind(&socket, &SocketAddrUnix::new(&next).doing(doing)?).doing(doing)?;
        rustix::net::listen(&socket, 64).doing(doing)?;
        // By rename, so that a client finds either the old socket or one that listens.
        std::fs::rename(&next, &path).doing(doing)?;
        poller.watch(&socket, Token { kind: Kind::Control, id: 0 }, Interest::Read).doing(doing)?;
        Ok(Self { socket, peers: HashMap::new() })
    }

    /// Takes a new connection.
    pub(super) fn accept(&mut self, poller: &mut Poller) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.socket, flags) else { return };
        let token = Token { kind: Kind::ControlPeer, id: poller.fresh_id() };
        if self.peers.len() < PEERS_MAX && poller.watch(&socket, token, Interest::Changes).is_ok() {
            let peer = Peer { socket, inbound: Vec::new(), fds: Vec::new(), outbound: Vec::new() };
            self.peers.insert(token.id, peer);
        }
    }

    /// The requests that are complete now, with the descriptors that came with them.
    pub(super) fn requests(&mut self, id: u64) -> Vec<(Request, Vec<OwnedFd>)> {
        let Some(peer) = self.peers.get_mut(&id) else { return Vec::new() };
        let mut requests = Vec::new();
        let outcome = peer.flush().and_then(|()| peer.read(&mut requests));
        if outcome.is_err() {
            self.peers.remove(&id);
        }
        requests
    }

    /// Answers a request.
    pub(super) fn respond(&mut self, id: u64, response: &Response) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Ok(frame) = encode(response) else { return };
        peer.outbound.extend(frame);
        if peer.flush().is_err() {
            self.peers.remove(&id);
        }
    }
}

impl Peer {
    fn read(&mut self, requests: &mut Vec<(Request, Vec<OwnedFd>)>) -> std::result::Result<(), Over> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match receive_with_fds(&self.socket, &mut buffer, &mut self.fds) {
                Ok(0) => return Err(Over),
                Ok(count) => self.inbound.extend(&buffer[..count]),
                Err(e) if e.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Over),
            }
            while let Some(len) = body_len(&self.inbound).map_err(|_| Over)? {
                let Some(body) = self.inbound.get(4..4 + len) else { break };
                let request = serde_json::from_slice(body).map_err(|_| Over)?;
                self.inbound.drain(..4 + len);
                requests.push((request, std::mem::take(&mut self.fds)));
            }
        }
    }

    fn flush(&mut self) -> std::result::Result<(), Over> {
        while !self.outbound.is_empty() {
            match rustix::net::send(&self.socket, &self.outbound, SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.outbound.drain(..count)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }
}
