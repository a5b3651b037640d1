//! Links, addresses, routes and rules by rtnetlink: one socket, small typed calls, nothing remembered.
//!
//! A [`Netlink`] acts on the network namespace in which it was opened. Messages are encoded here by hand
//! (`netlink(7)`, `rtnetlink(7)`): the few we need are smaller than their description in any library.
//! Knows nothing of containers, networks or policy; the callers name every object.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};

use crate::error::{Doing as _, Error, Result};

mod message;
mod moving;
use message::{Message, attributes, messages};

/// Longest interface name in bytes (IFNAMSIZ without its end, `linux/if.h`).
pub const IFNAME_BYTES_MAX: usize = 15;

/// Place of our routing rules: before the main table (32766), after the local one (0).
const RULE_PRIORITY: u32 = 25_208;

/// One network interface as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index in this namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// `bridge`, `veth`, … ; `None` for plain devices such as `lo`.
    pub kind: Option<String>,
    /// IFF_UP is set.
    pub up: bool,
    /// Index of the bridge it belongs to.
    pub master: Option<u32>,
    /// Hardware address, where it has one of six bytes.
    pub mac: Option<[u8; 6]>,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddress {
    /// Interface index.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix_len: u8,
}

/// A veth pair whose second end is born in another network namespace.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Name of the end in this namespace; at most [`IFNAME_BYTES_MAX`] bytes.
    pub name: &'a str,
    /// Index of the bridge the near end joins at once.
    pub master: Option<u32>,
    /// Name of the far end in its namespace.
    pub peer_name: &'a str,
    /// The namespace of the far end.
    pub peer_netns: BorrowedFd<'a>,
    /// Hardware address of the far end.
    pub peer_mac: Option<[u8; 6]>,
}

