//! What goes over `RUN/supervisor.sock`: requests, answers and their framing.
//!
//! A frame is a little-endian `u32` length, a `u32` count of descriptors and a JSON body of at most
//! [`BODY_BYTES_MAX`]; descriptors ride on the frame's first byte. A connection carries one request at a time; after
//! `Watch` it carries only events. Pure but for the socket calls; must not know what a request does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::ContainerId;
use crate::runtime::{ContainerState, ContainerTimes, ExecConfig, ExitStatus, LogConfig, Resources, RuntimeEvent};
use crate::spec::launch::Launch;
use crate::sys::rights;

/// Longest body: an OCI spec with the largest environment the kernel would take (2 MiB), escaped, and room.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 20;
const HEADER_BYTES: usize = 8;

/// One request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Clones the container up to the point before its program. Answer: `Done`.
    Create(Box<Create>),
    /// Executes the program. Answer: `Done`.
    Start { id: ContainerId },
    /// Signal, grace, kill; answered with `Done` when nothing of it runs.
    Stop { id: ContainerId, signal: i32, grace_ms: u64 },
    /// One signal to the first process. Answer: `Done`.
    Kill { id: ContainerId, signal: i32 },
    /// Forgets a container that does not run (a created one is killed first) with its kernel objects. Answer: `Done`.
    Remove { id: ContainerId },
    /// Answer: `Containers`.
    List,
    /// Runs a program inside; three descriptors attached, or none for a terminal. Answer: `Exec` (with the terminal).
    Exec { id: ContainerId, config: ExecConfig },
    /// Output as it comes, and stdin. Answer: `Done` with descriptors, see `attach`.
    Attach { id: ContainerId, take_stdin: bool },
    /// Answered with `Exit` when it is over. Only on the connection that asked for the exec.
    ExecWait { exec: u64 },
    /// Answer: `Done`.
    ExecKill { exec: u64 },
    /// New limits. Answer: `Done`.
    Update { id: ContainerId, resources: Resources },
    /// From now on `Event`s.
    Watch,
}

/// The body of [`Request::Create`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) id: ContainerId,
    pub(crate) spec: oci_spec::runtime::Spec,
    pub(crate) launch: Launch,
    pub(crate) log: LogConfig,
    /// Its stdin is a pipe.
    #[serde(default)]
    pub(crate) stdin: bool,
}

/// One answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    Containers(Vec<ContainerStatus>),
    Exec { exec: u64 },
    Exit(ExitStatus),
    Event(RuntimeEvent),
    Failed(Failure),
}

/// A container as the supervisor knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerStatus {
    pub(crate) id: ContainerId,
    pub(crate) state: ContainerState,
    pub(crate) pid: Option<i32>,
    pub(crate) times: ContainerTimes,
    pub(crate) exit: Option<ExitStatus>,
}

/// An [`Error`] that crosses a socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound { name: String },
    Conflict(String),
    Unsupported(String),
    BadContainer(String),
    Unreachable(String),
    Io { doing: String, os_error: Option<i32>, text: String },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { name, .. } => Self::NotFound { name },
            Error::Conflict(text) => Self::Conflict(text),
            Error::Unsupported(text) => Self::Unsupported(text),
            Error::BadContainer(text) => Self::BadContainer(text),
            Error::Io { doing, source } => {
                Self::Io { doing, os_error: source.raw_os_error(), text: source.to_string() }
            }
            Error::Unreachable { why, .. } => Self::Unreachable(why),
            other
            @ (Error::Registry { .. } | Error::Untrusted(_) | Error::NoSpace { .. } | Error::PortInUse { .. }) => {
                Self::Unsupported(other.to_string())
            }
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound { name } => Self::NotFound { what: "container", name },
            Failure::Conflict(text) => Self::Conflict(text),
            Failure::Unsupported(text) => Self::Unsupported(text),
            Failure::BadContainer(text) => Self::BadContainer(text),
            Failure::Unreachable(why) => Self::Unreachable { process: "supervisor", why },
            Failure::Io { doing, os_error, text } => {
                let source = os_error.map_or_else(|| std::io::Error::other(text), std::io::Error::from_raw_os_error);
                Self::Io { doing, source }
            }
        }
    }
}

