//! Create, start and remove: the steps of one container up to its program and after its end.
//!
//! `process` does the work in children and reports over a channel; here are only the states, the deadlines, the records
//! and who waits for what.

use std::cell::RefCell;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::OFlags;

use super::container::{Container, StateRecord, write_record};
use super::event_loop::{Source, Timer};
use super::exec::Owner;
use super::identity::{Identity, start_time};
use super::logs::format::StreamName;
use super::logs::{self, Origin, Stream};
use super::stop::kill_all;
use super::wire::{Create, Response};
use super::{Supervisor, assert_single_threaded};
use crate::clock;
use crate::error::{Doing, Error, Result};
use crate::id::ContainerId;
use crate::layout::make_private_dir;
use crate::process::{self, InitEvent, Spawned, Stdio};
use crate::runtime::{ContainerState, ContainerTimes, RuntimeEvent};

/// How long mounts, maps and network may take.
const CREATE_MS: u64 = 30_000;
/// How long an exec may take: its file may be on a slow disk.
const START_MS: u64 = 30_000;
/// Tries to remove a cgroup whose last processes are still dying, doubling from 5 ms: about 10 s.
const CLEANUP_TRIES: u32 = 11;

impl Supervisor {
    pub(super) fn create(&mut self, client: u64, mut create: Create) -> Result<()> {
        let id = create.id.clone();
        if self.containers.contains_key(&id) {
            return Err(Error::Conflict(format!("container `{id}` exists already")));
        }
        if self.layout.container_run_dir(&id).exists() {
            // Of a creation that was cut off: its processes were still dying when the next supervisor undid it.
            let _ = self.undo_unborn(&id);
            self.forget_files(&id);
        }
        self.join_pod(&mut create)?;
        let result = self.spawn(client, &create);
        if result.is_err() {
            self.forget_files(&id);
            let _ = process::cleanup(&create.launch);
        }
        result
    }

    /// A member of a pod joins what its holder holds. The holder is our child (or the keeper's) and its end not yet heard
    /// of, so its number is its own while this runs.
    fn join_pod(&self, create: &mut Create) -> Result<()> {
        let Some(joins) = &create.launch.joins else { return Ok(()) };
        let missing = || Error::Conflict(format!("the pod `{}` does not run", joins.holder));
        let holder = self.containers.get(&joins.holder).ok_or_else(missing)?;
        if holder.record.state != ContainerState::Running || holder.init.is_none() || holder.init_ended {
            return Err(missing());
        }
        process::join(&mut create.spec, holder.record.identity.pid, joins.share_pids);
        Ok(())
    }

    fn spawn(&mut self, client: u64, create: &Create) -> Result<()> {
        let id = &create.id;
        let terminal = create.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
        let dir = self.layout.container_run_dir(id);
        make_private_dir(&dir)?;
        let logs_dir = self.layout.container_dir(id).join("logs");
        write_record(&dir.join("bundle.json"), create)?;
        let (stdin_end, stdin) = self.make_stdin(create, terminal)?;
        let (stdio, streams) = if terminal { (Stdio::Terminal, Vec::new()) } else { self.make_fifos(id, stdin_end)? };
        assert_single_threaded();
        let Spawned { pid, pidfd, channel, stage } = process::spawn(&create.spec, &create.launch, stdio)?;
        let identity = Identity { boot_id: self.boot_id.clone(), pid, start_time: start_time(pid).unwrap_or_default() };
        let times = ContainerTimes { created_unix_ms: clock::unix_ms(), ..ContainerTimes::default() };
        let record = StateRecord {
            identity,
            state: ContainerState::Creating,
            start_asked: false,
            times,
            terminal,
            log: create.log,
            cgroup: create.launch.cgroup.clone(),
        };
        let mut container = Container::new(id.clone(), dir, logs_dir, record);
        container.init = Some(self.poller.watch(pidfd, Source::Init(id.clone()))?);
        container.channel = Some(self.poller.watch(channel, Source::Channel(id.clone()))?);
        container.helper = stage.map(|stage| self.add_helper(stage, Owner::Container(id.clone()))).transpose()?;
        container.streams = streams;
        container.stdin = stdin;
        container.waiting.created = Some(client);
        let saved = container.save();
        self.containers.insert(id.clone(), container);
        self.timers.set(clock::boot_ms() + CREATE_MS, Timer::Create(id.clone()));
        if let Err(error) = saved {
            self.creation_failed(id, error);
        }
        Ok(())
    }

