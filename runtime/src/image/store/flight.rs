//! Pulls under way in this process: each layer is fetched once however many images want it, and nothing a pull has
//! counted on is collected before it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use super::stage::Staged;
use super::{Store, lock};
use crate::image::Digest;

#[derive(Default)]
pub(super) struct Flights {
    layers: Mutex<BTreeMap<Digest, Flight>>,
    changed: Condvar,
    leases: Mutex<BTreeMap<Digest, usize>>,
}

enum Flight {
    /// Some thread fetches it.
    Working,
    /// It is in `tmp`, held by the pulls that want it.
    Staged(Weak<Staged>),
}

/// The right answer to "I need this layer".
pub(crate) enum Claim<'a> {
    /// Fetch it, then call [`Work::done`]; dropping the work lets the next one try.
    Work(Work<'a>),
    /// Somebody else just staged it.
    Staged(Arc<Staged>),
}

/// The duty to fetch one layer.
pub(crate) struct Work<'a> {
    flights: &'a Flights,
    diff_id: Digest,
    staged: Weak<Staged>,
}

impl Work<'_> {
    pub(crate) fn done(mut self, staged: Staged) -> Arc<Staged> {
        let staged = Arc::new(staged);
        self.staged = Arc::downgrade(&staged);
        staged
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut layers = lock(&self.flights.layers);
        if self.staged.strong_count() > 0 {
            layers.insert(self.diff_id.clone(), Flight::Staged(self.staged.clone()));
        } else {
            layers.remove(&self.diff_id);
        }
        self.flights.changed.notify_all();
    }
}

/// Digests no collection touches while this lives.
pub(crate) struct Lease<'a> {
    flights: &'a Flights,
    digests: Vec<Digest>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut leases = lock(&self.flights.leases);
        for digest in &self.digests {
            if let Some(count) = leases.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    leases.remove(digest);
                }
            }
        }
    }
}

impl Store {
    /// Waits while another thread fetches the layer. Never waits for anything but that one layer, so no two pulls can
    /// wait for each other.
    pub(crate) fn claim_layer(&self, diff_id: &Digest) -> Claim<'_> {
        let mut layers = lock(&self.flights.layers);
        loop {
            match layers.get(diff_id) {
                Some(Flight::Working) => {
                    layers = self.flights.changed.wait(layers).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Flight::Staged(weak)) => match weak.upgrade() {
                    Some(staged) => return Claim::Staged(staged),
                    None => {
                        layers.remove(diff_id);
                    }
                },
                None => {
                    layers.insert(diff_id.clone(), Flight::Working);
                    let work = Work { flights: &self.flights, diff_id: diff_id.clone(), staged: Weak::new() };
                    return Claim::Work(work);
                }
            }
        }
    }

    pub(crate) fn lease(&self, digests: Vec<Digest>) -> Lease<'_> {
        let mut leases = lock(&self.flights.leases);
        for digest in &digests {
            *leases.entry(digest.clone()).or_default() += 1;
        }
        Lease { flights: &self.flights, digests }
    }

    /// Runs `sweep` while no lease can begin; it is told what is leased.
    pub(crate) fn with_leases<T>(&self, sweep: impl FnOnce(&BTreeMap<Digest, usize>) -> T) -> T {
        sweep(&lock(&self.flights.leases))
    }
}
