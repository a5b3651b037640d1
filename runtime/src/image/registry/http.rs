//! HTTP/1.1 on a blocking thread: hyper's state machine, driven here by poll(2) with a deadline. No runtime, no tasks.

use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::rt::ReadBufCursor;
use hyper::{HeaderMap, Method, Request};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::connect::{Stream, Wire};
use super::endpoint::Endpoint;
use super::failure::unreachable;
use crate::clock;
use crate::error::{Error, Result};
use crate::image::unpack::{unwrap_io, wrap_io};

mod payload;

pub(super) use payload::Payload;

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 32 << 10;
/// A body that brings less than this, in bytes a second over a whole stall deadline, counts as stalled.
const SLOW_BYTES_PER_S: u64 = 100;

/// An answer: its head is here, its body still arrives.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Body,
}

impl Answer {
    /// The first header of this name, when it is text.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All of them.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.get_all(name).iter().filter_map(|v| v.to_str().ok())
    }

    /// The whole body, refused when it is longer than `max` bytes.
    pub(super) fn bytes(&mut self, max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.body).take(max + 1).read_to_end(&mut bytes).map_err(unwrap_io)?;
        if bytes.len() as u64 > max {
            return Err(Error::Untrusted(format!("{} answered with more than {max} bytes", self.body.driver.to)));
        }
        Ok(bytes)
    }
}

/// What is asked, of whichever origin.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Makes what is sent along; again when it is asked again.
    pub(super) payload: &'a dyn Fn() -> Result<Payload>,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { method: Method::GET, path, headers, payload: &|| Ok(Payload::empty()) }
    }

    /// Without headers or payload.
    pub(super) fn plain(method: Method, path: &'a str) -> Self {
        Self { method, path, headers: &[], payload: &|| Ok(Payload::empty()) }
    }
}

