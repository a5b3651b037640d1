//! DNS over a byte stream: two bytes of length before each message (RFC 1035 §4.2.2), without blocking.
//!
//! Must not know who is at the other end or what the messages say.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
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

    /// What a successor needs to go on: the socket, and unless all is said, a file in memory with the length of what was
    /// read (4 bytes, big end first), what was read, and what was not sent. `unanswered` messages are to be read again.
    pub(super) fn into_parts<'a>(self, unanswered: impl Iterator<Item = &'a [u8]>) -> std::io::Result<Vec<OwnedFd>> {
        let mut read = Vec::new();
        for message in unanswered {
            read.extend(u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
            read.extend(message);
        }
        read.extend(&self.inbound);
        if read.is_empty() && self.outbound.is_empty() {
            return Ok(vec![self.fd]);
        }
        let mut memory = File::from(memfd_create("boxship-names", MemfdFlags::CLOEXEC)?);
        memory.write_all(&u32::try_from(read.len()).unwrap_or(0).to_be_bytes())?;
        memory.write_all(&read)?;
        memory.write_all(&self.outbound)?;
        memory.rewind()?;
        Ok(vec![self.fd, memory.into()])
    }

    /// The way back. `None` for what is no such thing.
    pub(super) fn from_parts(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let mut stream = Self::new(fds.next()?);
        if let Some(memory) = fds.next() {
            let mut bytes = Vec::new();
            File::from(memory).read_to_end(&mut bytes).ok()?;
            let (head, rest) = bytes.split_first_chunk::<4>()?;
            let (read, unsent) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*head)).ok()?)?;
            stream.inbound = read.to_vec();
            stream.outbound = unsent.to_vec();
        }
        Some(stream)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_on_from_its_parts() {
        let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let mut stream = DnsStream::new(here.into());
        there.write_all(b"\0\x05se").unwrap();
        assert_eq!(stream.next().unwrap(), None);
        stream.push(b"unsent").unwrap();
        let parts = stream.into_parts([&b"first"[..]].into_iter()).unwrap();
        let mut stream = DnsStream::from_parts(parts).unwrap();
        assert_eq!(stream.next().unwrap(), Some(b"first".to_vec()));
        there.write_all(b"cond").unwrap();
        assert_eq!(stream.next().unwrap(), Some(b"secon".to_vec()));
        stream.flush().unwrap();
        let mut sent = [0; 8];
        there.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"\0\x06unsent");
        assert_eq!(stream.into_parts(std::iter::empty()).unwrap().len(), 2, "the d of `second` is still in it");
    }
}
