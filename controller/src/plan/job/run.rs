//! The newest run of a Job, put together from memory and from its containers. A run has a slot for each completion: run
//! `n` of a Job of 3 has the ordinals `n`, `n + 1`, `n + 2`, and the next run begins at `n + 3`. A run of more than one is
//! recorded before it begins, so that its ordinals are known whatever the manifest says later.

use runtime::runtime::{ContainerState, ExitStatus};

use super::super::pass::{Found, Pass};
use crate::model::{DesiredJob, ExitRecord, JobOutcome, JobRecord, ObjectKey, ReplicaKey, TemplateHash};

/// The newest run known.
pub(super) struct Run<'a> {
    /// The ordinal of its first slot.
    pub(super) number: u32,
    pub(super) hash: TemplateHash,
    pub(super) slots: Vec<Slot<'a>>,
    pub(super) outcome: JobOutcome,
    /// When it was started, in a boot's time, if that was recorded.
    pub(super) started_boot_ms: Option<u64>,
}

/// One completion: a container that is tried until it ends well.
#[derive(Default)]
pub(super) struct Slot<'a> {
    pub(super) live: Vec<Found<'a>>,
    /// The end of its last try.
    pub(super) ended: Option<End>,
    /// Tries that ended so far.
    pub(super) tries: u32,
}

/// How a try ended.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) attempt: u32,
    pub(super) exit: Option<ExitStatus>,
    pub(super) finished_boot_ms: u64,
    /// We stopped it: its exit code says nothing.
    pub(super) asked: bool,
}

impl Slot<'_> {
    /// Later tries win; what memory says of a try wins over its container.
    fn note_end(&mut self, end: End) {
        self.tries = self.tries.max(end.attempt + 1);
        if self.ended.is_none_or(|before| before.attempt < end.attempt) {
            self.ended = Some(end);
        }
    }

    pub(super) fn has_exited_with_0(&self) -> bool {
        let succeeded = |end: End| end.exit == Some(ExitStatus::Code(0)) && !end.asked;
        self.live.is_empty() && self.ended.is_some_and(succeeded)
    }
}

impl<'a> Run<'a> {
    pub(super) fn live(&self) -> impl Iterator<Item = Found<'a>> + '_ {
        self.slots.iter().flat_map(|slot| slot.live.iter().copied())
    }

    pub(super) fn completions(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Tries of all slots that ended otherwise than well.
    pub(super) fn failures(&self) -> u32 {
        let failed = |slot: &Slot<'_>| slot.tries - u32::from(slot.tries > 0 && slot.has_exited_with_0());
        self.slots.iter().map(failed).sum()
    }

    pub(super) fn tries(&self) -> u32 {
        self.slots.iter().map(|slot| slot.tries).sum()
    }

    pub(super) fn has_succeeded(&self) -> bool {
        self.slots.iter().all(Slot::has_exited_with_0)
    }

    /// The end of the last try of the slot whose end came last.
    pub(super) fn last_exit(&self) -> Option<ExitStatus> {
        let ended = self.slots.iter().filter_map(|slot| slot.ended);
        ended.max_by_key(|end| end.finished_boot_ms).and_then(|end| end.exit)
    }

    /// Whether it has run for longer than it may. Time before a reboot does not count, so this is never too early.
    pub(super) fn is_overdue(&self, limit_ms: u64, now_boot_ms: u64) -> bool {
        self.started_boot_ms.is_some_and(|started| passed_ms(started, now_boot_ms) >= limit_ms)
    }
}

/// Milliseconds since a moment of this boot or, when that lies ahead, since the boot.
pub(super) fn passed_ms(since_boot_ms: u64, now_boot_ms: u64) -> u64 {
    now_boot_ms.checked_sub(since_boot_ms).unwrap_or(now_boot_ms)
}

/// The ordinal the newest run of a Job begins at, from memory and from its containers; 0: it has none.
pub(super) fn number(pass: &Pass<'_>, key: &ObjectKey) -> u32 {
    let record = pass.observed.jobs.get(key).filter(|record| record.run > 0);
    let found = pass.owned.get(key).into_iter().flatten().map(|(_, c)| c.replica.ordinal).max();
    let slot = |ordinal| ReplicaKey { workload: key.clone(), ordinal };
    let mut ended = pass.observed.exits.range(slot(0)..=slot(u32::MAX));
    let ended = ended.next_back().map_or(0, |(replica, _)| replica.ordinal);
    let latest = found.unwrap_or(0).max(ended);
    match record {
        Some(record) if latest < next(record.run, record.completions) => record.run,
        // Runs that are not recorded have one completion.
        Some(_) | None => latest,
    }
}

/// Where the run after one of so many completions begins.
pub(super) fn next(number: u32, completions: u32) -> u32 {
    number.saturating_add(completions.max(1))
}

/// The newest run, if there is one.
pub(super) fn newest<'a>(pass: &Pass<'a>, key: &ObjectKey) -> Option<Run<'a>> {
    let number = number(pass, key);
    if number == 0 {
        return None;
    }
    let record = pass.observed.jobs.get(key).filter(|record| record.run == number);
    let count = record.map_or(1, |record| record.completions.max(1));
    let mut run = Run {
        number,
        hash: record.map_or_else(|| TemplateHash(String::new()), |record| record.template_hash.clone()),
        slots: (0..count).map(|_| Slot::default()).collect(),
        outcome: record.map_or(JobOutcome::Active, |record| record.outcome),
        started_boot_ms: record.map(|record| record.started_boot_ms).filter(|started| *started > 0),
    };
    for (ordinal, slot) in (number..).zip(&mut run.slots) {
        slot.tries = record.filter(|_| count == 1).map_or(0, |record| record.failures);
        let hash = read_slot(pass, &ReplicaKey { workload: key.clone(), ordinal }, slot);
        if let (None, Some(hash)) = (record, hash) {
            run.hash = hash;
        }
    }
    Some(run)
}

