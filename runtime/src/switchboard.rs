//! The switchboard: answers DNS for container networks and accepts on published host ports. A process of its own.
//!
//! It gets its whole table as one atomic value over its control socket and diffs its sockets against it; sockets that
//! stay are never closed. The keeper holds duplicates of all of them (`fd_store`), so a killed switchboard refuses no
//! connection. One thread, one epoll loop, no tokio. Must not know manifests, images or how containers are made.

pub mod client;
mod control;
mod datagrams;
mod dial;
mod dns;
pub mod fd_store;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handover;
mod holder;
mod packet;
mod poller;
mod ports;
mod proxy;
mod relay;
mod table_file;
mod wire;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use client::SwitchboardClient;

use crate::Result;
use crate::clock::boot_ms;
use crate::error::{Doing, chain};
use crate::keeper::KeeperStore;
use crate::layout::Layout;
use crate::network::transparent;
use crate::runtime::EndpointTable;
use control::Control;
use datagrams::Datagrams;
use dial::Borrowing;
use dns::Dns;
use dns::answer::Names;
use fd_store::{FdStore, MemoryFdStore};
use handover::Parcel;
use poller::{Interest, Kind, Poller, Readiness, Token};
use proxy::Proxy;
use relay::Side;
use wire::{Request, Response};

/// How long an upgrade waits for answers of the host's resolvers. Their clients ask again after 5 s, which is longer.
const LAST_ANSWERS_MS: u64 = 500;

/// Runs the switchboard until SIGTERM, upon which its connections go to its successor by way of the keeper; `args` are those after `boxship switchboard`:
/// `--data-root D --run-dir R [--boot-id-path F]`. Sockets are kept by the keeper of that run directory, if there is one.
///
/// # Errors
/// `Io` when the control socket or epoll cannot be had; nothing later ends it.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let layout = Layout::from_args(args)?;
    match KeeperStore::connect(&layout) {
        Ok(keeper) => serve(&layout, Box::new(keeper)),
        Err(e) => {
            tracing::warn!("sockets will not survive this process: {}", chain(&e));
            serve(&layout, Box::new(MemoryFdStore::default()))
        }
    }
}

/// Runs the switchboard of a layout until SIGTERM, with its sockets kept in `store`. The control socket is there once it serves.
///
/// # Errors
/// As [`run`].
pub fn serve(layout: &Layout, store: Box<dyn FdStore>) -> Result<()> {
    Switchboard::start(layout, store, PathBuf::from("/etc/resolv.conf"))?.serve()
}

/// Everything the process holds.
struct Switchboard {
    layout: Layout,
    poller: Poller,
    store: Box<dyn FdStore>,
    table: EndpointTable,
    proxy: Proxy,
    datagrams: Datagrams,
    dns: Dns,
    control: Control,
    /// Tells of SIGTERM.
    signals: SignalFd,
    /// When the process ends at the latest, in milliseconds of boot time, once it was asked to.
    ends_at: Option<u64>,
}

impl Switchboard {
    /// Takes over what an earlier one left: the table from its file, sockets from the store.
    fn start(layout: &Layout, mut store: Box<dyn FdStore>, resolv_conf: PathBuf) -> Result<Self> {
        let mut poller = Poller::new()?;
        let signals = catch_sigterm(&poller)?;
        let fds_max = raise_fds_max();
        let (mut proxy, mut datagrams) = (Proxy::new(fds_max), Datagrams::new(fds_max));
        let mut dns = Dns::new(resolv_conf);
        let sockets = proxy.inherit(&mut *store).and_then(|()| datagrams.inherit(&mut *store));
        let inherited = sockets.and_then(|()| dns.inherit(&mut poller, &mut *store));
        if let Err(e) = inherited {
            tracing::warn!("starting without the sockets of an earlier switchboard: {}", chain(&e));
        }
        let table = table_file::read(layout);
        if let Some(table) = &table {
            dns.set(Names::new(table));
            proxy.borrow(borrowing(layout));
            let refused = proxy.set(&mut poller, &mut *store, &table.listeners);
            if let Some(failure) = datagrams.set(&mut poller, &mut *store, &table.listeners).or(refused) {
                tracing::warn!("a port of the last table cannot be had: {failure:?}");
            }
        }
        match handover::take(&mut *store) {
            Ok(parcels) => {
                let (names, others) = parcels.into_iter().partition(|parcel| matches!(parcel, Parcel::Names(..)));
                dns.unpack(&mut poller, names);
                let is_datagrams = |parcel: &Parcel| matches!(parcel, Parcel::Datagrams(..));
                let (clients, flows) = Vec::into_iter(others).partition(is_datagrams);
                datagrams.unpack(&mut poller, clients);
                proxy.unpack(&mut poller, flows);
            }
            Err(e) => tracing::warn!("starting without the connections of an earlier switchboard: {}", chain(&e)),
        }
        let control = Control::bind(layout, &poller)?;
        let table = table.unwrap_or_default();
        Ok(Self {
            layout: layout.clone(),
            poller,
            store,
            table,
            proxy,
            datagrams,
            dns,
            control,
            signals,
            ends_at: None,
        })
    }

