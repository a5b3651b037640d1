//! One open connection: bytes go both ways by splice through pipes, never through our memory.
//!
//! Half-closes and resets pass on. An idle connection holds no pipe. Must not know ports, tables or who dialled.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::poller::Readiness;

/// Bytes in a pipe; the kernel's default is 64 KiB, and fewer, larger splices cost less.
const PIPE_BYTES: usize = 256 << 10;
/// Bytes one connection moves before the others have their turn.
const TURN_BYTES: usize = 4 << 20;
/// Empty pipes kept for the next one who needs them.
const SPARE_PIPES: usize = 64;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Who connected to us.
    Client,
    /// Whom we dialled.
    Backend,
}

/// How a connection stands after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits for an event.
    Waiting,
    /// It has more to move at once.
    More,
    /// Both directions ended in order.
    Done,
    /// One end is gone; the other was told by a reset.
    Broken,
}

/// Empty pipes, for all connections.
#[derive(Default)]
pub(super) struct Pipes(Vec<Pipe>);

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    fn take(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Over the user's limit it stays at the default; slower, not wrong.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Pipe { read, write })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE_PIPES {
            self.0.push(pipe);
        }
    }
}

/// One direction. Invariant: `held` bytes are in `pipe`, and it is filled only when empty, so that "would block" of the
/// filling splice can only mean an empty socket.
#[derive(Default)]
struct Half {
    pipe: Option<Pipe>,
    held: usize,
    ended: bool,
    done: bool,
}

impl Half {
    fn state(&self) -> String {
        format!("{},{},{}", self.held, u8::from(self.ended), u8::from(self.done))
    }

    fn from_state(state: &str, fds: &mut impl Iterator<Item = OwnedFd>) -> Option<Self> {
        let numbers: Vec<usize> = state.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [held, ended, done] = numbers[..] else { return None };
        let pipe = if held > 0 { Some(Pipe { read: fds.next()?, write: fds.next()? }) } else { None };
        Some(Self { pipe, held, ended: ended == 1, done: done == 1 })
    }
}

/// An end and what is known of it.
struct End {
    fd: OwnedFd,
    readable: bool,
    writable: bool,
}

/// A connection between two sockets.
pub(super) struct Relay {
    client: End,
    backend: End,
    up: Half,
    down: Half,
}

impl Relay {
    /// Joins two connected, non-blocking sockets.
    pub(super) fn new(client: OwnedFd, backend: OwnedFd) -> Self {
        let end = |fd| End { fd, readable: true, writable: true };
        Self { client: end(client), backend: end(backend), up: Half::default(), down: Half::default() }
    }

    /// Notes what an event said.
    pub(super) fn note(&mut self, side: Side, readiness: Readiness) {
        let end = match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        };
        end.readable |= readiness.readable;
        end.writable |= readiness.writable;
    }

    /// Whether an end has an error pending (a reset).
    pub(super) fn is_reset(&self, side: Side) -> bool {
        let end = match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        };
        !matches!(rustix::net::sockopt::socket_error(&end.fd), Ok(Ok(())))
    }

    /// Moves what can be moved.
    pub(super) fn turn(&mut self, pipes: &mut Pipes) -> Turn {
        let up = pump(&mut self.up, &mut self.client, &mut self.backend, pipes);
        let down = pump(&mut self.down, &mut self.backend, &mut self.client, pipes);
        match (up, down) {
            (Ok(Turn::Done), Ok(Turn::Done)) => Turn::Done,
            (Ok(Turn::More), Ok(_)) | (Ok(_), Ok(Turn::More)) => Turn::More,
            (Ok(_), Ok(_)) => Turn::Waiting,
            (Err(_), _) | (_, Err(_)) => Turn::Broken,
        }
    }

    /// The connection as descriptors and a text that says what is in the pipes, for the next switchboard. It is all
    /// there is: the bytes on their way are in the kernel's pipes and sockets.
    pub(super) fn into_parts(self) -> (String, Vec<OwnedFd>) {
        let state = format!("{}/{}", self.up.state(), self.down.state());
        let mut fds = vec![self.client.fd, self.backend.fd];
        for half in [self.up, self.down] {
            if let Some(pipe) = half.pipe.filter(|_| half.held > 0) {
                fds.extend([pipe.read, pipe.write]);
            }
        }
        (state, fds)
    }

    /// What [`Relay::into_parts`] took apart; `None` when the text is not ours.
    pub(super) fn from_parts(state: &str, fds: Vec<OwnedFd>) -> Option<Self> {
        let (up, down) = state.split_once('/')?;
        let mut fds = fds.into_iter();
        let mut relay = Self::new(fds.next()?, fds.next()?);
        relay.up = Half::from_state(up, &mut fds)?;
        relay.down = Half::from_state(down, &mut fds)?;
        Some(relay)
    }

    /// The two ends, to be watched.
    pub(super) fn ends(&self) -> [(Side, &OwnedFd); 2] {
        [(Side::Client, &self.client.fd), (Side::Backend, &self.backend.fd)]
    }

    /// Closes both ends with a reset, as one end did to us.
    pub(super) fn reset(self) {
        reset(&self.client.fd);
        reset(&self.backend.fd);
    }
}

/// Makes closing this socket a reset.
pub(super) fn reset(fd: impl AsFd) {
    let _ = rustix::net::sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}

/// One direction, until it would block, ends, or has had its turn.
fn pump(half: &mut Half, from: &mut End, to: &mut End, pipes: &mut Pipes) -> Result<Turn, Errno> {
    let mut moved = 0;
    while !half.done {
        if half.held > 0 {
            if !to.writable {
                return Ok(Turn::Waiting);
            }
            drain(half, to)?;
        } else if half.ended {
            // The peer may have closed already; then the other direction notices.
            let _ = rustix::net::shutdown(&to.fd, Shutdown::Write);
            half.done = true;
        } else if !from.readable {
            break;
        } else if moved >= TURN_BYTES {
            return Ok(Turn::More);
        } else {
            moved += fill(half, from, pipes)?;
        }
    }
    if half.held == 0
        && let Some(pipe) = half.pipe.take()
    {
        pipes.give_back(pipe);
    }
    Ok(if half.done { Turn::Done } else { Turn::Waiting })
}

/// Socket to pipe.
fn fill(half: &mut Half, from: &mut End, pipes: &mut Pipes) -> Result<usize, Errno> {
    let pipe = match half.pipe.take() {
        Some(pipe) => pipe,
        None => pipes.take()?,
    };
    let outcome = splice(&from.fd, None, &pipe.write, None, PIPE_BYTES, SpliceFlags::MOVE | SpliceFlags::NONBLOCK);
    half.pipe = Some(pipe);
    match outcome {
        Ok(0) => half.ended = true,
        Ok(count) => half.held = count,
        Err(Errno::AGAIN) => from.readable = false,
        Err(Errno::INTR) => {}
        Err(other) => return Err(other),
    }
    Ok(half.held)
}

/// Pipe to socket.
fn drain(half: &mut Half, to: &mut End) -> Result<(), Errno> {
    let Some(pipe) = &half.pipe else { return Ok(()) };
    match splice(&pipe.read, None, &to.fd, None, half.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
        Ok(count) => half.held -= count,
        Err(Errno::AGAIN) => to.writable = false,
        Err(Errno::INTR) => {}
        Err(other) => return Err(other),
    }
    Ok(())
}
