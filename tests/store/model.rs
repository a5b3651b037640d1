//! What the writer writes, as a function of a seed and a number, and what the store must then hold.

use std::collections::BTreeMap;
use std::path::Path;

use controller::store::{Batch, Opened, SledStore, StateStore as _};

use crate::Result;

/// A small generator of numbers (splitmix64): the same seed gives the same numbers for ever.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `bound - 1`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Batch `n`: one to five changes of forty keys; values of a few bytes to a few pages, now and then many pages.
pub(crate) fn batch(seed: u64, n: u64) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in changes(seed, n) {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}

fn changes(seed: u64, n: u64) -> Vec<(String, Option<String>)> {
    let mut random = Random::new(seed ^ n.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    let count = 1 + random.below(5);
    (0..count)
        .map(|_| {
            let key = format!("key/{:02}", random.below(40));
            let len = match random.below(20) {
                0 => 20_000,
                1..5 => random.below(5_000),
                _ => random.below(300),
            };
            let len = usize::try_from(len).unwrap_or(0);
            let value = format!("\"{n} {}\"", "x".repeat(len));
            (key, (random.below(6) != 0).then_some(value))
        })
        .collect()
}

/// Everything after batches `1..=n`.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) n: u64,
    records: BTreeMap<String, String>,
}

impl Content {
    pub(crate) fn advance_to(&mut self, seed: u64, n: u64) {
        while self.n < n {
            self.n += 1;
            for (key, value) in changes(seed, self.n) {
                match value {
                    Some(value) => self.records.insert(key, value),
                    None => self.records.remove(&key),
                };
            }
        }
    }
}

/// Opens the store in `dir` and finds which batch it holds: one of `from.n ..= last`. Moves `from` there.
///
/// # Errors
/// When the store had to be rebuilt, cannot persist, or holds something that never was.
pub(crate) fn verify(dir: &Path, seed: u64, from: &mut Content, last: u64) -> Result<Opened> {
    let store = SledStore::open(dir).map_err(|error| format!("open: {error}"))?;
    let opened = store.opened().clone();
    let found: BTreeMap<String, String> = store.scan_prefix("key/").into_iter().collect();
    store.close();
    drop(store);
    if let Opened::NotPersisted { .. } = &opened {
        return Err(format!("{opened:?}"));
    }
    let expected = from.n;
    loop {
        if from.records == found {
            return Ok(opened);
        }
        if from.n >= last {
            break;
        }
        from.advance_to(seed, from.n + 1);
    }
    Err(format!("holds {} records, which is none of the states {expected}..={last} ({opened:?})", found.len()))
}
