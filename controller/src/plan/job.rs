//! Jobs: one run per template, or one per scheduled time. A run has a slot for each completion; slots are replicas, so
//! many of them at once as `parallelism` says, and a try is an attempt. Failed tries are repeated with back-off up to
//! `backoffLimit` of the run.
//!
//! Missed times: the latest one is made up for once if it is not later than `startingDeadline` (an hour), earlier ones
//! are skipped. Only the newest run is tried again; a new template of an unscheduled Job starts a new run.

mod run;
mod tidy;

use runtime::runtime::ContainerState;

use self::run::{Run, Slot};
use super::backoff;
use super::bug::Bug;
use super::container::Make;
use super::cron::{Cron, time_zone};
use super::pass::Pass;
use super::template_hash::template_hash;
use super::workload::is_left_alone;
use super::{Action, Reason, StepId, WaitingOn, dependency, pod};
use crate::model::{ConcurrencyPolicy, DesiredJob, JobOutcome, JobRecord, ObjectKey, Schedule};

/// How late a scheduled run may start, if nothing else is said.
pub const LATE_MS_MAX: u64 = 3_600_000;
/// A wall clock that went back further than this is believed; a smaller step is waited out, so that nothing runs twice.
const STEP_BACK_MS_MAX: u64 = 3_600_000;

/// Plans one Job.
pub(super) fn plan_job<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, job: &'a DesiredJob) {
    if is_left_alone(pass, key) {
        return;
    }
    tidy::clear(pass, key, job);
    tidy::stop_unhealthy(pass, key, job);
    let Some((digest, image_config)) = pass.images_of(&job.template, key) else { return };
    let hash = template_hash(&job.template, digest);
    let mut run = run::newest(pass, key);
    let make = Make {
        object: key,
        ordinal: run.as_ref().map_or(1, |run| run.number),
        attempt: 0,
        index: None,
        template: &job.template,
        hash: hash.clone(),
        image: digest,
        image_config,
        resources: &job.template.resources,
        source: &job.source,
    };
    let decided = run.as_mut().and_then(|run| decide(pass, key, job, run));
    let recorded = match &job.schedule {
        Some(schedule) => plan_scheduled(pass, job, schedule, run, make),
        None => {
            plan_once(pass, job, run, make);
            false
        }
    };
    pod::plan_members(pass, key, &pod::Kept::of_job(job, &hash));
    // One record of a Job in one plan: that of a new run tells how the old one ended, too.
    if let Some(record) = decided.filter(|_| !recorded) {
        put(pass, key, job, record, Reason::JobDecided);
    }
}

/// The first ordinal of a Job's newest run; 0: none.
pub(super) fn latest_run(pass: &Pass<'_>, key: &ObjectKey) -> u32 {
    run::number(pass, key)
}

/// Which of the completions of an indexed Job's newest run this replica is.
pub(super) fn index_of(pass: &Pass<'_>, key: &ObjectKey, ordinal: u32) -> Option<u32> {
    let job = pass.desired.jobs.get(key)?;
    index(job, ordinal.checked_sub(run::number(pass, key))?)
}

/// Whether the newest run has succeeded.
pub(super) fn has_succeeded(pass: &Pass<'_>, key: &ObjectKey) -> bool {
    run::newest(pass, key).is_some_and(|run| run.outcome == JobOutcome::Succeeded || run.has_succeeded())
}

/// How the newest run went, once that is known and as long as it is not recorded. What a run that has failed still runs
/// is stopped first.
fn decide<'a>(pass: &mut Pass<'a>, key: &ObjectKey, job: &DesiredJob, run: &mut Run<'a>) -> Option<JobRecord> {
    if run.outcome != JobOutcome::Active {
        return None;
    }
    let outcome = run::outcome(job, run, pass.now());
    if outcome == JobOutcome::Active {
        if let (Some(limit), Some(started)) = (job.runs.deadline_ms, run.started_boot_ms) {
            let left = limit.saturating_sub(run::passed_ms(started, pass.now()));
            pass.wake(pass.now().saturating_add(left));
        }
        return None;
    }
    let over = run::decided(pass, key, run, outcome);
    if run.live().next().is_some() {
        // Not a new try, and not yet the end.
        run.outcome = outcome;
        stop_live(pass, job, run, &Reason::JobDecided);
        return None;
    }
    run.outcome = outcome;
    Some(over)
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
    if job.runs.suspend {
        let reason = Reason::TemplateChanged { fields: Vec::new() };
        run.iter().for_each(|run| drop(stop_live(pass, job, run, &reason)));
        return;
    }
    match run {
        Some(run) if run.hash == make.hash && is_as_large(job, &run) && !pass.has_bug(Bug::JobRunTwice) => {
            go_on(pass, job, &run, &make);
        }
        Some(run) => {
            let fields = Vec::new();
            let Some(after) = stop_run(pass, job, &run, &make) else { return };
            let ordinal = run::next(run.number, run.completions());
            begin(pass, job, &Make { ordinal, ..make }, Reason::TemplateChanged { fields }, after);
        }
        None => begin(pass, job, &make, Reason::Missing, Vec::new()),
    }
}

