//! What the processes of a start say to each other, and in which order they may. Pure: bytes and states.
//!
//! Two conversations: children to caller (`Report`, one byte back for "start"), and stage to init (`Supply`).
//! The end of a conversation is a message too: descriptors close on exec, so it means "executed" after `start`.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Error;

/// What a caller says to an init that is ready.
pub(super) const START: &[u8] = b"start";
/// What a caller says to an init that has told it `Mounted`.
pub(super) const PROCEED: &[u8] = b"proceed";

/// What a child tells the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// Everything is mounted, nothing is entered yet: the moment of the hooks. Init waits for `PROCEED`.
    Mounted,
    /// Ready to execute the program. With the DNS sockets (UDP, TCP) and the terminal's master, in this order.
    Created { dns: bool, terminal: bool },
    /// The program's process was cloned in the container. With its pidfd and the terminal's master, in this order.
    Joined { pid: i32, terminal: bool },
    /// It will not run.
    Failed(Failure),
}

/// What stage hands to init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Supply {
    /// The id maps are written.
    Mapped,
    /// With root, devices, (etc), (files), and one mount for each number, in this order.
    Mounts { etc: bool, files: bool, numbers: Vec<usize> },
    /// The network interface is in init's namespace.
    Network,
    /// Cgroups and limits are in force; nothing more comes.
    Ready,
}

/// An error on its way between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Failure {
    /// [`Error::BadContainer`].
    BadContainer(String),
    /// [`Error::Unsupported`].
    Unsupported(String),
    /// [`Error::NotFound`] of a network: the one thing a start looks up by name.
    NoNetwork(String),
    /// [`Error::Conflict`].
    Conflict(String),
    /// [`Error::Io`] with an errno.
    Os { doing: String, errno: i32 },
    /// Any other, with its sources on one line.
    Other(String),
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::BadContainer(message) => Self::BadContainer(bounded(message)),
            Error::Unsupported(message) => Self::Unsupported(bounded(message)),
            Error::Conflict(message) => Self::Conflict(bounded(message)),
            Error::NotFound { name, .. } => Self::NoNetwork(bounded(name)),
            Error::Io { doing, source } => match source.raw_os_error() {
                Some(errno) => Self::Os { doing: bounded(doing), errno },
                None => Self::Other(bounded(&crate::error::chain(error))),
            },
            Error::Registry { .. }
            | Error::Untrusted(_)
            | Error::NoSpace { .. }
            | Error::PortInUse { .. }
            | Error::Unreachable { .. } => Self::Other(bounded(&crate::error::chain(error))),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::BadContainer(message) => Self::BadContainer(message),
            Failure::Unsupported(message) => Self::Unsupported(message),
            Failure::NoNetwork(name) => Self::NotFound { what: "network", name },
            Failure::Conflict(message) => Self::Conflict(message),
            Failure::Os { doing, errno } => Self::io(doing, std::io::Error::from_raw_os_error(errno)),
            Failure::Other(message) => Self::io(message, std::io::Error::from(std::io::ErrorKind::Other)),
        }
    }
}

/// A message must fit: texts of the container (its PATH, say) can be of any length.
fn bounded(text: &str) -> String {
    const BYTES_MAX: usize = 4000;
    match text.char_indices().map(|(at, _)| at).take_while(|at| *at <= BYTES_MAX).last() {
        Some(end) if text.len() > BYTES_MAX => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("our messages have no maps with keys that are no text")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// Where a conversation with a child is, from the caller's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing heard yet.
    Waiting,
    /// The child is ready (init: waits for `start`; exec: goes on by itself).
    Announced,
    /// Nothing more will be heard.
    Ended,
}

/// What the caller learns from one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// The child waits for the hooks.
    Mounted,
    /// The child is ready; the report says which descriptors came with it.
    Announced(Report),
    /// The program was executed.
    Started,
    /// It will not run.
    Failed(Failure),
}

impl Phase {
    /// One step: a report, or `None` for the end of the conversation.
    pub(super) fn step(self, input: Option<Report>) -> (Self, Option<Heard>) {
        match (self, input) {
            (Self::Ended, _) => (Self::Ended, None),
            (_, Some(Report::Failed(failure))) => (Self::Ended, Some(Heard::Failed(failure))),
            (Self::Waiting, Some(Report::Mounted)) => (Self::Waiting, Some(Heard::Mounted)),
            (Self::Waiting, Some(report)) => (Self::Announced, Some(Heard::Announced(report))),
            (Self::Announced, Some(_)) => {
                let failure = Failure::Other("a child of a start spoke out of turn".into());
                (Self::Ended, Some(Heard::Failed(failure)))
            }
            (Self::Waiting, None) => {
                let failure = Failure::Other("the start was cut off: its processes ended without a word".into());
                (Self::Ended, Some(Heard::Failed(failure)))
            }
            (Self::Announced, None) => (Self::Ended, Some(Heard::Started)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(inputs: &[Option<Report>]) -> Vec<Option<Heard>> {
        let mut phase = Phase::Waiting;
        inputs
            .iter()
            .map(|input| {
                let (next, heard) = phase.step(input.clone());
                phase = next;
                heard
            })
            .collect()
    }

    #[test]
    fn a_start_that_works() {
        let created = Report::Created { dns: false, terminal: false };
        let heard = walk(&[Some(created.clone()), None, None]);
        assert_eq!(heard, [Some(Heard::Announced(created)), Some(Heard::Started), None]);
    }

    #[test]
    fn hooks_come_before_the_announcement() {
        let created = Report::Created { dns: false, terminal: false };
        let heard = walk(&[Some(Report::Mounted), Some(created.clone()), Some(Report::Mounted)]);
        assert_eq!(heard[..2], [Some(Heard::Mounted), Some(Heard::Announced(created))]);
        assert!(matches!(heard[2], Some(Heard::Failed(_))));
    }

    #[test]
    fn failures_are_told_once() {
        let failure = Failure::BadContainer("x".into());
        let heard = walk(&[Some(Report::Failed(failure.clone())), None]);
        assert_eq!(heard, [Some(Heard::Failed(failure.clone())), None]);
        let created = Report::Created { dns: false, terminal: false };
        let heard = walk(&[Some(created), Some(Report::Failed(failure.clone())), None]);
        assert_eq!(heard[1..], [Some(Heard::Failed(failure)), None]);
        assert!(matches!(walk(&[None])[..], [Some(Heard::Failed(_))]));
    }

    #[test]
    fn errors_keep_their_kind_and_errno() {
        let error = Error::io("open x", std::io::Error::from_raw_os_error(libc::ENOSPC));
        let bytes = encode(&Report::Failed(Failure::from(&error)));
        let Some(Report::Failed(failure)) = decode::<Report>(&bytes) else { panic!() };
        match Error::from(failure) {
            Error::Io { doing, source } => {
                assert_eq!((doing.as_str(), source.raw_os_error()), ("open x", Some(libc::ENOSPC)));
            }
            other => panic!("{other:?}"),
        }
        assert!(decode::<Report>(b"garbage").is_none());
        let long = Error::BadContainer("ä".repeat(1 << 20));
        assert!(encode(&Report::Failed((&long).into())).len() < crate::sys::fdpass::MESSAGE_BYTES_MAX);
    }
}
