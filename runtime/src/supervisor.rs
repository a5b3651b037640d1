//! The supervisor: parent of every container of one data root. One thread, one epoll set, no async runtime.
//!
//! It clones, waits, pumps logs, stops, records how things ended and tells who asked. It never mounts, never unlinks
//! trees and never resolves a path of a user: children do. It may be killed at any moment: descriptors are with the
//! keeper, who is also the new parent of its children, and records are on disk before anybody is told (`adopt`).
//! Must not know images, registries, manifests or threads.

mod adopt;
mod attach;
mod cgroups;
pub mod client;
mod clients;
pub(crate) mod container;
mod create;
mod event_loop;
mod exec;
pub(crate) mod identity;
mod logs;
mod reap;
mod stop;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::clock;
use crate::error::{Doing, Error, Result};
use crate::id::ContainerId;
use crate::keeper::{self, KeeperStore};
use crate::layout::{Layout, make_private_dir};
use crate::runtime::{ContainerState, Resources, RuntimeEvent};
use crate::spec::NOFILE_MAX;
use attach::Attached;
use clients::Client;
pub(crate) use container::write_record;
pub(crate) use logs::format::rfc3339_nano;

use container::Container;
use event_loop::{Poller, Source, Timer, Timers, Watched};
use exec::{Exec, Helper};
use logs::{Pump, Pumped};
use wire::{Request, Response};

/// How long a stopping supervisor waits for creations and starts under way, in milliseconds.
const DRAIN_MS: u64 = 3_000;
/// Blocks of log moved before anything else gets its turn.
const BLOCKS_PER_TURN: usize = 4;

/// Whether the first process of a container is there, from its record alone: no supervisor need run.
#[must_use]
pub fn lives(layout: &Layout, id: &ContainerId) -> bool {
    let dir = layout.container_run_dir(id);
    let Ok(record) = container::read_record::<container::StateRecord>(&dir.join("state.json")) else { return false };
    let identity = record.identity;
    let same_boot = layout.boot_id().is_ok_and(|boot_id| boot_id == identity.boot_id);
    same_boot && !dir.join("exit.json").exists() && identity::start_time(identity.pid) == Some(identity.start_time)
}

/// Runs the supervisor until SIGTERM; `args` are those after `boxship supervisor`: `--data-root D --run-dir R
/// [--boot-id-path F]`. A keeper must run in this run directory.
///
/// # Errors
/// `Unreachable` without a keeper, `Conflict` when another supervisor runs here, `Io`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let layout = Layout::from_args(args)?;
    let _ = rustix::thread::set_name(c"bx-supervisor");
    tell_lower_limit(crate::sys::daemon::raise_fd_limit());
    Supervisor::open(layout)?.run()
}

/// Containers get no more open files than this process may have, unless it has the right to give more.
fn tell_lower_limit(files_max: u64) {
    let may_raise = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE);
    if files_max < NOFILE_MAX && !may_raise.unwrap_or(false) {
        tracing::warn!(
            "CAP_SYS_RESOURCE is missing: containers may open {files_max} files instead of {NOFILE_MAX}; run as root, or \
             raise the limit of open files"
        );
    }
}

/// All it knows.
struct Supervisor {
    layout: Layout,
    boot_id: String,
    poller: Poller,
    timers: Timers,
    keeper: KeeperStore,
    listener: Watched<OwnedFd>,
    signals: Watched<SignalFd>,
    exits: Watched<OwnedFd>,
    containers: BTreeMap<ContainerId, Container>,
    execs: BTreeMap<u64, Exec>,
    helpers: BTreeMap<i32, Helper>,
    clients: BTreeMap<u64, Client>,
    next_number: u64,
    pump: Pump,
    log_budget: logs::budget::Budget,
    /// Pipes with output of containers that have ended.
    leaving: Vec<Attached>,
    stop_at_ms: Option<u64>,
    _lock: File,
}

