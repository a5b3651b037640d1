//! Where images come from and when a registry is asked: pull policies, and tags that somebody moves.

use expect_test::expect;

use runtime::runtime::ContainerState;

use super::golden::check;
use super::world::*;
use crate::model::{DesiredState, Kind, ObservedState, PreviousImage, PullPolicy, Workload};
use crate::plan::plan;

fn with_policy(tag: &str, pull: PullPolicy) -> DesiredState {
    let mut app = web(1, tag);
    app.template.pull = pull;
    desire(app)
}

/// The tag leads to another image now; the earlier one is still here.
fn moved(mut observed: ObservedState, is_answer: bool) -> ObservedState {
    let image = observed.images.get_mut(&reference("1")).unwrap();
    let digest = std::mem::replace(&mut image.digest, digest("moved"));
    image.previous = vec![PreviousImage { digest, config: image.config.clone(), unused_since_boot_ms: None }];
    image.answered = is_answer.then(|| image.digest.clone());
    observed
}

fn all_run(observed: &ObservedState, tag: &str) -> bool {
    let mut running = observed.containers.values().filter(|container| container.state == ContainerState::Running);
    running.all(|container| container.image == digest(tag))
}

#[test]
fn pull_policy_never_waits_for_hands() {
    let mut observed = host(&[]);
    observed.published = Some(runtime::runtime::EndpointTable::default());
    check(
        &with_policy("1", PullPolicy::Never),
        &observed,
        expect![[r#"
            #0 PublishEndpoints web=0  views=0  EndpointsChanged
            waiting shop/app/web: absent image registry.example/shop/web:1
        "#]],
    );
    let here = settled(&with_policy("1", PullPolicy::Never), host(&["1"]));
    assert_eq!(here.containers.len(), 1, "it is here: it runs");
}

#[test]
fn pull_policy_always_asks_before_a_revision_begins_and_not_again() {
    let desired = with_policy("1", PullPolicy::Always);
    let mut observed = host(&["1"]);
    check(
        &desired,
        &observed,
        expect![[r#"
            #0 PullImage registry.example/shop/web:1  AlwaysAsked
            #1 PublishEndpoints web=0  views=0  EndpointsChanged
            waiting shop/app/web: image registry.example/shop/web:1
        "#]],
    );
    let image = observed.images.get_mut(&reference("1")).unwrap();
    (image.answered, image.checked_boot_ms) = (Some(image.digest.clone()), observed.now_boot_ms);
    let mut observed = settled(&desired, observed);
    observed.now_boot_ms += 3_600_000;
    check(&desired, &observed, expect![[""]]);
    let mut edited = desired;
    let app: &mut Workload = edited.workloads.get_mut(&app_key()).unwrap();
    app.template.args = Some(vec!["serve".to_owned()]);
    check(
        &edited,
        &observed,
        expect![[r#"
            #0 PullImage registry.example/shop/web:1  AlwaysAsked
            waiting shop/app/web: image registry.example/shop/web:1
        "#]],
    );
}

#[test]
fn pull_policy_every_hour_follows_the_tag() {
    let desired = with_policy("1", PullPolicy::Every(3_600_000));
    let mut observed = host(&["1"]);
    observed.images.get_mut(&reference("1")).unwrap().checked_boot_ms = NOW;
    let mut observed = settled(&desired, observed);
    assert_eq!(plan(&desired, &observed).wake_at_boot_ms, Some(NOW + 3_600_000));
    observed.now_boot_ms = NOW + 3_600_000;
    check(
        &desired,
        &observed,
        expect![[r#"
            #0 PullImage registry.example/shop/web:1  FollowDue
        "#]],
    );
}

/// Tags are resolved once per revision.
#[test]
fn a_tag_moved_by_hand_replaces_nothing() {
    let desired = desire(web(2, "1"));
    let mut observed = moved(settled(&desired, host(&["1"])), false);
    check(&desired, &observed, expect![[""]]);
    // Without the memory of revisions, what runs tells what the tag was resolved to.
    observed.revisions.clear();
    let hashes: Vec<_> = observed.containers.values().map(|c| c.template_hash.clone()).collect();
    let mut observed = settled(&desired, observed);
    assert_eq!(observed.containers.values().map(|c| c.template_hash.clone()).collect::<Vec<_>>(), hashes);
    // A container made again is made of the same image.
    observed.containers.pop_first();
    let observed = settled(&desired, observed);
    assert!(all_run(&observed, "1"));
    // The next revision takes what the tag means then.
    let mut app = web(2, "1");
    app.template.args = Some(vec!["serve".to_owned()]);
    let observed = settled(&desire(app), observed);
    assert!(all_run(&observed, "moved"));
}

#[test]
fn a_tag_moved_by_its_registry_rolls() {
    let desired = desire(web(2, "1"));
    let observed = settled(&desired, moved(settled(&desired, host(&["1"])), true));
    assert!(all_run(&observed, "moved"));
}

#[test]
fn a_tag_moved_by_hand_repeats_no_finished_job() {
    let mut desired = DesiredState::default();
    desired.jobs.insert(key(Kind::Job, "sweep"), job("1", None));
    let mut observed = settled(&desired, host(&["1"]));
    let now = observed.now_boot_ms;
    observed.containers.values_mut().for_each(|container| end(container, now, 0));
    let observed = moved(settled(&desired, observed), false);
    check(&desired, &observed, expect![[""]]);
}
