//! How a backend is dialled: with the client's own address where answers to it find their way back to us, so that the
//! container sees the real client and our ports do not run out; else with ours.
//!
//! Must not know flows or ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{IpBindAddressNoPort, IpTransparent};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::network::ipam::Subnet;

/// Tries in vain until borrowing ends.
const FAILURES_MAX: u32 = 3;

/// The subnets whose containers can be dialled with a foreign source address.
#[derive(Debug, Default)]
pub(super) struct Borrowing {
    subnets: Vec<Subnet>,
    /// In a row, without a success between.
    failures: u32,
}

impl Borrowing {
    /// As `network` found them.
    pub(super) fn new(subnets: Vec<Subnet>) -> Self {
        Self { subnets, failures: 0 }
    }

    /// A backend answered to a borrowed address.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }

    /// A backend did not answer to a borrowed address. Once may be its own fault; soon it is ours: somebody took down
    /// the way back, and it is better to go without until the next table.
    pub(super) fn failed(&mut self) {
        self.failures += 1;
        if self.failures == FAILURES_MAX && !self.subnets.is_empty() {
            tracing::warn!("answers to clients' own addresses do not come back; dialling with the bridge's");
            self.subnets.clear();
        }
    }

    /// The client's address, when it may be the source of a connection to this backend. Not that of a neighbour of the
    /// backend: the answer would go straight to it. Not one of loopback: it never leaves the host.
    pub(super) fn source(&self, client: &OwnedFd, backend: SocketAddr) -> Option<Ipv4Addr> {
        let SocketAddr::V4(backend) = backend else { return None };
        let subnet = self.subnets.iter().find(|subnet| subnet.contains(*backend.ip()))?;
        let peer = SocketAddr::try_from(rustix::net::getpeername(client).ok()??).ok()?;
        let IpAddr::V4(peer) = peer.ip().to_canonical() else { return None };
        (!peer.is_loopback() && !subnet.contains(peer)).then_some(peer)
    }
}

/// Begins a connection to a backend.
pub(super) fn connect(address: SocketAddr, source: Option<Ipv4Addr>) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(source) = source {
        let errno = |e: nix::errno::Errno| Errno::from_raw_os_error(e as i32);
        setsockopt(&socket, IpTransparent, &true).map_err(errno)?;
        // The port is chosen by connect, where it need be unique for this backend only.
        setsockopt(&socket, IpBindAddressNoPort, &true).map_err(errno)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(other) => Err(other),
    }
}