/// One call on a fresh connection.
pub(super) fn call(wire: Wire, to: &Endpoint, call: &Call<'_>, more: &[(&str, &str)]) -> Result<Answer> {
    let failed = |e: &dyn std::fmt::Display| unreachable(format!("{to}: {e}"));
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(if wire.proxy.is_some() { format!("{to}{}", call.path) } else { call.path.to_owned() })
        .header("host", to.authority())
        .header("user-agent", concat!("boxship/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close");
    if let Some(value) = wire.proxy.as_ref().and_then(|proxy| proxy.authorization.as_deref()) {
        request = request.header("proxy-authorization", value);
    }
    for (name, value) in call.headers.iter().chain(more) {
        request = request.header(*name, *value);
    }
    let request = request.body((call.payload)()?).map_err(|e| failed(&e))?;
    let (mut driver, mut sender) = Driver::start(wire, to)?;
    let response = driver.run(Box::pin(sender.send_request(request)))?.map_err(|e| failed(&chain(&e)))?;
    let (head, incoming) = response.into_parts();
    let pace = Pace { since_ms: clock::boot_ms(), bytes: 0 };
    let body = Body { driver, incoming, chunk: Bytes::new(), pace, _sender: sender };
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

fn chain(error: &hyper::Error) -> String {
    crate::error::chain(error)
}

/// A body as a reader. Errors are ours, wrapped; one that ends early is an error.
pub(super) struct Body {
    driver: Driver,
    incoming: Incoming,
    chunk: Bytes,
    pace: Pace,
    _sender: SendRequest<Payload>,
}

/// How fast a body came lately.
struct Pace {
    since_ms: u64,
    bytes: u64,
}

impl Body {
    /// A byte now and then resets every deadline and never ends.
    fn arrived(&mut self, bytes: usize) -> Result<()> {
        self.pace.bytes += bytes as u64;
        let (now, window_ms) = (clock::boot_ms(), self.driver.stall_ms);
        if now - self.pace.since_ms < window_ms {
            return Ok(());
        }
        let came = std::mem::replace(&mut self.pace, Pace { since_ms: now, bytes: 0 }).bytes;
        if came >= SLOW_BYTES_PER_S * window_ms / 1_000 {
            return Ok(());
        }
        Err(unreachable(format!("{} sent only {came} bytes in {} s", self.driver.to, window_ms.div_ceil(1_000))))
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() {
            let incoming = &mut self.incoming;
            let frame = self.driver.run(std::future::poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)));
            match frame.map_err(wrap_io)? {
                None => return Ok(0),
                Some(Ok(frame)) => {
                    self.chunk = frame.into_data().unwrap_or_default();
                    self.arrived(self.chunk.len()).map_err(wrap_io)?;
                }
                Some(Err(e)) => {
                    return Err(wrap_io(unreachable(format!("{}: {}", self.driver.to, chain(&e)))));
                }
            }
        }
        let n = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// Runs a connection and the future that waits for it, in turn, sleeping in poll(2) when neither can go on.
struct Driver {
    connection: Connection<Socket, Payload>,
    is_done: bool,
    fd: OwnedFd,
    wants_write: Arc<AtomicBool>,
    /// Bytes of ours left since it was last looked at.
    has_sent: Arc<AtomicBool>,
    woken: Arc<Woken>,
    stall_ms: u64,
    to: String,
}

/// A waker that only remembers.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Driver {
    fn start(wire: Wire, to: &Endpoint) -> Result<(Self, SendRequest<Payload>)> {
        let failed = |e: &dyn std::fmt::Display| unreachable(format!("{to}: {e}"));
        let fd = wire.stream.socket().as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
        let wants_write = Arc::new(AtomicBool::new(false));
        let has_sent = Arc::new(AtomicBool::new(false));
        let (flag, sent) = (Arc::clone(&wants_write), Arc::clone(&has_sent));
        let socket = Socket { stream: wire.stream, wants_write: flag, has_sent: sent };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(128);
        let mut handshake = pin!(builder.handshake(socket));
        // the handshake of HTTP/1 does no input or output
        let ready = handshake.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(ready) = ready else { return Err(failed(&"the connection is not ready")) };
        let (sender, connection) = ready.map_err(|e| failed(&chain(&e)))?;
        let woken = Arc::default();
        let (to, stall_ms) = (to.to_string(), wire.stall_ms);
        Ok((Self { connection, is_done: false, fd, wants_write, has_sent, woken, stall_ms, to }, sender))
    }

    fn run<F: Future + Unpin>(&mut self, mut future: F) -> Result<F::Output> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        let mut deadline = clock::boot_ms() + self.stall_ms;
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut cx) {
                return Ok(output);
            }
            let was_done = self.is_done;
            if !self.is_done {
                // its error, if any, reaches the future as well
                self.is_done = Pin::new(&mut self.connection).poll(&mut cx).is_ready();
            }
            if self.woken.0.load(Ordering::Relaxed) || self.is_done != was_done {
                continue;
            }
            if self.is_done {
                return Err(unreachable(format!("{} closed the connection", self.to)));
            }
            // a long upload is no stall; what the other side says has to come as a whole in time
            if self.has_sent.swap(false, Ordering::Relaxed) {
                deadline = clock::boot_ms() + self.stall_ms;
            }
            self.wait(deadline)?;
        }
    }

    fn wait(&self, deadline: u64) -> Result<()> {
        let left = deadline.saturating_sub(clock::boot_ms());
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, self.wants_write.load(Ordering::Relaxed));
        let mut fds = [PollFd::new(&self.fd, events)];
        let timeout = Timespec {
            tv_sec: i64::try_from(left / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left % 1_000 * 1_000_000).unwrap_or(0),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => Err(unreachable(format!("{} sent nothing for {} s", self.to, self.stall_ms.div_ceil(1_000)))),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(Error::io(format!("wait for {}", self.to), e)),
        }
    }
}

/// The connection as hyper wants to see it. The driver watches the descriptor, so "not now" needs no waker.
struct Socket {
    stream: Stream,
    wants_write: Arc<AtomicBool>,
    has_sent: Arc<AtomicBool>,
}

impl Socket {
    fn poll_io(&mut self, result: std::io::Result<usize>, is_write: bool) -> Poll<std::io::Result<usize>> {
        match result {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                if is_write {
                    self.wants_write.store(true, Ordering::Relaxed);
                }
                Poll::Pending
            }
            other => {
                if is_write {
                    self.wants_write.store(false, Ordering::Relaxed);
                }
                Poll::Ready(other)
            }
        }
    }
}

impl hyper::rt::Read for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let mut buffer = [0; READ_BYTES];
        let room = out.remaining().min(buffer.len());
        let result = match &mut this.stream {
            Stream::Plain(socket) => socket.read(&mut buffer[..room]),
            // a server that leaves without saying goodbye is an end; hyper knows whether the message was whole
            Stream::Tls(tls) => match tls.read(&mut buffer[..room]) {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
        };
        this.poll_io(result, false).map_ok(|n| out.put_slice(&buffer[..n]))
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.stream {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        };
        this.has_sent.fetch_or(result.as_ref().is_ok_and(|n| *n > 0), Ordering::Relaxed);
        this.poll_io(result, true)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let result = match &mut this.stream {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        };
        this.poll_io(result.map(|()| 0), true).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
