//! Published UDP ports: each client's datagrams go to one backend through a socket of their own, and answers come back by
//! it. A backend that leaves the table gets nothing new and may still answer.
//!
//! A datagram that arrives while there is no backend waits, as connections do. Nothing here blocks. Must not know TCP.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use super::fd_store::FdStore;
use super::handover::Parcel;
use super::packet::{self, Packet};
use super::poller::{Interest, Kind, Poller, Token};
use super::ports::{explain, forget_stored, keep, stored};
use super::wire::Response;
use crate::clock::boot_ms;
use crate::runtime::{HostPort, Listener, Protocol};

/// A client that was silent for so long, and so was its backend, is forgotten (`net.netfilter.nf_conntrack_udp_timeout_stream`).
const IDLE_MS: u64 = 120_000;
/// One question and at most one answer (`nf_conntrack_udp_timeout`); also how long a backend that left may still answer.
const IDLE_ONCE_MS: u64 = 30_000;
/// Datagrams moved for one wake-up before others have their turn.
const TURN: usize = 64;
/// Most datagrams that wait for a backend at one port.
const WAITING_MAX: usize = 256;
/// Longest datagram.
const BYTES_MAX: usize = 65_535;
/// Most clients at a time; each needs a descriptor.
const CLIENTS_MAX: u64 = 16_384;

struct Port {
    socket: OwnedFd,
    spec: Listener,
    /// Whose turn it is among the backends.
    next: usize,
    waiting: VecDeque<(Packet, u64)>,
}

/// One client of one port, and the way to its backend.
struct Flow {
    port: u64,
    /// The client, and our address that it wrote to.
    client: Packet,
    backend: SocketAddr,
    socket: OwnedFd,
    /// Datagrams seen, to tell a conversation from a question.
    moved: u32,
    /// The last one, boot time in milliseconds.
    used: u64,
    /// Its backend has left the table.
    leaving: bool,
    /// The deadline that is set for it.
    armed: u64,
}

impl Flow {
    fn ends_at(&self) -> u64 {
        self.used + if self.moved > 2 && !self.leaving { IDLE_MS } else { IDLE_ONCE_MS }
    }
}

/// All published UDP ports and their clients.
pub(super) struct Datagrams {
    ports: HashMap<u64, Port>,
    ids: BTreeMap<HostPort, u64>,
    /// Sockets of an earlier life that no table has named yet.
    inherited: BTreeMap<HostPort, OwnedFd>,
    flows: HashMap<u64, Flow>,
    by_client: HashMap<(u64, SocketAddr), u64>,
    clients_max: usize,
    buffer: Vec<u8>,
}

impl Datagrams {
    /// No ports yet. `fds_max` is the process's limit of descriptors.
    pub(super) fn new(fds_max: u64) -> Self {
        Self {
            ports: HashMap::new(),
            ids: BTreeMap::new(),
            inherited: BTreeMap::new(),
            flows: HashMap::new(),
            by_client: HashMap::new(),
            clients_max: usize::try_from((fds_max / 6).clamp(64, CLIENTS_MAX)).unwrap_or(64),
            buffer: vec![0; BYTES_MAX],
        }
    }

    /// Takes over sockets from the store; they are read once a table names them.
    pub(super) fn inherit(&mut self, store: &mut dyn FdStore) -> crate::Result<()> {
        self.inherited = stored(store, Protocol::Udp)?;
        Ok(())
    }

    /// Puts a table in force. Afterwards nothing new goes to a backend it does not name. Returns the first port that could
    /// not be had.
    pub(super) fn set(
        &mut self,
        poller: &mut Poller,
        store: &mut dyn FdStore,
        listeners: &[Listener],
    ) -> Option<Response> {
        let wanted: BTreeMap<HostPort, &Listener> =
            listeners.iter().filter(|l| l.at.protocol == Protocol::Udp).map(|l| (l.at, l)).collect();
        let mut failure = None;
        let gone: Vec<(HostPort, u64)> =
            self.ids.iter().filter(|(at, _)| !wanted.contains_key(at)).map(|(at, id)| (*at, *id)).collect();
        for (at, id) in gone {
            self.remove(poller, store, at, id);
        }
        for (at, spec) in wanted {
            match self.ids.get(&at).and_then(|id| self.ports.get_mut(id)) {
                Some(port) => port.spec = spec.clone(),
                None => failure = failure.or(self.add(poller, store, spec).err()),
            }
        }
        for (at, _) in std::mem::take(&mut self.inherited) {
            forget_stored(store, at);
        }
        self.let_leave();
        let ids: Vec<u64> = self.ports.keys().copied().collect();
        ids.into_iter().for_each(|id| self.send_waiting(poller, id));
        failure
    }

    /// Datagrams have come to a port.
    pub(super) fn arrived(&mut self, poller: &mut Poller, id: u64) {
        for _ in 0..TURN {
            let Some(port) = self.ports.get(&id) else { return };
            match packet::receive(&port.socket, &mut self.buffer) {
                Ok(Some(packet)) => self.forward(poller, id, packet),
                Ok(None) => return,
                // what the kernel learned of an earlier answer (its client is gone) says nothing of the next datagram
                Err(_) => {}
            }
        }
    }

