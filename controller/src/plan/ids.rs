//! Which host ids an App's containers get: 64 Ki of them each, never shared between Apps, clear of everyone else's.
//!
//! A range once handed out stays with its App: from the records, else from its containers. Only then is one picked, at a
//! place that depends on the App alone, so that losing the records changes nothing in the usual case.

use std::collections::BTreeMap;

use runtime::runtime::IdRange;

use super::name::hex;
use crate::model::{ObjectKey, ObservedState};

/// How many ids a container sees.
pub const RANGE_LEN: u32 = 1 << 16;
/// Where ranges begin: behind systemd's container range (524288 to 1879048191, systemd's UIDS-GIDS page) …
const POOL_START: u32 = 0x7000_0000;
/// … and how many there are, ending before its "foreign" range at 0x7FFE0000.
const POOL_RANGES: u32 = 0x0FFE;

/// The ranges handed out as a pass goes on.
pub(super) struct IdRanges<'a> {
    given: BTreeMap<&'a ObjectKey, IdRange>,
    foreign: &'a [(u32, u32)],
}

impl<'a> IdRanges<'a> {
    pub(super) fn new(observed: &'a ObservedState) -> Self {
        let mut given: BTreeMap<_, _> = observed.containers.values().map(|c| (&c.replica.workload, c.ids)).collect();
        given.extend(observed.id_ranges.iter().map(|(key, range)| (key, *range)));
        Self { given, foreign: &observed.foreign_id_ranges }
    }

    /// The range of an App or Job; `None` when the pool is used up.
    pub(super) fn of(&mut self, key: &'a ObjectKey) -> Option<IdRange> {
        if let Some(range) = self.given.get(key) {
            return Some(*range);
        }
        let hash = hex(&["ids", &key.to_string()], 8);
        let first = u32::from_str_radix(&hash, 16).unwrap_or(0) % POOL_RANGES;
        let range = (0..POOL_RANGES).find_map(|step| {
            let host_start = POOL_START + (first + step) % POOL_RANGES * RANGE_LEN;
            let free = self.given.values().all(|r| apart(host_start, RANGE_LEN, r.host_start, r.len))
                && self.foreign.iter().all(|&(start, len)| apart(host_start, RANGE_LEN, start, len));
            free.then_some(IdRange { host_start, len: RANGE_LEN })
        })?;
        self.given.insert(key, range);
        Some(range)
    }
}

/// Whether two ranges share no id.
#[must_use]
pub fn apart(a: u32, a_len: u32, b: u32, b_len: u32) -> bool {
    u64::from(a) + u64::from(a_len) <= u64::from(b) || u64::from(b) + u64::from(b_len) <= u64::from(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn ranges_are_apart_and_stay() {
        let keys: Vec<_> = (0..200)
            .map(|i| ObjectKey { stack: "shop".to_owned(), kind: Kind::App, name: format!("app{i}") })
            .collect();
        // A foreign range over the first half of the pool.
        let foreign_id_ranges = vec![(100_000, 65_536), (POOL_START, 0x0800_0000)];
        let observed = ObservedState { foreign_id_ranges, ..ObservedState::default() };
        let mut ranges = IdRanges::new(&observed);
        let picked: Vec<_> = keys.iter().map(|key| ranges.of(key).unwrap()).collect();
        for (i, a) in picked.iter().enumerate() {
            assert!(a.host_start >= POOL_START + 0x0800_0000 && a.len == RANGE_LEN);
            assert!(picked[..i].iter().all(|b| apart(a.host_start, a.len, b.host_start, b.len)));
        }
        let mut again = ObservedState { foreign_id_ranges: observed.foreign_id_ranges.clone(), ..Default::default() };
        again.id_ranges.insert(keys[7].clone(), picked[0]);
        assert_eq!(IdRanges::new(&again).of(&keys[7]), Some(picked[0]));
    }
}