    fn serve(mut self) -> Result<()> {
        loop {
            let events = self.poller.wait(self.proxy.is_busy())?;
            for (token, readiness) in events {
                self.dispatch(token, readiness);
            }
            let now = boot_ms();
            while let Some(token) = self.poller.expired(now) {
                self.expired(token);
            }
            self.proxy.resume(&mut self.poller);
            if self.ends_at.is_some_and(|at| boot_ms() >= at || self.dns.is_idle()) {
                let mut parcels = self.proxy.pack();
                parcels.extend(self.dns.pack());
                parcels.extend(self.datagrams.pack());
                handover::store(&mut *self.store, parcels);
                return Ok(());
            }
        }
    }

    fn dispatch(&mut self, Token { kind, id }: Token, readiness: Readiness) {
        match kind {
            Kind::Control => self.control.accept(&mut self.poller),
            Kind::ControlPeer => self.requests(id),
            Kind::Port => self.proxy.accept(&mut self.poller, id),
            Kind::Client => self.proxy.event(&mut self.poller, Side::Client, id, readiness),
            Kind::Backend => self.proxy.event(&mut self.poller, Side::Backend, id, readiness),
            Kind::DnsUdp => self.dns.datagrams(&mut self.poller, id),
            Kind::DnsTcp => self.dns.accept(&mut self.poller, id),
            Kind::DnsPeer => self.dns.converse(&mut self.poller, id),
            Kind::Upstream => self.dns.upstream_event(&mut self.poller, id),
            Kind::Signal => self.end_soon(),
            Kind::UdpPort => self.datagrams.arrived(&mut self.poller, id),
            Kind::UdpFlow => self.datagrams.answered(&mut self.poller, id),
        }
    }

    fn expired(&mut self, Token { kind, id }: Token) {
        match kind {
            Kind::Port => self.proxy.accept_again(&self.poller),
            Kind::Backend => self.proxy.expired(&mut self.poller, id),
            Kind::DnsPeer => self.dns.hang_up(&mut self.poller, id),
            Kind::Upstream => self.dns.upstream_expired(&mut self.poller, id),
            Kind::UdpFlow => self.datagrams.expired(&mut self.poller, id),
            Kind::Control
            | Kind::ControlPeer
            | Kind::Client
            | Kind::DnsUdp
            | Kind::DnsTcp
            | Kind::Signal
            | Kind::UdpPort => {}
        }
    }

    /// Questions on their way to a resolver cannot be handed over: they get a moment to be answered.
    fn end_soon(&mut self) {
        if self.ends_at.is_none() {
            let at = boot_ms() + LAST_ANSWERS_MS;
            self.ends_at = Some(at);
            self.poller.arm(at, Token { kind: Kind::Signal, id: 0 });
        }
        // Read, or it would wake the loop again and again.
        let _ = self.signals.read_signal();
    }

    fn requests(&mut self, peer: u64) {
        for (request, fds) in self.control.requests(peer) {
            let response = match request {
                Request::SetTable { table } => self.set_table(table),
                Request::AddDns { id } => match <[OwnedFd; 2]>::try_from(fds) {
                    Ok([udp, tcp]) => respond(self.dns.add(&mut self.poller, &mut *self.store, id, udp, tcp)),
                    Err(fds) => {
                        Response::Failed { message: format!("two descriptors are expected, not {}", fds.len()) }
                    }
                },
                Request::DropDns { id } => respond(self.dns.remove(&mut self.poller, &mut *self.store, &id)),
            };
            self.control.respond(peer, &response);
        }
    }

    fn set_table(&mut self, table: EndpointTable) -> Response {
        if table != self.table
            && let Err(e) = table_file::write(&self.layout, &table)
        {
            tracing::warn!("this table would not survive the switchboard: {}", chain(&e));
        }
        self.dns.set(Names::new(&table));
        self.proxy.borrow(borrowing(&self.layout));
        // Also when nothing changed: a port that was taken may be free by now.
        let refused = self.proxy.set(&mut self.poller, &mut *self.store, &table.listeners);
        let failure = self.datagrams.set(&mut self.poller, &mut *self.store, &table.listeners).or(refused);
        self.table = table;
        failure.unwrap_or(Response::Done)
    }
}

/// Which containers can be dialled with their clients' addresses now.
fn borrowing(layout: &Layout) -> Borrowing {
    let subnets = transparent::subnets(layout);
    Borrowing::new(subnets.inspect_err(|e| tracing::debug!("dialling plainly: {}", chain(e))).unwrap_or_default())
}

fn respond(outcome: Result<()>) -> Response {
    match outcome {
        Ok(()) => Response::Done,
        Err(e) => Response::Failed { message: chain(&e) },
    }
}

/// SIGTERM as an event of the loop.
fn catch_sigterm(poller: &Poller) -> Result<SignalFd> {
    let doing = || "watch for SIGTERM";
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block().doing(doing)?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).doing(doing)?;
    poller.watch(&signals, Token { kind: Kind::Signal, id: 0 }, Interest::Read).doing(doing)?;
    Ok(signals)
}

/// Raises the limit of descriptors as far as it goes, and says how far that is.
fn raise_fds_max() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}
