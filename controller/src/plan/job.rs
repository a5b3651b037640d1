//! Jobs: one run per template, or one per scheduled time. A run is a replica whose ordinal is the run's number; a try is
//! an attempt. Failed tries are repeated with back-off up to `backoffLimit`.
//!
//! Missed times: the latest one is made up for once if it is less than an hour late, earlier ones are skipped. Only the
//! newest run is tried again; a new template of an unscheduled Job starts a new run.

use runtime::runtime::{ContainerState, ExitStatus};

use super::backoff;
use super::bug::Bug;
use super::container::Make;
use super::cron::{Cron, time_zone};
use super::pass::{Found, Pass};
use super::template_hash::template_hash;
use super::workload::is_left_alone;
use super::{Action, Reason, StepId, WaitingOn, dependency};
use crate::model::{
    ConcurrencyPolicy, DesiredJob, ExitRecord, JobOutcome, JobRecord, ObjectKey, ReplicaKey, Schedule, TemplateHash,
};

/// How late a scheduled run may start.
pub const LATE_MS_MAX: u64 = 3_600_000;
/// A wall clock that went back further than this is believed; a smaller step is waited out, so that nothing runs twice.
const STEP_BACK_MS_MAX: u64 = 3_600_000;

/// The newest run known.
struct Run<'a> {
    number: u32,
    hash: TemplateHash,
    live: Vec<Found<'a>>,
    /// The end of its last try.
    ended: Option<End>,
    /// Tries that ended so far.
    tries: u32,
    outcome: JobOutcome,
}

/// How a try ended.
#[derive(Clone, Copy)]
struct End {
    attempt: u32,
    exit: Option<ExitStatus>,
    finished_boot_ms: u64,
    /// We stopped it: its exit code says nothing.
    asked: bool,
}

/// Plans one Job.
pub(super) fn plan_job<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, job: &'a DesiredJob) {
    if is_left_alone(pass, key) {
        return;
    }
    clear(pass, key, job);
    stop_unhealthy(pass, key, job);
    let Some((digest, image_config)) = pass.image(&job.template.image.reference, key, &job.template.image.source)
    else {
        return;
    };
    let hash = template_hash(&job.template, digest);
    let run = newest_run(pass, key);
    let make = Make {
        object: key,
        ordinal: run.as_ref().map_or(1, |run| run.number),
        attempt: 0,
        template: &job.template,
        hash: hash.clone(),
        image: digest,
        image_config,
        resources: &job.template.resources,
        source: &job.source,
    };
    let mut run = run;
    let decided = run.as_mut().and_then(|run| decide(pass, key, job, run));
    let recorded = match &job.schedule {
        Some(schedule) => plan_scheduled(pass, job, schedule, run, make),
        None => {
            plan_once(pass, job, run, make);
            false
        }
    };
    // One record of a Job in one plan: that of a new run tells how the old one ended, too.
    if let Some(record) = decided.filter(|_| !recorded) {
        put(pass, key, job, record, Reason::JobDecided);
    }
}

/// Removes what earlier runs and tries left: half-made containers, and ended ones but the newest run's last.
fn clear<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, job: &DesiredJob) {
    let found = pass.owned.get(key).cloned().unwrap_or_default();
    let newest = found.iter().filter(|(_, c)| c.state == ContainerState::Stopped);
    let newest = newest.max_by_key(|(id, c)| (c.replica.ordinal, c.attempt, *id)).map(|(id, _)| *id);
    for (id, container) in found {
        match container.state {
            ContainerState::Stopped if Some(id) != newest => {
                pass.remove((id, container), Reason::Replaced, Some(&job.source));
            }
            ContainerState::Creating if !pass.is_being_made(id) => {
                pass.remove((id, container), Reason::HalfMade, Some(&job.source));
            }
            ContainerState::Creating | ContainerState::Created | ContainerState::Running | ContainerState::Stopped => {}
        }
    }
}

