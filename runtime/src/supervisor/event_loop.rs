//! One epoll set and one list of deadlines: everything the supervisor ever waits for.
//!
//! Descriptors are edge triggered where a [`Watched`] says so. Duplicates of ours live in the keeper and in
//! containers, so closing a descriptor does not take it out of the set: dropping its [`Watched`] does.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{Timespec, epoll};

use crate::clock;
use crate::error::{Doing, Result};
use crate::id::ContainerId;

/// What a descriptor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The request socket.
    Listener,
    /// The signal descriptor.
    Signals,
    /// The keeper wrote down an end.
    Exits,
    /// A connection.
    Client(u64),
    /// A container's first process ended.
    Init(ContainerId),
    /// A container on its way has something to say.
    Channel(ContainerId),
    /// Output of a container, or room in a pipe attached to it.
    Log(ContainerId, usize),
    /// Another process of a container that is being stopped ended.
    Sibling(ContainerId),
    /// A short-lived helper ended.
    Helper(i32),
    /// An exec on its way has something to say.
    ExecChannel(u64),
    /// An exec's program ended.
    ExecProcess(u64),
}

/// What a deadline is for. Whatever it guarded being over, it is taken back, so that an idle supervisor sleeps; one that fires
/// all the same is checked against the present state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A creation takes too long.
    Create(ContainerId),
    /// A start takes too long.
    Start(ContainerId),
    /// A helper takes too long.
    Helper(i32),
    /// An exec takes too long to begin.
    Exec(u64),
    /// Look again whether the first process can react.
    StopLook(ContainerId),
    /// The grace is over.
    StopGrace(ContainerId),
    /// Somebody else's child ended and the keeper has not written how.
    ExitUnseen(ContainerId),
    /// A cgroup was busy.
    Cleanup(ContainerId, u32),
}

/// The epoll set.
#[derive(Clone)]
pub(crate) struct Poller {
    inner: Rc<Inner>,
}

struct Inner {
    epoll: OwnedFd,
    sources: RefCell<BTreeMap<u64, Source>>,
    next: Cell<u64>,
}

/// A descriptor in the set, for as long as this lives.
pub(crate) struct Watched<T: AsFd> {
    fd: T,
    token: u64,
    muted: Cell<bool>,
    wants_write: Cell<bool>,
    inner: Rc<Inner>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).doing(|| "make an epoll set")?;
        Ok(Self { inner: Rc::new(Inner { epoll, sources: RefCell::default(), next: Cell::new(1) }) })
    }

    /// Adds a descriptor, level triggered, for reading.
    pub(crate) fn watch<T: AsFd>(&self, fd: T, source: Source) -> Result<Watched<T>> {
        self.add(fd, source, epoll::EventFlags::IN)
    }

    /// Adds a descriptor, edge triggered, for reading: who gets the event must read until `WouldBlock` or remember
    /// that he did not. Since Linux 5.14 each write to a pipe is an edge.
    pub(crate) fn watch_edges<T: AsFd>(&self, fd: T, source: Source) -> Result<Watched<T>> {
        self.add(fd, source, epoll::EventFlags::IN | epoll::EventFlags::ET)
    }

    /// Adds a descriptor, edge triggered, for writing: wakes when there is room again, or nobody to read.
    pub(crate) fn watch_room<T: AsFd>(&self, fd: T, source: Source) -> Result<Watched<T>> {
        self.add(fd, source, epoll::EventFlags::OUT | epoll::EventFlags::ET)
    }

    fn add<T: AsFd>(&self, fd: T, source: Source, flags: epoll::EventFlags) -> Result<Watched<T>> {
        let token = self.inner.next.replace(self.inner.next.get() + 1);
        epoll::add(&self.inner.epoll, &fd, epoll::EventData::new_u64(token), flags).doing(|| "watch a descriptor")?;
        self.inner.sources.borrow_mut().insert(token, source);
        Ok(Watched { fd, token, muted: Cell::new(false), wants_write: Cell::new(false), inner: Rc::clone(&self.inner) })
    }

    /// Waits until `wake_at_ms` (boot time; `None` is for ever) and returns what is ready. May return nothing.
    pub(crate) fn wait(&self, wake_at_ms: Option<u64>) -> Result<Vec<Source>> {
        let timeout = wake_at_ms.map(|at| {
            let ms = at.saturating_sub(clock::boot_ms());
            let nanos = i64::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
            Timespec { tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX), tv_nsec: nanos }
        });
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        match epoll::wait(&self.inner.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(crate::Error::io("wait for events", error)),
        }
        let sources = self.inner.sources.borrow();
        Ok(events.iter().filter_map(|event| sources.get(&{ event.data }.u64()).cloned()).collect())
    }
}

impl<T: AsFd> Watched<T> {
    /// Also (or no longer) wakes when the descriptor can be written.
    pub(crate) fn want_write(&self, wanted: bool) {
        if self.wants_write.replace(wanted) == wanted {
            return;
        }
        let flags = if wanted { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        // cannot fail: the descriptor is in the set
        let _ = epoll::modify(&self.inner.epoll, &self.fd, epoll::EventData::new_u64(self.token), flags);
    }

    /// Never wakes again, but stays what it is: for an ended process that cannot be reaped yet.
    pub(crate) fn mute(&self) {
        self.muted.set(true);
        let _ = epoll::delete(&self.inner.epoll, &self.fd);
    }

    pub(crate) fn is_muted(&self) -> bool {
        self.muted.get()
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.fd
    }
}

impl<T: AsFd> std::ops::Deref for Watched<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.fd
    }
}

impl<T: AsFd> AsFd for Watched<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        self.inner.sources.borrow_mut().remove(&self.token);
        let _ = epoll::delete(&self.inner.epoll, &self.fd);
    }
}

/// Deadlines in order of time, one for each thing that has one.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeSet<(u64, Timer)>,
    at_ms: BTreeMap<Timer, u64>,
}

impl Timers {
    /// Sets a deadline, instead of an earlier or later one for the same.
    pub(crate) fn set(&mut self, at_ms: u64, timer: Timer) {
        self.cancel(&timer);
        self.due.insert((at_ms, timer.clone()));
        self.at_ms.insert(timer, at_ms);
    }

    /// Takes a deadline back, if there is one.
    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some((timer, at_ms)) = self.at_ms.remove_entry(timer) {
            self.due.remove(&(at_ms, timer));
        }
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }

    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<Timer> {
        let (at_ms, timer) = self.due.first()?.clone();
        (at_ms <= now_ms).then(|| {
            self.cancel(&timer);
            timer
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is due comes in the order of its time, once, and never after it was taken back.
        #[test]
        fn deadlines(steps in prop::collection::vec((0_u8..3, 0_u64..8, 0_u64..50), 0..80)) {
            let mut timers = Timers::default();
            let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
            let mut now = 0;
            for (what, number, ms) in steps {
                match what {
                    0 => {
                        timers.set(now + ms, Timer::Exec(number));
                        expected.insert(number, now + ms);
                    }
                    1 => {
                        timers.cancel(&Timer::Exec(number));
                        expected.remove(&number);
                    }
                    _ => now += ms,
                }
                while let Some(timer) = timers.pop_due(now) {
                    let Timer::Exec(number) = timer else { panic!("only these were set") };
                    let at = expected.remove(&number);
                    prop_assert!(at.is_some_and(|at| at <= now && expected.values().all(|other| *other >= at)));
                }
                prop_assert_eq!(timers.next_at(), expected.values().min().copied());
                prop_assert!(timers.next_at().is_none_or(|at| at > now));
            }
        }
    }
}