fn is_as_large(job: &DesiredJob, run: &Run<'_>) -> bool {
    run.completions() == job.runs.completions.max(1)
}

/// Ends what a run still runs. `None`: it has to be waited for.
fn stop_live<'a>(pass: &mut Pass<'a>, job: &DesiredJob, run: &Run<'a>, reason: &Reason) -> Option<Vec<StepId>> {
    let mut after = Vec::new();
    for found in run.live() {
        if let Some(step) = pass.stopped.get(found.0) {
            after.push(*step);
            continue;
        }
        if pass.leaving.contains(found.0) {
            return None;
        }
        let step = match found.1.state {
            ContainerState::Running => pass.stop(found, reason.clone(), Some(&job.source)),
            ContainerState::Creating | ContainerState::Created | ContainerState::Stopped => {
                pass.remove(found, Reason::HalfMade, Some(&job.source))
            }
        };
        after.push(step?);
    }
    Some(after)
}

/// Ends what an earlier run still runs. `None`: it has to be waited for.
fn stop_run<'a>(pass: &mut Pass<'a>, job: &DesiredJob, run: &Run<'a>, make: &Make<'a>) -> Option<Vec<StepId>> {
    let reason = match job.schedule {
        Some(_) => Reason::Scheduled,
        None => Reason::TemplateChanged { fields: Vec::new() },
    };
    let after = stop_live(pass, job, run, &reason)?;
    let old = pass.owned.get(make.object).into_iter().flatten();
    let being_stopped = old.filter(|(id, c)| pass.leaving.contains(id) && c.state == ContainerState::Running);
    let all_planned = being_stopped.clone().all(|(id, _)| pass.stopped.contains_key(*id));
    all_planned.then_some(after)
}

/// Starts what was created, tries again what failed, and begins further completions while fewer run than may.
fn go_on<'a>(pass: &mut Pass<'a>, job: &DesiredJob, run: &Run<'a>, make: &Make<'a>) {
    if run.outcome != JobOutcome::Active {
        return;
    }
    for (id, _) in run.live().filter(|(_, container)| container.state == ContainerState::Created) {
        pass.start(id, make.object, Reason::Missing, Some(&job.source), Vec::new());
    }
    let mut running = run.slots.iter().filter(|slot| !slot.live.is_empty()).count();
    for (slot, ordinal) in run.slots.iter().zip(run.number..) {
        if running >= job.runs.parallelism as usize {
            return;
        }
        if slot.live.is_empty() && !slot.has_exited_with_0() {
            let make = Make { ordinal, attempt: slot.tries, index: index(job, ordinal - run.number), ..make.clone() };
            try_slot(pass, job, slot, make);
            running += 1;
        }
    }
}

/// Which of the completions it is, for a program that asks.
fn index(job: &DesiredJob, index: u32) -> Option<u32> {
    job.runs.indexed.then_some(index)
}

/// Starts one completion, or waits until it may be tried again.
fn try_slot<'a>(pass: &mut Pass<'a>, job: &DesiredJob, slot: &Slot<'a>, make: Make<'a>) {
    if slot.tries == 0 {
        start(pass, job, &make, Reason::Missing, Vec::new());
        return;
    }
    let finished = slot.ended.map_or(0, |end| end.finished_boot_ms);
    let until_boot_ms = if finished == 0 { 0 } else { finished.saturating_add(backoff::delay_ms(slot.tries)) };
    if until_boot_ms > pass.now() && !pass.has_bug(Bug::BackOffIgnored) {
        let message = slot.ended.and_then(|end| end.exit).map_or_else(String::new, |exit| exit.to_string());
        pass.wait(make.object, WaitingOn::BackOff { until_boot_ms, failures: slot.tries, message });
        return;
    }
    start(pass, job, &make, Reason::Retry, Vec::new());
}

