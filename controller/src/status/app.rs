//! Where an App is.

use runtime::runtime::ExitStatus;

use super::{Page, text};
use crate::api::types::{ObjectStatus, Phase};
use crate::model::{ObjectKey, Restart, RevisionResult, Workload};
use crate::plan::Action;

pub(super) fn phase(page: Page<'_>, key: &ObjectKey, app: &Workload, base: &ObjectStatus) -> (Phase, String) {
    if let Some(known) = page.back_off(key).or_else(|| port_taken(page, app)) {
        return known;
    }
    let revision = page.view.seen.state.revisions.get(key).and_then(|all| all.last());
    if let Some(revision) = revision.filter(|_| !is_superseded(page, key))
        && let RevisionResult::Failed { why } = &revision.result
    {
        let serving = match base.ready {
            0 => String::new(),
            ready => format!("; an earlier revision serves with {ready}/{}", base.desired),
        };
        return (Phase::Failed, format!("Revision {} failed: {why}{serving}", revision.number));
    }
    if let Some(obstacle) = page.obstacle(key) {
        return obstacle;
    }
    if let Some(over) = over(page, key, app, base) {
        return over;
    }
    let (rev, aside) = match revision.map(|revision| (revision.number, &revision.result)) {
        Some((number, RevisionResult::Undone { to })) => {
            (format!(" rev {to}"), format!(" (rev {number} undone by hand)"))
        }
        Some((number, _)) => (format!(" rev {number}"), String::new()),
        None => (String::new(), String::new()),
    };
    if revision.is_some_and(|revision| revision.paused && revision.result == RevisionResult::Rolling)
        && !page.has_steps(key)
    {
        return (Phase::Held, format!("Paused at{rev} {}/{}", base.ready, app.replicas));
    }
    let rolling = revision.is_none_or(|revision| revision.result == RevisionResult::Rolling) && app.replicas > 0;
    let unready = base.ready < app.replicas;
    if page.has_steps(key) || rolling || unready || page.waiting(key).next().is_some() {
        let verb = if revision.is_some_and(|revision| revision.number > 1) && rolling { "Rolling" } else { "Starting" };
        let verb = if unready || rolling { verb } else { "Changing" };
        let late = base.replicas.iter().filter(|replica| !replica.ready);
        let pods = late.filter_map(|replica| replica.pod.as_deref()).find(|word| *word != "Running");
        let probe = base.replicas.iter().find_map(|replica| replica.probe.as_deref()).or(pods);
        let probe = probe.filter(|_| unready).map_or_else(String::new, |said| format!(": {}", text::short(said)));
        return (Phase::Progressing, format!("{verb}{rev} {}/{}{probe}{aside}", base.ready, app.replicas));
    }
    if app.replicas == 0 {
        (Phase::Ready, "Scaled to 0".to_owned())
    } else {
        (Phase::Ready, format!("Running{rev}{aside}"))
    }
}

/// Programs that have ended and are left so, when nothing else is under way.
fn over(page: Page<'_>, key: &ObjectKey, app: &Workload, base: &ObjectStatus) -> Option<(Phase, String)> {
    if app.restart == Restart::Always || page.has_steps(key) || page.waiting(key).next().is_some() {
        return None;
    }
    let ended: Vec<ExitStatus> = base.replicas.iter().filter_map(|replica| replica.exit).collect();
    let all = usize::try_from(app.replicas).unwrap_or(usize::MAX);
    let running = base.replicas.iter().filter(|replica| replica.ready).count();
    match ended.iter().find(|exit| **exit != ExitStatus::Code(0)) {
        _ if ended.is_empty() || running + ended.len() < all => None,
        Some(bad) => Some((Phase::Failed, format!("Ended with {bad}; its restart policy leaves it so"))),
        None if running > 0 => None,
        None => Some((Phase::Completed, "Ended with exit 0".to_owned())),
    }
}

/// A newer revision is about to be recorded: how the last one went is history.
fn is_superseded(page: Page<'_>, key: &ObjectKey) -> bool {
    page.view.plan.steps.iter().any(|step| {
        matches!(&step.action, Action::RecordRevision { app, revision }
            if app == key && revision.result == RevisionResult::Rolling)
    })
}

/// A host port somebody else holds: its replicas may be ready, but nobody reaches them as asked.
fn port_taken(page: Page<'_>, app: &Workload) -> Option<(Phase, String)> {
    app.ports.iter().find_map(|port| {
        let subject = Action::listener_subject(port.at);
        let failure = page.view.seen.state.failures.get(&subject)?;
        Some((Phase::Failed, failure.message.clone()))
    })
}