impl Supervisor {
    fn open(layout: Layout) -> Result<Self> {
        make_private_dir(&layout.run_dir.join("containers"))?;
        make_private_dir(&layout.exits_dir())?;
        let lock = keeper::lock(&layout.run_dir.join("supervisor.lock"), "supervisor")?;
        let keeper = KeeperStore::connect(&layout)?;
        let poller = Poller::new()?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block().doing(|| "block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .doing(|| "make a signal descriptor")?;
        let mut supervisor = Self {
            boot_id: layout.boot_id()?,
            listener: poller.watch(clients::listen(&layout, &keeper)?, Source::Listener)?,
            signals: poller.watch(signals, Source::Signals)?,
            exits: poller.watch(reap::watch_exits(&layout)?, Source::Exits)?,
            timers: Timers::default(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            helpers: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_number: 1,
            pump: Pump::new()?,
            log_budget: logs::budget::Budget::of_host(&layout.containers_dir()),
            leaving: Vec::new(),
            stop_at_ms: None,
            _lock: lock,
            poller,
            keeper,
            layout,
        };
        supervisor.adopt()?;
        Ok(supervisor)
    }

    fn run(mut self) -> Result<()> {
        loop {
            let logs_wait = self.pump_logs();
            if self.stop_at_ms.is_some_and(|at| clock::boot_ms() >= at || self.is_quiet()) {
                crate::cgroup::remove_empty(&crate::linux::cgroup_parent(&self.layout));
                return Ok(());
            }
            let wake_at = if logs_wait { Some(0) } else { self.timers.next_at() };
            let wake_at = [wake_at, self.stop_at_ms].into_iter().flatten().min();
            for source in self.poller.wait(wake_at)? {
                self.handle(source);
            }
            while let Some(timer) = self.timers.pop_due(clock::boot_ms()) {
                self.fire(timer);
            }
        }
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.take_signals(),
            Source::Exits => self.keeper_saw_exits(),
            Source::Client(number) => self.serve_client(number),
            Source::Init(id) => self.init_ended(&id),
            Source::Channel(id) => self.channel_spoke(&id),
            Source::Log(id, index) => self.attached_spoke(&id, index),
            Source::Sibling(id) => self.stop_sibling_ended(&id),
            Source::Helper(pid) => self.helper_ended(pid),
            Source::ExecChannel(number) => self.exec_spoke(number),
            Source::ExecProcess(number) => self.exec_ended(number),
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Create(id) => self.create_takes_too_long(&id),
            Timer::Start(id) => self.start_takes_too_long(&id),
            Timer::Helper(pid) => self.helper_takes_too_long(pid),
            Timer::Exec(number) => self.exec_takes_too_long(number),
            Timer::StopLook(id) => self.stop_look(&id),
            Timer::StopGrace(id) => self.stop_grace_over(&id),
            Timer::ExitUnseen(id) => self.exit_unseen(&id),
            Timer::Cleanup(id, tries) => self.finish_removal(&id, tries),
        }
    }

    /// One request of one connection. `Ok` means the answer was given or will be.
    fn dispatch(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) -> Result<()> {
        match request {
            Request::Create(create) => self.create(client, *create),
            Request::Start { id } => self.start(client, &id),
            Request::Stop { id, signal, grace_ms } => self.stop(client, &id, signal, grace_ms),
            Request::Kill { id, signal } => self.kill(client, &id, signal),
            Request::Remove { id } => self.remove(client, &id),
            Request::List => {
                let all = self.containers.values().map(Container::status).collect();
                self.answer(client, &Response::Containers(all));
                Ok(())
            }
            Request::Exec { id, config } => self.exec(client, &id, &config, fds),
            Request::Attach { id, take_stdin } => self.attach(client, &id, take_stdin),
            Request::ExecWait { exec } => self.exec_wait(client, exec),
            Request::ExecKill { exec } => self.exec_kill(client, exec),
            Request::Update { id, resources } => self.update(client, &id, &resources),
            Request::Watch => {
                self.watch_events(client);
                Ok(())
            }
        }
    }

    fn kill(&mut self, client: u64, id: &ContainerId, signal: i32) -> Result<()> {
        let container = self.container_mut(id)?;
        if container.record.state == ContainerState::Stopped {
            return Err(Error::Conflict(format!("container `{id}` does not run")));
        }
        stop::send(container, signal);
        self.answer_done(client);
        Ok(())
    }

    fn update(&mut self, client: u64, id: &ContainerId, resources: &Resources) -> Result<()> {
        let container = self.container_mut(id)?;
        container.cgroup.update(resources)?;
        self.answer_done(client);
        Ok(())
    }

    fn container_mut(&mut self, id: &ContainerId) -> Result<&mut Container> {
        self.containers.get_mut(id).ok_or_else(|| Error::NotFound { what: "container", name: id.to_string() })
    }

    /// Moves some blocks of every stream that has any; whether there is more to do at once.
    fn pump_logs(&mut self) -> bool {
        let mut more = false;
        for container in self.containers.values_mut() {
            for stream in container.streams.iter_mut().filter(|stream| stream.ready) {
                stream.ready =
                    (0..BLOCKS_PER_TURN).all(|_| self.pump.step(stream, &mut container.log, false) == Pumped::More);
                more |= stream.ready;
            }
            let rotated = container.log.take_rotated();
            if rotated > 0 {
                self.log_budget.rotated(rotated);
            }
        }
        more
    }

    fn announce(&mut self, event: &RuntimeEvent) {
        let watching: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.watches).map(|(number, _)| *number).collect();
        for number in watching {
            self.answer(number, &Response::Event(event.clone()));
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {
            self.stop_at_ms.get_or_insert(clock::boot_ms() + DRAIN_MS);
        }
    }

    /// Nothing is under way that the next supervisor could not take over.
    fn is_quiet(&self) -> bool {
        self.helpers.is_empty() && self.containers.values().all(|container| container.waiting.started.is_none())
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// A clone of a process with several threads may copy a lock that is held: there must be one.
fn assert_single_threaded() {
    assert!(crate::sys::clone::is_single_threaded().unwrap_or(false), "the supervisor has one thread");
}
