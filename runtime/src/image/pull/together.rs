//! Pulls of one image at the same time ask its registry once: registries count manifests against a limit. Also the
//! patience small documents get; layers have their own in `download`.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::download::may_pass;
use super::{Fetched, Origin};
use crate::clock;
use crate::error::Result;
use crate::image::ImageRef;
use crate::image::manifest::Descriptor;
use crate::image::store::lock;

/// Tries for a document.
const TRIES_MAX: u32 = 4;
/// Pause before the second one; doubles with each.
const PAUSE: Duration = Duration::from_millis(150);
/// What took this long to fail, in milliseconds, or a whole stall deadline, had its patience already.
const QUICK_MS: u64 = 2_000;

/// Documents as they come, by name, as long as somebody holds what [`Documents::once`] gave.
#[derive(Default)]
pub(in crate::image) struct Documents(Mutex<BTreeMap<String, Weak<Slot>>>);

/// A document on its way or here; locked while it is fetched.
pub(in crate::image) type Slot = Mutex<State>;

#[derive(Default)]
pub(in crate::image) enum State {
    #[default]
    Nothing,
    /// Asked for in vain: whoever waited asks by itself, so that a dead registry is waited for at the same time.
    Failed,
    /// With the boot time in milliseconds at which it was asked for.
    Here(u64, Fetched),
}

impl Documents {
    /// The document, fetched unless somebody asked for it since `since_ms` (boot time in milliseconds).
    pub(in crate::image) fn once(
        &self,
        name: &str,
        since_ms: u64,
        fetch: impl Fn() -> Result<Fetched>,
    ) -> Result<(Arc<Slot>, Fetched)> {
        let slot = {
            let mut all = lock(&self.0);
            all.retain(|_, slot| slot.strong_count() > 0);
            let slot = all.get(name).and_then(Weak::upgrade).unwrap_or_default();
            all.insert(name.to_owned(), Arc::downgrade(&slot));
            slot
        };
        let mut state = lock(&slot);
        match &*state {
            State::Here(asked_ms, found) if *asked_ms >= since_ms => {
                let found = found.clone();
                drop(state);
                return Ok((slot, found));
            }
            State::Failed => drop(state),
            State::Here(..) | State::Nothing => {
                let asked_ms = clock::boot_ms();
                let fetched = fetch();
                *state = fetched.as_ref().map_or(State::Failed, |found| State::Here(asked_ms, found.clone()));
                drop(state);
                return Ok((slot, fetched?));
            }
        }
        Ok((slot, fetch()?))
    }
}

/// Asks again where that may help: a registry that is restarted, a connection that was reset.
pub(in crate::image) fn patiently<T>(stall_ms: u64, ask: impl Fn() -> Result<T>) -> Result<T> {
    let quick_ms = QUICK_MS.min(stall_ms);
    let mut tries = 0;
    loop {
        let began = clock::boot_ms();
        match ask() {
            Err(error) if tries + 1 < TRIES_MAX && may_pass(&error) && clock::boot_ms() - began < quick_ms => {
                tracing::debug!(%error, "asking again");
                std::thread::sleep(PAUSE * 2_u32.pow(tries));
                tries += 1;
            }
            other => return other,
        }
    }
}

/// An origin whose manifests are asked for together with others.
pub(super) struct Together<'a> {
    pub(super) origin: &'a dyn Origin,
    pub(super) documents: &'a Documents,
    /// When this pull began: an answer from before may be an older one. Boot time in milliseconds.
    pub(super) since_ms: u64,
    pub(super) stall_ms: u64,
}

impl Origin for Together<'_> {
    fn manifest(&self, reference: &ImageRef) -> Result<Fetched> {
        let ask = || patiently(self.stall_ms, || self.origin.manifest(reference));
        self.documents.once(&reference.to_string(), self.since_ms, ask).map(|(_, found)| found)
    }

    fn blob(&self, reference: &ImageRef, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + '_>> {
        self.origin.blob(reference, blob, from)
    }

    fn part(&self, name: &ImageRef, blob: &Descriptor, from: u64, to: u64) -> Result<Option<Box<dyn Read + '_>>> {
        self.origin.part(name, blob, from, to)
    }

    fn is_lasting(&self) -> bool {
        self.origin.is_lasting()
    }

    fn distrust(&self) -> bool {
        self.origin.distrust()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_answer_is_shared_while_it_is_fresh_and_held() {
        let documents = Documents::default();
        let asked = AtomicUsize::new(0);
        let fetch = || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(Fetched { bytes: b"x".to_vec(), media_type: String::new() })
        };
        let held = documents.once("a", 0, fetch).unwrap();
        assert_eq!(documents.once("a", 0, fetch).unwrap().1.bytes, b"x");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        documents.once("a", u64::MAX, fetch).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "an older one is not good enough");
        drop(held);
        documents.once("a", 0, fetch).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3, "nobody held it");
    }
}