    /// The container's stdin and, where somebody may attach to it, the other end, which the keeper holds too.
    fn make_stdin(&mut self, create: &Create, terminal: bool) -> Result<(OwnedFd, Option<OwnedFd>)> {
        if !create.stdin || terminal {
            let null = std::fs::File::open("/dev/null").doing(|| "open /dev/null")?;
            return Ok((null.into(), None));
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(|| "make a pipe")?;
        self.keeper.put(&format!("in/{}", create.id), &[write.as_fd()])?;
        Ok((read, Some(write)))
    }

    /// stdout and stderr are FIFOs whose other ends are pumped and held by the keeper.
    fn make_fifos(&mut self, id: &ContainerId, stdin: OwnedFd) -> Result<(Stdio, Vec<Stream>)> {
        let dir = self.layout.container_run_dir(id);
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for name in StreamName::ALL {
            let path = dir.join(name.as_str());
            ours.push(logs::make_fifo(&path)?);
            theirs.push(logs::open_fifo(&path, OFlags::empty())?);
        }
        let held: Vec<_> = ours.iter().map(std::os::fd::AsFd::as_fd).collect();
        self.keeper.put(&format!("log/{id}"), &held)?;
        let streams = self.fifo_streams(id, ours)?;
        let [out, err] = <[OwnedFd; 2]>::try_from(theirs).expect("one for each of the two streams");
        Ok((Stdio::Fds([stdin, out, err]), streams))
    }

    /// Watches the two FIFOs of a container.
    pub(super) fn fifo_streams(&self, id: &ContainerId, fifos: Vec<OwnedFd>) -> Result<Vec<Stream>> {
        let named = StreamName::ALL.into_iter().zip(fifos).enumerate();
        named
            .map(|(index, (name, fd))| {
                let fd = self.poller.watch_edges(fd, Source::Log(id.clone(), index))?;
                Ok(Stream { origin: Origin::Fifo(name), fd, ready: true, attached: RefCell::default() })
            })
            .collect()
    }

    /// Watches the master of a container's terminal.
    pub(super) fn terminal_stream(&self, id: &ContainerId, master: OwnedFd) -> Result<Stream> {
        rustix::io::ioctl_fionbio(&master, true).doing(|| "make a terminal non-blocking")?;
        let fd = self.poller.watch_edges(master, Source::Log(id.clone(), 0))?;
        Ok(Stream { origin: Origin::Terminal, fd, ready: true, attached: RefCell::default() })
    }

    pub(super) fn channel_spoke(&mut self, id: &ContainerId) {
        loop {
            let Some(container) = self.containers.get_mut(id) else { return };
            let Some(channel) = &mut container.channel else { return };
            match channel.get_mut().receive() {
                Ok(None) => return,
                // Our own specs have no hooks.
                Ok(Some(InitEvent::Mounted)) => drop(channel.get_mut().proceed()),
                Ok(Some(InitEvent::Created { dns, terminal })) => self.created(id, dns, terminal),
                Ok(Some(InitEvent::Started)) => self.started(id),
                Ok(Some(InitEvent::Failed { error })) | Err(error) => self.launch_failed(id, error),
            }
        }
    }

    fn created(&mut self, id: &ContainerId, dns: Option<[OwnedFd; 2]>, terminal: Option<OwnedFd>) {
        let stream = terminal.map(|master| {
            self.keeper.put(&format!("tty/{id}"), &[master.as_fd()])?;
            self.terminal_stream(id, master)
        });
        self.timers.cancel(&Timer::Create(id.clone()));
        let Some(container) = self.containers.get_mut(id) else { return };
        container.record.state = ContainerState::Created;
        let stream = match stream.transpose() {
            Ok(stream) => stream,
            Err(error) => return self.creation_failed(id, error),
        };
        container.streams.extend(stream);
        let kept = container.channel.as_ref().map(|channel| self.keeper.put(&format!("chan/{id}"), &[channel.as_fd()]));
        if let Err(error) = kept.unwrap_or(Ok(())).and_then(|()| container.save()) {
            return self.creation_failed(id, error);
        }
        if let Some(client) = container.waiting.created.take() {
            self.answer_with(client, &Response::Done, dns.map_or_else(Vec::new, Vec::from));
        }
        self.announce(&RuntimeEvent::Changed);
    }

    fn started(&mut self, id: &ContainerId) {
        let _ = self.keeper.drop_name(&format!("chan/{id}"));
        self.timers.cancel(&Timer::Start(id.clone()));
        let Some(container) = self.containers.get_mut(id) else { return };
        container.channel = None;
        if !container.record.start_asked {
            // the channel of a created one ended: it was killed, and its pidfd will say so
            return;
        }
        container.record.state = ContainerState::Running;
        container.record.times.started_boot_ms = clock::boot_ms();
        container.record.times.started_unix_ms = clock::unix_ms();
        let saved = container.save();
        if let Some(client) = container.waiting.started.take() {
            match saved {
                Ok(()) => self.answer_done(client),
                Err(error) => self.answer_error(client, error),
            }
        }
        self.announce(&RuntimeEvent::Changed);
    }

    /// The channel ended with an error: before `Created` it is the creation's, after it the start's.
    fn launch_failed(&mut self, id: &ContainerId, error: Error) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.channel = None;
        match container.record.state {
            ContainerState::Creating => self.creation_failed(id, error),
            ContainerState::Created | ContainerState::Running | ContainerState::Stopped => {
                kill_all(container);
                if let Some(client) = container.waiting.started.take() {
                    self.answer_error(client, error);
                }
            }
        }
    }

