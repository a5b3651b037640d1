//! Encoding and decoding of the few rtnetlink messages in use. Pure: bytes in, bytes out.
//!
//! Layouts: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`, `linux/veth.h`, `linux/fib_rules.h`.

use std::io;

/// The far end of a veth pair (`linux/veth.h`).
pub(super) const VETH_INFO_PEER: u16 = 1;
/// `IFLA_PROTINFO` of `linux/if_link.h`.
pub(super) const IFLA_PROTINFO: u16 = 12;
/// `IFLA_BRPORT_MODE` of `linux/if_link.h`: a frame may leave by the port it came in by.
pub(super) const BRPORT_HAIRPIN: u16 = 4;
/// `IFLA_BRPORT_LEARNING` of `linux/if_link.h`.
pub(super) const BRPORT_LEARNING: u16 = 8;
/// `IFLA_BRPORT_LOCKED` of `linux/if_link.h`.
pub(super) const BRPORT_LOCKED: u16 = 39;
/// The mark a rule matches (`linux/fib_rules.h`).
pub(super) const FRA_FWMARK: u16 = 10;
/// `FRA_PRIORITY` of `linux/fib_rules.h`.
pub(super) const FRA_PRIORITY: u16 = 6;
/// The table a rule leads to (`linux/fib_rules.h`).
pub(super) const FRA_TABLE: u16 = 15;

const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// A request under construction; the netlink header is filled in by [`Message::finish`].
pub(super) struct Message {
    bytes: Vec<u8>,
    kind: u16,
    flags: u16,
}

impl Message {
    fn new(kind: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(fixed);
        Self { bytes, kind, flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16 }
    }

    /// `struct ifinfomsg`; `change` says which of `flags` are meant.
    pub(super) fn link(kind: u16, index: u32, flags: u32, change: u32) -> Self {
        Self::new(kind, &ifinfomsg(index, flags, change))
    }

    /// `struct ifinfomsg` of a bridge's port.
    pub(super) fn port(kind: u16, index: u32) -> Self {
        let mut fixed = ifinfomsg(index, 0, 0);
        fixed[0] = libc::AF_BRIDGE as u8;
        Self::new(kind, &fixed)
    }

    /// `struct ndmsg` of an entry that a bridge looks up on one of its ports and never forgets (`linux/neighbour.h`).
    pub(super) fn station(kind: u16, index: u32) -> Self {
        const NTF_MASTER: u8 = 4;
        let mut fixed = [0; 12];
        fixed[0] = libc::AF_BRIDGE as u8;
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..10].copy_from_slice(&libc::NUD_NOARP.to_ne_bytes());
        fixed[10] = NTF_MASTER;
        Self::new(kind, &fixed)
    }

    /// `struct ifaddrmsg` for IPv4.
    pub(super) fn address(kind: u16, index: u32, prefix_len: u8) -> Self {
        let mut fixed = [libc::AF_INET as u8, prefix_len, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        Self::new(kind, &fixed)
    }

    /// `struct ifaddrmsg` as the kernel told it.
    pub(super) fn any_address(kind: u16, fixed: &[u8; 8]) -> Self {
        Self::new(kind, fixed)
    }

    /// `struct rtmsg` for IPv4 in the main table, unless an RTA_TABLE attribute says otherwise.
    pub(super) fn route(kind: u16, prefix_len: u8, route_type: u8, scope: u8) -> Self {
        let table = libc::RT_TABLE_MAIN;
        let fixed = [libc::AF_INET as u8, prefix_len, 0, 0, table, libc::RTPROT_STATIC, scope, route_type, 0, 0, 0, 0];
        Self::new(kind, &fixed)
    }

    /// `struct fib_rule_hdr` for IPv4 with the action "look up a table".
    pub(super) fn rule(kind: u16) -> Self {
        const FR_ACT_TO_TBL: u8 = 1;
        Self::new(kind, &[libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0])
    }

    /// Asks for all objects of a kind. The end of the dump is the acknowledgement.
    pub(super) fn dump(mut self) -> Self {
        self.flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        self
    }

    /// Makes the object, or changes the one that exists.
    pub(super) fn replace(mut self) -> Self {
        self.flags |= (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        self
    }

    /// Makes the object; one that exists is EEXIST.
    pub(super) fn create(mut self) -> Self {
        self.flags |= (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        self
    }

    /// Adds bytes without an attribute header (the fixed part of a nested message).
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Adds one attribute.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).expect("our values are far below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds one zero-terminated text.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds one u32.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds one attribute whose value `fill` appends.
    pub(super) fn nested(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        let mut message = fill(self.bytes(kind, &[]));
        let length = u16::try_from(message.bytes.len() - start).expect("our messages are far below 64 KiB");
        message.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    /// The finished request.
    pub(super) fn finish(mut self, seq: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("our messages are far below 4 GiB");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// `struct ifinfomsg` for any family.
pub(super) fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// One message of an answer.
pub(super) struct Part<'a> {
    pub(super) kind: u16,
    pub(super) seq: u32,
    /// Without the netlink header.
    pub(super) body: &'a [u8],
}

/// The messages of one datagram; stops at the first that does not fit.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let kind = u16_at(bytes, 4)?;
        let seq = u32_at(bytes, 8)?;
        let body = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Part { kind, seq, body })
    })
}

/// The attributes of one message; stops at the first that does not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The top two bits say "nested" and "network byte order".
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// What an NLMSG_ERROR says; 0 is success.
pub(super) fn acknowledgement(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(|code| code.cast_signed()) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// A zero-terminated text; what is no UTF-8 is replaced.
pub(super) fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The u32 at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
