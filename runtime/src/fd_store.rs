//! The other end of the keeper's descriptor store, and its protocol: a SOCK_SEQPACKET socket with fixed binary messages.
//!
//! A message is one byte of verb and the name: `P` put (descriptors attached; replaces), `D` drop one name, `G` get
//! all whose name begins so (answered by one `P` each and an `E`). A put that was sent before a get is seen by it,
//! whoever sent either. Must not know what the descriptors are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Doing, Error, Result};
use crate::layout::Layout;
use crate::sys::rights;

/// Longest name in bytes.
const NAME_MAX: usize = 160;

/// Descriptors with their name.
pub type Held = (String, Vec<OwnedFd>);

/// A connection to the keeper's store, for supervisor and switchboard.
pub struct KeeperStore {
    socket: OwnedFd,
}

impl KeeperStore {
    /// Connects.
    ///
    /// # Errors
    /// `Unreachable` when no keeper listens in this run directory.
    pub fn connect(layout: &Layout) -> Result<Self> {
        let path = layout.socket("keeper");
        let socket = socket()?;
        let address = SocketAddrUnix::new(&path).doing(|| format!("address {}", path.display()))?;
        rustix::net::connect(&socket, &address).map_err(|error| away(error.to_string()))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(5))).doing(|| "set a timeout")?;
        Ok(Self { socket })
    }

    /// Gives the keeper duplicates of up to [`rights::FDS_MAX`] descriptors under a name of at most 160 bytes; what
    /// had that name is closed. Does not wait.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn put(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<()> {
        send(&self.socket, b'P', name, fds, SendFlags::DONTWAIT).map_err(|error| away(error.to_string()))
    }

    /// All names that begin with `prefix`, with their descriptors.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn get(&self, prefix: &str) -> Result<Vec<Held>> {
        send(&self.socket, b'G', prefix, &[], SendFlags::empty()).map_err(|error| away(error.to_string()))?;
        let mut held = Vec::new();
        loop {
            match receive(&self.socket, RecvFlags::empty()) {
                Ok(Some((b'P', name, fds))) => held.push((name, fds)),
                Ok(Some((b'E', ..))) => return Ok(held),
                Ok(_) => return Err(away("it closed the connection".to_owned())),
                Err(error) => return Err(away(error.to_string())),
            }
        }
    }

    /// Lets go of exactly this name. Does not wait; an unknown name is no error.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn drop_name(&self, name: &str) -> Result<()> {
        send(&self.socket, b'D', name, &[], SendFlags::DONTWAIT).map_err(|error| away(error.to_string()))
    }
}

impl crate::switchboard::fd_store::FdStore for KeeperStore {
    fn put(&mut self, name: &str, fds: &[&OwnedFd]) -> Result<()> {
        KeeperStore::put(self, name, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>())
    }

    fn get_prefix(&mut self, prefix: &str) -> Result<Vec<Held>> {
        self.get(prefix)
    }

    /// Returns when the keeper has let go: a listening socket it still held would go on taking connections.
    fn remove(&mut self, name: &str) -> Result<()> {
        self.drop_name(name)?;
        // requests of one connection are answered in order; nothing begins with NUL
        self.get("\0").map(drop)
    }
}

fn away(why: String) -> Error {
    Error::Unreachable { process: "keeper", why }
}

pub(crate) fn socket() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .doing(|| "make a socket")
}

pub(crate) fn send(
    socket: &OwnedFd,
    verb: u8,
    name: &str,
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> std::io::Result<()> {
    if name.len() > NAME_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "name is too long"));
    }
    let mut bytes = vec![verb];
    bytes.extend_from_slice(name.as_bytes());
    rights::send(socket, &bytes, fds, flags).map(drop)
}

/// One message; `None` at the end of the connection.
pub(crate) fn receive(socket: &OwnedFd, flags: RecvFlags) -> std::io::Result<Option<(u8, String, Vec<OwnedFd>)>> {
    let mut buffer = [0; NAME_MAX + 1];
    let (len, fds) = rights::receive(socket, &mut buffer, flags)?;
    let Some((verb, name)) = buffer[..len].split_first() else { return Ok(None) };
    let name = std::str::from_utf8(name).map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
    Ok(Some((*verb, name.to_owned(), fds)))
}