    /// A backend has answered, or its host says that nobody is there.
    pub(super) fn answered(&mut self, poller: &mut Poller, id: u64) {
        for _ in 0..TURN {
            let Some(flow) = self.flows.get_mut(&id) else { return };
            match rustix::net::recv(&flow.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => {
                    flow.used = boot_ms();
                    flow.moved = flow.moved.saturating_add(1);
                    if let Some(port) = self.ports.get(&flow.port) {
                        packet::answer(&port.socket, &flow.client, &self.buffer[..len]);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.drop_flow(poller, id),
            }
        }
    }

    /// A client may have been silent for long enough.
    pub(super) fn expired(&mut self, poller: &mut Poller, id: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let at = flow.ends_at();
        if at <= boot_ms() {
            self.drop_flow(poller, id);
        } else {
            flow.armed = at;
            poller.arm(at, Token { kind: Kind::UdpFlow, id });
        }
    }

    /// All clients and all that waits, for the next switchboard; none is left here. The ports' sockets hold what arrives
    /// meanwhile.
    pub(super) fn pack(&mut self) -> Vec<Parcel> {
        let (ports, flows) = (&self.ports, self.flows.drain());
        let parcel = |flow: Flow| {
            let at = ports.get(&flow.port)?.spec.at;
            Some(Parcel::Datagrams(format!("{at} {} {}", flow.backend, flow.client.to_text()), flow.socket))
        };
        let mut parcels: Vec<Parcel> =
            flows.filter(|(_, flow)| !flow.leaving).filter_map(|(_, flow)| parcel(flow)).collect();
        self.by_client.clear();
        for port in self.ports.values_mut() {
            let at = port.spec.at;
            let waiting = std::mem::take(&mut port.waiting).into_iter();
            parcels.extend(waiting.filter_map(|(packet, until)| parked(at, &packet, until)));
        }
        parcels
    }

    /// Goes on with the clients of an earlier switchboard. Their ports must be there already.
    pub(super) fn unpack(&mut self, poller: &mut Poller, parcels: Vec<Parcel>) {
        for parcel in parcels {
            let Parcel::Datagrams(state, socket) = parcel else { continue };
            let mut words = state.splitn(3, ' ');
            let at =
                words.next().and_then(|text| text.parse().ok()).and_then(|at: HostPort| self.ids.get(&at).copied());
            let backend = words.next().unwrap_or_default();
            let client = words.next().and_then(Packet::from_text);
            let (Some(port), Some(client)) = (at, client) else { continue };
            if let Ok(backend) = backend.parse() {
                self.begin(poller, port, client, backend, socket);
            } else if let Some(until) = backend.strip_prefix(PARKED).and_then(|until| until.parse().ok()) {
                self.unpark(port, client, until, &socket);
            }
        }
        self.let_leave();
        let ids: Vec<u64> = self.ports.keys().copied().collect();
        ids.into_iter().for_each(|id| self.send_waiting(poller, id));
    }

    /// A datagram that waited under an earlier switchboard; its bytes are in the file.
    fn unpark(&mut self, port: u64, client: Packet, until: u64, file: &OwnedFd) {
        let Some(port) = self.ports.get_mut(&port) else { return };
        let Ok(len) = rustix::io::pread(file, &mut self.buffer[..], 0) else { return };
        let packet = Packet { bytes: self.buffer[..len].to_vec(), ..client };
        let later = port.waiting.iter().position(|(_, other)| *other > until).unwrap_or(port.waiting.len());
        port.waiting.insert(later, (packet, until));
    }

    fn add(&mut self, poller: &mut Poller, store: &mut dyn FdStore, spec: &Listener) -> Result<(), Response> {
        let socket = match self.inherited.remove(&spec.at) {
            Some(socket) => socket,
            None => bind(spec.at).map_err(|e| explain(spec.at, &e))?,
        };
        keep(store, spec.at, &socket);
        let id = poller.fresh_id();
        let token = Token { kind: Kind::UdpPort, id };
        poller.watch(&socket, token, Interest::Read).map_err(|e| explain(spec.at, &e))?;
        self.ports.insert(id, Port { socket, spec: spec.clone(), next: 0, waiting: VecDeque::new() });
        self.ids.insert(spec.at, id);
        Ok(())
    }

    fn remove(&mut self, poller: &mut Poller, store: &mut dyn FdStore, at: HostPort, id: u64) {
        forget_stored(store, at);
        self.ids.remove(&at);
        if let Some(port) = self.ports.remove(&id) {
            poller.forget(&port.socket);
        }
        let flows: Vec<u64> = self.flows.iter().filter(|(_, flow)| flow.port == id).map(|(id, _)| *id).collect();
        flows.into_iter().for_each(|flow| self.drop_flow(poller, flow));
    }

    /// Clients of backends that are no longer named find another one with their next datagram.
    fn let_leave(&mut self) {
        let (ports, by_client) = (&self.ports, &mut self.by_client);
        for flow in self.flows.values_mut().filter(|flow| !flow.leaving) {
            if ports.get(&flow.port).is_none_or(|port| !port.spec.backends.contains(&flow.backend)) {
                flow.leaving = true;
                by_client.remove(&(flow.port, flow.client.peer));
            }
        }
    }

    /// Sends one datagram on its way. A backend that refuses it is tried no more for this client; the next one gets it.
    fn forward(&mut self, poller: &mut Poller, port_id: u64, packet: Packet) {
        for _ in 0..2 {
            let Some(id) = self.flow_of(poller, port_id, &packet) else { return self.wait(port_id, packet) };
            let Some(flow) = self.flows.get_mut(&id) else { return };
            flow.used = boot_ms();
            flow.moved = flow.moved.saturating_add(1);
            match rustix::net::send(&flow.socket, &packet.bytes, SendFlags::DONTWAIT) {
                Err(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH) => self.drop_flow(poller, id),
                // sent, or dropped for want of room as any router would
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// The flow of a client, made when it has none; `None` without a backend.
    fn flow_of(&mut self, poller: &mut Poller, port_id: u64, packet: &Packet) -> Option<u64> {
        if let Some(id) = self.by_client.get(&(port_id, packet.peer)) {
            return Some(*id);
        }
        let port = self.ports.get_mut(&port_id)?;
        let backend = *port.spec.backends.get(port.next % port.spec.backends.len().max(1))?;
        port.next = port.next.wrapping_add(1);
        if self.flows.len() >= self.clients_max {
            tracing::debug!(client = %packet.peer, "too many clients of UDP ports");
            return None;
        }
        let socket = connect(backend).ok()?;
        self.begin(poller, port_id, packet.head(), backend, socket)
    }

    fn begin(
        &mut self,
        poller: &mut Poller,
        port: u64,
        client: Packet,
        backend: SocketAddr,
        socket: OwnedFd,
    ) -> Option<u64> {
        let id = poller.fresh_id();
        let token = Token { kind: Kind::UdpFlow, id };
        poller.watch(&socket, token, Interest::Read).ok()?;
        self.by_client.insert((port, client.peer), id);
        let mut flow = Flow { port, client, backend, socket, moved: 0, used: boot_ms(), leaving: false, armed: 0 };
        flow.armed = flow.ends_at();
        poller.arm(flow.armed, token);
        self.flows.insert(id, flow);
        Some(id)
    }

    fn wait(&mut self, port_id: u64, packet: Packet) {
        let Some(port) = self.ports.get_mut(&port_id) else { return };
        let now = boot_ms();
        while port.waiting.front().is_some_and(|(_, until)| *until <= now) {
            port.waiting.pop_front();
        }
        if port.spec.backends.is_empty() && port.spec.park_ms > 0 && port.waiting.len() < WAITING_MAX {
            port.waiting.push_back((packet, now + u64::from(port.spec.park_ms)));
        }
    }

    fn send_waiting(&mut self, poller: &mut Poller, port_id: u64) {
        let Some(port) = self.ports.get_mut(&port_id).filter(|port| !port.spec.backends.is_empty()) else { return };
        let now = boot_ms();
        for (packet, until) in std::mem::take(&mut port.waiting) {
            if until > now {
                self.forward(poller, port_id, packet);
            }
        }
    }

    fn drop_flow(&mut self, poller: &mut Poller, id: u64) {
        let Some(flow) = self.flows.remove(&id) else { return };
        poller.forget(&flow.socket);
        // Else a flood of short flows would be remembered until each of their deadlines.
        poller.disarm(flow.armed, Token { kind: Kind::UdpFlow, id });
        if !flow.leaving {
            self.by_client.remove(&(flow.port, flow.client.peer));
        }
    }
}

/// In the place of a backend: the datagram waits for one until this time.
const PARKED: &str = "parked:";

/// A datagram that waits, for the next switchboard: its bytes go into a file in memory.
fn parked(at: HostPort, packet: &Packet, until: u64) -> Option<Parcel> {
    let file = rustix::fs::memfd_create("datagram", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    rustix::io::pwrite(&file, &packet.bytes, 0).ok()?;
    Some(Parcel::Datagrams(format!("{at} {PARKED}{until} {}", packet.to_text()), file))
}

/// A socket on a host port that tells where each datagram was sent to.
fn bind(at: HostPort) -> std::io::Result<OwnedFd> {
    let address = at.socket_address();
    let socket = udp(address)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    packet::want_destination(&socket, address)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn connect(backend: SocketAddr) -> std::io::Result<OwnedFd> {
    let socket = udp(backend)?;
    rustix::net::connect(&socket, &backend)?;
    Ok(socket)
}

fn udp(like: SocketAddr) -> std::io::Result<OwnedFd> {
    let family = if like.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?)
}
