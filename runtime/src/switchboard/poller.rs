//! What the loop waits on: descriptors by epoll, deadlines by an ordered set. Every wake-up carries a [`Token`].
//!
//! Ids are never used twice, so a late event of something closed finds nothing. Must not know what a token stands for.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::Result;
use crate::clock::boot_ms;
use crate::error::Doing;

/// Events taken from the kernel at once; the rest comes with the next wait.
const EVENTS_MAX: usize = 256;

/// Whom a wake-up is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) id: u64,
}

/// Kinds of things that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// The control socket.
    Control,
    /// A connection to it.
    ControlPeer,
    /// A published port.
    Port,
    /// The client's side of a flow.
    Client,
    /// The backend's side of a flow.
    Backend,
    /// A container's UDP DNS socket.
    DnsUdp,
    /// A container's TCP DNS socket.
    DnsTcp,
    /// A connection to it.
    DnsPeer,
    /// A question to the host's resolver.
    Upstream,
    /// The process is asked to end.
    Signal,
    /// A published UDP port.
    UdpPort,
    /// The socket by which one client's datagrams go to a backend.
    UdpFlow,
}

const KINDS: [Kind; 12] = [
    Kind::Control,
    Kind::ControlPeer,
    Kind::Port,
    Kind::Client,
    Kind::Backend,
    Kind::DnsUdp,
    Kind::DnsTcp,
    Kind::DnsPeer,
    Kind::Upstream,
    Kind::Signal,
    Kind::UdpPort,
    Kind::UdpFlow,
];

impl Token {
    fn encode(self) -> u64 {
        self.id << 4 | u64::from(self.kind as u8)
    }

    fn decode(data: u64) -> Option<Self> {
        Some(Self { kind: *KINDS.get(usize::try_from(data & 15).ok()?)?, id: data >> 4 })
    }
}

/// What happened to a descriptor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readiness {
    /// There is something to read, or the end.
    pub(super) readable: bool,
    /// There is room to write.
    pub(super) writable: bool,
    /// An error is pending, or both directions are closed.
    pub(super) broken: bool,
}

/// How a descriptor is watched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Interest {
    /// Wakes as long as there is something to read.
    Read,
    /// Wakes once for each change in either direction: whoever is woken goes on until it would block.
    Changes,
    /// Not now.
    Nothing,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Changes => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
            Self::Nothing => EventFlags::empty(),
        }
    }
}

/// Epoll and deadlines.
pub(super) struct Poller {
    epoll: OwnedFd,
    deadlines: BTreeSet<(u64, Token)>,
    next_id: u64,
    events: Vec<Event>,
}

impl Poller {
    /// An empty one.
    pub(super) fn new() -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).doing(|| "make an epoll descriptor")?;
        Ok(Self { epoll, deadlines: BTreeSet::new(), next_id: 1, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// An id that nothing had before.
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Watches a descriptor until it is closed.
    pub(super) fn watch(&self, fd: impl AsFd, token: Token, interest: Interest) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token.encode()), interest.flags())?)
    }

    /// Watches it in another way.
    pub(super) fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> std::io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token.encode()), interest.flags())?)
    }

    /// No longer watches it. For descriptors of which another process holds a duplicate: closing alone would not do.
    pub(super) fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Wakes `token` at a time of CLOCK_BOOTTIME in milliseconds.
    pub(super) fn arm(&mut self, at_ms: u64, token: Token) {
        self.deadlines.insert((at_ms, token));
    }

    /// Undoes [`Poller::arm`].
    pub(super) fn disarm(&mut self, at_ms: u64, token: Token) {
        self.deadlines.remove(&(at_ms, token));
    }

    /// Waits for something, not at all when `busy`. Returns the descriptors that woke.
    pub(super) fn wait(&mut self, busy: bool) -> Result<Vec<(Token, Readiness)>> {
        let timeout = if busy {
            Some(Timespec { tv_sec: 0, tv_nsec: 0 })
        } else {
            self.deadlines.first().map(|(at, _)| timespec(at.saturating_sub(boot_ms())))
        };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).doing(|| "wait for events"),
        }
        Ok(self
            .events
            .iter()
            .filter_map(|event| Some((Token::decode(event.data.u64())?, readiness(event.flags))))
            .collect())
    }

    /// The next deadline that has passed, taken out.
    pub(super) fn expired(&mut self, now_ms: u64) -> Option<Token> {
        let (at, token) = *self.deadlines.first()?;
        if at > now_ms {
            return None;
        }
        self.deadlines.pop_first();
        Some(token)
    }
}

fn readiness(flags: EventFlags) -> Readiness {
    let any = |of: EventFlags| flags.intersects(of);
    Readiness {
        readable: any(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
        writable: any(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR),
        broken: any(EventFlags::HUP | EventFlags::ERR),
    }
}

fn timespec(ms: u64) -> Timespec {
    let secs = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    Timespec { tv_sec: secs, tv_nsec: i64::try_from(ms % 1_000).unwrap_or(0) * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back() {
        for kind in KINDS {
            let token = Token { kind, id: 1 << 40 };
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(15), None);
    }

    #[test]
    fn deadlines_come_in_order_and_can_be_taken_back() {
        let mut poller = Poller::new().unwrap();
        let token = |id| Token { kind: Kind::Client, id };
        for (at, id) in [(30, 3), (10, 1), (20, 2)] {
            poller.arm(at, token(id));
        }
        poller.disarm(20, token(2));
        assert_eq!(poller.expired(9), None);
        assert_eq!(poller.expired(30), Some(token(1)));
        assert_eq!(poller.expired(30), Some(token(3)));
        assert_eq!(poller.expired(30), None);
    }
}
