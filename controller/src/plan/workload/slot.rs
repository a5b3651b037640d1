//! One replica number of an App: what lives in it, what ended in it, and how.

use std::collections::BTreeMap;

use runtime::runtime::ExitStatus;

use crate::model::{ExitRecord, ObjectKey, ReplicaKey, TemplateHash};
use crate::plan::backoff;
use crate::plan::pass::{Found, Pass};
use crate::plan::rollout::Target;

/// What one replica number has.
#[derive(Default)]
pub(super) struct Slot<'a> {
    /// Not ended, in id order.
    pub(super) live: Vec<Found<'a>>,
    /// Ended, in id order.
    pub(super) ended: Vec<Found<'a>>,
}

impl<'a> Slot<'a> {
    /// The last one that ended, kept for its logs.
    pub(super) fn newest_ended(&self) -> Option<Found<'a>> {
        self.ended.iter().copied().max_by_key(|(id, container)| (container.attempt, *id))
    }

    /// Its last program ended well.
    pub(super) fn has_succeeded(&self) -> bool {
        self.newest_ended().is_some_and(|(_, c)| c.exit == Some(ExitStatus::Code(0)) && !c.unhealthy)
    }

    pub(super) fn with_hash(&self, hash: &TemplateHash) -> Option<Found<'a>> {
        self.live.iter().copied().find(|(_, container)| container.template_hash == *hash)
    }
}

/// The slot's last container was of the target: it goes on trying there. One that ended before what now runs in the slot
/// was begun was of an earlier roll-out of the same template (simulation seed 14507).
pub(super) fn is_claimed(slot: &Slot<'_>, target: &Target<'_>) -> bool {
    slot.newest_ended().is_some_and(|(_, ended)| {
        let is_later = |(_, live): &Found<'_>| live.started_boot_ms > ended.finished_boot_ms;
        ended.template_hash == target.hash && !slot.live.iter().any(is_later)
    })
}

/// How the slot's containers of one template ended, oldest first: from memory, and from containers memory knows nothing of.
pub(super) fn ends_of(
    pass: &Pass<'_>,
    key: &ObjectKey,
    ordinal: u32,
    slot: &Slot<'_>,
    hash: &TemplateHash,
) -> Vec<ExitRecord> {
    let mut ends: BTreeMap<u32, ExitRecord> = BTreeMap::new();
    for (_, container) in slot.ended.iter().filter(|(_, c)| c.template_hash == *hash) {
        let Some(exit) = container.exit else { continue };
        let record = ExitRecord {
            attempt: container.attempt,
            template_hash: hash.clone(),
            exit,
            finished_boot_ms: container.finished_boot_ms,
            finished_unix_ms: 0,
            // Nobody recorded how long it was ready; how long it ran is the kindest guess, and only for a first failure.
            ready_for_ms: match (container.started_boot_ms, container.finished_boot_ms) {
                (0, _) | (_, 0) => 0,
                (started, finished) => finished.saturating_sub(started).min(backoff::STARTED_WELL_MS),
            },
            asked: false,
            unhealthy: container.unhealthy,
        };
        ends.insert(container.attempt, record);
    }
    if !pass.observed.exits.is_empty() {
        let replica = ReplicaKey { workload: key.clone(), ordinal };
        for exit in pass.observed.exits.get(&replica).into_iter().flatten() {
            if exit.template_hash == *hash {
                ends.insert(exit.attempt, exit.clone());
            }
        }
    }
    ends.into_values().collect()
}