    /// Undoes a creation; the connection hears why at once, the rest goes on behind it.
    fn creation_failed(&mut self, id: &ContainerId, error: Error) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.removing = true;
        container.channel = None;
        kill_all(container);
        if let Some(client) = container.waiting.created.take() {
            self.answer_error(client, error);
        }
    }

    pub(super) fn create_takes_too_long(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else { return };
        if container.record.state == ContainerState::Creating && !container.removing {
            let error = Error::Unsupported(format!("container `{id}` was not set up within 30 s: a mount may hang"));
            self.creation_failed(id, error);
        }
    }

    pub(super) fn start(&mut self, client: u64, id: &ContainerId) -> Result<()> {
        let container = self.container_mut(id)?;
        match (&container.record.state, &container.channel, container.waiting.started) {
            (ContainerState::Created, Some(_), None) => {}
            (state, ..) => return Err(Error::Conflict(format!("container `{id}` is {state:?}, not Created"))),
        }
        // written first: a supervisor that takes over in between must not take the program for one that never ran
        let asked = std::mem::replace(&mut container.record.start_asked, true);
        container.save()?;
        match container.channel.as_ref().map_or(Ok(()), |channel| channel.start()) {
            // A supervisor that was killed before it could answer had said the word: the end of the channel tells the rest.
            Err(Error::Io { source, .. }) if asked && source.kind() == std::io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        container.waiting.started = Some(client);
        self.timers.set(clock::boot_ms() + START_MS, Timer::Start(id.clone()));
        Ok(())
    }

    pub(super) fn start_takes_too_long(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.record.state == ContainerState::Created
            && let Some(client) = container.waiting.started.take()
        {
            let why = "the program was not executed within 30 s: its file may be on a hung disk".to_owned();
            self.answer_error(client, Error::Unreachable { process: "supervisor", why });
        }
    }

    pub(super) fn remove(&mut self, client: u64, id: &ContainerId) -> Result<()> {
        let container = self.container_mut(id)?;
        match container.record.state {
            ContainerState::Running => return Err(Error::Conflict(format!("container `{id}` is running"))),
            ContainerState::Creating | ContainerState::Created => kill_all(container),
            ContainerState::Stopped => {}
        }
        container.waiting.removed.push(client);
        container.removing = true;
        if container.init.is_none() {
            self.finish_removal(id, 0);
        }
        Ok(())
    }

    /// All its processes are gone: cgroups, FIFOs and records go; then it is forgotten.
    pub(super) fn finish_removal(&mut self, id: &ContainerId, tries: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.init.is_some() || container.helper.is_some() {
            return;
        }
        // without a bundle nothing was made from it
        let cleaned = container.bundle().map_or(Ok(()), |bundle| process::cleanup(&bundle.launch));
        if let Err(error) = cleaned {
            if tries < CLEANUP_TRIES {
                self.timers.set(clock::boot_ms() + (5 << tries), Timer::Cleanup(id.clone(), tries + 1));
                return;
            }
            let waiting = std::mem::take(&mut container.waiting.removed);
            let text = crate::error::chain(&error);
            for client in waiting {
                self.answer_error(client, Error::Conflict(format!("container `{id}` cannot be removed yet: {text}")));
            }
            return;
        }
        let container = self.containers.remove(id);
        self.forget_files(id);
        for client in container.map(|container| container.waiting.removed).unwrap_or_default() {
            self.answer_done(client);
        }
        self.announce(&RuntimeEvent::Changed);
    }

    /// Drops what keeper and run directory hold of a container.
    pub(super) fn forget_files(&self, id: &ContainerId) {
        for kind in ["log", "tty", "chan", "in"] {
            let _ = self.keeper.drop_name(&format!("{kind}/{id}"));
        }
        let dir = self.layout.container_run_dir(id);
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "run directory stays");
        }
    }
}
