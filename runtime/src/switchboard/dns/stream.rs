//! DNS over a byte stream: two bytes of length before each message (RFC 1035 §4.2.2), without blocking.
//!
//! Must not know who is at the other end or what the messages say.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;

/// Most bytes that wait for a reader who does not read; then the stream is given up.
const OUTBOUND_BYTES_MAX: usize = 256 << 10;
/// Most bytes taken at once.
const READ_BYTES: usize = 16 << 10;

/// A connected, non-blocking stream socket with its half-read and half-written messages.
pub(super) struct DnsStream {
    pub(super) fd: OwnedFd,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    ended: bool,
}

/// The stream is over: closed, broken, or out of bounds.
#[derive(Debug)]
pub(super) struct Over;

impl DnsStream {
    /// A stream with nothing in it.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, inbound: Vec::new(), outbound: Vec::new(), ended: false }
    }

    /// Whether the other end sends no more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next whole message, reading until it is there or nothing more comes now.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Over> {
        loop {
            if let Some(head) = self.inbound.first_chunk::<2>() {
                let end = 2 + usize::from(u16::from_be_bytes(*head));
                if self.inbound.len() >= end {
                    let rest = self.inbound.split_off(end);
                    let message = std::mem::replace(&mut self.inbound, rest).split_off(2);
                    return Ok(Some(message));
                }
            }
            let mut buffer = [0; READ_BYTES];
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(count) => self.inbound.extend(&buffer[..count]),
                Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Over),
            }
        }
    }

    /// Puts a message into the queue; [`DnsStream::flush`] sends it.
    pub(super) fn push(&mut self, message: &[u8]) -> Result<(), Over> {
        let len = u16::try_from(message.len()).map_err(|_| Over)?;
        if self.outbound.len() + message.len() > OUTBOUND_BYTES_MAX {
            return Err(Over);
        }
        self.outbound.extend(len.to_be_bytes());
        self.outbound.extend(message);
        Ok(())
    }

    /// Sends what can be sent now.
    pub(super) fn flush(&mut self) -> Result<(), Over> {
        while !self.outbound.is_empty() {
            match rustix::net::send(&self.fd, &self.outbound, SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.outbound.drain(..count)),
                // Not connected: still being dialled; the socket wakes us when it is.
                Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }
}
