//! Connections to published ports: accepted, dialled on to a backend, relayed; parked while there is none.
//!
//! A flow is `Parked` → `Dialling` → `Open`. Nothing here blocks, so a slow or dead backend stalls nobody else. Must
//! not know DNS or the control socket.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};

use super::dial::{Borrowing, connect};
use super::fd_store::FdStore;
use super::handover::Parcel;
use super::poller::{Interest, Kind, Poller, Readiness, Token};
use super::ports::{Port, Ports};
use super::relay::{Pipes, Relay, Side, Turn, reset};
use super::wire::Response;
use crate::clock::boot_ms;
use crate::runtime::Listener;

/// Backends tried for one connection: the one whose turn it is, and once the next.
const TRIES_MAX: usize = 2;
/// How long a try may take while another backend could be tried: the third SYN is sent after 3 s, neighbours answer in
/// less than one millisecond.
const TRY_MS: u64 = 1_000;
/// How long a try with the client's address may take. A container's first packets may be lost while its link comes up
/// (the kernel's linkwatch), and the second SYN is sent after 1 s: that alone must not look like a missing way back.
const BORROWED_TRY_MS: u64 = 1_500;
/// How long the last try may take.
const LAST_TRY_MS: u64 = 10_000;
/// Connections accepted from one port before others have their turn.
const ACCEPT_TURN: usize = 64;
/// When to try again after the host refused a descriptor.
const ACCEPT_AGAIN_MS: u64 = 100;
/// Most flows; each open one needs two descriptors, four more while bytes move.
const FLOWS_MAX: u64 = 65_536;

/// A connection and where it is in its life.
struct Flow {
    port: u64,
    stage: Stage,
}

enum Stage {
    Parked {
        client: OwnedFd,
        until: u64,
    },
    Dialling {
        client: OwnedFd,
        backend: OwnedFd,
        address: SocketAddr,
        /// With the client's address as source.
        borrowed: bool,
        tried: Vec<SocketAddr>,
        until: u64,
    },
    Open(Box<Relay>),
}

/// How to go on after a try in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// With a backend that was not tried yet.
    Elsewhere,
    /// With any backend of the port.
    Afresh,
    /// With any backend, and our own address.
    Plainly,
}

/// All published ports and their connections.
pub(super) struct Proxy {
    ports: Ports,
    flows: HashMap<u64, Flow>,
    /// Flows that have more to move without waiting for an event.
    busy: VecDeque<u64>,
    pipes: Pipes,
    borrowing: Borrowing,
    flows_max: usize,
}

impl Proxy {
    /// No ports yet. `fds_max` is the process's limit of descriptors.
    pub(super) fn new(fds_max: u64) -> Self {
        let flows_max = usize::try_from((fds_max / 6).clamp(64, FLOWS_MAX)).unwrap_or(64);
        let (ports, pipes) = (Ports::default(), Pipes::default());
        let borrowing = Borrowing::default();
        Self { ports, flows: HashMap::new(), busy: VecDeque::new(), pipes, borrowing, flows_max }
    }

    /// Takes over listening sockets from the store; they accept once a table names them.
    pub(super) fn inherit(&mut self, store: &mut dyn FdStore) -> crate::Result<()> {
        self.ports.inherit(store)
    }

    /// Which backends can be dialled with the client's address from now on.
    pub(super) fn borrow(&mut self, borrowing: Borrowing) {
        self.borrowing = borrowing;
    }

    /// Puts a table in force. Afterwards no connection is being made to a backend it does not name.
    pub(super) fn set(
        &mut self,
        poller: &mut Poller,
        store: &mut dyn FdStore,
        listeners: &[Listener],
    ) -> Option<Response> {
        let changes = self.ports.set(poller, store, listeners);
        for (id, port) in changes.removed {
            let waiting: Vec<u64> = self
                .flows
                .iter()
                .filter(|(_, f)| f.port == id && !matches!(f.stage, Stage::Open(_)))
                .map(|(id, _)| *id)
                .collect();
            for flow in port.parked.iter().copied().chain(waiting) {
                self.refuse(poller, flow);
            }
        }
        self.redial_stale(poller);
        for id in self.ports.ids() {
            self.unpark(poller, id);
        }
        changes.failure
    }

