//! Datagrams with both their addresses: who sent one, and which of the host's addresses it was sent to. On a port that is
//! bound to all addresses an answer must come from the one that was asked, or its client does not know it (RFC 1122 4.1.3.5).

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};

/// One datagram, or, without its bytes, the two addresses of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) peer: SocketAddr,
    /// Where it was sent to.
    pub(super) local: Option<IpAddr>,
    pub(super) bytes: Vec<u8>,
}

impl Packet {
    /// The addresses alone.
    pub(super) fn head(&self) -> Self {
        Self { peer: self.peer, local: self.local, bytes: Vec::new() }
    }

    /// The addresses as text, for a successor.
    pub(super) fn to_text(&self) -> String {
        self.local.map_or_else(|| self.peer.to_string(), |local| format!("{} {local}", self.peer))
    }

    /// What [`Packet::to_text`] says.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (peer, local) = text.split_once(' ').map_or((text, None), |(peer, local)| (peer, Some(local)));
        let local = local.map(str::parse).transpose().ok()?;
        Some(Self { peer: peer.parse().ok()?, local, bytes: Vec::new() })
    }
}

/// Asks the kernel for the destination of each datagram (ip(7) `IP_PKTINFO`, ipv6(7) `IPV6_RECVPKTINFO`).
pub(super) fn want_destination(socket: &OwnedFd, address: SocketAddr) -> std::io::Result<()> {
    if address.is_ipv4() {
        setsockopt(socket, Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
    }
    Ok(())
}

/// The next datagram; `None` when there is none. `buffer` has room for the longest.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> std::io::Result<Option<Packet>> {
    let mut space = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT);
    let message = match received {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        _ => None,
    });
    let peer = message.address.as_ref().and_then(socket_address);
    let len = message.bytes;
    let peer = peer.ok_or_else(|| std::io::Error::other("a datagram of nobody"))?;
    Ok(Some(Packet { peer, local, bytes: buffer[..len].to_vec() }))
}

/// Answers a client from the address it wrote to. What cannot be sent is lost, as datagrams are.
pub(super) fn answer(socket: &OwnedFd, client: &Packet, bytes: &[u8]) {
    let to = SockaddrStorage::from(client.peer);
    let parts = [IoSlice::new(bytes)];
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_DONTWAIT, Some(&to))
    };
    let sent = match client.local {
        Some(IpAddr::V4(local)) => {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(local)) => {
            let address = libc::in6_addr { s6_addr: local.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
        None => send(&[]),
    };
    if let Err(error) = sent {
        tracing::debug!(client = %client.peer, %error, "an answer is lost");
    }
}

fn socket_address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in ["10.0.0.2:5000", "10.0.0.2:5000 192.168.1.1", "[fe80::1]:53 ::1"] {
            assert_eq!(Packet::from_text(text).map(|packet| packet.to_text()), Some(text.to_owned()));
        }
        assert_eq!(Packet::from_text("10.0.0.2"), None);
    }

    #[test]
    fn an_answer_comes_from_the_address_that_was_asked() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let socket = OwnedFd::from(socket);
        want_destination(&socket, "0.0.0.0:0".parse().unwrap()).unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(("127.0.0.7", port)).unwrap();
        client.send(b"who").unwrap();
        let mut buffer = vec![0; 100];
        let asked = receive(&socket, &mut buffer).unwrap().unwrap();
        assert_eq!((asked.bytes.as_slice(), asked.local), (&b"who"[..], Some("127.0.0.7".parse().unwrap())));
        assert_eq!(receive(&socket, &mut buffer).unwrap(), None);
        answer(&socket, &asked, b"me");
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        // connected: an answer from another address would not be taken
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"me");
    }
}
