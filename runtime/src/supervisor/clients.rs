//! Connections of the request socket. Nothing here waits: what cannot be sent at once is kept, up to a bound.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::Supervisor;
use super::event_loop::{Source, Watched};
use super::wire::{self, Inbox, Request, Response};
use crate::error::{Doing, Error, Result};
use crate::keeper::KeeperStore;
use crate::layout::Layout;
use crate::sys::rights;

/// Most connections; more wait in the socket's backlog.
const CLIENTS_MAX: usize = 512;
/// Most bytes kept for one that does not read.
const OUTBOX_BYTES_MAX: usize = 16 << 20;
/// What the keeper holds our listening socket as.
const LISTENER_NAME: &str = "supervisor/listener";

/// One connection.
pub(super) struct Client {
    socket: Watched<OwnedFd>,
    inbox: Inbox,
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    outbox_bytes: usize,
    /// A request is under way; the next waits.
    busy: bool,
    pub(super) watches: bool,
    /// Execs it asked for; they do not outlive it.
    pub(super) execs: Vec<u64>,
}

/// The listening socket: the one the keeper holds, so that no connection was refused meanwhile, or a new one.
pub(super) fn listen(layout: &Layout, keeper: &KeeperStore) -> Result<OwnedFd> {
    let path = layout.socket("supervisor");
    let held = keeper.get(LISTENER_NAME)?.into_iter().next().and_then(|(_, fds)| fds.into_iter().next());
    if let Some(socket) = held
        && path.exists()
    {
        return Ok(socket);
    }
    let doing = || format!("listen on {}", path.display());
    // we hold supervisor.lock: a socket file here is a dead one's
    let _ = std::fs::remove_file(&path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).doing(doing)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path).doing(doing)?).doing(doing)?;
    rustix::net::listen(&socket, 1024).doing(doing)?;
    keeper.put(LISTENER_NAME, &[socket.as_fd()])?;
    Ok(socket)
}

impl Supervisor {
    pub(super) fn accept(&mut self) {
        while self.clients.len() < CLIENTS_MAX {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = rustix::net::accept_with(&*self.listener, flags) else { return };
            let number = self.number();
            let Ok(socket) = self.poller.watch(socket, Source::Client(number)) else { return };
            let client = Client {
                socket,
                inbox: Inbox::default(),
                outbox: VecDeque::new(),
                outbox_bytes: 0,
                busy: false,
                watches: false,
                execs: Vec::new(),
            };
            self.clients.insert(number, client);
        }
    }

    /// Something can be read from or written to a connection.
    pub(super) fn serve_client(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.flush().is_err() {
            return self.close_client(number);
        }
        loop {
            match client.inbox.fill(&client.socket, RecvFlags::DONTWAIT) {
                Ok(true) => {}
                Ok(false) => return self.close_client(number),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "a connection broke");
                    return self.close_client(number);
                }
            }
        }
        self.take_requests(number);
    }

    fn take_requests(&mut self, number: u64) {
        while let Some(client) = self.clients.get_mut(&number) {
            if client.busy {
                return;
            }
            match client.inbox.take::<Request>() {
                Ok(Some((request, fds))) => {
                    client.busy = true;
                    if let Err(error) = self.dispatch(number, request, fds) {
                        self.answer_error(number, error);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a request was refused");
                    return self.close_client(number);
                }
            }
        }
    }

    fn close_client(&mut self, number: u64) {
        if let Some(client) = self.clients.remove(&number) {
            for exec in client.execs {
                self.abandon_exec(exec);
            }
        }
        // somebody may wait in the backlog
        self.accept();
    }

    pub(super) fn watch_events(&mut self, number: u64) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.watches = true;
        }
        // the first answer says that from now on nothing is missed
        self.answer_done(number);
    }

    pub(super) fn answer_done(&mut self, number: u64) {
        self.answer(number, &Response::Done);
    }

    pub(super) fn answer_error(&mut self, number: u64, error: Error) {
        self.answer(number, &Response::Failed(error.into()));
    }

    pub(super) fn answer(&mut self, number: u64, response: &Response) {
        self.answer_with(number, response, Vec::new());
    }

    /// Answers a connection, if it is still there.
    pub(super) fn answer_with(&mut self, number: u64, response: &Response, fds: Vec<OwnedFd>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.busy = false;
        let sent = wire::encode(response, fds.len()).and_then(|frame| client.send(frame, fds));
        if let Err(error) = sent {
            tracing::debug!(%error, "an answer could not be sent");
            self.clients.remove(&number);
        }
    }
}

impl Client {
    fn send(&mut self, frame: Vec<u8>, fds: Vec<OwnedFd>) -> std::io::Result<()> {
        self.outbox_bytes += frame.len();
        if self.outbox_bytes > OUTBOX_BYTES_MAX {
            return Err(std::io::Error::other("it does not read its answers"));
        }
        self.outbox.push_back((frame, fds));
        self.flush()
    }

    /// Sends what the socket takes.
    fn flush(&mut self) -> std::io::Result<()> {
        while let Some((frame, fds)) = self.outbox.front_mut() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match rights::send(&self.socket, frame, &borrowed, SendFlags::DONTWAIT) {
                Ok(sent) => {
                    // descriptors went with the first byte
                    fds.clear();
                    frame.drain(..sent);
                    self.outbox_bytes -= sent;
                    if frame.is_empty() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.socket.want_write(true);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.socket.want_write(false);
        Ok(())
    }
}