/// Ends tries that failed their liveness or startup check. Until they have ended they count as running.
fn stop_unhealthy<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, job: &DesiredJob) {
    let found = pass.owned.get(key).into_iter().flatten().copied();
    let is_unhealthy = |(_, c): &Found<'_>| c.unhealthy && c.state == ContainerState::Running;
    for found in found.filter(is_unhealthy).collect::<Vec<_>>() {
        pass.stop(found, Reason::Unhealthy, Some(&job.source));
    }
}

/// The number of a Job's newest run, from memory and from its containers; 0: none.
pub(super) fn latest_run(pass: &Pass<'_>, key: &ObjectKey) -> u32 {
    let recorded = pass.observed.jobs.get(key).map_or(0, |record| record.run);
    let found = pass.owned.get(key).into_iter().flatten().map(|(_, c)| c.replica.ordinal).max();
    let slot = |ordinal| ReplicaKey { workload: key.clone(), ordinal };
    let mut ended = pass.observed.exits.range(slot(0)..=slot(u32::MAX));
    let ended = ended.next_back().map_or(0, |(replica, _)| replica.ordinal);
    recorded.max(found.unwrap_or(0)).max(ended)
}

/// Whether the newest run has succeeded.
pub(super) fn has_succeeded(pass: &Pass<'_>, key: &ObjectKey) -> bool {
    newest_run(pass, key).is_some_and(|run| run.outcome == JobOutcome::Succeeded || run.has_exited_with_0())
}

impl Run<'_> {
    /// Later tries win; what memory says of a try wins over its container.
    fn note_end(&mut self, end: End) {
        self.tries = self.tries.max(end.attempt + 1);
        if self.ended.is_none_or(|before| before.attempt < end.attempt) {
            self.ended = Some(end);
        }
    }

    fn has_exited_with_0(&self) -> bool {
        let succeeded = |end: End| end.exit == Some(ExitStatus::Code(0)) && !end.asked;
        self.live.is_empty() && self.ended.is_some_and(succeeded)
    }
}

fn newest_run<'a>(pass: &Pass<'a>, key: &ObjectKey) -> Option<Run<'a>> {
    let number = latest_run(pass, key);
    if number == 0 {
        return None;
    }
    let record = pass.observed.jobs.get(key).filter(|record| record.run == number);
    let mut run = Run {
        number,
        hash: record.map_or_else(|| TemplateHash(String::new()), |record| record.template_hash.clone()),
        live: Vec::new(),
        ended: None,
        tries: record.map_or(0, |record| record.failures),
        outcome: record.map_or(JobOutcome::Active, |record| record.outcome),
    };
    let replica = ReplicaKey { workload: key.clone(), ordinal: number };
    for exit in pass.observed.exits.get(&replica).into_iter().flatten() {
        let ExitRecord { attempt, finished_boot_ms, asked, ref template_hash, .. } = *exit;
        run.note_end(End { attempt, exit: Some(exit.counts_as()), finished_boot_ms, asked });
        if record.is_none() {
            run.hash = template_hash.clone();
        }
    }
    let found = pass.owned.get(key).into_iter().flatten().copied();
    for (id, container) in found.filter(|(_, c)| c.replica.ordinal == number) {
        if container.state == ContainerState::Stopped {
            let (attempt, finished_boot_ms) = (container.attempt, container.finished_boot_ms);
            run.note_end(End { attempt, exit: container.exit, finished_boot_ms, asked: container.unhealthy });
        } else if !pass.leaving.contains(id) || container.unhealthy {
            run.live.push((id, container));
        }
        if record.is_none() {
            run.hash = container.template_hash.clone();
        }
    }
    Some(run)
}

/// How the newest run went, once that is known and as long as it is not recorded.
fn decide(pass: &Pass<'_>, key: &ObjectKey, job: &DesiredJob, run: &mut Run<'_>) -> Option<JobRecord> {
    let recorded = pass.observed.jobs.get(key).filter(|record| record.run == run.number);
    if run.outcome != JobOutcome::Active || !run.live.is_empty() {
        return None;
    }
    run.outcome = match run.has_exited_with_0() {
        true => JobOutcome::Succeeded,
        false if run.tries > job.backoff_limit => JobOutcome::Failed,
        false => return None,
    };
    let failures = run.tries - u32::from(run.outcome == JobOutcome::Succeeded && run.tries > 0);
    Some(JobRecord {
        run: run.number,
        template_hash: run.hash.clone(),
        outcome: run.outcome,
        last_exit: run.ended.and_then(|end| end.exit).or_else(|| recorded.and_then(|record| record.last_exit)),
        failures,
        considered_unix_ms: considered(pass, key),
    })
}

