//! Pods as plans: the holder, then its members in their turn; one that ends, and one whose image moves.

use expect_test::{Expect, expect};

use super::golden::check;
use super::world::*;
use crate::model::{DesiredState, Member, ObservedState, Pod, Role, Workload};
use crate::plan::plan;

fn beside(
    name: &str,
    role: Role,
    tag: &str,
) -> Member<crate::model::ImageSource, crate::model::EnvValue, crate::model::Mount, crate::model::NetworkUse> {
    Member { name: name.to_owned(), role, template: template(tag), env_from: Vec::new() }
}

/// `web` with an init container, a sidecar and another container beside it.
fn pod() -> DesiredState {
    let mut web: Workload = web(1, "1");
    web.template.pod = Some(Box::new(Pod {
        main: "main".to_owned(),
        share_pids: false,
        members: vec![
            beside("first", Role::Init, "init"),
            beside("proxy", Role::Sidecar, "proxy"),
            beside("side", Role::Beside, "side"),
        ],
    }));
    desire(web)
}

fn images() -> ObservedState {
    host(&["1", "init", "proxy", "side"])
}

/// Carries a plan out and shows it.
fn step(desired: &DesiredState, observed: &mut ObservedState, want: Expect) {
    all_ready(observed);
    check(desired, observed, want);
    let next = plan(desired, observed);
    apply(&next, observed);
}

/// The newest container of a name.
fn newest(observed: &ObservedState, name: &str) -> runtime::id::ContainerId {
    let mut pods = observed.containers.values().filter_map(|container| container.pod.as_ref());
    pods.find_map(|pod| pod.newest(name)).unwrap().0.clone()
}

#[test]
fn members_come_in_their_turn() {
    let (desired, mut observed) = (pod(), images());
    step(
        &desired,
        &mut observed,
        expect![[r#"
        #0 CreateContainer shop-web-1 try 0 at 10.88.0.2  Missing
        #1 RecordRevision 1 Rolling  NewRevision
        #2 PublishEndpoints web=0  views=1  EndpointsChanged
        #3 StartContainer shop-web-1  Missing  after #0 #2
    "#]],
    );
    step(
        &desired,
        &mut observed,
        expect![[r#"
        #0 CreateContainer shop-web-1-19c476-first try 0 at 10.88.0.2  Missing
        #1 StartContainer shop-web-1-19c476-first  Missing  after #0
        #2 PublishEndpoints web=0 web-1=1  views=1  EndpointsChanged
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
    step(
        &desired,
        &mut observed,
        expect![[r#"
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
    let first = newest(&observed, "first");
    end_member(member(&mut observed, &first).unwrap(), NOW, 0);
    step(
        &desired,
        &mut observed,
        expect![[r#"
        #0 CreateContainer shop-web-1-19c476-proxy try 0 at 10.88.0.2  Missing
        #1 StartContainer shop-web-1-19c476-proxy  Missing  after #0
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
    step(
        &desired,
        &mut observed,
        expect![[r#"
        #0 CreateContainer shop-web-1-19c476-main try 0 at 10.88.0.2  Missing
        #1 StartContainer shop-web-1-19c476-main  Missing  after #0
        #2 CreateContainer shop-web-1-19c476-side try 0 at 10.88.0.2  Missing
        #3 StartContainer shop-web-1-19c476-side  Missing  after #2
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
    step(
        &desired,
        &mut observed,
        expect![[r#"
        #0 RecordRevision 1 Ready  RevisionDecided
        #1 PublishEndpoints web=1 web-1=1  views=1  EndpointsChanged
    "#]],
    );
}

/// Everything runs.
fn running() -> (DesiredState, ObservedState) {
    let (desired, mut observed) = (pod(), images());
    for _ in 0..12 {
        all_ready(&mut observed);
        let next = plan(&desired, &observed);
        next.check(&observed).unwrap();
        apply(&next, &mut observed);
        let begun =
            observed.containers.values().any(|c| c.pod.as_ref().is_some_and(|pod| pod.newest("first").is_some()));
        if begun {
            let first = newest(&observed, "first");
            end_member(member(&mut observed, &first).unwrap(), NOW, 0);
        }
    }
    all_ready(&mut observed);
    assert_eq!(text(&plan(&desired, &observed)), "");
    (desired, observed)
}

#[test]
fn one_that_ends_comes_again_alone() {
    let (desired, mut observed) = running();
    let side = newest(&observed, "side");
    end_member(member(&mut observed, &side).unwrap(), NOW, 1);
    all_ready(&mut observed);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 PublishEndpoints web=0 web-1=1  views=1  EndpointsChanged
        waiting shop/app/web: back-off of 1000 ms after failure 1
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
}

#[test]
fn a_pod_rolls_when_the_tag_of_a_sidecar_moves() {
    let (desired, mut observed) = running();
    observed.images.get_mut(&reference("proxy")).unwrap().digest = digest("proxy, later");
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 CreateContainer shop-web-1 try 1 at 10.88.0.3  TemplateChanged(containers.image)
        #1 RecordRevision 2 Rolling  NewRevision
        #2 PublishEndpoints web=1 web-1=1  views=2  EndpointsChanged
        #3 StartContainer shop-web-1  TemplateChanged(containers.image)  after #0 #2
    "#]],
    );
}
