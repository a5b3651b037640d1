//! How containers end: read the status, write it down, then reap, then tell.
//!
//! An own child stays a zombie until `exit.json` is written, so a supervisor killed in between leaves it to the keeper.
//! The child of a dead supervisor is the keeper's: its end is in `RUN/exits/`. What nobody saw is `Unknown`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::inotify;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::Supervisor;
use super::container::{Container, read_record, write_record};
use super::event_loop::Timer;
use super::identity::{ExitFile, exit_file_name, exit_status};
use super::logs::Pumped;
use crate::clock;
use crate::error::{Doing, Result};
use crate::id::ContainerId;
use crate::layout::Layout;
use crate::runtime::{ContainerState, ExitStatus, RuntimeEvent};
use crate::sys::daemon::pidfd_exit_status;

/// How long to wait for the word of a parent before looking who it is.
const KEEPER_MS: u64 = 1_000;

/// Most blocks taken from a stream at its end: a full FIFO of the smallest buffers has 16 times fewer.
const BLOCKS_AT_END: usize = 4_096;

/// Hears of files that appear in `RUN/exits/`.
pub(super) fn watch_exits(layout: &Layout) -> Result<OwnedFd> {
    let dir = layout.exits_dir();
    let doing = || format!("watch {}", dir.display());
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).doing(doing)?;
    inotify::add_watch(&fd, &dir, inotify::WatchFlags::MOVED_TO).doing(doing)?;
    Ok(fd)
}

/// What is known about a process that has ended.
pub(super) enum End {
    /// Our child, still a zombie.
    Own(ExitStatus),
    /// Somebody else's.
    NotOurs,
    /// It has not ended.
    Alive,
}

/// Looks at an ended process without reaping it.
pub(super) fn peek(pidfd: impl AsFd) -> End {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(Some(status)) => End::Own(exit_status(status.exit_status(), status.terminating_signal())),
        Ok(None) => End::Alive,
        Err(_) => End::NotOurs,
    }
}

