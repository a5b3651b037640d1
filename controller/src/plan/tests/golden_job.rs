//! Plans as text, continued: jobs, images, and the hashes of templates.

use expect_test::expect;

use super::golden::check;
use super::world::*;
use crate::model::{DesiredImage, DesiredState, EnvValue, Kind, PullPolicy, RunPolicy};
use crate::plan::{plan, template_hash};

#[test]
fn a_job_runs_once_and_failures_are_tried_again() {
    let desired = DesiredState { jobs: [(key(Kind::Job, "sweep"), job("1", None))].into(), ..Default::default() };
    let mut observed = host(&["1"]);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 CreateContainer shop-sweep-1 try 0 at 10.88.0.2  Missing
        #1 PublishEndpoints views=1  EndpointsChanged
        #2 StartContainer shop-sweep-1  Missing  after #0 #1
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    end(observed.containers.values_mut().next().unwrap(), NOW, 3);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=0  EndpointsChanged
        waiting shop/job/sweep: back-off of 1000 ms after failure 1
    "#]],
    );
    observed.now_boot_ms += 1_000;
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 CreateContainer shop-sweep-1 try 1 at 10.88.0.3  Retry
        #1 PublishEndpoints views=1  EndpointsChanged
        #2 StartContainer shop-sweep-1  Retry  after #0 #1
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    end(observed.containers.values_mut().find(|c| c.attempt == 1).unwrap(), NOW, 0);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RemoveContainer shop-sweep-1  Replaced
        #1 RecordJob run 1 Succeeded failures 1  JobDecided
        #2 PublishEndpoints views=0  EndpointsChanged
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    check(&desired, &observed, expect![[""]]);
}

#[test]
fn a_schedule_starts_a_run_and_forbids_a_second_one() {
    let scheduled = job("1", Some("* * * * *"));
    let desired = DesiredState { jobs: [(key(Kind::Job, "sweep"), scheduled)].into(), ..Default::default() };
    let mut observed = host(&["1"]);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RecordJob run 0 Active failures 0  Scheduled
        #1 PublishEndpoints views=0  EndpointsChanged
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    observed.now_unix_ms += 60_000;
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RecordJob run 1 Active failures 0  Scheduled
        #1 CreateContainer shop-sweep-1 try 0 at 10.88.0.2  Scheduled  after #0
        #2 PublishEndpoints views=1  EndpointsChanged
        #3 StartContainer shop-sweep-1  Scheduled  after #1 #2
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    observed.now_unix_ms += 60_000;
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RecordJob run 1 Active failures 0  Scheduled
    "#]],
    );
}

/// What runs, and what it is told.
fn running(observed: &crate::model::ObservedState) -> Vec<u32> {
    let running = observed.containers.values().filter(|c| c.state == runtime::runtime::ContainerState::Running);
    running.map(|container| container.replica.ordinal).collect()
}

#[test]
fn completions_run_so_many_at_once_as_parallelism_says() {
    let mut three = job("1", None);
    three.runs = RunPolicy { completions: 3, parallelism: 2, indexed: true, ..RunPolicy::default() };
    let desired = DesiredState { jobs: [(key(Kind::Job, "sweep"), three)].into(), ..Default::default() };
    let mut observed = host(&["1"]);
    apply(&plan(&desired, &observed), &mut observed);
    assert_eq!(running(&observed), [1, 2]);
    end(observed.containers.values_mut().find(|c| c.replica.ordinal == 2).unwrap(), NOW, 0);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 CreateContainer shop-sweep-3 try 0 at 10.88.0.4  Missing
        #1 PublishEndpoints views=2  EndpointsChanged
        #2 StartContainer shop-sweep-3  Missing  after #0 #1
    "#]],
    );
    let told = plan(&desired, &observed).steps.into_iter().find_map(|step| match step.action {
        crate::plan::Action::CreateContainer { config } => config.env.get("JOB_COMPLETION_INDEX").cloned(),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some("2"));
    apply(&plan(&desired, &observed), &mut observed);
    assert_eq!(running(&observed), [1, 3]);
    // One fails and is tried again; the others stay as they are.
    end(observed.containers.values_mut().find(|c| c.replica.ordinal == 1).unwrap(), NOW, 1);
    observed.now_boot_ms += 1_000;
    apply(&plan(&desired, &observed), &mut observed);
    for container in observed.containers.values_mut().filter(|c| c.exit.is_none()) {
        end(container, NOW + 1_000, 0);
    }
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RemoveContainer shop-sweep-1  Replaced
        #1 RecordJob run 1 Succeeded failures 1  JobDecided
        #2 PublishEndpoints views=0  EndpointsChanged
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    check(&desired, &observed, expect![[""]]);
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_has_failed() {
    let mut slow = job("1", None);
    slow.runs.deadline_ms = Some(5_000);
    let desired = DesiredState { jobs: [(key(Kind::Job, "sweep"), slow)].into(), ..Default::default() };
    let mut observed = host(&["1"]);
    apply(&plan(&desired, &observed), &mut observed);
    let waiting = plan(&desired, &observed);
    assert_eq!((waiting.steps.len(), waiting.wake_at_boot_ms), (0, Some(observed.now_boot_ms + 5_000)));
    observed.now_boot_ms += 5_000;
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 StopContainer shop-sweep-1  JobDecided
    "#]],
    );
    end(observed.containers.values_mut().next().unwrap(), NOW, 143);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RecordJob run 1 DeadlineExceeded failures 1  JobDecided
        #1 PublishEndpoints views=0  EndpointsChanged
    "#]],
    );
}