fn considered(pass: &Pass<'_>, key: &ObjectKey) -> u64 {
    pass.observed.jobs.get(key).map_or(0, |record| record.considered_unix_ms)
}

fn put(pass: &mut Pass<'_>, key: &ObjectKey, job: &DesiredJob, record: JobRecord, reason: Reason) -> Option<StepId> {
    let action = Action::RecordJob { job: key.clone(), record };
    pass.push(action, Some(key), reason, Some(&job.source), Vec::new())
}

/// Without a schedule: a run of this template, once.
fn plan_once<'a>(pass: &mut Pass<'a>, job: &DesiredJob, run: Option<Run<'a>>, make: Make<'a>) {
    match run {
        Some(run) if run.hash == make.hash && !pass.has_bug(Bug::JobRunTwice) => go_on(pass, job, &run, make),
        Some(run) => {
            let Some(after) = stop_run(pass, job, &run, &make) else { return };
            let fields = Vec::new();
            start(pass, job, Make { ordinal: run.number + 1, ..make }, Reason::TemplateChanged { fields }, after);
        }
        None => start(pass, job, make, Reason::Missing, Vec::new()),
    }
}

/// Ends what an earlier run still runs. `None`: it has to be waited for.
fn stop_run<'a>(pass: &mut Pass<'a>, job: &DesiredJob, run: &Run<'a>, make: &Make<'a>) -> Option<Vec<StepId>> {
    let mut after = Vec::new();
    for &found in &run.live {
        let reason = match job.schedule {
            Some(_) => Reason::Scheduled,
            None => Reason::TemplateChanged { fields: Vec::new() },
        };
        let step = match found.1.state {
            ContainerState::Running => pass.stop(found, reason, Some(&job.source)),
            ContainerState::Creating | ContainerState::Created | ContainerState::Stopped => {
                pass.remove(found, Reason::HalfMade, Some(&job.source))
            }
        };
        after.push(step?);
    }
    let old = pass.owned.get(make.object).into_iter().flatten();
    let being_stopped = old.filter(|(id, c)| pass.leaving.contains(id) && c.state == ContainerState::Running);
    let all_planned = being_stopped.clone().all(|(id, _)| pass.stopped.contains_key(*id));
    all_planned.then_some(after)
}

/// Starts what was created, and tries again what failed.
fn go_on<'a>(pass: &mut Pass<'a>, job: &DesiredJob, run: &Run<'a>, make: Make<'a>) {
    for (id, _) in run.live.iter().filter(|(_, container)| container.state == ContainerState::Created) {
        pass.start(id, make.object, Reason::Missing, Some(&job.source), Vec::new());
    }
    if !run.live.is_empty() || run.outcome != JobOutcome::Active {
        return;
    }
    let make = Make { ordinal: run.number, attempt: run.tries, ..make };
    if run.tries == 0 {
        start(pass, job, make, Reason::Missing, Vec::new());
        return;
    }
    let finished = run.ended.map_or(0, |end| end.finished_boot_ms);
    let until_boot_ms = if finished == 0 { 0 } else { finished.saturating_add(backoff::delay_ms(run.tries)) };
    if until_boot_ms > pass.now() && !pass.has_bug(Bug::BackOffIgnored) {
        let message = run.ended.and_then(|end| end.exit).map_or_else(String::new, |exit| exit.to_string());
        pass.wait(make.object, WaitingOn::BackOff { until_boot_ms, failures: run.tries, message });
        return;
    }
    start(pass, job, make, Reason::Retry, Vec::new());
}

fn start<'a>(pass: &mut Pass<'a>, job: &DesiredJob, make: Make<'a>, reason: Reason, after: Vec<StepId>) {
    if !dependency::wait_for(pass, make.object, &job.depends_on) {
        pass.make(&make, reason, after);
    }
}