    /// All connections, for the next switchboard; none is left here.
    pub(super) fn pack(&mut self) -> Vec<Parcel> {
        let flows: Vec<Flow> = self.flows.drain().map(|(_, flow)| flow).collect();
        let mut parcels = Vec::new();
        for flow in flows {
            match flow.stage {
                Stage::Open(relay) => {
                    let (state, fds) = relay.into_parts();
                    parcels.push(Parcel::Open(state, fds));
                }
                Stage::Parked { client, .. } | Stage::Dialling { client, .. } => {
                    let at = self.ports.get_mut(flow.port).map(|port| port.spec.at);
                    parcels.extend(at.map(|at| Parcel::Waiting(at.to_string(), client)));
                }
            }
        }
        parcels
    }

    /// Goes on with the connections of an earlier switchboard. Their ports must be there already.
    pub(super) fn unpack(&mut self, poller: &mut Poller, parcels: Vec<Parcel>) {
        for parcel in parcels {
            match parcel {
                Parcel::Open(state, fds) => {
                    let Some(relay) = Relay::from_parts(&state, fds) else { continue };
                    let id = poller.fresh_id();
                    let watched = relay.ends().into_iter().all(|(side, fd)| {
                        let kind = if side == Side::Client { Kind::Client } else { Kind::Backend };
                        poller.watch(fd, Token { kind, id }, Interest::Changes).is_ok()
                    });
                    if watched {
                        self.flows.insert(id, Flow { port: 0, stage: Stage::Open(Box::new(relay)) });
                        self.busy.push_back(id);
                    }
                }
                Parcel::Waiting(address, client) => {
                    if let Some(port) = address.parse().ok().and_then(|address| self.ports.id_at(address)) {
                        self.begin(poller, port, client);
                    }
                }
                Parcel::Names(..) | Parcel::Datagrams(..) => {}
            }
        }
    }

