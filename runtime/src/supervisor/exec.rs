//! Further programs in running containers, and the short-lived helpers of `process`.
//!
//! An exec lives no longer than the connection that asked for it: a probe or a shell whose owner died is killed.

use std::os::fd::OwnedFd;

use super::event_loop::{Source, Timer, Watched};
use super::reap::{End, peek, reap};
use super::wire::Response;
use super::{Supervisor, assert_single_threaded};
use crate::clock;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::process::{self, ExecChannel, ExecEvent, ExecTarget, StageChild, Stdio};
use crate::runtime::{ContainerState, ExecConfig, ExitStatus};
use crate::sys::daemon::pidfd_signal;

/// How long an exec may take to begin.
const EXEC_MS: u64 = 30_000;
/// How long a helper may take.
const HELPER_MS: u64 = 30_000;

/// Whose helper it is.
#[derive(Debug, Clone)]
pub(super) enum Owner {
    Container(ContainerId),
    Exec,
}

/// A helper child.
pub(super) struct Helper {
    pidfd: Watched<OwnedFd>,
    owner: Owner,
}

/// One exec.
pub(super) struct Exec {
    /// The connection that asked.
    client: u64,
    channel: Option<Watched<ExecChannel>>,
    process: Option<Watched<OwnedFd>>,
    terminal: Option<OwnedFd>,
    helper: i32,
    /// The answer to the request is out.
    begun: bool,
    /// Nobody wants it any more.
    abandoned: bool,
    waits: bool,
    exit: Option<ExitStatus>,
}

impl Supervisor {
    pub(super) fn exec(&mut self, client: u64, id: &ContainerId, config: &ExecConfig, fds: Vec<OwnedFd>) -> Result<()> {
        let container = self.container_mut(id)?;
        if container.record.state != ContainerState::Running {
            return Err(Error::Conflict(format!("container `{id}` is not running")));
        }
        let Some(init) = &container.init else {
            return Err(Error::Conflict(format!("container `{id}` is not running")));
        };
        let stdio = match (config.tty, <[OwnedFd; 3]>::try_from(fds)) {
            (true, _) => Stdio::Terminal,
            (false, Ok(fds)) => Stdio::Fds(fds),
            (false, Err(_)) => return Err(Error::BadContainer("an exec needs three descriptors or a terminal".into())),
        };
        let bundle = container.bundle()?;
        let target = ExecTarget {
            pid: container.record.identity.pid,
            pidfd: std::os::fd::AsFd::as_fd(init),
            spec: &bundle.spec,
            launch: &bundle.launch,
        };
        assert_single_threaded();
        let spawned = process::exec(&target, config, stdio)?;
        let number = self.number();
        let channel = self.poller.watch(spawned.channel, Source::ExecChannel(number))?;
        let helper = self.add_helper(spawned.stage, Owner::Exec)?;
        let exec = Exec {
            client,
            channel: Some(channel),
            process: None,
            terminal: None,
            helper,
            begun: false,
            abandoned: false,
            waits: false,
            exit: None,
        };
        self.execs.insert(number, exec);
        if let Some(client) = self.clients.get_mut(&client) {
            client.execs.push(number);
        }
        self.timers.set(clock::boot_ms() + EXEC_MS, Timer::Exec(number));
        Ok(())
    }

    pub(super) fn exec_spoke(&mut self, number: u64) {
        loop {
            let Some(exec) = self.execs.get_mut(&number) else { return };
            let Some(channel) = &mut exec.channel else { return };
            match channel.get_mut().receive() {
                Ok(None) => return,
                Ok(Some(ExecEvent::Created { pid: _, pidfd, terminal })) => {
                    exec.terminal = terminal;
                    exec.process = self.poller.watch(pidfd, Source::ExecProcess(number)).ok();
                }
                Ok(Some(ExecEvent::Started)) => {
                    exec.channel = None;
                    exec.begun = true;
                    self.timers.cancel(&Timer::Exec(number));
                    let (client, terminal) = (exec.client, exec.terminal.take());
                    self.answer_with(client, &Response::Exec { exec: number }, terminal.into_iter().collect());
                }
                Ok(Some(ExecEvent::Failed { error })) | Err(error) => self.exec_failed(number, error),
            }
            self.settle_exec(number);
        }
    }

