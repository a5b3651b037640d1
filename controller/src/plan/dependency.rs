//! What must hold before the first container of an App or a Job is made. A dependency that is not (or no longer)
//! declared never holds: `model::resolve` reports it to its author.

use std::collections::BTreeMap;

use super::WaitingOn;
use super::job;
use super::pass::Pass;
use crate::model::{Completion, DependsOn, ObjectKey, Restart};

/// Notes what is waited for; `true` when there is something.
pub(super) fn wait_for(pass: &mut Pass<'_>, object: &ObjectKey, on: &BTreeMap<ObjectKey, DependsOn>) -> bool {
    let missing: Vec<_> = on.iter().filter(|(key, how)| !holds(pass, key, **how)).map(|(key, _)| key).collect();
    for key in &missing {
        pass.wait(object, WaitingOn::Dependency { on: (*key).clone() });
    }
    !missing.is_empty()
}

fn holds(pass: &Pass<'_>, key: &ObjectKey, how: DependsOn) -> bool {
    let found = pass.owned.get(key).map_or(&[][..], Vec::as_slice);
    let running = found.iter().filter(|(_, container)| container.has_started());
    if let Some(app) = pass.desired.workloads.get(key) {
        let count = match how {
            // One that has done its work and is left so was started as well.
            DependsOn::Started if app.restart != Restart::Always => found.len(),
            DependsOn::Started => running.count(),
            DependsOn::Ready => running.filter(|(_, container)| container.ready_since_boot_ms.is_some()).count(),
            DependsOn::Completed(Completion::Success) => return false,
        };
        return count >= usize::try_from(app.replicas).unwrap_or(usize::MAX);
    }
    if pass.desired.jobs.contains_key(key) {
        return match how {
            DependsOn::Started | DependsOn::Ready => running.count() > 0 || job::has_succeeded(pass, key),
            DependsOn::Completed(Completion::Success) => job::has_succeeded(pass, key),
        };
    }
    false
}
