//! Connections that see a container's output as it comes, beside its log, and may write to its stdin.
//!
//! Each gets pipes of its own. Output is taken out of the container's FIFO only once every attached pipe has it, so that a
//! slow reader slows the container down as a slow terminal does, and robs nobody. What a pipe has no room for when the
//! container ends is kept until it is read. A pipe whose reader went away is forgotten.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::Supervisor;
use super::event_loop::{Source, Watched};
use super::logs::{Origin, Stream};
use super::wire::Response;
use crate::error::{Doing, Error, Result};
use crate::id::ContainerId;
use crate::runtime::ContainerState;

/// Room in an attached pipe; less is slower, not wrong.
const PIPE_BYTES: usize = 256 << 10;
/// Most connections attached to one container.
const ATTACHED_MAX: usize = 16;

/// The write end of one attached pipe.
pub(crate) struct Attached {
    pipe: Watched<OwnedFd>,
    /// How much of what is at the head of the FIFO it has already.
    sent: usize,
    /// What was taken from its origin and did not fit.
    pending: Vec<u8>,
    gone: bool,
}

impl Attached {
    /// Writes as much as fits; how much that was.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.gone {
            match rustix::io::write(&*self.pipe, &bytes[at..]) {
                Ok(written) => at += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.gone = true,
            }
        }
        at
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let written = self.write(&pending);
        self.pending = pending[written..].to_vec();
    }

    fn is_read(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.pipe, PollFlags::empty())];
        !self.gone && poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::ERR)
    }
}

/// Shows what is at the head of a FIFO to all; how much of it may be taken out. `at_end` it is kept for whoever is slow.
pub(crate) fn show(all: &mut Vec<Attached>, head: &[u8], at_end: bool) -> usize {
    let mut seen_by_all = head.len();
    for one in all.iter_mut() {
        let rest = &head[one.sent.min(head.len())..];
        if one.pending.is_empty() {
            one.sent += one.write(rest);
        }
        if at_end {
            one.pending.extend_from_slice(&head[one.sent.min(head.len())..]);
            one.sent = head.len();
        }
        if !one.gone {
            seen_by_all = seen_by_all.min(one.sent);
        }
    }
    all.retain(|one| !one.gone);
    seen_by_all
}

/// So much was taken out of the FIFO.
pub(crate) fn taken(all: &mut [Attached], bytes: usize) {
    all.iter_mut().for_each(|one| one.sent = one.sent.saturating_sub(bytes));
}

/// Hands on what was read from a terminal.
pub(crate) fn hand_on(all: &mut Vec<Attached>, bytes: &[u8]) {
    for one in all.iter_mut() {
        one.flush();
        let written = if one.pending.is_empty() { one.write(bytes) } else { 0 };
        one.pending.extend_from_slice(&bytes[written..]);
    }
    all.retain(|one| !one.gone);
}

/// Whether somebody has to read first.
pub(crate) fn is_waiting(all: &mut Vec<Attached>) -> bool {
    all.iter_mut().for_each(Attached::flush);
    all.retain(|one| !one.gone);
    all.iter().any(|one| !one.pending.is_empty())
}

impl Supervisor {
    /// Answers with the read ends: of stdout and stderr, then the write end of stdin where there is one; of a terminal, then
    /// the terminal. With `take_stdin` nobody else holds stdin open any more: its end is the client's to give.
    pub(super) fn attach(&mut self, client: u64, id: &ContainerId, take_stdin: bool) -> Result<()> {
        let poller = self.poller.clone();
        let container = self.container_mut(id)?;
        match container.record.state {
            ContainerState::Created | ContainerState::Running => {}
            ContainerState::Creating | ContainerState::Stopped => {
                return Err(Error::Conflict(format!("container `{id}` is not running")));
            }
        }
        let mut fds = Vec::new();
        for (index, stream) in container.streams.iter_mut().enumerate() {
            let mut attached = stream.attached.borrow_mut();
            attached.retain(Attached::is_read);
            if attached.len() >= ATTACHED_MAX {
                return Err(Error::Conflict(format!("{ATTACHED_MAX} are attached to container `{id}` already")));
            }
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe")?;
            rustix::io::ioctl_fionbio(&write, true).doing(|| "make a pipe non-blocking")?;
            let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES);
            let pipe = poller.watch_room(write, Source::Log(id.clone(), index))?;
            attached.push(Attached { pipe, sent: 0, pending: Vec::new(), gone: false });
            drop(attached);
            // an unfinished line may wait there
            stream.ready = true;
            fds.push(read);
            if matches!(stream.origin, Origin::Terminal) {
                fds.push(stream.fd.as_fd().try_clone_to_owned().doing(|| "copy a terminal")?);
            }
        }
        let stdin = match (take_stdin, &container.stdin) {
            (true, _) => container.stdin.take(),
            (false, Some(stdin)) => Some(stdin.try_clone().doing(|| "copy a pipe")?),
            (false, None) => None,
        };
        fds.extend(stdin);
        if take_stdin {
            let _ = self.keeper.drop_name(&format!("in/{id}"));
        }
        self.answer_with(client, &Response::Done, fds);
        Ok(())
    }

    /// An attached pipe has room again, or its reader is gone.
    pub(super) fn attached_spoke(&mut self, id: &ContainerId, index: usize) {
        let stream = self.containers.get_mut(id).and_then(|container| container.streams.get_mut(index));
        if let Some(stream) = stream {
            stream.ready = true;
            stream.attached.get_mut().retain(Attached::is_read);
        }
        self.leaving.iter_mut().for_each(Attached::flush);
        self.leaving.retain(|one| !one.gone && !one.pending.is_empty());
    }

    /// The container of these streams has ended: whoever has not read everything yet gets the rest.
    pub(super) fn let_go_of(&mut self, streams: Vec<Stream>) {
        let attached = streams.into_iter().flat_map(|stream| stream.attached.into_inner());
        self.leaving.extend(attached.filter(|one| !one.gone && !one.pending.is_empty()));
    }
}
