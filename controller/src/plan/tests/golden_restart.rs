//! What the end of a program leads to under each restart policy, and further names of Apps.

use runtime::runtime::ExitStatus;

use super::world::*;
use crate::model::{ObservedState, Restart, Revision, RevisionResult, Workload};
use crate::plan::{Action, plan};

/// Whether another container is made after the only one of an App ended so, `later` ms after.
fn comes_back(restart: Restart, exit: ExitStatus, later: u64) -> bool {
    let desired = desire(Workload { restart, ..web(1, "1") });
    let mut observed = settled(&desired, host(&["1"]));
    let container = observed.containers.values_mut().next().expect("one replica");
    end(container, NOW, 0);
    container.exit = Some(exit);
    observed.now_boot_ms = NOW + later;
    let next = plan(&desired, &observed);
    next.check(&observed).expect("a good plan");
    next.steps.iter().any(|step| matches!(step.action, Action::CreateContainer { .. }))
}

#[test]
fn an_ended_program_is_left_as_its_policy_says() {
    let on_failure = |retries_max| Restart::OnFailure { retries_max };
    for (restart, exit, expected) in [
        (Restart::Always, ExitStatus::Code(0), true),
        (Restart::Never, ExitStatus::Code(0), false),
        (Restart::Never, ExitStatus::Code(1), false),
        (Restart::Never, ExitStatus::OutOfMemory, false),
        // Nobody saw it: the host went down, not the program.
        (Restart::Never, ExitStatus::Unknown, true),
        (on_failure(None), ExitStatus::Code(0), false),
        (on_failure(None), ExitStatus::Code(1), true),
        (on_failure(Some(0)), ExitStatus::Signal(9), false),
        (on_failure(Some(1)), ExitStatus::Signal(9), true),
    ] {
        assert_eq!(comes_back(restart, exit, 60_000), expected, "{restart:?} after {exit:?}");
    }
}

#[test]
fn a_new_template_runs_although_the_old_one_has_ended() {
    let never = |tag| desire(Workload { restart: Restart::Never, ..web(1, tag) });
    let mut observed = settled(&never("1"), host(&["1", "2"]));
    end(observed.containers.values_mut().next().expect("one replica"), NOW, 0);
    let mut observed = settled(&never("1"), observed);
    assert!(plan(&never("1"), &observed).steps.is_empty());
    observed.now_boot_ms += 60_000;
    let creates = |observed: &ObservedState| {
        let next = plan(&never("2"), observed);
        next.steps.iter().any(|step| matches!(step.action, Action::CreateContainer { .. }))
    };
    assert!(creates(&observed));
}

#[test]
fn what_fails_its_liveness_check_is_ended_and_that_counts() {
    let on_failure = |retries_max| Restart::OnFailure { retries_max };
    for (restart, comes_back) in
        [(Restart::Always, true), (on_failure(None), true), (on_failure(Some(0)), false), (Restart::Never, false)]
    {
        let desired = desire(Workload { restart, ..web(2, "1") });
        let mut observed = settled(&desired, host(&["1"]));
        let container = observed.containers.values_mut().next().expect("two replicas");
        container.unhealthy = true;
        let next = plan(&desired, &observed);
        next.check(&observed).expect("a good plan");
        let stops = next.steps.iter().filter(|step| matches!(step.action, Action::StopContainer { .. }));
        assert_eq!(stops.map(|step| step.reason.name()).collect::<Vec<_>>(), ["Unhealthy"], "{restart:?}");
        // It ends with 0, as most programs do when they are asked to.
        apply(&next, &mut observed);
        observed.now_boot_ms += 60_000;
        let creates = plan(&desired, &observed).steps.into_iter();
        let creates = creates.filter(|step| matches!(step.action, Action::CreateContainer { .. })).count();
        assert_eq!(creates, usize::from(comes_back), "{restart:?}");
    }
}

#[test]
fn further_names_lead_to_an_app_and_never_hide_another() {
    let mut desired = desire(Workload { aliases: ["www", "db"].map(str::to_owned).into(), ..web(2, "1") });
    let other = key(crate::model::Kind::App, "db");
    desired.workloads.insert(other, Workload { aliases: ["www".to_owned()].into(), ..web(1, "1") });
    let observed = settled(&desired, host(&["1"]));
    let table = observed.published.as_ref().expect("a table is in force");
    let zone = table.zones.values().next().expect("one network");
    assert_eq!((zone["www"].len(), zone["web"].len(), zone["db"].len()), (3, 2, 1));
}

/// After as many bad ones as are remembered, an undo still has a revision to go to.
#[test]
fn the_last_good_revision_is_remembered() {
    let observed = settled(&desire(web(1, "1")), host(&["1"]));
    let mut revisions = observed.revisions.into_values().next().unwrap();
    let good = revisions.last().unwrap().clone();
    assert_eq!(good.result, RevisionResult::Ready);
    for number in 2..30 {
        let result = RevisionResult::Failed { why: String::new() };
        ObservedState::put_revision(&mut revisions, Revision { number, result, ..good.clone() });
    }
    let numbers: Vec<u32> = revisions.iter().map(|revision| revision.number).collect();
    assert_eq!((numbers.len(), numbers[0], numbers[1], numbers[9]), (10, 1, 21, 29));
}