/// With a schedule: a run when a time has come, else what the newest run still needs. Says whether it planned a record.
fn plan_scheduled<'a>(
    pass: &mut Pass<'a>,
    job: &'a DesiredJob,
    schedule: &Schedule,
    run: Option<Run<'a>>,
    make: Make<'a>,
) -> bool {
    let key = make.object;
    // Both were checked when the manifest was read; a zone this binary does not know any more is not guessed.
    let (Ok(cron), Some(zone)) = (schedule.cron.parse::<Cron>(), time_zone(&schedule.time_zone)) else {
        pass.wait(key, WaitingOn::Exhausted { what: format!("schedule `{}`", schedule.cron) });
        return false;
    };
    let now = pass.observed.now_unix_ms;
    let base = record_of(pass, run.as_ref(), &make);
    let seen = considered(pass, key);
    if seen == 0 || seen > now.saturating_add(STEP_BACK_MS_MAX) {
        // First seen, or the clock was set back far: times from here on count.
        put(pass, key, job, base, Reason::Scheduled);
        wake_at_next(pass, &cron, &zone, now);
        return true;
    }
    let due = cron.latest_until(now, LATE_MS_MAX, &zone).filter(|&due| due > seen || pass.has_bug(Bug::JobRunTwice));
    let Some(due) = due else {
        wake_at_next(pass, &cron, &zone, now.max(seen));
        if let Some(run) = run.filter(|run| run.number > 0) {
            go_on(pass, job, &run, make);
        }
        return false;
    };
    wake_at_next(pass, &cron, &zone, now);
    let is_active = run.as_ref().is_some_and(|run| !run.live.is_empty() || run.outcome == JobOutcome::Active);
    let base = JobRecord { considered_unix_ms: due, ..base };
    let mut after = Vec::new();
    match schedule.concurrency {
        ConcurrencyPolicy::Forbid if is_active => {
            put(pass, key, job, base, Reason::Scheduled);
            if let Some(run) = run {
                go_on(pass, job, &run, make);
            }
            return true;
        }
        ConcurrencyPolicy::Replace => {
            if let Some(run) = &run {
                let Some(stops) = stop_run(pass, job, run, &make) else { return false };
                after.extend(stops);
            }
        }
        ConcurrencyPolicy::Forbid | ConcurrencyPolicy::Allow => {}
    }
    if dependency::wait_for(pass, key, &job.depends_on) {
        return false;
    }
    let make = Make { ordinal: base.run + 1, ..make };
    let record = JobRecord {
        run: make.ordinal,
        template_hash: make.hash.clone(),
        outcome: JobOutcome::Active,
        failures: 0,
        ..base
    };
    // The record first: a crash between leaves a run to be started, not one to be started twice.
    let Some(step) = put(pass, key, job, record, Reason::Scheduled) else { return true };
    after.push(step);
    pass.make(&make, Reason::Scheduled, after);
    true
}

/// How the newest run stands, considered up to now.
fn record_of(pass: &Pass<'_>, run: Option<&Run<'_>>, make: &Make<'_>) -> JobRecord {
    let last_exit = run.and_then(|run| run.ended).and_then(|end| end.exit);
    let before = pass.observed.jobs.get(make.object);
    JobRecord {
        run: run.map_or(0, |run| run.number),
        template_hash: run.map_or_else(|| make.hash.clone(), |run| run.hash.clone()),
        outcome: run.map_or(JobOutcome::Active, |run| run.outcome),
        last_exit: last_exit.or_else(|| before.and_then(|record| record.last_exit)),
        failures: run.map_or(0, |run| run.tries),
        considered_unix_ms: pass.observed.now_unix_ms,
    }
}

fn wake_at_next(pass: &mut Pass<'_>, cron: &Cron, zone: &jiff::tz::TimeZone, after_unix_ms: u64) {
    if let Some(next) = cron.next_after(after_unix_ms, zone) {
        let in_ms = next.saturating_sub(pass.observed.now_unix_ms);
        pass.wake(pass.now().saturating_add(in_ms));
    }
}
