//! Limits, from the cgroup files and from what the kernel does.

use std::fs;

use runtime::cgroup::{Cgroup, Hierarchies};
use runtime::runtime::{Extras, Resources, Ulimit};

use super::Case;
use super::lab::Lab;

pub(crate) const CASES: &[Case] = &[
    ("limits_are_in_force_from_the_first_instruction", limits_are_in_force),
    ("limits_change_in_place", limits_change_in_place),
    ("weights_and_swap_change_in_place", weights_and_swap_change_in_place),
    ("tuning_reaches_the_program", tuning_reaches_the_program),
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
    config.resources =
        Resources { memory_bytes: Some(64 << 20), cpu_millis: Some(250), pids_max: Some(50), ..Resources::default() };
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
        let resources =
            Resources { memory_bytes: Some(bytes), cpu_millis: None, pids_max: Some(pids), ..Resources::default() };
        cgroup.update(&resources).unwrap();
        assert_eq!(value(&name, "memory", "memory.limit_in_bytes", "memory.max"), bytes.to_string());
        assert_eq!(value(&name, "pids", "pids.max", "pids.max"), pids.to_string());
    }
    cgroup.update(&Resources::default()).unwrap();
    assert_eq!(value(&name, "pids", "pids.max", "pids.max"), "max");
    running.kill();
}

fn weights_and_swap_change_in_place(lab: &Lab) {
    let mut config = lab.script("exec sleep 1000");
    let (cpu_shares, memory_reservation_bytes) = (Some(512), Some(32 << 20));
    let all = Resources { memory_bytes: Some(64 << 20), cpu_shares, memory_reservation_bytes, ..Resources::default() };
    config.resources = all.clone();
    let running = lab.start(&config).unwrap();
    let name = running.launch.cgroup.clone();
    let shares = || value(&name, "cpu", "cpu.shares", "cpu.weight");
    let low = || value(&name, "memory", "memory.soft_limit_in_bytes", "memory.low");
    assert!(["512", "20"].contains(&shares().as_str()), "{}", shares());
    assert_eq!(low(), (32 << 20).to_string());
    let cgroup = Cgroup::new(Hierarchies::of_host().unwrap(), &name);
    assert!(cgroup.holds(&all));
    cgroup.update(&Resources { swap_bytes: Some(16 << 20), ..all }).unwrap();
    cgroup.update(&Resources { memory_bytes: Some(64 << 20), ..Resources::default() }).unwrap();
    assert!(["1024", "100"].contains(&shares().as_str()), "{}", shares());
    assert!(low() == "0" || low().parse::<u64>().unwrap() > 1 << 60, "{}", low());
    running.kill();
}

fn tuning_reaches_the_program(lab: &Lab) {
    let mut config = lab.script(
        "ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmax /proc/sys/kernel/domainname; \
         cat /proc/self/oom_score_adj; id -G",
    );
    let nofile = Ulimit { name: "nofile".to_owned(), soft: 333, hard: 444 };
    let sysctls = [("net/ipv4/ip_default_ttl", "77"), ("kernel.shmmax", "1048576")];
    config.extras = Extras {
        ulimits: vec![nofile],
        sysctls: sysctls.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        groups: vec!["4242".to_owned()],
        oom_score_adj: Some(321),
        domainname: Some("inside".to_owned()),
        ..Extras::default()
    };
    let outcome = lab.run(&config);
    let words: Vec<&str> = outcome.output.split_whitespace().collect();
    assert_eq!(words[..6], ["333", "444", "77", "1048576", "inside", "321"], "{outcome:?}");
    assert!(words[6..].contains(&"4242"), "{outcome:?}");
    config.extras.sysctls = [("kernel.core_pattern".to_owned(), "|/x".to_owned())].into();
    let refused = lab.start(&config).err().unwrap().to_string();
    assert!(refused.contains("would be the host's"), "{refused}");
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
