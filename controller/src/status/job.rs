//! Where a Job is.

use runtime::runtime::ContainerState;

use super::Page;
use crate::api::types::Phase;
use crate::model::{DesiredJob, JobOutcome, ObjectKey};

pub(super) fn succeeded(page: Page<'_>, key: &ObjectKey) -> bool {
    page.view.seen.state.jobs.get(key).is_some_and(|record| record.outcome == JobOutcome::Succeeded)
}

pub(super) fn phase(page: Page<'_>, key: &ObjectKey, job: &DesiredJob) -> (Phase, String) {
    if let Some(known) = page.back_off(key).or_else(|| page.obstacle(key)) {
        return known;
    }
    let scheduled = job.schedule.as_ref();
    let running = page.containers(key).any(|(_, container)| container.state == ContainerState::Running);
    let record = page.view.seen.state.jobs.get(key);
    if running || page.has_steps(key) {
        let run = record.map_or(1, |record| record.run.max(1));
        // A scheduled run on its way does not make the host unconverged.
        let phase = if scheduled.is_some() { Phase::Ready } else { Phase::Progressing };
        return (phase, format!("Running, run {run}"));
    }
    let next = scheduled.map_or_else(String::new, |s| format!("; scheduled `{}` {}", s.cron, s.time_zone));
    let exit = record.and_then(|record| record.last_exit).map_or_else(|| "done".to_owned(), |exit| exit.to_string());
    let is_over = record.is_some_and(|record| record.run > 0 && record.outcome != JobOutcome::Active);
    // Nothing is waited for: whoever suspends a Job has what is wanted.
    if job.runs.suspend && (scheduled.is_some() || !is_over) {
        return (Phase::Held, "Suspended by its manifest".to_owned());
    }
    match record.filter(|record| record.run > 0).map(|record| (record.outcome, record)) {
        Some((JobOutcome::Succeeded, _)) => (Phase::Completed, format!("Completed, {exit}{next}")),
        Some((JobOutcome::Failed, record)) => {
            (Phase::Failed, format!("Failed after {} tries: {exit}{next}", record.failures))
        }
        Some((JobOutcome::DeadlineExceeded, _)) => {
            (Phase::Failed, format!("Failed: it took longer than its deadline{next}"))
        }
        Some((JobOutcome::Active, _)) => (Phase::Progressing, format!("To be tried again after {exit}")),
        None if scheduled.is_some() => (Phase::Ready, next.trim_start_matches("; ").to_owned()),
        None => (Phase::Pending, "Not started yet".to_owned()),
    }
}
