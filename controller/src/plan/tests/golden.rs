//! Plans as text: one situation, the whole plan for it. Reviewed like code.

use expect_test::{Expect, expect};

use super::world::*;
use crate::model::{DesiredState, ObservedState};
use crate::plan::plan;

fn check(desired: &DesiredState, observed: &ObservedState, want: Expect) {
    let plan = plan(desired, observed);
    plan.check(observed).unwrap();
    want.assert_eq(&text(&plan));
}

#[test]
fn an_image_is_pulled_before_anything_else() {
    check(
        &desire(web(2, "1")),
        &ObservedState { now_boot_ms: NOW, ..Default::default() },
        expect![[r##"
        #0 CreateNetwork shop 10.88.0.1/22  Missing
        #1 PullImage registry.example/shop/web:1  Missing
        #2 PublishEndpoints web=0  views=0  EndpointsChanged
        waiting shop/app/web: Image { reference: ImageRef { host: "registry.example", repository: "shop/web", tag: Some("1"), digest: None } }
    "##]],
    );
}

#[test]
fn a_first_start() {
    let mut observed = host(&["1"]);
    observed.networks.clear();
    check(
        &desire(web(2, "1")),
        &observed,
        expect![[r#"
        #0 CreateNetwork shop 10.88.0.1/22  Missing
        #1 CreateContainer shop-web-1 try 0 at 10.88.0.2  Missing  after #0
        #2 CreateContainer shop-web-2 try 0 at 10.88.0.3  Missing  after #0
        #3 RecordRevision 1 Rolling  NewRevision
        #4 PublishEndpoints web=0  views=2  EndpointsChanged
        #5 StartContainer shop-web-1  Missing  after #1 #4
        #6 StartContainer shop-web-2  Missing  after #2 #4
    "#]],
    );
}

#[test]
fn nothing_to_do_is_nothing_done() {
    let desired = desire(web(3, "1"));
    check(&desired, &settled(&desired, host(&["1"])), expect![[""]]);
}

#[test]
fn a_new_image_rolls_start_first() {
    let observed = settled(&desire(web(3, "1")), host(&["1", "2"]));
    check(
        &desire(web(3, "2")),
        &observed,
        expect![[r#"
        #0 CreateContainer shop-web-1 try 1 at 10.88.0.5  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)
        #1 RecordRevision 2 Rolling  NewRevision
        #2 PublishEndpoints web=3 web-1=1 web-2=1 web-3=1  views=4  EndpointsChanged
        #3 StartContainer shop-web-1  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #0 #2
    "#]],
    );
}

#[test]
fn a_dead_replica_leaves_the_table_and_comes_back() {
    let desired = desire(web(2, "1"));
    let mut observed = settled(&desired, host(&["1"]));
    end(observed.containers.values_mut().next().unwrap(), NOW, 1);
    check(
        &desired,
        &observed,
        expect![[r##"
        #0 PublishEndpoints web=1 web-2=1  views=1  EndpointsChanged
        waiting shop/app/web: BackOff { until_boot_ms: 1001000, failures: 1, message: "Code(1)" }
    "##]],
    );
    observed.now_boot_ms += 1_000;
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 CreateContainer shop-web-1 try 1 at 10.88.0.4  Exited
        #1 PublishEndpoints web=1 web-2=1  views=2  EndpointsChanged
        #2 StartContainer shop-web-1  Exited  after #0 #1
    "#]],
    );
}

#[test]
fn a_removed_manifest_takes_all_but_data() {
    let observed = settled(&desire(web(1, "1")), host(&["1"]));
    check(
        &DesiredState::default(),
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=1  Draining
        #1 StopContainer shop-web-1  Undeclared  after #0
        #2 RemoveContainer shop-web-1  Undeclared  after #1
        #3 RemoveNetwork shop  Undeclared  after #2
    "#]],
    );
}
