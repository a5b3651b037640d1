//! Removes what earlier runs and tries of a Job left. The containers of the newest run stay, for their logs and because
//! they say what memory may have lost; of earlier ones as many as the history limits say.

use runtime::runtime::{ContainerState, ExitStatus};

use super::super::Reason;
use super::super::pass::{Found, Pass};
use super::run;
use crate::model::{DesiredJob, JobOutcome, ObjectKey};

/// Half-made containers, ended tries but the last of each slot, and runs that are not kept any more.
pub(super) fn clear<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, job: &DesiredJob) {
    let number = run::number(pass, key);
    let found = pass.owned.get(key).cloned().unwrap_or_default();
    let mut kept = Kept::of(pass, key, job, number);
    // The latest first: it is the one that is kept.
    let mut stopped: Vec<Found<'a>> =
        found.iter().copied().filter(|(_, c)| c.state == ContainerState::Stopped).collect();
    stopped.sort_by_key(|(id, c)| std::cmp::Reverse((c.replica.ordinal, c.attempt, *id)));
    let mut last = None;
    let mut gone = Vec::new();
    for (id, container) in stopped {
        let is_latest_try = last.replace(container.replica.ordinal) != Some(container.replica.ordinal);
        if !(is_latest_try && kept.keeps(pass, (id, container))) {
            gone.push((id, container));
        }
    }
    for found in gone.into_iter().rev() {
        pass.remove(found, Reason::Replaced, Some(&job.source));
    }
    for found in found.into_iter().filter(|(_, container)| container.state == ContainerState::Creating) {
        if !pass.is_being_made(found.0) {
            pass.remove(found, Reason::HalfMade, Some(&job.source));
        }
    }
}

/// Ends tries that failed their liveness or startup check. Until they have ended they count as running.
pub(super) fn stop_unhealthy<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, job: &DesiredJob) {
    let found = pass.owned.get(key).into_iter().flatten().copied();
    let is_unhealthy = |(_, c): &Found<'_>| c.unhealthy && c.state == ContainerState::Running;
    for found in found.filter(is_unhealthy).collect::<Vec<_>>() {
        pass.stop(found, Reason::Unhealthy, Some(&job.source));
    }
}

/// What is still to be kept, going from the newest run back.
struct Kept<'j> {
    job: &'j DesiredJob,
    /// First ordinal of the newest run.
    number: u32,
    /// It is over, and how.
    outcome: JobOutcome,
    completions: u32,
    /// Boot time of its end.
    finished_boot_ms: u64,
    /// The run looked at, by its first ordinal, and whether it is kept.
    current: Option<(u32, bool)>,
    succeeded: u32,
    failed: u32,
}

impl<'j> Kept<'j> {
    fn of(pass: &Pass<'_>, key: &ObjectKey, job: &'j DesiredJob, number: u32) -> Self {
        let record = pass.observed.jobs.get(key).filter(|record| record.run == number);
        Self {
            job,
            number,
            outcome: record.map_or(JobOutcome::Active, |record| record.outcome),
            completions: record.map_or(1, |record| record.completions.max(1)),
            finished_boot_ms: record.map_or(0, |record| record.finished_boot_ms),
            current: None,
            succeeded: job.runs.keep_succeeded,
            failed: job.runs.keep_failed,
        }
    }

    fn keeps(&mut self, pass: &mut Pass<'_>, (_, container): Found<'_>) -> bool {
        let ordinal = container.replica.ordinal;
        if ordinal >= self.number {
            return self.keeps_newest(pass);
        }
        if self.job.schedule.is_none() {
            return false;
        }
        // As if earlier runs had been as large as the newest: where that was changed, one more or less is kept.
        let first = self.number.saturating_sub((self.number - ordinal).div_ceil(self.completions) * self.completions);
        if let Some((_, keeps)) = self.current.filter(|(run, _)| *run == first) {
            return keeps;
        }
        let succeeded = container.exit == Some(ExitStatus::Code(0));
        let keeps = self.has_room(succeeded) && !self.is_old(pass, container.finished_boot_ms);
        self.current = Some((first, keeps));
        keeps
    }

    fn keeps_newest(&mut self, pass: &mut Pass<'_>) -> bool {
        let succeeded = match self.outcome {
            JobOutcome::Active => return true,
            JobOutcome::Succeeded => true,
            JobOutcome::Failed | JobOutcome::DeadlineExceeded => false,
        };
        if let Some((_, keeps)) = self.current.filter(|(run, _)| *run == self.number) {
            return keeps;
        }
        let has_room = self.job.schedule.is_none() || self.has_room(succeeded);
        let keeps = has_room && !self.is_old(pass, self.finished_boot_ms);
        self.current = Some((self.number, keeps));
        keeps
    }

    fn has_room(&mut self, succeeded: bool) -> bool {
        let room = if succeeded { &mut self.succeeded } else { &mut self.failed };
        let has = *room > 0;
        *room = room.saturating_sub(1);
        has
    }

    /// Ended longer ago than `ttlAfterFinished`; if not, the pass is made again when that is so.
    fn is_old(&self, pass: &mut Pass<'_>, finished_boot_ms: u64) -> bool {
        let Some(ttl_ms) = self.job.runs.ttl_ms else { return false };
        let left = ttl_ms.saturating_sub(run::passed_ms(finished_boot_ms, pass.now()));
        if left > 0 {
            pass.wake(pass.now().saturating_add(left));
        }
        left == 0
    }
}
