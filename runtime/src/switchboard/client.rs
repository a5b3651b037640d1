//! The other end of the switchboard's control socket, for the runtime and the supervisor. Blocking, with a deadline.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::wire::{Request, Response, body_len, encode, send_with_fds};
use crate::clock::boot_ms;
use crate::id::ContainerId;
use crate::layout::Layout;
use crate::runtime::EndpointTable;
use crate::{Error, Result};

/// How long a switchboard that is being restarted is waited for, and between tries. The keeper restarts it at once.
const AWAY_MS: u64 = 1_000;
const AGAIN: Duration = Duration::from_millis(10);
/// How long an answer may take. A table of 10,000 names is in force within 50 ms; the rest is a loaded machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Talks to the switchboard of one run directory. One connection per call, so it survives the switchboard's restarts.
#[derive(Debug, Clone)]
pub struct SwitchboardClient {
    socket: PathBuf,
}

impl SwitchboardClient {
    /// A client of the switchboard that has this run directory. Does not connect yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { socket: layout.socket("switchboard") }
    }

    /// Replaces the whole table; when it returns `Ok`, no new connection goes to a backend the table does not name.
    ///
    /// # Errors
    /// `PortInUse` for the first port that cannot be had (all others are in force), `Unsupported` for an address this
    /// host does not have, `Unreachable`.
    pub fn set_table(&self, table: &EndpointTable) -> Result<()> {
        self.call(&Request::SetTable { table: table.clone() }, &[])
    }

    /// Hands over a container's DNS sockets: UDP and listening TCP, bound to 127.0.0.11:53 in its network namespace.
    /// The switchboard stores duplicates in the keeper. Repeating it replaces them.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn add_dns(&self, id: &ContainerId, udp: &OwnedFd, tcp: &OwnedFd) -> Result<()> {
        self.call(&Request::AddDns { id: id.clone() }, &[udp, tcp])
    }

    /// Closes a container's DNS sockets everywhere. Without this its network namespace and veth pair would live on.
    /// An unknown container is no error.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn drop_dns(&self, id: &ContainerId) -> Result<()> {
        self.call(&Request::DropDns { id: id.clone() }, &[])
    }

    fn call(&self, request: &Request, fds: &[&OwnedFd]) -> Result<()> {
        let response = self.exchange(request, fds);
        match response.map_err(|e| Error::Unreachable { process: "switchboard", why: e.to_string() })? {
            Response::Done => Ok(()),
            Response::PortInUse { at, holder } => Err(Error::PortInUse { at, holder }),
            Response::Failed { message } => Err(Error::Unsupported(message)),
        }
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        use std::io::ErrorKind as Kind;
        let give_up_at = boot_ms() + AWAY_MS;
        loop {
            match UnixStream::connect(&self.socket) {
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::ConnectionRefused) && boot_ms() < give_up_at => {
                    std::thread::sleep(AGAIN);
                }
                other => return other,
            }
        }
    }

    fn exchange(&self, request: &Request, fds: &[&OwnedFd]) -> std::io::Result<Response> {
        let mut socket = self.connect()?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let frame = encode(request)?;
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let sent = send_with_fds(&socket, &frame, &fds)?;
        socket.write_all(&frame[sent..])?;
        let mut head = [0; 4];
        socket.read_exact(&mut head)?;
        let mut body = vec![0; body_len(&head)?.unwrap_or(0)];
        socket.read_exact(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }
}
