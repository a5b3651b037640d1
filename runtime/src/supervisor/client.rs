//! The other end of the supervisor's socket: blocking, one connection per call, so that it survives restarts.
//!
//! While a supervisor restarts, connections wait in the socket's backlog (the keeper holds it); one whose request was
//! under way breaks and is `Unreachable`: the caller looks again.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::net::RecvFlags;

use super::wire::{self, ContainerStatus, Create, Inbox, Request, Response};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::layout::Layout;
use crate::runtime::{ExecConfig, ExecSession, ExecStdio, ExitStatus, Resources, RuntimeEvent, RuntimeWatch};

/// Longer than any deadline of the supervisor itself, which answers when one is over.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// How often a call that may be made twice is made: once more than a supervisor may die in one breath.
const ATTEMPTS: u32 = 5;

/// A wait that breaks off is begun again so often, at such distances: together longer than any restart.
const WAITS_LOST_MAX: u32 = 500;
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Talks to the supervisor of one run directory.
#[derive(Debug, Clone)]
pub struct SupervisorClient {
    socket: PathBuf,
}

impl SupervisorClient {
    /// A client of the supervisor that has this run directory. Does not connect yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { socket: layout.socket("supervisor") }
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn ping(&self) -> Result<()> {
        self.list().map(drop)
    }

    /// Returns the container's DNS sockets (UDP, TCP) where it has a network of its own.
    pub(crate) fn create(&self, create: Create) -> Result<Option<[OwnedFd; 2]>> {
        let mut connection = self.connect(ANSWER_TIMEOUT)?;
        match connection.call(&Request::Create(Box::new(create)), &[])? {
            (Response::Done, fds) => Ok(fds.try_into().ok()),
            (other, _) => Err(nonsense(&other)),
        }
    }

    pub(crate) fn start(&self, id: &ContainerId) -> Result<()> {
        self.done(&Request::Start { id: id.clone() }, ANSWER_TIMEOUT)
    }

    pub(crate) fn stop(&self, id: &ContainerId, signal: i32, grace: Duration) -> Result<()> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { id: id.clone(), signal, grace_ms };
        self.repeatable(&request, grace.saturating_add(ANSWER_TIMEOUT)).and_then(expect_done)
    }

    /// Sends one signal to the first process of a container.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it does not run, `Unreachable`.
    pub fn kill(&self, id: &ContainerId, signal: i32) -> Result<()> {
        self.done(&Request::Kill { id: id.clone(), signal }, ANSWER_TIMEOUT)
    }

    pub(crate) fn remove(&self, id: &ContainerId) -> Result<()> {
        self.repeatable(&Request::Remove { id: id.clone() }, ANSWER_TIMEOUT).and_then(expect_done)
    }

    pub(crate) fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let request = Request::Update { id: id.clone(), resources: resources.clone() };
        self.repeatable(&request, ANSWER_TIMEOUT).and_then(expect_done)
    }

    pub(crate) fn list(&self) -> Result<Vec<ContainerStatus>> {
        match self.repeatable(&Request::List, ANSWER_TIMEOUT)? {
            Response::Containers(all) => Ok(all),
            other => Err(nonsense(&other)),
        }
    }

    pub(crate) fn exec(&self, id: &ContainerId, config: &ExecConfig, stdio: ExecStdio) -> Result<SupervisedExec> {
        let mut connection = self.connect(ANSWER_TIMEOUT)?;
        let config = ExecConfig { tty: matches!(stdio, ExecStdio::Terminal), ..config.clone() };
        let request = Request::Exec { id: id.clone(), config };
        let answer = match &stdio {
            ExecStdio::Terminal => connection.call(&request, &[]),
            ExecStdio::Fds(fds) => connection.call(&request, &fds.each_ref().map(AsFd::as_fd)),
        };
        match answer? {
            (Response::Exec { exec }, fds) => {
                connection.set_timeout(None)?;
                let terminal = fds.into_iter().next();
                Ok(SupervisedExec { client: self.clone(), connection, exec, terminal })
            }
            (other, _) => Err(nonsense(&other)),
        }
    }

    /// Output of a container as it comes, and its stdin.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it does not run, `Unreachable`.
    pub(crate) fn attach(&self, id: &ContainerId, take_stdin: bool) -> Result<Vec<OwnedFd>> {
        let request = Request::Attach { id: id.clone(), take_stdin };
        match self.connect(ANSWER_TIMEOUT)?.call(&request, &[])? {
            (Response::Done, fds) => Ok(fds),
            (other, _) => Err(nonsense(&other)),
        }
    }

    /// Waits until a container has ended and tells how. A supervisor that is replaced meanwhile is no reason to give up.
    ///
    /// # Errors
    /// `NotFound` once nothing is known of it, `Unreachable`.
    pub fn wait(&self, id: &ContainerId) -> Result<ExitStatus> {
        let mut lost = 0;
        loop {
            let waited = self.wait_once(id);
            match waited {
                Err(Error::Unreachable { .. }) if lost < WAITS_LOST_MAX => lost += 1,
                other => return other,
            }
            let _ = rustix::thread::nanosleep(&AGAIN);
        }
    }

    fn wait_once(&self, id: &ContainerId) -> Result<ExitStatus> {
        // before the list, so that nothing falls in between
        let mut events = self.watch()?;
        loop {
            let all = self.list()?;
            let known = all.iter().find(|status| status.id == *id);
            let known = known.ok_or_else(|| Error::NotFound { what: "container", name: id.to_string() })?;
            if let Some(exit) = known.exit {
                return Ok(exit);
            }
            if let Some(exit) = events.exit_of(id)? {
                return Ok(exit);
            }
        }
    }

    pub(crate) fn watch(&self) -> Result<SupervisorWatch> {
        let mut connection = self.connect(ANSWER_TIMEOUT)?;
        match connection.call(&Request::Watch, &[])? {
            (Response::Done, _) => connection.set_timeout(None)?,
            (other, _) => return Err(nonsense(&other)),
        }
        Ok(SupervisorWatch(connection))
    }

    fn done(&self, request: &Request, timeout: Duration) -> Result<()> {
        self.connect(timeout)?.call(request, &[]).and_then(|(response, _)| expect_done(response))
    }

    /// A call that may be made twice is made again when the supervisor dies under it; the next one is about to come.
    fn repeatable(&self, request: &Request, timeout: Duration) -> Result<Response> {
        for _ in 1..ATTEMPTS {
            let mut connection = self.connect(timeout)?;
            match connection.call(request, &[]) {
                Err(_) if connection.broken => {}
                other => return other.map(|(response, _)| response),
            }
        }
        self.connect(timeout)?.call(request, &[]).map(|(response, _)| response)
    }

    fn connect(&self, timeout: Duration) -> Result<Connection> {
        let socket = UnixStream::connect(&self.socket).map_err(|error| away(&error))?;
        let mut connection = Connection { socket, inbox: Inbox::default(), broken: false };
        connection.set_timeout(Some(timeout))?;
        Ok(connection)
    }
}