#[test]
fn a_suspended_job_starts_nothing_and_ended_runs_go_in_time() {
    let mut job = job("1", None);
    job.runs = RunPolicy { suspend: true, ttl_ms: Some(60_000), ..RunPolicy::default() };
    let mut desired = DesiredState { jobs: [(key(Kind::Job, "sweep"), job)].into(), ..Default::default() };
    let mut observed = host(&["1"]);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 PublishEndpoints views=0  EndpointsChanged
    "#]],
    );
    desired.jobs.values_mut().for_each(|job| job.runs.suspend = false);
    apply(&plan(&desired, &observed), &mut observed);
    end(observed.containers.values_mut().next().unwrap(), NOW, 0);
    apply(&plan(&desired, &observed), &mut observed);
    let kept = plan(&desired, &observed);
    assert_eq!((kept.steps.len(), kept.wake_at_boot_ms), (0, Some(observed.now_boot_ms + 60_000)));
    observed.now_boot_ms += 60_000;
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 RemoveContainer shop-sweep-1  Replaced
    "#]],
    );
    apply(&plan(&desired, &observed), &mut observed);
    check(&desired, &observed, expect![[""]]);
}

#[test]
fn earlier_scheduled_runs_are_kept_as_the_limits_say() {
    let mut job = job("1", Some("* * * * *"));
    job.runs = RunPolicy { keep_succeeded: 2, keep_failed: 0, ..RunPolicy::default() };
    job.backoff_limit = 0;
    let desired = DesiredState { jobs: [(key(Kind::Job, "sweep"), job)].into(), ..Default::default() };
    let mut observed = host(&["1"]);
    apply(&plan(&desired, &observed), &mut observed);
    let mut kept = Vec::new();
    for code in [0, 1, 0, 0, 0] {
        observed.now_unix_ms += 60_000;
        observed.now_boot_ms += 60_000;
        apply(&plan(&desired, &observed), &mut observed);
        let now = observed.now_boot_ms;
        end(observed.containers.values_mut().find(|c| c.exit.is_none()).unwrap(), now, code);
        apply(&plan(&desired, &observed), &mut observed);
        apply(&plan(&desired, &observed), &mut observed);
        kept.push(observed.containers.values().map(|c| c.replica.ordinal).collect::<Vec<_>>());
    }
    assert_eq!(kept, [vec![1], vec![1], vec![1, 3], vec![3, 4], vec![4, 5]]);
}

#[test]
fn images_are_followed_and_removed_a_day_after_their_last_use() {
    let image = DesiredImage {
        source: source(1),
        reference: reference("1"),
        follow_ms: Some(60_000),
        keep: 0,
        pull: PullPolicy::Missing,
    };
    let desired = DesiredState { images: [(key(Kind::Image, "base"), image)].into(), ..Default::default() };
    let mut observed = host(&["1", "2"]);
    observed.networks.clear();
    observed.published = Some(runtime::runtime::EndpointTable::default());
    observed.images.get_mut(&reference("2")).unwrap().unused_since_boot_ms = Some(1);
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 PullImage registry.example/shop/web:1  FollowDue
    "#]],
    );
    observed.now_boot_ms += crate::plan::UNUSED_MS;
    check(
        &desired,
        &observed,
        expect![[r#"
        #0 PullImage registry.example/shop/web:1  FollowDue
        #1 RemoveImage registry.example/shop/web:2  Unused
    "#]],
    );
}

/// Contract: a changed hash replaces every container of every host. A new field at its default must leave these alone.
#[test]
fn template_hashes_are_golden() {
    let plain = template("1");
    let mut full = template("1");
    full.entrypoint = Some(vec!["/bin/web".to_owned()]);
    full.args = Some(vec!["serve".to_owned(), "--port".to_owned()]);
    full.env.insert("LOG".to_owned(), EnvValue::Plain("info".to_owned()));
    full.working_dir = Some("/srv".to_owned());
    full.user = Some("www".to_owned());
    full.hostname = Some("shop".to_owned());
    full.stop_signal = Some("SIGINT".to_owned());
    full.shm_bytes = Some(1 << 20);
    full.init = true;
    full.lossy_log = true;
    full.tty = true;
    full.host_network = true;
    full.security.read_only_root = true;
    full.security.cap_drop = vec!["ALL".to_owned()];
    full.mounts.push(volume_mount("data"));
    let mut in_place = template("1");
    in_place.resources.cpu_millis = Some(500);
    in_place.stop_grace_ms = 1;
    let hash = |template| template_hash(template, &digest("1")).0;
    assert_eq!(hash(&plain), hash(&in_place));
    expect![[r#"
        v1-9b5b950c5cb9da4b
        v1-4c007be82190e6a5"#]]
    .assert_eq(&format!("{}\n{}", hash(&plain), hash(&full)));
    let changed = crate::plan::changed_fields((&plain, &digest("1")), (&full, &digest("2")));
    expect![[r#"
        image: 6b86b273ff34 -> d4735e3a265e
        args
        entrypoint
        env.LOG
        hostNetwork
        hostname
        init
        lossy
        mounts./data
        security.capDrop
        security.readOnlyRoot
        shmBytes
        stopSignal
        tty
        user
        workingDir"#]]
    .assert_eq(&changed.join("\n"));
}