/// An rtnetlink socket. Each call is one request and its answers; not shared between threads.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    seq: u32,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// `Io`.
    pub fn open() -> Result<Self> {
        let fd = nix::sys::socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .doing(|| "open an rtnetlink socket")?;
        nix::sys::socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).doing(|| "bind an rtnetlink socket")?;
        Ok(Self { fd, seq: 0 })
    }

    /// All interfaces of this namespace.
    ///
    /// # Errors
    /// `Io`.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let message = Message::link(libc::RTM_GETLINK, 0, 0, 0).dump();
        let mut links = Vec::new();
        self.request(message, |kind, body| {
            if kind == libc::RTM_NEWLINK {
                links.extend(parse_link(body));
            }
        })
        .doing(|| "list network interfaces")?;
        Ok(links)
    }

    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// `Io`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let message = Message::link(libc::RTM_GETLINK, 0, 0, 0).text(libc::IFLA_IFNAME, name);
        let mut found = None;
        let answer = self.request(message, |kind, body| {
            if kind == libc::RTM_NEWLINK {
                found = parse_link(body);
            }
        });
        match answer {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(Error::io(format!("look up interface {name}"), error)),
        }
    }

    /// Adds a bridge and sets it up.
    ///
    /// # Errors
    /// `Io`; the source is EEXIST when the name is taken.
    pub fn add_bridge(&mut self, name: &str, mac: Option<[u8; 6]>) -> Result<()> {
        let mut message = Message::link(libc::RTM_NEWLINK, 0, libc::IFF_UP as u32, libc::IFF_UP as u32)
            .create()
            .text(libc::IFLA_IFNAME, name);
        if let Some(mac) = mac {
            message = message.bytes(libc::IFLA_ADDRESS, &mac);
        }
        let message = message.nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        self.request(message, |_, _| {}).doing(|| format!("add bridge {name}"))
    }

    /// Adds a dummy interface and sets it up.
    ///
    /// # Errors
    /// `Io`; the source is EEXIST when the name is taken.
    pub fn add_dummy(&mut self, name: &str) -> Result<()> {
        let message = Message::link(libc::RTM_NEWLINK, 0, libc::IFF_UP as u32, libc::IFF_UP as u32)
            .create()
            .text(libc::IFLA_IFNAME, name)
            .nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "dummy"));
        self.request(message, |_, _| {}).doing(|| format!("add dummy interface {name}"))
    }

    /// Adds a veth pair, the near end up and in its bridge, in one request. The far end is down: veth refuses to open
    /// (ENOTCONN) before both ends exist, so its own namespace sets it up.
    ///
    /// # Errors
    /// `Io`; the source is EEXIST when the near name is taken.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let up = libc::IFF_UP as u32;
        let mut message = Message::link(libc::RTM_NEWLINK, 0, up, up).create().text(libc::IFLA_IFNAME, veth.name);
        if let Some(master) = veth.master {
            message = message.number(libc::IFLA_MASTER, master);
        }
        let netns = u32::try_from(veth.peer_netns.as_raw_fd()).expect("a borrowed fd is never negative");
        let message = message.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(message::VETH_INFO_PEER, |peer| {
                    let peer = peer
                        .raw(&message::ifinfomsg(0, 0, 0))
                        .text(libc::IFLA_IFNAME, veth.peer_name)
                        .number(libc::IFLA_NET_NS_FD, netns);
                    match veth.peer_mac {
                        Some(mac) => peer.bytes(libc::IFLA_ADDRESS, &mac),
                        None => peer,
                    }
                })
            })
        });
        self.request(message, |_, _| {}).doing(|| format!("add veth pair {}", veth.name))
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// `Io`.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let up = libc::IFF_UP as u32;
        let message = Message::link(libc::RTM_NEWLINK, index, up, up);
        self.request(message, |_, _| {}).doing(|| format!("set interface {index} up"))
    }

    /// Puts an interface into a bridge; `None` takes it out.
    ///
    /// # Errors
    /// `Io`.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        let message = Message::link(libc::RTM_NEWLINK, index, 0, 0).number(libc::IFLA_MASTER, master.unwrap_or(0));
        self.request(message, |_, _| {}).doing(|| format!("set the bridge of interface {index}"))
    }

    /// Lets only frames with this hardware address in by a bridge's port: nothing is learned there (`bridge(8)`, "locked").
    /// They may leave by the port they came in by: a service that leads a container to itself (`hairpin`).
    ///
    /// # Errors
    /// `Io`.
    pub fn lock_port(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        const NLA_F_NESTED: u16 = 0x8000;
        let doing = || format!("lock the bridge port of interface {index}");
        let station = Message::station(libc::RTM_NEWNEIGH, index).replace().bytes(libc::NDA_LLADDR, &mac);
        self.request(station, |_, _| {}).doing(doing)?;
        let message = Message::port(libc::RTM_SETLINK, index).nested(message::IFLA_PROTINFO | NLA_F_NESTED, |port| {
            let port = port.bytes(message::BRPORT_HAIRPIN, &[1]);
            port.bytes(message::BRPORT_LEARNING, &[0]).bytes(message::BRPORT_LOCKED, &[1])
        });
        self.request(message, |_, _| {}).doing(doing)
    }

    /// Deletes an interface. One that is gone already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let message = Message::link(libc::RTM_DELLINK, 0, 0, 0).text(libc::IFLA_IFNAME, name);
        ignoring(self.request(message, |_, _| {}), libc::ENODEV).doing(|| format!("delete interface {name}"))
    }

    /// All IPv4 addresses of this namespace.
    ///
    /// # Errors
    /// `Io`.
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>> {
        let message = Message::address(libc::RTM_GETADDR, 0, 0).dump();
        let mut found = Vec::new();
        self.request(message, |kind, body| {
            if kind == libc::RTM_NEWADDR {
                found.extend(parse_address(body));
            }
        })
        .doing(|| "list addresses")?;
        Ok(found)
    }

    /// Adds an IPv4 address to an interface. One that is there already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix_len: u8) -> Result<()> {
        let host_bits = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
        let mut message = Message::address(libc::RTM_NEWADDR, index, prefix_len)
            .create()
            .bytes(libc::IFA_LOCAL, &address.octets())
            .bytes(libc::IFA_ADDRESS, &address.octets());
        if prefix_len < 31 {
            message = message.bytes(libc::IFA_BROADCAST, &broadcast.octets());
        }
        ignoring(self.request(message, |_, _| {}), libc::EEXIST)
            .doing(|| format!("add address {address}/{prefix_len} to interface {index}"))
    }

    /// Removes an IPv4 address. One that is gone already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn delete_address(&mut self, index: u32, address: Ipv4Addr, prefix_len: u8) -> Result<()> {
        let message = Message::address(libc::RTM_DELADDR, index, prefix_len).bytes(libc::IFA_LOCAL, &address.octets());
        ignoring(self.request(message, |_, _| {}), libc::EADDRNOTAVAIL)
            .doing(|| format!("remove address {address}/{prefix_len} from interface {index}"))
    }

    /// Adds the default route by way of `gateway`, which must be on a link. One that is there already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> Result<()> {
        let message = Message::route(libc::RTM_NEWROUTE, 0, libc::RTN_UNICAST, libc::RT_SCOPE_UNIVERSE)
            .create()
            .bytes(libc::RTA_GATEWAY, &gateway.octets());
        ignoring(self.request(message, |_, _| {}), libc::EEXIST).doing(|| format!("add a default route by {gateway}"))
    }

    /// Adds to `table` a route that delivers every IPv4 packet locally (what IP_TRANSPARENT answers need).
    /// One that is there already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn add_local_route(&mut self, loopback_index: u32, table: u32) -> Result<()> {
        let message = Message::route(libc::RTM_NEWROUTE, 0, libc::RTN_LOCAL, libc::RT_SCOPE_HOST)
            .create()
            .number(libc::RTA_OIF, loopback_index)
            .number(libc::RTA_TABLE, table);
        ignoring(self.request(message, |_, _| {}), libc::EEXIST)
            .doing(|| format!("add the local route of table {table}"))
    }

    /// Removes what [`Self::add_local_route`] added. One that is gone already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn delete_local_route(&mut self, loopback_index: u32, table: u32) -> Result<()> {
        let message = Message::route(libc::RTM_DELROUTE, 0, libc::RTN_LOCAL, libc::RT_SCOPE_HOST)
            .number(libc::RTA_OIF, loopback_index)
            .number(libc::RTA_TABLE, table);
        ignoring(self.request(message, |_, _| {}), libc::ESRCH)
            .doing(|| format!("remove the local route of table {table}"))
    }

    /// Adds the rule "packets with this mark use this table". One that is there already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn add_mark_rule(&mut self, mark: u32, table: u32) -> Result<()> {
        let message = mark_rule(libc::RTM_NEWRULE, mark, table).create();
        ignoring(self.request(message, |_, _| {}), libc::EEXIST).doing(|| format!("add the rule of mark {mark:#x}"))
    }

    /// Removes what [`Self::add_mark_rule`] added. One that is gone already is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn delete_mark_rule(&mut self, mark: u32, table: u32) -> Result<()> {
        let message = mark_rule(libc::RTM_DELRULE, mark, table);
        ignoring(self.request(message, |_, _| {}), libc::ENOENT).doing(|| format!("remove the rule of mark {mark:#x}"))
    }

    /// Sends one request and hands each answer to `each` (message type, body without the netlink header) until the
    /// acknowledgement or the end of the dump.
    fn request(&mut self, message: Message, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let bytes = message.finish(self.seq);
        nix::sys::socket::sendto(self.fd.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        // The kernel fills dumps in pieces of at most 32 KiB (netlink_dump, since 3.18).
        let mut buffer = vec![0_u8; 32 << 10];
        loop {
            let count = match nix::sys::socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for part in messages(&buffer[..count]) {
                if part.seq != self.seq {
                    continue;
                }
                match i32::from(part.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return message::acknowledgement(part.body),
                    libc::NLMSG_NOOP => {}
                    _ => each(part.kind, part.body),
                }
            }
        }
    }
}

