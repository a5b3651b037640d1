//! The descriptor store: names to descriptors, over a SOCK_SEQPACKET socket with fixed binary messages.
//!
//! A message is one byte of verb and the name: `P` put (descriptors attached; replaces), `D` drop one name, `A` drop
//! all whose name begins so, `G` get all whose name begins so (answered by one `P` each and an `E`). A put that was sent before a get is seen by it,
//! whoever sent either.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::Held;
use crate::error::{Doing, Error, Result};
use crate::layout::Layout;
use crate::sys::rights;

/// Longest name in bytes.
const NAME_MAX: usize = 160;
/// Most names and connections; beyond, puts are refused by closing the connection.
const NAMES_MAX: usize = 65_536;
const CLIENTS_MAX: usize = 64;

/// The keeper's side.
pub(super) struct Server {
    listener: OwnedFd,
    clients: Vec<OwnedFd>,
    held: BTreeMap<String, Vec<OwnedFd>>,
}

impl Server {
    pub(super) fn bind(layout: &Layout) -> Result<Self> {
        let path = layout.socket("keeper");
        let doing = || format!("listen on {}", path.display());
        // we hold keeper.lock: a socket file here is a dead one's
        let _ = std::fs::remove_file(&path);
        let listener = socket()?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).doing(doing)?).doing(doing)?;
        rustix::net::listen(&listener, 128).doing(doing)?;
        rustix::io::ioctl_fionbio(&listener, true).doing(doing)?;
        Ok(Self { listener, clients: Vec::new(), held: BTreeMap::new() })
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.clients.iter().map(OwnedFd::as_fd))
    }

    /// Does everything that is asked for now, without waiting.
    pub(super) fn serve(&mut self) {
        while self.clients.len() < CLIENTS_MAX
            && let Ok(client) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC)
        {
            // a client that does not read must not hold up the others
            let _ = set_socket_timeout(&client, Timeout::Send, Some(Duration::from_secs(1)));
            self.clients.push(client);
        }
        let mut gets = self.drain();
        // a put on one connection may have come before a get on another that was drained after it
        gets.extend(self.drain());
        for (client, prefix) in gets {
            if self.answer(&client, &prefix).is_ok() {
                self.clients.push(client);
            }
        }
    }

    /// Carries out puts and drops; returns the connections that wait for a get.
    fn drain(&mut self) -> Vec<(OwnedFd, String)> {
        let mut gets = Vec::new();
        for client in std::mem::take(&mut self.clients) {
            match self.drain_client(&client) {
                Drained::Idle => self.clients.push(client),
                Drained::Get(prefix) => gets.push((client, prefix)),
                Drained::Gone => {}
            }
        }
        gets
    }

    fn drain_client(&mut self, client: &OwnedFd) -> Drained {
        loop {
            let (verb, name, fds) = match receive(client, RecvFlags::DONTWAIT) {
                Ok(Some(message)) => message,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Drained::Idle,
                Ok(None) | Err(_) => return Drained::Gone,
            };
            match verb {
                b'P' if self.held.len() < NAMES_MAX => drop(self.held.insert(name, fds)),
                b'D' => drop(self.held.remove(&name)),
                b'G' => return Drained::Get(name),
                _ => return Drained::Gone,
            }
        }
    }

    fn answer(&self, client: &OwnedFd, prefix: &str) -> std::io::Result<()> {
        let names = self.held.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        for (name, fds) in names {
            send(client, b'P', name, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>(), SendFlags::empty())?;
        }
        send(client, b'E', "", &[], SendFlags::empty())
    }
}

enum Drained {
    Idle,
    Get(String),
    Gone,
}

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

    fn remove(&mut self, name: &str) -> Result<()> {
        self.drop_name(name)
    }
}

fn away(why: String) -> Error {
    Error::Unreachable { process: "keeper", why }
}

fn socket() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .doing(|| "make a socket")
}

fn send(socket: &OwnedFd, verb: u8, name: &str, fds: &[BorrowedFd<'_>], flags: SendFlags) -> std::io::Result<()> {
    if name.len() > NAME_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "name is too long"));
    }
    let mut bytes = vec![verb];
    bytes.extend_from_slice(name.as_bytes());
    rights::send(socket, &bytes, fds, flags).map(drop)
}

/// One message; `None` at the end of the connection.
fn receive(socket: &OwnedFd, flags: RecvFlags) -> std::io::Result<Option<(u8, String, Vec<OwnedFd>)>> {
    let mut buffer = [0; NAME_MAX + 1];
    let (len, fds) = rights::receive(socket, &mut buffer, flags)?;
    let Some((verb, name)) = buffer[..len].split_first() else { return Ok(None) };
    let name = std::str::from_utf8(name).map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
    Ok(Some((*verb, name.to_owned(), fds)))
}
