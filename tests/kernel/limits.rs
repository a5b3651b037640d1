//! Limits, from the cgroup files and from what the kernel does.

use std::fs;

use runtime::cgroup::{Cgroup, Hierarchies};
use runtime::runtime::Resources;

use super::Case;
use super::lab::Lab;

pub(crate) const CASES: &[Case] = &[
    ("limits_are_in_force_from_the_first_instruction", limits_are_in_force),
    ("limits_change_in_place", limits_change_in_place),
    ("a_memory_hog_is_killed_and_counted", a_memory_hog_is_killed_and_counted),
    ("too_many_processes_are_refused", too_many_processes_are_refused),
    ("a_cgroup_is_killed_whole", a_cgroup_is_killed_whole),
];

/// The value of a limit wherever this host keeps it.
fn value(cgroup: &str, controller: &str, v1: &str, v2: &str) -> String {
    let found = Hierarchies::of_host().unwrap();
    let path = match found.controllers.iter().find(|(name, _)| name == controller) {
        Some((_, root)) => root.join(cgroup).join(v1),
        None => found.unified.join(cgroup).join(v2),
    };
    fs::read_to_string(path).unwrap().trim().to_owned()
}

fn limits_are_in_force(lab: &Lab) {
    let mut config = lab.script("exec sleep 1000");
    config.resources = Resources { memory_bytes: Some(64 << 20), cpu_millis: Some(250), pids_max: Some(50) };
    let running = lab.start(&config).unwrap();
    let name = running.launch.cgroup.clone();
    assert_eq!(value(&name, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value(&name, "pids", "pids.max", "pids.max"), "50");
    assert_eq!(value(&name, "cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("25000"));
    for (controller, root) in &Hierarchies::of_host().unwrap().controllers {
        let procs = fs::read_to_string(root.join(&name).join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), running.spawned.pid.to_string(), "{controller}");
    }
    running.kill();
}

fn limits_change_in_place(lab: &Lab) {
    let mut config = lab.script("exec sleep 1000");
    config.resources.memory_bytes = Some(64 << 20);
    let running = lab.start(&config).unwrap();
    let name = running.launch.cgroup.clone();
    let cgroup = Cgroup::new(Hierarchies::of_host().unwrap(), &name);
    for (bytes, pids) in [(128 << 20, 20), (32 << 20, 10)] {
        let resources = Resources { memory_bytes: Some(bytes), cpu_millis: None, pids_max: Some(pids) };
        cgroup.update(&resources).unwrap();
        assert_eq!(value(&name, "memory", "memory.limit_in_bytes", "memory.max"), bytes.to_string());
        assert_eq!(value(&name, "pids", "pids.max", "pids.max"), pids.to_string());
    }
    cgroup.update(&Resources::default()).unwrap();
    assert_eq!(value(&name, "pids", "pids.max", "pids.max"), "max");
    running.kill();
}

fn a_memory_hog_is_killed_and_counted(lab: &Lab) {
    let mut config = lab.script("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    config.resources.memory_bytes = Some(8 << 20);
    let running = lab.start(&config).unwrap();
    let name = running.launch.cgroup.clone();
    let cgroup = Cgroup::new(Hierarchies::of_host().unwrap(), &name);
    super::lab::wait_until("the kill", || cgroup.oom_kills() > 0);
    assert_eq!(running.finish().code, 128 + 9);
}

fn too_many_processes_are_refused(lab: &Lab) {
    let mut config = lab.script("for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all");
    config.resources.pids_max = Some(5);
    let outcome = lab.run(&config);
    assert!(outcome.code != 0 && outcome.output.contains("can't fork"), "{outcome:?}");
}

fn a_cgroup_is_killed_whole(lab: &Lab) {
    let running = lab.start(&lab.script("sleep 1000 & sleep 1000 & wait")).unwrap();
    let name = running.launch.cgroup.clone();
    let cgroup = Cgroup::new(Hierarchies::of_host().unwrap(), &name);
    assert!(cgroup.is_populated().unwrap());
    cgroup.kill().unwrap();
    assert_eq!(running.finish().code, 128 + 9);
    assert!(!cgroup.is_populated().unwrap());
}
