//! What the public validation suites (runtime-tools, contest) ask for beside the rest: refusals, and what engines seldom
//! use.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::Case;
use super::lab::{Peer, finish};

pub(crate) const CASES: &[Case] = &[
    // runc needs /proc in the container.
    ("no_namespaces_at_all", &["runc", "crun"], no_namespaces_at_all),
    ("paths_are_hidden_only_in_own_mounts", &["crun"], paths_are_hidden_only_in_own_mounts),
    ("hidden_paths_are_absolute", &["runc", "crun"], hidden_paths_are_absolute),
    // Newer than crun 1.8.
    ("proc_and_sys_are_directories", &["crun"], proc_and_sys_are_directories),
    // runc wants all of them open.
    ("gaps_among_preserved_descriptors_stay_shut", &["runc"], gaps_among_preserved_descriptors_stay_shut),
    ("a_limit_no_process_can_have_is_refused", &[], a_limit_no_process_can_have_is_refused),
    // Newer than both, like the next two.
    ("memory_policies", &["runc", "crun"], memory_policies),
    ("an_exec_keeps_to_its_cpus", &["runc", "crun"], an_exec_keeps_to_its_cpus),
    ("network_devices_move_in", &["runc", "crun"], network_devices_move_in),
    ("an_exec_joins_a_cgroup_below", &["crun"], an_exec_joins_a_cgroup_below),
    ("devices_are_shut_where_there_is_only_v2", &["runc", "crun"], devices_are_shut_where_there_is_only_v2),
];

/// Namespaces of a process, but those of its children.
fn namespaces(pid: &str) -> Vec<String> {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    let link = |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned();
    kinds.into_iter().map(link).collect()
}

fn no_namespaces_at_all(peer: &Peer) {
    let bundle = peer.bundle(|spec| {
        spec["linux"]["namespaces"] = json!([]);
        spec.as_object_mut().unwrap().remove("hostname");
        // The host's own file systems are not mounted once more.
        spec["mounts"] = json!([]);
    });
    bundle.start();
    assert_eq!(namespaces(&bundle.pid().to_string()), namespaces("self"));
    let seen = bundle.exec("ls /data; ls /etc");
    assert_eq!(seen.out, "seed\npasswd\n", "{seen:?}");
    bundle.kill_and_delete();
    if peer.is_ours() {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(&bundle.id), "its root is still mounted");
    }
}

fn paths_are_hidden_only_in_own_mounts(peer: &Peer) {
    let bundle = peer.bundle(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "pid"}]);
        spec["linux"]["maskedPaths"] = json!(["/proc/keys"]);
        spec.as_object_mut().unwrap().remove("hostname");
    });
    assert_ne!(bundle.create().code, 0);
}

fn hidden_paths_are_absolute(peer: &Peer) {
    for key in ["maskedPaths", "readonlyPaths"] {
        let bundle = peer.bundle(|spec| spec["linux"][key] = json!(["../outside"]));
        let created = bundle.create();
        assert!(created.code != 0 && created.err.contains("not absolute"), "{created:?}");
    }
}

fn proc_and_sys_are_directories(peer: &Peer) {
    for name in ["proc", "sys"] {
        let bundle = peer.bundle(|_| {});
        let place = bundle.dir.join("rootfs").join(name);
        fs::remove_dir(&place).unwrap();
        std::os::unix::fs::symlink("tmp", &place).unwrap();
        let created = bundle.create();
        assert!(created.code != 0 && created.err.contains("must be mounted on ordinary directory"), "{created:?}");
    }
}

fn gaps_among_preserved_descriptors_stay_shut(peer: &Peer) {
    let bundle = peer.script_bundle("ls /proc/self/fd | tr '\\n' ' '", |_| {});
    let script = format!(
        "exec 5</etc/hostname; exec {} --root {} run --preserve-fds 6 --bundle {} {}",
        peer.script().display(),
        bundle.dir.join("state").display(),
        bundle.dir.display(),
        bundle.id
    );
    let outcome = finish(Command::new("sh").args(["-c", &script]));
    // `ls` itself opens the directory it lists.
    assert_eq!(outcome.out, "0 1 2 3 5 ", "{outcome:?}");
}

fn a_limit_no_process_can_have_is_refused(peer: &Peer) {
    let limit = json!([{"type": "RLIMIT_NOFILE", "hard": u64::MAX, "soft": u64::MAX}]);
    let bundle = peer.bundle(|spec| spec["process"]["rlimits"] = limit);
    assert_ne!(bundle.create().code, 0);
}