    fn exec_failed(&mut self, number: u64, error: Error) {
        let Some(exec) = self.execs.get_mut(&number) else { return };
        exec.channel = None;
        exec.abandoned = true;
        let client = exec.client;
        self.timers.cancel(&Timer::Exec(number));
        if !std::mem::replace(&mut exec.begun, true) {
            self.answer_error(client, error);
        }
    }

    pub(super) fn exec_takes_too_long(&mut self, number: u64) {
        if self.execs.get(&number).is_some_and(|exec| !exec.begun) {
            let why = "the program was not executed within 30 s".to_owned();
            self.exec_failed(number, Error::Unreachable { process: "supervisor", why });
            self.settle_exec(number);
        }
    }

    pub(super) fn exec_ended(&mut self, number: u64) {
        let Some(exec) = self.execs.get_mut(&number) else { return };
        let Some(process) = &exec.process else { return };
        let exit = match peek(process) {
            End::Own(exit) => exit,
            End::Alive => return,
            End::NotOurs => ExitStatus::Unknown,
        };
        reap(process);
        exec.process = None;
        exec.exit = Some(exit);
        self.settle_exec(number);
    }

    pub(super) fn exec_wait(&mut self, client: u64, number: u64) -> Result<()> {
        let exec = self.execs.get_mut(&number).filter(|exec| exec.client == client);
        let exec = exec.ok_or_else(|| Error::NotFound { what: "exec", name: number.to_string() })?;
        exec.waits = true;
        self.settle_exec(number);
        Ok(())
    }

    pub(super) fn exec_kill(&mut self, client: u64, number: u64) -> Result<()> {
        if let Some(process) = self.execs.get(&number).and_then(|exec| exec.process.as_ref()) {
            let _ = pidfd_signal(process, libc::SIGKILL);
        }
        self.answer_done(client);
        Ok(())
    }

    /// The connection that asked is gone.
    pub(super) fn abandon_exec(&mut self, number: u64) {
        if let Some(exec) = self.execs.get_mut(&number) {
            exec.abandoned = true;
            self.settle_exec(number);
        }
    }

    /// Answers who waits, kills what nobody wants, forgets what is over.
    fn settle_exec(&mut self, number: u64) {
        let Some(exec) = self.execs.get_mut(&number) else { return };
        if exec.abandoned {
            match (&exec.process, self.helpers.get(&exec.helper)) {
                (Some(process), _) => drop(pidfd_signal(process, libc::SIGKILL)),
                (None, Some(helper)) if exec.exit.is_none() => drop(pidfd_signal(&helper.pidfd, libc::SIGKILL)),
                (None, _) => {}
            }
        }
        let over = exec.channel.is_none() && exec.process.is_none();
        match (over, exec.exit, exec.waits) {
            (true, Some(exit), true) => {
                let client = exec.client;
                self.forget_exec(number);
                self.answer(client, &Response::Exit(exit));
            }
            (true, ..) if exec.abandoned => self.forget_exec(number),
            _ => {}
        }
    }

    fn forget_exec(&mut self, number: u64) {
        if let Some(exec) = self.execs.remove(&number)
            && let Some(client) = self.clients.get_mut(&exec.client)
        {
            client.execs.retain(|known| *known != number);
        }
    }

    /// Watches a helper until it ends; returns its pid.
    pub(super) fn add_helper(&mut self, stage: StageChild, owner: Owner) -> Result<i32> {
        let pidfd = self.poller.watch(stage.pidfd, Source::Helper(stage.pid))?;
        self.helpers.insert(stage.pid, Helper { pidfd, owner });
        self.timers.set(clock::boot_ms() + HELPER_MS, Timer::Helper(stage.pid));
        Ok(stage.pid)
    }

    pub(super) fn helper_ended(&mut self, pid: i32) {
        let Some(helper) = self.helpers.get(&pid) else { return };
        if matches!(peek(&helper.pidfd), End::Alive) {
            return;
        }
        reap(&helper.pidfd);
        self.timers.cancel(&Timer::Helper(pid));
        if let Some(Helper { owner: Owner::Container(id), .. }) = self.helpers.remove(&pid) {
            self.container_helper_ended(&id);
        }
    }

    pub(super) fn helper_takes_too_long(&mut self, pid: i32) {
        if let Some(helper) = self.helpers.get(&pid) {
            let _ = pidfd_signal(&helper.pidfd, libc::SIGKILL);
        }
    }
}