/// Fills a slot and tells what its last container was made from.
fn read_slot<'a>(pass: &Pass<'a>, replica: &ReplicaKey, slot: &mut Slot<'a>) -> Option<TemplateHash> {
    let mut hash = None;
    for exit in pass.observed.exits.get(replica).into_iter().flatten() {
        let ExitRecord { attempt, finished_boot_ms, asked, ref template_hash, .. } = *exit;
        slot.note_end(End { attempt, exit: Some(exit.counts_as()), finished_boot_ms, asked });
        hash = Some(template_hash.clone());
    }
    let found = pass.owned.get(&replica.workload).into_iter().flatten().copied();
    for (id, container) in found.filter(|(_, c)| c.replica.ordinal == replica.ordinal) {
        if container.state == ContainerState::Stopped {
            let (attempt, finished_boot_ms) = (container.attempt, container.finished_boot_ms);
            slot.note_end(End { attempt, exit: container.exit, finished_boot_ms, asked: container.unhealthy });
        } else {
            // One that is being stopped as well: a slot has one container at a time (simulation seed 18523).
            slot.live.push((id, container));
        }
        hash = Some(container.template_hash.clone());
    }
    hash
}

/// How a run went, once that is known and as long as it is not recorded. One that failed with tries still running is
/// decided when these have ended.
pub(super) fn outcome(job: &DesiredJob, run: &Run<'_>, now_boot_ms: u64) -> JobOutcome {
    if run.outcome != JobOutcome::Active {
        return run.outcome;
    }
    let overdue = job.runs.deadline_ms.is_some_and(|limit| run.is_overdue(limit, now_boot_ms));
    match run.has_succeeded() {
        true => JobOutcome::Succeeded,
        false if run.failures() > job.backoff_limit => JobOutcome::Failed,
        false if overdue => JobOutcome::DeadlineExceeded,
        false => JobOutcome::Active,
    }
}

/// What is recorded of a run whose outcome is known.
pub(super) fn decided(pass: &Pass<'_>, key: &ObjectKey, run: &Run<'_>, outcome: JobOutcome) -> JobRecord {
    let recorded = pass.observed.jobs.get(key).filter(|record| record.run == run.number);
    JobRecord {
        run: run.number,
        template_hash: run.hash.clone(),
        outcome,
        last_exit: run.last_exit().or_else(|| recorded.and_then(|record| record.last_exit)),
        failures: run.failures(),
        considered_unix_ms: pass.observed.jobs.get(key).map_or(0, |record| record.considered_unix_ms),
        completions: run.completions(),
        started_boot_ms: run.started_boot_ms.unwrap_or(0),
        finished_boot_ms: pass.now(),
    }
}
