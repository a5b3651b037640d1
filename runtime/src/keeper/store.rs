//! The descriptor store: names to descriptors. The protocol and the other end are in `fd_store`.
//!
//! Nothing here waits for a client: one that does not read is dropped after a second.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix, SocketFlags};

use crate::error::{Doing, Result};
use crate::fd_store::{receive, send, socket};
use crate::layout::Layout;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd_store::KeeperStore;

    /// Runs a store beside a client of it.
    fn with_store(act: impl FnOnce(&Layout)) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("data"), dir.path());
        let mut server = Server::bind(&layout).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    server.serve();
                    std::thread::yield_now();
                }
            });
            act(&layout);
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    fn names(store: &KeeperStore, prefix: &str) -> Vec<(String, usize)> {
        store.get(prefix).unwrap().into_iter().map(|(name, fds)| (name, fds.len())).collect()
    }

    #[test]
    fn what_one_puts_another_gets_and_drops_by_exact_name() {
        with_store(|layout| {
            let (one, other) = (KeeperStore::connect(layout).unwrap(), KeeperStore::connect(layout).unwrap());
            let null = std::fs::File::open("/dev/null").unwrap();
            one.put("dns/web-1", &[null.as_fd(), null.as_fd()]).unwrap();
            one.put("dns/web-10", &[null.as_fd()]).unwrap();
            one.put("log/web-1", &[null.as_fd()]).unwrap();
            // sent before the get, seen by it, though on another connection
            assert_eq!(names(&other, "dns/"), [("dns/web-1".to_owned(), 2), ("dns/web-10".to_owned(), 1)]);
            drop(one);
            other.drop_name("dns/web-1").unwrap();
            other.put("log/web-1", &[null.as_fd(), null.as_fd()]).unwrap();
            assert_eq!(names(&other, ""), [("dns/web-10".to_owned(), 1), ("log/web-1".to_owned(), 2)]);
            assert!(other.put(&"x".repeat(200), &[]).is_err());
        });
    }
}
