//! Pods: containers that share what one of them holds. True of every implementation.

use std::net::Ipv4Addr;
use std::time::Duration;

use runtime::Error;
use runtime::id::ContainerId;
use runtime::runtime::{ContainerConfig, ContainerState, ExecConfig, ExitStatus, NetworkMode, PodPart};

use crate::Case;
use crate::lab::{Lab, exec_stdio, ok};

pub(crate) const CASES: &[Case] = &[
    ("a_member_needs_a_holder_that_runs", a_member_needs_a_holder_that_runs),
    ("members_end_and_come_back_alone", members_end_and_come_back_alone),
    ("a_pod_stops_and_goes_as_one", a_pod_stops_and_goes_as_one),
    ("a_dead_holder_leaves_members_to_be_stopped", a_dead_holder_leaves_members_to_be_stopped),
];

fn holder(lab: &Lab, id: &str, host: u8) -> ContainerConfig {
    let network = NetworkMode::on(lab.network.name.clone(), Ipv4Addr::new(10, 79, 0, host));
    ContainerConfig { network, pod: Some(PodPart::Holder), ..lab.config(id, &["/bin/no-program-of-a-holder"]) }
}

fn member(lab: &Lab, of: &ContainerConfig, id: &str, stop_order: u32, args: &[&str]) -> ContainerConfig {
    let pod = Some(PodPart::Member { of: of.id.clone(), share_pids: false, stop_order });
    ContainerConfig { network: of.network.clone(), pod, ..lab.config(id, args) }
}

fn a_member_needs_a_holder_that_runs(lab: &Lab) {
    let runtime = lab.runtime();
    let pod = holder(lab, "pod", 20);
    let one = member(lab, &pod, "one", 1, &["/bin/sleep"]);
    let refused = runtime.create_container(&one);
    assert!(refused.as_ref().is_err_and(Error::is_not_found), "{refused:?}");
    ok("create", runtime.create_container(&pod));
    let refused = runtime.create_container(&one);
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    ok("start", runtime.start_container(&pod.id));
    lab.run(&one);
    let nested = member(lab, &one, "nested", 1, &["/bin/sleep"]);
    let refused = runtime.create_container(&nested);
    assert!(matches!(refused, Err(Error::BadContainer(_))), "{refused:?}");
    ok("stop", runtime.stop_container(&pod.id, Duration::ZERO));
    let refused = runtime.create_container(&ContainerConfig { id: lab.id("two"), ..one });
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
}

fn members_end_and_come_back_alone(lab: &Lab) {
    let runtime = lab.runtime();
    let pod = holder(lab, "pod", 21);
    lab.run(&pod);
    let stays = lab.run(&member(lab, &pod, "stays", 1, &["/bin/sleep"]));
    let first = lab.run(&member(lab, &pod, "ends-0", 1, &["/bin/sh", "-c", "exit 4"]));
    assert_eq!(lab.reaches(&first, ContainerState::Stopped).exit, Some(ExitStatus::Code(4)));
    let again = lab.run(&member(lab, &pod, "ends-1", 1, &["/bin/sleep"]));
    for id in [&pod.id, &stays, &again] {
        assert_eq!(lab.find(id).unwrap().state, ContainerState::Running, "{id}");
    }
    let config = ExecConfig {
        args: vec!["/bin/sh".into(), "-c".into(), "exit 0".into()],
        env: std::collections::BTreeMap::new(),
        working_dir: None,
        user: None,
        tty: false,
    };
    let mut session = ok("exec", runtime.exec(&again, &config, exec_stdio().0));
    assert_eq!(ok("wait", session.wait()), ExitStatus::Code(0));
    // one of them can be stopped and removed by itself
    ok("stop", runtime.stop_container(&again, Duration::ZERO));
    ok("remove", runtime.remove_container(&again));
    assert_eq!(lab.find(&stays).unwrap().state, ContainerState::Running);
}

fn a_pod_stops_and_goes_as_one(lab: &Lab) {
    let runtime = lab.runtime();
    let pod = holder(lab, "pod", 22);
    lab.run(&pod);
    let ids: Vec<ContainerId> =
        (1..=3).map(|n| lab.run(&member(lab, &pod, &format!("m{n}"), n, &["/bin/graceful"]))).collect();
    let refused = runtime.remove_container(&pod.id);
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    ok("stop", runtime.stop_container(&pod.id, Duration::from_secs(20)));
    let ends: Vec<u64> = ids
        .iter()
        .map(|id| {
            let info = lab.find(id).unwrap();
            assert_eq!(info.state, ContainerState::Stopped, "{id}");
            info.times.finished_boot_ms
        })
        .collect();
    assert!(ends[0] >= ends[1] && ends[1] >= ends[2], "the highest order ends first: {ends:?}");
    assert_eq!(lab.find(&pod.id).unwrap().state, ContainerState::Stopped);
    ok("a second stop", runtime.stop_container(&pod.id, Duration::ZERO));
    // its address is free
    lab.run(&holder(lab, "next", 22));
    ok("remove", runtime.remove_container(&pod.id));
    for id in ids.iter().chain([&pod.id]) {
        assert_eq!(lab.find(id), None, "{id}");
    }
}

/// As a process that somebody kills. What shares only its network lives on without an owner, and is ended by the same stop.
fn a_dead_holder_leaves_members_to_be_stopped(lab: &Lab) {
    let runtime = lab.runtime();
    let pod = holder(lab, "pod", 23);
    lab.run(&pod);
    let apart = lab.run(&member(lab, &pod, "apart", 1, &["/bin/sleep"]));
    let mut config = member(lab, &pod, "together", 1, &["/bin/sleep"]);
    config.pod = Some(PodPart::Member { of: pod.id.clone(), share_pids: true, stop_order: 1 });
    let together = lab.run(&config);
    lab.kill(&pod.id);
    lab.reaches(&pod.id, ContainerState::Stopped);
    lab.reaches(&together, ContainerState::Stopped);
    assert_eq!(lab.find(&apart).unwrap().state, ContainerState::Running);
    ok("stop", runtime.stop_container(&pod.id, Duration::ZERO));
    assert_eq!(lab.find(&apart).unwrap().state, ContainerState::Stopped);
    ok("remove", runtime.remove_container(&pod.id));
    assert_eq!(ok("list", runtime.list_containers()), []);
}