    /// A port has connections waiting.
    pub(super) fn accept(&mut self, poller: &mut Poller, port_id: u64) {
        for _ in 0..ACCEPT_TURN {
            if self.flows.len() >= self.flows_max {
                return self.ports.pause(poller, true);
            }
            let Some(port) = self.ports.get_mut(port_id) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&port.socket, flags) {
                Ok(client) => self.begin(poller, port_id, client),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    poller.arm(boot_ms() + ACCEPT_AGAIN_MS, Token { kind: Kind::Port, id: 0 });
                    return self.ports.pause(poller, true);
                }
                Err(Errno::AGAIN) => return,
                // The client went away while it waited (accept(2)); the next may be there.
                Err(_) => {}
            }
        }
    }

    /// The host had no descriptor to spare a moment ago.
    pub(super) fn accept_again(&mut self, poller: &Poller) {
        self.make_room(poller);
    }

    /// Something happened to one end of a flow.
    pub(super) fn event(&mut self, poller: &mut Poller, side: Side, id: u64, readiness: Readiness) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        match &mut flow.stage {
            Stage::Open(relay) => {
                relay.note(side, readiness);
                if readiness.broken && relay.is_reset(side) {
                    return self.finish(poller, id, Turn::Broken);
                }
                self.turn(poller, id);
            }
            Stage::Dialling { .. } if side == Side::Backend => self.dialled(poller, id, readiness),
            Stage::Parked { .. } | Stage::Dialling { .. } => {
                if side == Side::Client && readiness.broken {
                    self.refuse(poller, id);
                }
            }
        }
    }

    /// A flow's deadline passed: parked for too long, or a backend did not answer.
    pub(super) fn expired(&mut self, poller: &mut Poller, id: u64) {
        match self.flows.get(&id).map(|f| &f.stage) {
            Some(Stage::Parked { .. }) => self.refuse(poller, id),
            Some(Stage::Dialling { borrowed: true, .. }) => {
                self.borrowing.failed();
                self.redial(poller, id, Again::Plainly);
            }
            Some(Stage::Dialling { .. }) => self.redial(poller, id, Again::Elsewhere),
            Some(Stage::Open(_)) | None => {}
        }
    }

    /// Whether some flow can go on without waiting.
    pub(super) fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Lets each busy flow go on for one turn.
    pub(super) fn resume(&mut self, poller: &mut Poller) {
        for id in std::mem::take(&mut self.busy) {
            self.turn(poller, id);
        }
    }

    fn begin(&mut self, poller: &mut Poller, port: u64, client: OwnedFd) {
        let id = poller.fresh_id();
        let _ = sockopt::set_tcp_nodelay(&client, true);
        let _ = sockopt::set_socket_keepalive(&client, true);
        if poller.watch(&client, Token { kind: Kind::Client, id }, Interest::Changes).is_ok() {
            self.dial(poller, id, port, client, Vec::new(), true);
        }
    }

    /// Dials the next backend for a client; parks it when there is none, refuses it when all tries were in vain.
    fn dial(
        &mut self,
        poller: &mut Poller,
        id: u64,
        port_id: u64,
        client: OwnedFd,
        mut tried: Vec<SocketAddr>,
        borrow: bool,
    ) {
        let Some(port) = self.ports.get_mut(port_id) else { return reset(&client) };
        if port.spec.backends.is_empty() {
            return self.park(poller, id, port_id, client);
        }
        while tried.len() < TRIES_MAX
            && let Some(address) = port.pick(&tried)
        {
            tried.push(address);
            let last = tried.len() == TRIES_MAX.min(port.spec.backends.len());
            let token = Token { kind: Kind::Backend, id };
            let source = if borrow { self.borrowing.source(&client, address) } else { None };
            // Without CAP_NET_ADMIN nothing can be borrowed.
            let plainly = |error| if source.is_some() { connect(address, None) } else { Err(error) };
            let Ok(backend) = connect(address, source).or_else(plainly) else { continue };
            let borrowed = source.is_some();
            if poller.watch(&backend, token, Interest::Changes).is_err() {
                continue;
            }
            let patience = match (borrowed, last) {
                (true, _) => BORROWED_TRY_MS,
                (false, true) => LAST_TRY_MS,
                (false, false) => TRY_MS,
            };
            let until = boot_ms() + patience;
            poller.arm(until, token);
            self.flows.insert(
                id,
                Flow { port: port_id, stage: Stage::Dialling { client, backend, address, borrowed, tried, until } },
            );
            return;
        }
        reset(&client);
        self.make_room(poller);
    }

    fn park(&mut self, poller: &mut Poller, id: u64, port_id: u64, client: OwnedFd) {
        let Some(port) = self.ports.get_mut(port_id) else { return reset(&client) };
        if port.spec.park_ms == 0 {
            return reset(&client);
        }
        let until = boot_ms() + u64::from(port.spec.park_ms);
        port.parked.insert(id);
        poller.arm(until, Token { kind: Kind::Backend, id });
        self.flows.insert(id, Flow { port: port_id, stage: Stage::Parked { client, until } });
    }

    fn unpark(&mut self, poller: &mut Poller, port_id: u64) {
        let Some(port) = self.ports.get_mut(port_id) else { return };
        if port.spec.backends.is_empty() {
            return;
        }
        for id in std::mem::take(&mut port.parked) {
            if let Some(Flow { stage: Stage::Parked { client, until }, .. }) = self.flows.remove(&id) {
                poller.disarm(until, Token { kind: Kind::Backend, id });
                self.dial(poller, id, port_id, client, Vec::new(), true);
            }
        }
    }

    /// The dialled socket woke: it is connected, or was refused.
    fn dialled(&mut self, poller: &mut Poller, id: u64, readiness: Readiness) {
        let Some(Flow { stage: Stage::Dialling { backend, borrowed, until, .. }, .. }) = self.flows.get(&id) else {
            return;
        };
        let failed = !matches!(sockopt::socket_error(backend), Ok(Ok(())));
        if failed {
            return self.redial(poller, id, Again::Elsewhere);
        }
        // A late event of a socket dialled before says nothing about this one.
        if !readiness.writable || !matches!(rustix::net::getpeername(backend), Ok(Some(_))) {
            return;
        }
        if *borrowed {
            self.borrowing.worked();
        }
        poller.disarm(*until, Token { kind: Kind::Backend, id });
        let Some(Flow { port, stage: Stage::Dialling { client, backend, .. } }) = self.flows.remove(&id) else {
            return;
        };
        let relay = Box::new(Relay::new(client, backend));
        self.flows.insert(id, Flow { port, stage: Stage::Open(relay) });
        self.turn(poller, id);
    }

    /// Gives up the backend being dialled.
    fn redial(&mut self, poller: &mut Poller, id: u64, again: Again) {
        let flow = self.flows.remove(&id);
        if let Some(Flow { port, stage: Stage::Dialling { client, tried, until, .. } }) = flow {
            poller.disarm(until, Token { kind: Kind::Backend, id });
            let tried = if again == Again::Elsewhere { tried } else { Vec::new() };
            self.dial(poller, id, port, client, tried, again != Again::Plainly);
        }
    }

    /// Dials elsewhere what is being dialled to a backend that its port no longer has.
    fn redial_stale(&mut self, poller: &mut Poller) {
        let dialling = self.flows.iter().filter_map(|(id, flow)| match &flow.stage {
            Stage::Dialling { address, .. } => Some((*id, flow.port, *address)),
            Stage::Parked { .. } | Stage::Open(_) => None,
        });
        let dialling: Vec<(u64, u64, SocketAddr)> = dialling.collect();
        for (id, port, address) in dialling {
            if self.ports.get_mut(port).is_none_or(|port: &mut Port| !port.spec.backends.contains(&address)) {
                self.redial(poller, id, Again::Afresh);
            }
        }
    }

    fn turn(&mut self, poller: &mut Poller, id: u64) {
        let Some(Flow { stage: Stage::Open(relay), .. }) = self.flows.get_mut(&id) else { return };
        match relay.turn(&mut self.pipes) {
            Turn::Waiting => {}
            Turn::More => self.busy.push_back(id),
            ended @ (Turn::Done | Turn::Broken) => self.finish(poller, id, ended),
        }
    }

    fn finish(&mut self, poller: &Poller, id: u64, how: Turn) {
        if let Some(Flow { stage: Stage::Open(relay), .. }) = self.flows.remove(&id)
            && how == Turn::Broken
        {
            relay.reset();
        }
        self.make_room(poller);
    }

    /// Ends a flow that never had a backend, with a reset.
    fn refuse(&mut self, poller: &mut Poller, id: u64) {
        let Some(flow) = self.flows.remove(&id) else { return };
        if let Some(port) = self.ports.get_mut(flow.port) {
            port.parked.remove(&id);
        }
        match flow.stage {
            Stage::Parked { client, until } => {
                poller.disarm(until, Token { kind: Kind::Backend, id });
                reset(&client);
            }
            Stage::Dialling { client, backend, until, .. } => {
                poller.disarm(until, Token { kind: Kind::Backend, id });
                reset(&client);
                // It may be connected already, and its program would take an orderly end for the client's word.
                reset(&backend);
            }
            Stage::Open(relay) => relay.reset(),
        }
        self.make_room(poller);
    }

    fn make_room(&mut self, poller: &Poller) {
        if self.ports.is_paused() && self.flows.len() < self.flows_max {
            self.ports.pause(poller, false);
        }
    }
}