fn mark_rule(kind: u16, mark: u32, table: u32) -> Message {
    // With a priority of its own: the kernel gives each rule without one another, and never sees that it is there.
    Message::rule(kind)
        .number(message::FRA_PRIORITY, RULE_PRIORITY)
        .number(message::FRA_FWMARK, mark)
        .number(message::FRA_TABLE, table)
}

fn ignoring(answer: io::Result<()>, errno: i32) -> io::Result<()> {
    match answer {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        other => other,
    }
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let index = message::u32_at(body, 4)?;
    let flags = message::u32_at(body, 8)?;
    let mut link =
        Link { index, name: String::new(), kind: None, up: flags & libc::IFF_UP as u32 != 0, master: None, mac: None };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = message::text_of(value),
            libc::IFLA_MASTER => link.master = message::u32_at(value, 0),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_LINKINFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == libc::IFLA_INFO_KIND)
                    .map(|(_, value)| message::text_of(value));
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(body: &[u8]) -> Option<LinkAddress> {
    let prefix_len = *body.get(1)?;
    let index = message::u32_at(body, 4)?;
    let (_, value) = attributes(body.get(8..)?).find(|(kind, _)| *kind == libc::IFA_LOCAL)?;
    let octets: [u8; 4] = value.try_into().ok()?;
    Some(LinkAddress { index, address: octets.into(), prefix_len })
}

#[cfg(test)]
mod tests;