struct Connection {
    socket: UnixStream,
    inbox: Inbox,
    /// The other end is gone, as opposed to slow.
    broken: bool,
}

impl Connection {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<()> {
        let set = self.socket.set_read_timeout(timeout).and_then(|()| self.socket.set_write_timeout(timeout));
        set.map_err(|error| away(&error))
    }

    fn call(&mut self, request: &Request, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<(Response, Vec<OwnedFd>)> {
        let frame = wire::encode(request, fds.len()).map_err(|error| Error::BadContainer(error.to_string()))?;
        wire::send_all(&self.socket, &frame, fds).map_err(|error| self.lost(&error))?;
        self.receive()
    }

    fn receive(&mut self) -> Result<(Response, Vec<OwnedFd>)> {
        loop {
            match self.inbox.take::<Response>().map_err(|error| away(&error))? {
                Some((Response::Failed(failure), _)) => return Err(failure.into()),
                Some(answer) => return Ok(answer),
                None => {}
            }
            match self.inbox.fill(&self.socket, RecvFlags::empty()) {
                Ok(true) => {}
                Ok(false) => return Err(self.lost(&std::io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    fn lost(&mut self, error: &std::io::Error) -> Error {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        self.broken = matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof);
        away(error)
    }
}

fn away(error: &std::io::Error) -> Error {
    Error::Unreachable { process: "supervisor", why: error.to_string() }
}

fn expect_done(response: Response) -> Result<()> {
    match response {
        Response::Done => Ok(()),
        other => Err(nonsense(&other)),
    }
}

fn nonsense(response: &Response) -> Error {
    Error::Unreachable { process: "supervisor", why: format!("it answered something else: {response:?}") }
}

/// An exec of the supervisor.
pub(crate) struct SupervisedExec {
    client: SupervisorClient,
    connection: Connection,
    exec: u64,
    terminal: Option<OwnedFd>,
}

impl ExecSession for SupervisedExec {
    fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        match self.connection.call(&Request::ExecWait { exec: self.exec }, &[])? {
            (Response::Exit(exit), _) => Ok(exit),
            (other, _) => Err(nonsense(&other)),
        }
    }

    fn kill(&mut self) -> Result<()> {
        self.client.done(&Request::ExecKill { exec: self.exec }, ANSWER_TIMEOUT)
    }

    fn killer(&self) -> Box<dyn Fn() + Send + Sync> {
        let (client, exec) = (self.client.clone(), self.exec);
        Box::new(move || {
            // one that is gone needs no kill, and without a supervisor the wait ends with an error
            let _ = client.done(&Request::ExecKill { exec }, ANSWER_TIMEOUT);
        })
    }
}

/// Events of the supervisor.
pub(crate) struct SupervisorWatch(Connection);

impl SupervisorWatch {
    /// Its connection, to be shut down while somebody waits on it; `None` when that cannot be had.
    pub(crate) fn closer(&self) -> Option<UnixStream> {
        self.0.socket.try_clone().ok()
    }

    /// Waits until a container ends, or (`None`) something else may have happened to it.
    fn exit_of(&mut self, id: &ContainerId) -> Result<Option<ExitStatus>> {
        loop {
            match self.next()? {
                RuntimeEvent::Exited { id: ended, exit } if ended == *id => return Ok(Some(exit)),
                RuntimeEvent::Exited { .. } => {}
                RuntimeEvent::Changed => return Ok(None),
            }
        }
    }

    /// Waits for the end of a container that had not begun when the stream was opened, even if it is removed meanwhile.
    ///
    /// # Errors
    /// `Unreachable`.
    pub(crate) fn end_of(&mut self, id: &ContainerId) -> Result<ExitStatus> {
        loop {
            if let Some(exit) = self.exit_of(id)? {
                return Ok(exit);
            }
        }
    }
}

impl RuntimeWatch for SupervisorWatch {
    fn next(&mut self) -> Result<RuntimeEvent> {
        match self.0.receive()? {
            (Response::Event(event), _) => Ok(event),
            (other, _) => Err(nonsense(&other)),
        }
    }
}