fn memory_policies(peer: &Peer) {
    let policy = |policy: Value| {
        peer.script_bundle("cat /proc/self/numa_maps", |spec| spec["linux"]["memoryPolicy"] = policy).run()
    };
    let bound = policy(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}));
    assert!(bound.code == 0 && bound.out.contains("bind=static:0"), "{bound:?}");
    for wrong in [
        json!({"mode": "BIND", "nodes": "0"}),
        json!({"nodes": "0"}),
        json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
        json!({"mode": "MPOL_DEFAULT", "nodes": "0-7", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
    ] {
        assert_ne!(policy(wrong.clone()).code, 0, "{wrong}");
    }
}

fn an_exec_keeps_to_its_cpus(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"}));
    bundle.start();
    let mut command = peer.command();
    let outcome =
        finish(command.args(["--debug", "exec", &bundle.id, "grep", "Cpus_allowed_list", "/proc/self/status"]));
    assert_eq!(outcome.out, "Cpus_allowed_list:\t0\n", "{outcome:?}");
    assert!(outcome.err.contains("affinity: 0x1"), "{outcome:?}");
    bundle.kill_and_delete();
}

fn network_devices_move_in(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    let name = format!("bx{}", std::process::id() % 100_000);
    let ip = |words: &str| finish(Command::new("ip").args(words.split(' ')));
    // One end of a pair: not every kernel has dummies.
    let made = ip(&format!("link add {name} type veth peer name {name}p"));
    if made.code != 0 {
        return println!("  skipped: no interface can be made: {made:?}");
    }
    ip(&format!("addr add 198.51.100.7/24 dev {name}"));
    ip(&format!("addr add 2001:db8::7/64 dev {name} nodad"));
    let devices = json!({name.clone(): {"name": "inside0"}});
    let file = bundle.dir.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["linux"]["netDevices"] = devices;
    fs::write(&file, spec.to_string()).unwrap();
    let created = bundle.create();
    let outside = ip(&format!("link show {name}"));
    if outside.code == 0 {
        ip(&format!("link delete {name}"));
    }
    assert_eq!(created.code, 0, "{created:?}");
    assert_ne!(outside.code, 0, "{outside:?}");
    let inside = bundle.exec("ip addr show inside0").out;
    assert!(
        inside.contains("198.51.100.7/24") && inside.contains("2001:db8::7/64") && inside.contains("UP"),
        "{inside}"
    );
    bundle.kill_and_delete();
    // Its name is free, the interface is not there: that is an error.
    assert_ne!(bundle.create().code, 0);
}

fn an_exec_joins_a_cgroup_below(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let exec = |group: &str| finish(peer.command().args(["exec", "--cgroup", group, &bundle.id, "true"]));
    assert_eq!(exec("/").code, 0);
    for wrong in ["..", "missing", "cpu:missing", "nosuchcontroller:/"] {
        assert_ne!(exec(wrong).code, 0, "{wrong}");
    }
    bundle.kill_and_delete();
}

/// Where the host has v1 hierarchies too, the runtime is not shown them.
fn devices_are_shut_where_there_is_only_v2(peer: &Peer) {
    let script = "mknod /tmp/kmsg c 1 11; head -c1 /dev/zero > /dev/null && echo zero; head -c1 /tmp/kmsg > /dev/null && echo kmsg";
    for (rules, seen) in
        [(json!([]), "zero\n"), (json!([{"allow": true, "type": "c", "major": 1, "minor": 11}]), "zero\nkmsg\n")]
    {
        let bundle = peer.script_bundle(script, |spec| {
            spec["linux"]["resources"]["devices"] = rules;
            spec["linux"]["cgroupsPath"] = json!(format!(
                "/boxship-oci-test/{}",
                spec["linux"]["cgroupsPath"].as_str().unwrap().rsplit('/').next().unwrap()
            ));
            let caps = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
            spec["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
        });
        let only_v2 = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", only_v2, "sh"]).arg(peer.script());
        let state = bundle.dir.join("state");
        let outcome =
            finish(command.arg("--root").arg(state).args(["run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id));
        assert_eq!(outcome.out, seen, "{outcome:?}");
        assert!(!outcome.err.contains("warning"), "{outcome:?}");
    }
}