/// A body with its descriptors as bytes of a frame.
pub(crate) fn encode<T: Serialize>(body: &T, fds: usize) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut frame, body)?;
    let len = frame.len() - HEADER_BYTES;
    if len > BODY_BYTES_MAX {
        return Err(invalid("message is longer than 8 MiB"));
    }
    frame[..4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    frame[4..8].copy_from_slice(&u32::try_from(fds).unwrap_or(u32::MAX).to_le_bytes());
    Ok(frame)
}

/// Bytes and descriptors of one connection until they make a frame.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// Reads what is there; `Ok(false)` at the end of the connection.
    ///
    /// # Errors
    /// `WouldBlock` when nothing more is there (with `DONTWAIT`), others when the connection broke.
    pub(crate) fn fill(&mut self, socket: impl AsFd, flags: RecvFlags) -> std::io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let (len, fds) = rights::receive(socket, &mut chunk, flags)?;
        self.bytes.extend_from_slice(&chunk[..len]);
        self.fds.extend(fds);
        if self.bytes.len() > HEADER_BYTES + BODY_BYTES_MAX + chunk.len() || self.fds.len() > 2 * rights::FDS_MAX {
            return Err(invalid("more was sent than one message may hold"));
        }
        Ok(len > 0)
    }

    /// The next complete frame, if any.
    ///
    /// # Errors
    /// `InvalidData` when it is too long or does not decode.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> std::io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (len, fds) = (word(0), word(4));
        if len > BODY_BYTES_MAX || fds > rights::FDS_MAX {
            return Err(invalid("message is longer than 8 MiB or carries too many descriptors"));
        }
        if self.bytes.len() < HEADER_BYTES + len {
            return Ok(None);
        }
        if self.fds.len() < fds {
            return Err(invalid("descriptors are missing"));
        }
        let body = serde_json::from_slice(&self.bytes[HEADER_BYTES..HEADER_BYTES + len])?;
        self.bytes.drain(..HEADER_BYTES + len);
        Ok(Some((body, self.fds.drain(..fds).collect())))
    }
}

/// Sends a whole frame, waiting as long as the socket's own timeout allows.
///
/// # Errors
/// What `sendmsg` says.
pub(crate) fn send_all(socket: impl AsFd, frame: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let mut sent = rights::send(&socket, frame, fds, SendFlags::empty())?;
    while sent < frame.len() {
        sent += rights::send(&socket, &frame[sent..], &[], SendFlags::empty())?;
    }
    Ok(())
}

fn invalid(why: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_with_descriptors_survive_any_cut() {
        let frame = encode(&Response::Exec { exec: 7 }, 1).unwrap();
        let mut both = frame.clone();
        both.extend(encode(&Response::Done, 0).unwrap());
        for cut in 1..both.len() {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut inbox = Inbox::default();
            let fd = ours.as_fd();
            let mut seen = Vec::new();
            for (part, fds) in [(&both[..cut], &[fd][..]), (&both[cut..], &[])] {
                send_all(&ours, part, fds).unwrap();
                assert!(inbox.fill(&theirs, RecvFlags::DONTWAIT).unwrap());
                while let Some((response, fds)) = inbox.take::<Response>().unwrap() {
                    seen.push((matches!(response, Response::Done), fds.len()));
                }
            }
            assert_eq!(seen, [(false, 1), (true, 0)], "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_all(&ours, &[0xff; 8], &[]).unwrap();
        let mut inbox = Inbox::default();
        inbox.fill(&theirs, RecvFlags::DONTWAIT).unwrap();
        assert!(inbox.take::<Response>().is_err());
    }
}
