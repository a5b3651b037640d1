//! Netlink messages as bytes, and a socket to ask the kernel with: for `nftables` and the list of routes.
//!
//! Must not know any message type. Attribute layout: `linux/netlink.h`; lengths are checked on the way in, although
//! only the kernel answers here.

use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(super) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER_BYTES: usize = 16;
/// The kernel fills at most 32 KiB per datagram of a dump (`NLMSG_GOODSIZE` and its growth in `netlink_dump`).
const RECEIVE_BYTES: usize = 64 << 10;

/// A message under construction.
pub(super) struct Message {
    bytes: Vec<u8>,
}

/// Where a nested attribute began.
pub(super) struct Nest(usize);

impl Message {
    /// Header and the fixed part behind it.
    pub(super) fn new(kind: u16, flags: u16, sequence: u32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(fixed);
        Self { bytes }
    }

    /// An attribute with these bytes as value.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let nest = self.begin(kind);
        self.bytes.extend(value);
        self.close(nest, kind);
        self
    }

    /// A NUL-terminated string.
    pub(super) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A big-endian u32, as nfnetlink wants its numbers.
    pub(super) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute that `fill` puts attributes into.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let nest = self.begin(kind);
        fill(self);
        self.close(nest, kind | NLA_F_NESTED);
        self
    }

    /// The finished message, padded to its alignment.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).expect("a message we build is far below 4 GiB");
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes
    }

    fn begin(&mut self, kind: u16) -> Nest {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let nest = Nest(self.bytes.len());
        self.bytes.extend([0, 0]);
        self.bytes.extend(kind.to_ne_bytes());
        nest
    }

    fn close(&mut self, nest: Nest, kind: u16) {
        let len = u16::try_from(self.bytes.len() - nest.0).expect("our attributes are below 64 KiB");
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[nest.0 + 2..nest.0 + 4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Adds flags to the finished message that these bytes begin with.
pub(super) fn add_flags(bytes: &mut [u8], flags: u16) {
    let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) | flags;
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
}

/// The attributes in some bytes: (type without flags, value). Stops at the first that does not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of one attribute.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A string attribute's text, up to its NUL.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A netlink socket. Blocking; one question at a time.
pub(super) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// A socket to one netlink family: `rustix::net::netlink::NETFILTER`, `None` for rtnetlink.
    pub(super) fn open(protocol: Option<Protocol>) -> std::io::Result<Self> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // A large rule set is one datagram; what is over the limit of the host counts for root only.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&fd, 4 << 20);
        Ok(Self { fd })
    }

    /// Sends messages in one datagram and waits until the one numbered `last` is acknowledged.
    pub(super) fn transact(&self, datagram: &[u8], last: u32) -> std::io::Result<()> {
        self.send(datagram)?;
        loop {
            for (kind, sequence, body) in messages(&self.receive()?) {
                if kind != NLMSG_ERROR {
                    continue;
                }
                error_of(body)?;
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// Sends one dump request and hands each answer's fixed part and attributes to `each`.
    pub(super) fn dump(&self, request: &[u8], mut each: impl FnMut(&[u8])) -> std::io::Result<()> {
        self.send(request)?;
        loop {
            for (kind, _, body) in messages(&self.receive()?) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => error_of(body)?,
                    _ => each(body),
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> std::io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, datagram, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    fn receive(&self) -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (len, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
        buffer.truncate(len);
        Ok(buffer)
    }
}

/// The messages of a datagram: (type, sequence, what is behind the header).
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.first_chunk::<HEADER_BYTES>()?;
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        let body = bytes.get(HEADER_BYTES..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, sequence, body))
    })
}

/// The outcome in an `NLMSG_ERROR`: a negative errno or 0.
fn error_of(body: &[u8]) -> std::io::Result<()> {
    let code = body.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
    if code == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(code.saturating_neg())) }
}
