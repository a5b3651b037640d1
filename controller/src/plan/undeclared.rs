//! Containers of Apps and Jobs that no manifest names: stopped and removed, unless something holds them. Absence
//! deletes; an error (a source that cannot be read) never does. Who depends on another goes first: what it relies on runs
//! on, and keeps its name, until the dependants have ended.

use std::collections::{BTreeMap, BTreeSet};

use runtime::id::ContainerId;
use runtime::runtime::ContainerState;

use super::bug::Bug;
use super::pass::{Found, Obstacle, Pass};
use super::{Reason, WaitingOn};
use crate::model::{ObjectKey, ObservedContainer};

pub(super) fn remove_undeclared(pass: &mut Pass<'_>) {
    let desired = pass.desired;
    let undeclared = pass
        .owned
        .iter()
        .filter(|(key, _)| !desired.workloads.contains_key(**key) && !desired.jobs.contains_key(**key));
    let undeclared: Vec<_> = undeclared.map(|(key, found)| (*key, found.clone())).collect();
    let dependants = dependants(pass, &undeclared);
    for (key, found) in undeclared {
        for (id, container) in found {
            match (pass.hold(container), dependants.get(key)) {
                (Some(reason), _) => {
                    pass.kept.insert(id);
                    pass.wait(key, WaitingOn::Held { reason: reason.to_owned() });
                }
                (None, Some(dependant)) if container.state == ContainerState::Running => {
                    pass.kept.insert(id);
                    pass.wait(key, WaitingOn::Dependant { id: (*dependant).clone() });
                }
                // Still being made: it shows as created, or as half made, in the next look.
                (None, _) if pass.is_being_made(id) => {}
                (None, _) => {
                    pass.remove((id, container), Reason::Undeclared, None);
                }
            }
        }
    }
}

/// What must not be stopped yet, each with one of those who depend on it and still run.
fn dependants<'a>(
    pass: &Pass<'a>,
    undeclared: &[(&'a ObjectKey, Vec<Found<'a>>)],
) -> BTreeMap<&'a ObjectKey, &'a ContainerId> {
    let mut dependants = BTreeMap::new();
    if pass.has_bug(Bug::DependencyStoppedFirst) {
        return dependants;
    }
    let found = undeclared.iter().flat_map(|(_, found)| found);
    let mut ending = BTreeSet::new();
    for (id, container) in found.filter(|(id, container)| still_ends(pass, id, container)) {
        ending.insert(&container.replica.workload);
        for on in container.depends_on.iter().filter(|on| **on != container.replica.workload) {
            dependants.entry(on).or_insert(*id);
        }
    }
    // All wait for each other: dependencies were turned round while the containers ran. Then one goes first.
    if ending.iter().all(|key| dependants.contains_key(*key)) {
        ending.first().map(|key| dependants.remove(*key));
    }
    dependants
}

/// Whether it runs, and its end can be waited for: nothing holds it, and its stop does not fail.
fn still_ends(pass: &Pass<'_>, id: &ContainerId, container: &ObservedContainer) -> bool {
    let stop_fails = || matches!(pass.obstacle_of(&format!("stop {id}")), Some(Obstacle::Wait(_)));
    container.state == ContainerState::Running && pass.hold(container).is_none() && !stop_fails()
}
