//! Sentences that hold for every plan.

use proptest::prelude::*;
use runtime::runtime::ContainerState;

use super::world::*;
use crate::model::{DesiredState, ObservedState};
use crate::plan::{Action, Plan, Reason, Step, plan};

fn touches_containers(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| match step.action {
        Action::CreateContainer { .. }
        | Action::StartContainer { .. }
        | Action::StopContainer { .. }
        | Action::RemoveContainer { .. }
        | Action::UpdateResources { .. } => true,
        Action::PullImage { .. }
        | Action::RemoveImage { .. }
        | Action::CreateNetwork { .. }
        | Action::RemoveNetwork { .. }
        | Action::CreateVolume { .. }
        | Action::RemoveVolume { .. }
        | Action::PublishEndpoints { .. }
        | Action::RecordRevision { .. }
        | Action::RecordJob { .. } => false,
    })
}

/// Applications of several stacks, `replicas` each.
fn many(apps: u32, replicas: u32) -> DesiredState {
    let mut desired = DesiredState::default();
    for number in 0..apps {
        let mut key = app_key();
        key.name = format!("web{number}");
        key.stack = format!("stack{}", number % 4);
        desired.workloads.insert(key, web(replicas, "1"));
    }
    desired
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_settled_host_plans_nothing_and_scaling_touches_only_the_difference(from in 0_u32..8, to in 0_u32..8) {
        let observed = settled(&desire(web(from, "1")), host(&["1"]));
        prop_assert_eq!(plan(&desire(web(from, "1")), &observed).steps, Vec::new());
        let changed = plan(&desire(web(to, "1")), &observed);
        let count = |name: &str| changed.steps.iter().filter(|step| step.action.name() == name).count();
        prop_assert_eq!(count("CreateContainer"), to.saturating_sub(from) as usize);
        prop_assert_eq!(count("StopContainer"), from.saturating_sub(to) as usize);
    }

    #[test]
    fn lost_memory_restarts_nothing(replicas in 1_u32..6, tag in 1_u32..3) {
        let desired = desire(web(replicas, &tag.to_string()));
        let mut observed = settled(&desired, host(&["1", "2"]));
        observed.revisions.clear();
        observed.exits.clear();
        observed.jobs.clear();
        observed.id_ranges.clear();
        observed.published = None;
        prop_assert!(!touches_containers(&plan(&desired, &observed)));
    }

    #[test]
    fn the_same_input_gives_the_same_plan_in_any_order_of_its_lists(seed in any::<u64>()) {
        let desired = many(3, 2);
        let mut observed = host(&["1"]);
        observed.host_routes = (0..6).map(|i| ([10, 88, i * 4, 0].into(), 22)).collect();
        observed.foreign_id_ranges = (0..6).map(|i| (0x7000_0000 + i * 0x0100_0000, 65_536)).collect();
        let first = plan(&desired, &observed);
        let by = usize::try_from(seed % 6).unwrap();
        observed.host_routes.rotate_left(by);
        observed.foreign_id_ranges.rotate_right(by);
        prop_assert_eq!(plan(&desired, &observed), first);
    }

    #[test]
    fn any_start_of_a_plan_leads_to_the_same_end(replicas in 1_u32..5, cut in 0_usize..30) {
        let desired = desire(web(replicas, "2"));
        let mut observed = settled(&desire(web(replicas, "1")), host(&["1", "2"]));
        let whole = settled(&desired, observed.clone());
        let mut next = plan(&desired, &observed);
        next.steps.truncate(cut);
        apply(&next, &mut observed);
        let cut_short = settled(&desired, observed);
        let live = |observed: &ObservedState| -> Vec<_> {
            let running = observed.containers.values().filter(|c| c.state == ContainerState::Running);
            running.map(|c| (c.replica.clone(), c.template_hash.clone())).collect()
        };
        prop_assert_eq!(live(&whole), live(&cut_short));
    }
}

#[test]
fn a_no_change_pass_over_a_thousand_replicas_is_empty() {
    let desired = many(20, 50);
    let mut observed = host(&["1"]);
    observed.networks.clear();
    let observed = settled(&desired, observed);
    assert_eq!(observed.containers.len(), 1_000);
    let begun = runtime::clock::boot_ms();
    for _ in 0..10 {
        assert_eq!(plan(&desired, &observed).steps, Vec::new());
    }
    println!("10 no-change plans over 1,000 replicas: {} ms", runtime::clock::boot_ms() - begun);
}

#[test]
fn check_refuses_what_breaks_an_invariant() {
    let desired = desire(web(1, "1"));
    let observed = settled(&desired, host(&["1"]));
    let id = observed.containers.keys().next().unwrap().clone();
    let of = |action: Action, after: Vec<usize>| Step {
        action,
        object: Some(app_key()),
        reason: Reason::Missing,
        source: None,
        after,
    };
    let refused = |steps: Vec<Step>| Plan { steps, ..Plan::default() }.check(&observed).unwrap_err().join("; ");
    let stop = Action::StopContainer { id: id.clone(), grace_ms: 0 };
    assert!(refused(vec![of(stop.clone(), Vec::new())]).contains("no table without it"));
    assert!(refused(vec![of(stop.clone(), vec![0])]).contains("not before it"));
    assert!(refused(vec![of(Action::RemoveContainer { id: id.clone() }, Vec::new())]).contains("still runs"));
    let foreign = "shop-web-1-ffffff".parse().unwrap();
    assert!(refused(vec![of(Action::RemoveContainer { id: foreign }, Vec::new())]).contains("not ours"));
    let start = of(Action::StartContainer { id: id.clone() }, Vec::new());
    assert!(refused(vec![start.clone()]).contains("is not created"));
    let name = observed.networks.keys().next().unwrap().clone();
    assert!(refused(vec![of(Action::RemoveNetwork { name }, Vec::new())]).contains("uses it"));
    assert!(refused(vec![of(Action::RemoveImage { reference: reference("1") }, Vec::new())]).contains("uses it"));
    let second = plan(&desire(web(2, "1")), &observed);
    let mut twice = second.steps.clone();
    twice.extend(second.steps);
    assert!(refused(twice).contains("planned twice"));
}
