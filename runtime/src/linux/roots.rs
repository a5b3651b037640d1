//! Whose root file system is put together right now. Overlay must not be mounted twice over one writable layer, so a copy
//! into a container that does not run and a start of it never meet, nor do two copies.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::id::ContainerId;

/// Containers whose root somebody holds.
#[derive(Debug, Default)]
pub(super) struct Roots {
    held: Mutex<BTreeSet<ContainerId>>,
    freed: Condvar,
}

/// A root that is nobody else's as long as this lives.
pub(super) struct Held<'a> {
    roots: &'a Roots,
    id: ContainerId,
}

impl Roots {
    /// Waits until nobody else holds it.
    pub(super) fn hold(&self, id: &ContainerId) -> Held<'_> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while !held.insert(id.clone()) {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        Held { roots: self, id: id.clone() }
    }

    /// `None` when somebody else holds it.
    pub(super) fn try_hold(&self, id: &ContainerId) -> Option<Held<'_>> {
        let is_free = self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        is_free.then(|| Held { roots: self, id: id.clone() })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.roots.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.roots.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_held_by_one_at_a_time() {
        let (roots, one, other) = (Roots::default(), "one".parse().unwrap(), "other".parse().unwrap());
        let held = roots.hold(&one);
        assert!(roots.try_hold(&one).is_none() && roots.try_hold(&other).is_some());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| drop(roots.hold(&one)));
            drop(held);
            waits.join().unwrap();
        });
        assert!(roots.try_hold(&one).is_some());
    }
}
