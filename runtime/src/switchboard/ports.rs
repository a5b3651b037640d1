//! Published ports: the listening sockets, diffed against a table. A socket that stays is never closed.
//!
//! Must not know connections beyond how many wait parked at a port.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::fd_store::FdStore;
use super::holder::holder;
use super::poller::{Interest, Kind, Poller, Token};
use super::wire::Response;
use crate::runtime::{HostPort, Listener, Protocol};

/// Connections the kernel completes for us while we are busy, or dead. Clamped by `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;
/// How the fd store names listening sockets.
const STORE_PREFIX: &str = "listen/";

/// One published port.
pub(super) struct Port {
    pub(super) socket: OwnedFd,
    pub(super) spec: Listener,
    /// Whose turn it is among the backends.
    next: usize,
    /// Flows that wait for a backend, oldest first.
    pub(super) parked: BTreeSet<u64>,
}

impl Port {
    /// The next backend in turn that was not tried yet.
    pub(super) fn pick(&mut self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let count = self.spec.backends.len();
        let at = (0..count).map(|n| (self.next.wrapping_add(n)) % count);
        let chosen = at.into_iter().find(|at| !tried.contains(&self.spec.backends[*at]))?;
        self.next = chosen + 1;
        Some(self.spec.backends[chosen])
    }
}

/// All published ports.
#[derive(Default)]
pub(super) struct Ports {
    ports: HashMap<u64, Port>,
    ids: BTreeMap<HostPort, u64>,
    /// Sockets of an earlier life that no table has named yet.
    inherited: BTreeMap<HostPort, OwnedFd>,
    paused: bool,
}

/// What a new table changed.
#[derive(Default)]
pub(super) struct Changes {
    /// Ports that are gone, with the flows that were parked there.
    pub(super) removed: Vec<(u64, Port)>,
    /// The first port that could not be had.
    pub(super) failure: Option<Response>,
}

impl Ports {
    /// Takes over the sockets that an earlier switchboard left in the store.
    pub(super) fn inherit(&mut self, store: &mut dyn FdStore) -> crate::Result<()> {
        self.inherited = stored(store, Protocol::Tcp)?;
        Ok(())
    }

    /// Makes the ports be those of the table.
    pub(super) fn set(&mut self, poller: &mut Poller, store: &mut dyn FdStore, wanted: &[Listener]) -> Changes {
        let mut changes = Changes::default();
        let wanted: Vec<&Listener> = wanted.iter().filter(|listener| listener.at.protocol.is_tcp()).collect();
        let keys: BTreeSet<HostPort> = wanted.iter().map(|listener| listener.at).collect();
        let gone: Vec<HostPort> = self.ids.keys().filter(|key| !keys.contains(key)).copied().collect();
        for key in gone {
            changes.removed.extend(self.remove(poller, store, key));
        }
        for spec in wanted {
            if let Some(port) = self.ids.get(&spec.at).and_then(|id| self.ports.get_mut(id)) {
                port.spec = spec.clone();
            } else if let Err(failure) = self.add(poller, store, spec) {
                changes.failure.get_or_insert(failure);
            }
        }
        for (key, _) in std::mem::take(&mut self.inherited) {
            forget_stored(store, key);
        }
        changes
    }

    /// A port by id.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Port> {
        self.ports.get_mut(&id)
    }

    /// The id of the port at an address.
    pub(super) fn id_at(&self, at: HostPort) -> Option<u64> {
        self.ids.get(&at).copied()
    }

    /// Ids of all ports.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.ids.values().copied().collect()
    }

    /// Stops or goes on accepting, on all ports; connections meanwhile wait in the kernel.
    pub(super) fn pause(&mut self, poller: &Poller, pause: bool) {
        if self.paused == pause {
            return;
        }
        self.paused = pause;
        for (id, port) in &self.ports {
            let interest = if pause { Interest::Nothing } else { Interest::Read };
            let _ = poller.change(&port.socket, Token { kind: Kind::Port, id: *id }, interest);
        }
    }

    /// Whether [`Ports::pause`] is on.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    fn add(&mut self, poller: &mut Poller, store: &mut dyn FdStore, spec: &Listener) -> Result<(), Response> {
        let key = spec.at;
        let socket = match self.inherited.remove(&key) {
            Some(socket) => socket,
            None => listen(key).map_err(|e| explain(key, &e))?,
        };
        keep(store, key, &socket);
        let id = poller.fresh_id();
        let interest = if self.paused { Interest::Nothing } else { Interest::Read };
        poller.watch(&socket, Token { kind: Kind::Port, id }, interest).map_err(|e| explain(key, &e))?;
        self.ports.insert(id, Port { socket, spec: spec.clone(), next: 0, parked: BTreeSet::new() });
        self.ids.insert(key, id);
        Ok(())
    }

    fn remove(&mut self, poller: &Poller, store: &mut dyn FdStore, key: HostPort) -> Option<(u64, Port)> {
        forget_stored(store, key);
        let id = self.ids.remove(&key)?;
        let port = self.ports.remove(&id)?;
        poller.forget(&port.socket);
        Some((id, port))
    }
}

/// Sockets of one protocol that an earlier switchboard left.
pub(super) fn stored(store: &mut dyn FdStore, protocol: Protocol) -> crate::Result<BTreeMap<HostPort, OwnedFd>> {
    let all = store.get_prefix(STORE_PREFIX)?.into_iter();
    let parsed = all.filter_map(|(name, mut fds)| Some((name.strip_prefix(STORE_PREFIX)?.parse().ok()?, fds.pop()?)));
    Ok(parsed.filter(|(at, _): &(HostPort, _)| at.protocol == protocol).collect())
}

/// Keeps a socket beyond this process.
pub(super) fn keep(store: &mut dyn FdStore, key: HostPort, socket: &OwnedFd) {
    if let Err(e) = store.put(&format!("{STORE_PREFIX}{key}"), &[socket]) {
        tracing::warn!("port {key} would not survive the switchboard: {}", crate::error::chain(&e));
    }
}

pub(super) fn forget_stored(store: &mut dyn FdStore, key: HostPort) {
    if let Err(e) = store.remove(&format!("{STORE_PREFIX}{key}")) {
        tracing::warn!("port {key} may stay open in the keeper: {}", crate::error::chain(&e));
    }
}

/// A listening socket on a host port.
fn listen(at: HostPort) -> std::io::Result<OwnedFd> {
    let address = at.socket_address();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Connections of an earlier listener in TIME_WAIT are no reason to refuse.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // "[::]" beside "0.0.0.0" is two ports, as Compose files write them.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// What people are told.
pub(super) fn explain(at: HostPort, error: &std::io::Error) -> Response {
    use std::io::ErrorKind as Kind;
    let (ip, port) = (at.address, at.port);
    match error.kind() {
        Kind::AddrInUse => Response::PortInUse { at, holder: holder(at) },
        Kind::AddrNotAvailable => Response::Failed {
            message: format!("port {port} cannot be published on {ip}: this host has no such address"),
        },
        Kind::PermissionDenied => Response::Failed {
            message: format!("port {port} cannot be published on {ip}: CAP_NET_BIND_SERVICE is missing"),
        },
        _ => Response::Failed { message: format!("port {port} cannot be published on {ip}: {error}") },
    }
}
