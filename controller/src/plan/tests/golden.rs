//! Plans as text: one situation, the whole plan for it. Reviewed like code.

use expect_test::{Expect, expect};

use runtime::runtime::ContainerState;

use super::world::*;
use crate::model::{DependsOn, DesiredState, Failure, Hold, Kind, ObjectKey, ObservedState, Workload};
use crate::plan::{Action, network_name, plan};

pub(super) fn check(desired: &DesiredState, observed: &ObservedState, want: Expect) {
    let plan = plan(desired, observed);
    plan.check(observed).unwrap();
    want.assert_eq(&text(&plan));
}

#[test]
fn an_image_is_pulled_before_anything_else() {
    check(
        &desire(web(2, "1")),
        &ObservedState { now_boot_ms: NOW, ..Default::default() },
        expect![[r#"
            #0 CreateNetwork shop 10.88.0.1/22  Missing
            #1 PullImage registry.example/shop/web:1  Missing
            #2 PublishEndpoints web=0  views=0  EndpointsChanged
            waiting shop/app/web: image registry.example/shop/web:1
        "#]],
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
        expect![[r#"
            #0 PublishEndpoints web=1 web-2=1  views=1  EndpointsChanged
            waiting shop/app/web: back-off of 1000 ms after failure 1
        "#]],
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

#[test]
fn a_ready_successor_takes_its_slot() {
    let observed = settled(&desire(web(2, "1")), host(&["1", "2"]));
    let desired = desire(web(2, "2"));
    let mut observed = observed;
    apply(&plan(&desired, &observed), &mut observed);
    check(
        &desired,
        &observed,
        expect![[r#"
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
    all_ready(&mut observed);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RecordRevision 2 Rolling  Progressed
        #1 PublishEndpoints web=2 web-1=1 web-2=1  views=4  Draining
        #2 StopContainer shop-web-1  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #1
        #3 CreateContainer shop-web-2 try 1 at 10.88.0.5  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #2
        #4 StartContainer shop-web-2  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #1 #3
    "#]],
    );
}

#[test]
fn what_one_may_write_is_replaced_stop_first() {
    let mount = |app: &mut Workload| {
        app.exclusive = true;
        app.template.mounts.push(volume_mount("data"));
    };
    let state = |tag: &str| {
        let mut app = web(1, tag);
        mount(&mut app);
        let mut desired = desire(app);
        desired.volumes.insert(key(Kind::Volume, "data"), single(9));
        desired
    };
    let observed = settled(&state("1"), host(&["1", "2"]));
    check(
        &state("2"),
        &observed,
        expect![[r#"
        #0 RecordRevision 2 Rolling  NewRevision
        #1 PublishEndpoints web=0  views=2  Draining
        #2 StopContainer shop-web-1  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #1
        #3 CreateContainer shop-web-1 try 1 at 10.88.0.3  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #2
        #4 StartContainer shop-web-1  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #1 #3
    "#]],
    );
}

#[test]
fn a_failed_revision_is_undone_and_not_retried() {
    let mut observed = settled(&desire(web(2, "1")), host(&["1", "2"]));
    let desired = desire(web(2, "2"));
    apply(&plan(&desired, &observed), &mut observed);
    apply(&plan(&desired, &observed), &mut observed);
    observed.now_boot_ms += 120_000;
    check(
        &desired,
        &observed,
        expect![[r##"
        #0 RecordRevision 2 Failed { why: "0 of 2 replicas available after 120 s without progress" }  RevisionDecided
        waiting shop/app/web: ready shop-web-1
    "##]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 StopContainer shop-web-1  Undo(to 1)
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 PublishEndpoints web=2 web-1=1 web-2=1  views=2  EndpointsChanged
    "#]],
    );
}

#[test]
fn what_was_ready_before_comes_back_at_once() {
    let mut observed = settled(&desire(web(2, "1")), host(&["1", "2", "3"]));
    observed = settled(&desire(web(2, "2")), observed);
    apply(&plan(&desire(web(2, "3")), &observed), &mut observed);
    observed.containers.clear();
    let plan = plan(&desire(web(2, "2")), &observed);
    let images = plan.steps.iter().filter_map(|step| match &step.action {
        Action::CreateContainer { config } => Some(config.image.clone()),
        _ => None,
    });
    assert_eq!(images.collect::<Vec<_>>(), [digest("2"), digest("2")], "nothing older is started first");
}

#[test]
fn the_wanted_image_cannot_be_had_and_the_old_one_goes_on() {
    let mut observed = settled(&desire(web(2, "1")), host(&["1"]));
    end(observed.containers.values_mut().next().unwrap(), NOW - 60_000, 1);
    check(
        &desire(web(2, "2")),
        &observed,
        expect![[r#"
        #0 PullImage registry.example/shop/web:2  Missing
        #1 CreateContainer shop-web-1 try 1 at 10.88.0.4  Exited
        #2 PublishEndpoints web=1 web-2=1  views=2  EndpointsChanged
        #3 StartContainer shop-web-1  Exited  after #1 #2
        waiting shop/app/web: image registry.example/shop/web:2
    "#]],
    );
}

#[test]
fn surplus_goes_from_the_top_and_stays_while_the_kept_are_down() {
    let mut observed = settled(&desire(web(3, "1")), host(&["1"]));
    check(
        &desire(web(1, "1")),
        &observed,
        expect![[r#"
        #0 PublishEndpoints web=1 web-1=1  views=3  Draining
        #1 StopContainer shop-web-3  Surplus  after #0
        #2 RemoveContainer shop-web-3  Surplus  after #1
        #3 StopContainer shop-web-2  Surplus  after #0
        #4 RemoveContainer shop-web-2  Surplus  after #3
    "#]],
    );
    end(observed.containers.values_mut().next().unwrap(), NOW, 1);
    check(
        &desire(web(1, "1")),
        &observed,
        expect![[r#"
        #0 PublishEndpoints web=1 web-2=1  views=2  Draining
        #1 StopContainer shop-web-3  Surplus  after #0
        #2 RemoveContainer shop-web-3  Surplus  after #1
        waiting shop/app/web: back-off of 1000 ms after failure 1
    "#]],
    );
}

#[test]
fn limits_change_in_place() {
    let observed = settled(&desire(web(1, "1")), host(&["1"]));
    let mut app = web(1, "1");
    app.template.resources.memory_bytes = Some(64 << 20);
    check(
        &desire(app),
        &observed,
        expect![[r#"
        #0 UpdateResources shop-web-1  LimitsChanged
    "#]],
    );
}

#[test]
fn what_a_crash_left_half_made() {
    let desired = desire(web(1, "1"));
    let mut observed = host(&["1"]);
    apply(&plan(&desired, &observed), &mut observed);
    observed.containers.values_mut().for_each(|c| c.state = ContainerState::Creating);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RemoveContainer shop-web-1  HalfMade
        #1 CreateContainer shop-web-1 try 0 at 10.88.0.3  Missing  after #0
        #2 StartContainer shop-web-1  Missing  after #1
    "#]],
    );
    observed.containers.values_mut().for_each(|c| c.state = ContainerState::Created);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 StartContainer shop-web-1  Missing
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
    observed.containers.values_mut().for_each(|c| c.state = ContainerState::Creating);
    let id = observed.containers.keys().next().unwrap().clone();
    observed.in_flight.insert(format!("create {id}"));
    check(
        &desired,
        &observed,
        expect![[r#"
        waiting shop/app/web: ready shop-web-1
    "#]],
    );
}

#[test]
fn an_unreadable_file_holds_what_it_defined() {
    let observed = settled(&desire(web(1, "1")), host(&["1"]));
    let hold = |file: Option<&str>| DesiredState {
        holds: vec![Hold { root: None, file: file.map(str::to_owned), reason: "cannot be read".to_owned() }],
        ..DesiredState::default()
    };
    check(
        &hold(Some("shop/web.yaml")),
        &observed,
        expect![[r#"
        waiting shop/app/web: held, cannot be read
    "#]],
    );
    check(
        &hold(None),
        &observed,
        expect![[r#"
        waiting shop/app/web: held, cannot be read
    "#]],
    );
    check(
        &hold(Some("other.yaml")),
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=1  Draining
        #1 StopContainer shop-web-1  Undeclared  after #0
        #2 RemoveContainer shop-web-1  Undeclared  after #1
        #3 RemoveNetwork shop  Undeclared  after #2
    "#]],
    );
}

#[test]
fn a_hold_keeps_nothing_of_another_source_with_a_file_of_the_same_name() {
    let mut desired = desire(web(1, "1"));
    desired.roots.extend(desired.workloads.keys().map(|key| (key.clone(), "/a".to_owned())));
    let observed = settled(&desired, host(&["1"]));
    let hold = |root: &str| {
        let file = Some("shop/web.yaml".to_owned());
        let holds = vec![Hold { root: Some(root.to_owned()), file, reason: "cannot be read".to_owned() }];
        DesiredState { holds, ..DesiredState::default() }
    };
    check(
        &hold("/a"),
        &observed,
        expect![[r#"
        waiting shop/app/web: held, cannot be read
    "#]],
    );
    check(
        &hold("/b"),
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=1  Draining
        #1 StopContainer shop-web-1  Undeclared  after #0
        #2 RemoveContainer shop-web-1  Undeclared  after #1
        #3 RemoveNetwork shop  Undeclared  after #2
    "#]],
    );
}

#[test]
fn who_depends_on_another_is_stopped_first_and_still_finds_it() {
    let db = ObjectKey { name: "db".to_owned(), ..app_key() };
    let mut desired = desire(web(1, "1"));
    desired.workloads.insert(db.clone(), web(1, "1"));
    desired.workloads.get_mut(&app_key()).unwrap().depends_on.insert(db.clone(), DependsOn::Started);
    let mut observed = settled(&desired, host(&["1"]));
    let nothing = DesiredState::default();
    check(
        &nothing,
        &observed,
        expect![[r#"
        #0 PublishEndpoints db=1 db-1=1  views=2  Draining
        #1 StopContainer shop-web-1  Undeclared  after #0
        #2 RemoveContainer shop-web-1  Undeclared  after #1
        waiting shop/app/db: the end of its dependant shop-web-1
    "#]],
    );
    apply(&plan(&nothing, &observed), &mut observed);
    let table = observed.published.as_ref().unwrap();
    assert_eq!(table.zones[&network_name("shop")].keys().collect::<Vec<_>>(), ["db", "db-1"]);
    check(
        &nothing,
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=1  Draining
        #1 StopContainer shop-db-1  Undeclared  after #0
        #2 RemoveContainer shop-db-1  Undeclared  after #1
        #3 RemoveNetwork shop  Undeclared  after #2
    "#]],
    );
    // A dependant that cannot be stopped holds up nobody.
    let mut observed = settled(&desired, host(&["1"]));
    let id = observed.containers.iter().find(|(_, c)| c.replica.workload == app_key()).unwrap().0.clone();
    let failure = Failure { attempts: 3, last_boot_ms: NOW, message: "hangs".to_owned(), code: None };
    observed.failures.insert(Action::StopContainer { id, grace_ms: 0 }.subject(), failure);
    check(
        &nothing,
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=2  Draining
        #1 StopContainer shop-db-1  Undeclared  after #0
        #2 RemoveContainer shop-db-1  Undeclared  after #1
        waiting shop/app/web: back-off of 4000 ms after failure 3
    "#]],
    );
    // Dependencies that were turned round while the containers ran: one goes first.
    let mut observed = settled(&desired, host(&["1"]));
    for container in observed.containers.values_mut().filter(|c| c.replica.workload == db) {
        container.depends_on.insert(app_key());
    }
    check(
        &nothing,
        &observed,
        expect![[r#"
        #0 PublishEndpoints web=1 web-1=1  views=2  Draining
        #1 StopContainer shop-db-1  Undeclared  after #0
        #2 RemoveContainer shop-db-1  Undeclared  after #1
        waiting shop/app/web: the end of its dependant shop-db-1
    "#]],
    );
}

#[test]
fn a_taken_port_is_left_out_and_delays_nobody() {
    let mut app = web(1, "1");
    app.ports.push(port(8080));
    app.ports.push(port(8081));
    let desired = desire(app);
    let mut observed = settled(&desired, host(&["1"]));
    let subject = Action::listener_subject(port(8080).at);
    let failure =
        Failure { attempts: 3, last_boot_ms: NOW, message: "port 8080 is in use by nginx".to_owned(), code: None };
    observed.failures.insert(subject, failure);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 PublishEndpoints web=1 web-1=1 :8081=1 views=1  EndpointsChanged
        waiting shop/app/web: back-off of 4000 ms after failure 3
    "#]],
    );
}

#[test]
fn an_image_volume_stays_with_its_replica() {
    let desired = desire(web(2, "1"));
    let mut empty = host(&["1"]);
    empty.images.values_mut().for_each(|image| image.config.volumes = vec!["/data/".to_owned()]);
    check(
        &desired,
        &empty,
        expect![[r#"
        #0 CreateVolume shop-web-1-162dd617  Missing
        #1 CreateContainer shop-web-1 try 0 at 10.88.0.2  Missing  after #0
        #2 CreateVolume shop-web-2-94f6190c  Missing
        #3 CreateContainer shop-web-2 try 0 at 10.88.0.3  Missing  after #2
        #4 RecordRevision 1 Rolling  NewRevision
        #5 PublishEndpoints web=0  views=2  EndpointsChanged
        #6 StartContainer shop-web-1  Missing  after #1 #5
        #7 StartContainer shop-web-2  Missing  after #3 #5
    "#]],
    );
    let mut observed = settled(&desired, empty);
    observed.now_boot_ms += 60_000;
    observed.images.extend(host(&["2"]).images);
    observed.images.values_mut().for_each(|image| image.config.volumes = vec!["/data".to_owned()]);
    check(
        &desire(web(2, "2")),
        &observed,
        expect![[r#"
        #0 RecordRevision 2 Rolling  NewRevision
        #1 PublishEndpoints web=1 web-2=1  views=3  Draining
        #2 StopContainer shop-web-1  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #1
        #3 CreateContainer shop-web-1 try 1 at 10.88.0.4  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #2
        #4 StartContainer shop-web-1  TemplateChanged(image: registry.example/shop/web:1 -> registry.example/shop/web:2)  after #1 #3
    "#]],
    );
    check(
        &DesiredState::default(),
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=2  Draining
        #1 StopContainer shop-web-1  Undeclared  after #0
        #2 RemoveContainer shop-web-1  Undeclared  after #1
        #3 StopContainer shop-web-2  Undeclared  after #0
        #4 RemoveContainer shop-web-2  Undeclared  after #3
        #5 RemoveNetwork shop  Undeclared  after #2 #4
        #6 RemoveVolume shop-web-1-162dd617  Undeclared  after #2
        #7 RemoveVolume shop-web-2-94f6190c  Undeclared  after #4
    "#]],
    );
}
