//! What crosses the switchboard's control socket: length-prefixed JSON over a unix stream, descriptors beside it.
//!
//! One request, one answer, in order. The frame is a big-endian u32 length and that many bytes of JSON; descriptors
//! ride on the first byte. Both ends are this file's; it must not know tables or sockets beyond passing them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::runtime::{EndpointTable, HostPort};

/// Longest frame in bytes. A container's names and port take about 300, so this is room for 50,000 of them.
pub(super) const FRAME_BYTES_MAX: u32 = 16 << 20;
/// Descriptors in one frame: `[udp, tcp]`.
const FDS_MAX: usize = 2;

/// What the switchboard is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Request {
    /// Replace the whole table.
    SetTable {
        /// The new one.
        table: EndpointTable,
    },
    /// Two descriptors come with it: the container's UDP and TCP DNS sockets, bound inside its network namespace.
    AddDns {
        /// Whose.
        id: ContainerId,
    },
    /// Close the container's DNS sockets, here and in the fd store; they would keep its network namespace alive.
    DropDns {
        /// Whose.
        id: ContainerId,
    },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Response {
    /// In force.
    Done,
    /// Everything is in force but this port.
    PortInUse {
        /// Which.
        #[serde(flatten)]
        at: HostPort,
        /// As in [`crate::Error::PortInUse`].
        holder: String,
    },
    /// Everything that could be is in force; this says what is not.
    Failed {
        /// For a person.
        message: String,
    },
}

/// One frame as bytes.
pub(super) fn encode<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let len = u32::try_from(frame.len() - 4).ok().filter(|len| *len <= FRAME_BYTES_MAX);
    let len = len.ok_or_else(|| std::io::Error::other("the message is too long"))?;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    Ok(frame)
}

/// The length of a frame's body once its first four bytes are there; an error when it is out of bounds.
pub(super) fn body_len(buffer: &[u8]) -> std::io::Result<Option<usize>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_be_bytes(*head);
    if len > FRAME_BYTES_MAX {
        return Err(std::io::Error::other("the message is too long"));
    }
    Ok(Some(len as usize))
}

/// Sends some bytes with descriptors on the first one; returns how many went.
pub(super) fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(std::io::Error::other("too many descriptors"));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// Receives some bytes; descriptors that came with them are appended to `fds`. 0 is the end.
pub(super) fn receive_with_fds(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> std::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(received.bytes)
}