/// The first completions of a new run, which begins at the ordinal of `make`. When it began and how large it is are
/// recorded first, where that matters later.
fn begin<'a>(pass: &mut Pass<'a>, job: &DesiredJob, make: &Make<'a>, reason: Reason, mut after: Vec<StepId>) {
    if dependency::wait_for(pass, make.object, &job.depends_on) {
        return;
    }
    if job.runs.deadline_ms.is_some() || job.runs.completions > 1 {
        let base = JobRecord { considered_unix_ms: considered(pass, make.object), ..record_of(pass, None, make) };
        let record = started(pass, job, make, base);
        after.extend(put(pass, make.object, job, record, reason.clone()));
    }
    begin_slots(pass, job, make, &reason, &after);
}

fn begin_slots<'a>(pass: &mut Pass<'a>, job: &DesiredJob, make: &Make<'a>, reason: &Reason, after: &[StepId]) {
    for number in 0..job.runs.completions.max(1).min(job.runs.parallelism) {
        let ordinal = make.ordinal.saturating_add(number);
        let make = Make { ordinal, index: index(job, number), ..make.clone() };
        pass.make(&make, reason.clone(), after.to_vec());
    }
}

/// The record of a run that begins now.
fn started(pass: &Pass<'_>, job: &DesiredJob, make: &Make<'_>, base: JobRecord) -> JobRecord {
    JobRecord {
        run: make.ordinal,
        template_hash: make.hash.clone(),
        outcome: JobOutcome::Active,
        failures: 0,
        completions: job.runs.completions.max(1),
        started_boot_ms: pass.now().max(1),
        finished_boot_ms: 0,
        ..base
    }
}

fn start<'a>(pass: &mut Pass<'a>, job: &DesiredJob, make: &Make<'a>, reason: Reason, after: Vec<StepId>) {
    if !dependency::wait_for(pass, make.object, &job.depends_on) {
        pass.make(make, reason, after);
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
    if job.runs.suspend {
        run.iter().for_each(|run| go_on(pass, job, run, &make));
        return false;
    }
    let late_ms = job.runs.late_ms.unwrap_or(LATE_MS_MAX);
    let due = cron.latest_until(now, late_ms, &zone).filter(|&due| due > seen || pass.has_bug(Bug::JobRunTwice));
    let Some(due) = due else {
        wake_at_next(pass, &cron, &zone, now.max(seen));
        if let Some(run) = run.filter(|run| run.number > 0) {
            go_on(pass, job, &run, &make);
        }
        return false;
    };
    wake_at_next(pass, &cron, &zone, now);
    let is_active = run.as_ref().is_some_and(|run| run.live().next().is_some() || run.outcome == JobOutcome::Active);
    let base = JobRecord { considered_unix_ms: due, ..base };
    let mut after = Vec::new();
    match schedule.concurrency {
        ConcurrencyPolicy::Forbid if is_active => {
            put(pass, key, job, base, Reason::Scheduled);
            if let Some(run) = run {
                go_on(pass, job, &run, &make);
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
    if dependency::wait_for(pass, key, &job.depends_on) || !pass.asked_first(&job.template, key) {
        return false;
    }
    let make = Make { ordinal: run::next(base.run, base.completions), ..make };
    let record = started(pass, job, &make, base);
    // The record first: a crash between leaves a run to be started, not one to be started twice.
    let Some(step) = put(pass, key, job, record, Reason::Scheduled) else { return true };
    after.push(step);
    begin_slots(pass, job, &make, &Reason::Scheduled, &after);
    true
}

/// How the newest run stands, considered up to now.
fn record_of(pass: &Pass<'_>, run: Option<&Run<'_>>, make: &Make<'_>) -> JobRecord {
    let last_exit = run.and_then(Run::last_exit);
    let before = pass.observed.jobs.get(make.object);
    JobRecord {
        run: run.map_or(0, |run| run.number),
        template_hash: run.map_or_else(|| make.hash.clone(), |run| run.hash.clone()),
        outcome: run.map_or(JobOutcome::Active, |run| run.outcome),
        last_exit: last_exit.or_else(|| before.and_then(|record| record.last_exit)),
        failures: run.map_or(0, Run::tries),
        considered_unix_ms: pass.observed.now_unix_ms,
        completions: run.map_or(0, Run::completions),
        started_boot_ms: run.and_then(|run| run.started_boot_ms).unwrap_or(0),
        finished_boot_ms: before.map_or(0, |record| record.finished_boot_ms),
    }
}

fn wake_at_next(pass: &mut Pass<'_>, cron: &Cron, zone: &jiff::tz::TimeZone, after_unix_ms: u64) {
    if let Some(next) = cron.next_after(after_unix_ms, zone) {
        let in_ms = next.saturating_sub(pass.observed.now_unix_ms);
        pass.wake(pass.now().saturating_add(in_ms));
    }
}