/// Lets the kernel forget a child that has ended.
pub(super) fn reap(pidfd: impl AsFd) {
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

impl Supervisor {
    /// The first process of a container is gone, or was gone when its helper was not.
    pub(super) fn init_ended(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.helper.is_some() {
            container.init_ended = true;
            // it would wake us until the helper is gone
            if let Some(init) = &container.init {
                init.mute();
            }
            return;
        }
        let Some(init) = &container.init else { return };
        match peek(init) {
            End::Own(exit) => self.ended(id, exit),
            End::Alive => {}
            End::NotOurs => {
                init.mute();
                let told_by_kernel = pidfd_exit_status(init).map(from_wait_status);
                match (self.seen_by_keeper(id), told_by_kernel) {
                    (Some(record), _) => self.record_end(id, record),
                    (None, Some(exit)) => self.ended(id, exit),
                    (None, None) => self.timers.set(clock::boot_ms() + KEEPER_MS, Timer::ExitUnseen(id.clone())),
                }
            }
        }
    }

    /// What the keeper wrote about a container's first process.
    pub(super) fn seen_by_keeper(&self, id: &ContainerId) -> Option<ExitFile> {
        let identity = &self.containers.get(id)?.record.identity;
        let name = exit_file_name(identity.pid, identity.start_time);
        read_record(&self.layout.exits_dir().join(name)).ok()
    }

    /// Files appeared in `RUN/exits/`: some container may be waiting for one.
    pub(super) fn keeper_saw_exits(&mut self) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&*self.exits, &mut buffer);
        while reader.next().is_ok() {}
        let waiting = self.containers.values().filter(|c| c.init.as_ref().is_some_and(|init| init.is_muted()));
        for id in waiting.map(|container| container.id.clone()).collect::<Vec<_>>() {
            if let Some(record) = self.seen_by_keeper(&id) {
                self.record_end(&id, record);
            }
        }
        self.sweep_exits();
    }

    /// The keeper wrote nothing in time. It may be busy, as with copying a new binary for an upgrade; or it is not the
    /// parent, its predecessor having been killed.
    pub(super) fn exit_unseen(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else { return };
        let Some(init) = container.init.as_ref().filter(|init| matches!(peek(init), End::NotOurs)) else { return };
        let keeper = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        if keeper.is_some() && container.record.identity.parent() == keeper {
            return self.timers.set(clock::boot_ms() + KEEPER_MS, Timer::ExitUnseen(id.clone()));
        }
        let told_by_kernel = pidfd_exit_status(init).map_or(ExitStatus::Unknown, from_wait_status);
        match self.seen_by_keeper(id) {
            Some(record) => self.record_end(id, record),
            None => self.ended(id, told_by_kernel),
        }
    }

    fn ended(&mut self, id: &ContainerId, exit: ExitStatus) {
        let (finished_boot_ms, finished_unix_ms) = (clock::boot_ms(), clock::unix_ms());
        self.record_end(id, ExitFile { exit, finished_boot_ms, finished_unix_ms });
    }

    /// Writes everything down, then lets go of the process, then tells whoever waits.
    pub(super) fn record_end(&mut self, id: &ContainerId, mut record: ExitFile) {
        let Some(container) = self.containers.get_mut(id) else { return };
        for stream in &container.streams {
            // bounded, should the other end of the FIFO have been given to somebody who still writes
            let _ = (0..BLOCKS_AT_END).all(|_| self.pump.step(stream, &mut container.log, true) == Pumped::More);
        }
        let killed = matches!(record.exit, ExitStatus::Signal(9) | ExitStatus::Code(137));
        if killed && container.cgroup.oom_kills() > 0 {
            record.exit = ExitStatus::OutOfMemory;
        }
        container.record.state = ContainerState::Stopped;
        container.exit = Some(record.clone());
        container.stop = None;
        container.channel = None;
        let over: [fn(ContainerId) -> Timer; 5] =
            [Timer::Create, Timer::Start, Timer::StopLook, Timer::StopGrace, Timer::ExitUnseen];
        over.into_iter().for_each(|timer| self.timers.cancel(&timer(id.clone())));
        if let Err(error) = write_record(&container.dir.join("exit.json"), &record).and_then(|()| container.save()) {
            // told all the same: memory knows it until this process ends
            tracing::error!(container = %id, error = %crate::error::chain(&error), "exit record");
        }
        if let Some(init) = container.init.take() {
            reap(&init);
        }
        container.stdin = None;
        let streams = std::mem::take(&mut container.streams);
        let identity = &container.record.identity;
        let exit_file = self.layout.exits_dir().join(exit_file_name(identity.pid, identity.start_time));
        let _ = std::fs::remove_file(exit_file);
        for kind in ["log", "tty", "chan", "in"] {
            let _ = self.keeper.drop_name(&format!("{kind}/{id}"));
        }
        self.let_go_of(streams);
        self.tell_end(id);
    }

    fn tell_end(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let exit = container.exit_status().unwrap_or(ExitStatus::Unknown);
        let gone = |what: &str| format!("container `{id}` ended {what}: {exit:?}");
        let created = container.waiting.created.take().map(|client| (client, gone("while it was set up")));
        let started = container.waiting.started.take().map(|client| (client, gone("before its program ran")));
        let stopped = std::mem::take(&mut container.waiting.stopped);
        container.removing |= created.is_some();
        let removing = container.removing;
        for (client, text) in [created, started].into_iter().flatten() {
            self.answer_error(client, crate::Error::BadContainer(text));
        }
        for client in stopped {
            self.answer_done(client);
        }
        if removing {
            return self.finish_removal(id, 0);
        }
        self.announce(&RuntimeEvent::Exited { id: id.clone(), exit });
    }

    /// A helper of a container is gone; its first process may be reaped now.
    pub(super) fn container_helper_ended(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.helper = None;
        if std::mem::take(&mut container.init_ended) {
            self.init_ended(id);
        }
    }
}

/// A `wait(2)` status word.
fn from_wait_status(status: i32) -> ExitStatus {
    let signal = status & 0x7f;
    if signal == 0 { exit_status(Some((status >> 8) & 0xff), None) } else { exit_status(None, Some(signal)) }
}

impl Container {
    /// It waits for the keeper's word.
    pub(super) fn lives(&self) -> bool {
        self.init.is_some()
    }
}
