//! The resolver's two sockets of a container, opened inside its network namespace.
//!
//! Behind a door in nf_tables, so that port 53 stays free for a program of the container; without nf_tables on port 53
//! itself, where only a program that wants every address is in its way.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::nftables;
use super::ruleset::door::{DOOR_PORT, door};
use crate::Result;
use crate::error::Doing as _;

/// The port of the resolver as everybody knows it.
const DNS_PORT: u16 = 53;

/// Opens a UDP and a listening TCP socket that are asked at `address`, port 53.
///
/// # Errors
/// `Io`.
pub fn open(address: Ipv4Addr) -> Result<[OwnedFd; 2]> {
    let bind = |port| -> std::io::Result<[OwnedFd; 2]> {
        Ok([UdpSocket::bind((address, port))?.into(), TcpListener::bind((address, port))?.into()])
    };
    match bind(DOOR_PORT) {
        Ok(sockets) if nftables::replace(&[door(address)]).is_ok() => Ok(sockets),
        Ok(_) | Err(_) => bind(DNS_PORT).doing(|| "open the resolver's sockets"),
    }
}
