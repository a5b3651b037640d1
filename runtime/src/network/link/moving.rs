//! Moving an interface into another network namespace with the addresses it has (OCI config-linux, "Network Devices").
//!
//! The kernel takes all addresses off an interface that moves: they are kept as the kernel told them and told back.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::message::{Message, attributes, u32_at};
use super::{Netlink, ignoring};
use crate::error::{Doing as _, Result};

/// `struct ifaddrmsg` (`linux/if_addr.h`), and where its flags, scope and index are.
const HEADER_BYTES: usize = 8;
const AT_FLAGS: usize = 2;
const AT_SCOPE: usize = 3;
const AT_INDEX: usize = 4;
/// IFA_F_PERMANENT: not one that was learned and will end.
const PERMANENT: u8 = 0x80;

/// An address of either family, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAddress {
    header: [u8; HEADER_BYTES],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Netlink {
    /// The lasting addresses of an interface that others can reach.
    ///
    /// # Errors
    /// `Io`.
    pub fn lasting_addresses(&mut self, index: u32) -> Result<Vec<RawAddress>> {
        let mut found = Vec::new();
        let message = Message::any_address(libc::RTM_GETADDR, &[0; HEADER_BYTES]).dump();
        self.request(message, |kind, body| {
            if kind == libc::RTM_NEWADDR {
                found.extend(parse(body, index));
            }
        })
        .doing(|| format!("list the addresses of interface {index}"))?;
        Ok(found)
    }

    /// Moves an interface to a namespace, where it has another name.
    ///
    /// # Errors
    /// `Io`; EEXIST when the name is taken there.
    pub fn move_link(&mut self, index: u32, namespace: BorrowedFd<'_>, name: &str) -> Result<()> {
        let namespace = u32::try_from(namespace.as_raw_fd()).expect("a borrowed fd is never negative");
        let message = Message::link(libc::RTM_NEWLINK, index, 0, 0)
            .number(libc::IFLA_NET_NS_FD, namespace)
            .text(libc::IFLA_IFNAME, name);
        self.request(message, |_, _| {}).doing(|| format!("move interface {index} to the container as {name}"))
    }

    /// Gives an interface an address it had elsewhere. One that is there already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn add_raw_address(&mut self, index: u32, address: &RawAddress) -> Result<()> {
        let mut header = address.header;
        header[AT_INDEX..].copy_from_slice(&index.to_ne_bytes());
        let message = Message::any_address(libc::RTM_NEWADDR, &header).create();
        let message = address.attributes.iter().fold(message, |message, (kind, value)| message.bytes(*kind, value));
        ignoring(self.request(message, |_, _| {}), libc::EEXIST)
            .doing(|| format!("give interface {index} its address back"))
    }
}

fn parse(body: &[u8], index: u32) -> Option<RawAddress> {
    let header: [u8; HEADER_BYTES] = body.get(..HEADER_BYTES)?.try_into().ok()?;
    let lasting = header[AT_FLAGS] & PERMANENT != 0 && header[AT_SCOPE] == libc::RT_SCOPE_UNIVERSE;
    if u32_at(body, AT_INDEX)? != index || !lasting {
        return None;
    }
    // Not the label, which names the interface, and not how old it is.
    let kept = [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST, libc::IFA_ANYCAST];
    let attributes = attributes(&body[HEADER_BYTES..]).filter(|(kind, _)| kept.contains(kind));
    Some(RawAddress { header, attributes: attributes.map(|(kind, value)| (kind, value.to_vec())).collect() })
}
