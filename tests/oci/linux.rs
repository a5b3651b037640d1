//! Namespaces, cgroups, seccomp and kernel settings (OCI config-linux).

use std::fs;

use serde_json::{Value, json};

use super::Case;
use super::lab::{Peer, wait_until};

pub(crate) const CASES: &[Case] = &[
    ("new_namespaces_are_new_and_others_are_the_callers", &[], new_namespaces_are_new_and_others_are_the_callers),
    ("namespaces_are_joined_by_path", &[], namespaces_are_joined_by_path),
    ("a_path_that_is_no_namespace_is_refused", &[], a_path_that_is_no_namespace_is_refused),
    // crun takes the last of them.
    ("a_namespace_named_twice_is_refused", &["crun"], a_namespace_named_twice_is_refused),
    ("a_user_namespace_maps_ids", &[], a_user_namespace_maps_ids),
    // crun makes maps up.
    ("a_user_namespace_needs_maps", &["crun"], a_user_namespace_needs_maps),
    // Not in runc 1.1; crun 1.8 fails on this kernel.
    ("a_time_namespace_has_its_offset", &["runc", "crun"], a_time_namespace_has_its_offset),
    // runc 1.1 knows no domain name.
    ("names_of_the_host", &["runc"], names_of_the_host),
    ("a_host_name_needs_a_namespace", &[], a_host_name_needs_a_namespace),
    ("kernel_settings", &[], kernel_settings),
    ("settings_of_the_host_are_refused", &[], settings_of_the_host_are_refused),
    ("limits_are_in_the_cgroup", &[], limits_are_in_the_cgroup),
    ("limits_change_in_place", &[], limits_change_in_place),
    ("devices_are_shut_by_default", &[], devices_are_shut_by_default),
    ("devices_are_opened_by_rules", &[], devices_are_opened_by_rules),
    ("a_cgroup_namespace_hides_the_path", &[], a_cgroup_namespace_hides_the_path),
    ("cgroups_are_mounted", &[], cgroups_are_mounted),
    ("seccomp_refuses_by_errno", &[], seccomp_refuses_by_errno),
    ("seccomp_looks_at_arguments", &[], seccomp_looks_at_arguments),
    ("seccomp_kills", &[], seccomp_kills),
    ("seccomp_without_no_new_privileges", &[], seccomp_without_no_new_privileges),
    // runc 1.1 refuses every flag.
    ("seccomp_takes_the_kernels_flags", &["runc"], seccomp_takes_the_kernels_flags),
    // Neither looks.
    ("wrong_versions_are_refused", &["runc", "crun"], wrong_versions_are_refused),
    // crun has no such verb.
    ("events_count", &["crun"], events_count),
    // Newer than crun 1.8.
    ("features_are_told", &["crun"], features_are_told),
    ("spec_writes_a_template", &[], spec_writes_a_template),
];

fn set_namespaces(spec: &mut Value, kinds: &[&str]) {
    spec["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
}

fn link(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

fn new_namespaces_are_new_and_others_are_the_callers(peer: &Peer) {
    let all = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let files = ["pid", "net", "ipc", "uts", "mnt", "cgroup"];
    for left_out in [None, Some("network"), Some("ipc"), Some("uts"), Some("pid"), Some("cgroup")] {
        let bundle = peer.bundle(|spec| {
            let kinds: Vec<&str> = all.into_iter().filter(|kind| Some(*kind) != left_out).collect();
            set_namespaces(spec, &kinds);
            spec.as_object_mut().unwrap().remove("hostname");
        });
        bundle.start();
        let pid = bundle.pid().to_string();
        for (kind, file) in all.iter().zip(files) {
            assert_eq!(link(&pid, file) == link("self", file), Some(*kind) == left_out, "{kind}, without {left_out:?}");
        }
        let exec = bundle.exec("readlink /proc/self/ns/net").out;
        assert_eq!(exec.trim(), link(&pid, "net"));
        bundle.kill_and_delete();
    }
}

fn namespaces_are_joined_by_path(peer: &Peer) {
    let first = peer.bundle(|_| {});
    first.start();
    let pid = first.pid().to_string();
    let second = peer.bundle(|spec| {
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            let file = match kind.as_str() {
                "network" => "net",
                "mount" => continue,
                other => other,
            };
            namespace["path"] = format!("/proc/{pid}/ns/{file}").into();
        }
        spec.as_object_mut().unwrap().remove("hostname");
    });
    second.start();
    let own = second.pid().to_string();
    for file in ["net", "ipc", "uts", "pid"] {
        assert_eq!(link(&own, file), link(&pid, file), "{file}");
    }
    assert_ne!(link(&own, "mnt"), link(&pid, "mnt"));
    assert_eq!(second.exec("hostname").out, "box\n");
    second.kill_and_delete();
    first.kill_and_delete();
}

fn a_path_that_is_no_namespace_is_refused(peer: &Peer) {
    for path in ["/no/such/file", "/proc/self/ns/uts", "/etc/hostname"] {
        let bundle = peer.bundle(|spec| spec["linux"]["namespaces"][1]["path"] = path.into());
        assert_ne!(bundle.create().code, 0, "{path}");
        assert_ne!(bundle.call("state").code, 0);
    }
}

fn a_namespace_named_twice_is_refused(peer: &Peer) {
    let bundle = peer.bundle(|spec| set_namespaces(spec, &["pid", "mount", "uts", "ipc", "network", "pid"]));
    assert_ne!(bundle.create().code, 0);
}

fn with_user_namespace(spec: &mut Value) {
    set_namespaces(spec, &["pid", "network", "ipc", "uts", "mount", "user"]);
    spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 2000}]);
    spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 2000}]);
}

fn a_user_namespace_maps_ids(peer: &Peer) {
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; stat -c %u /dev/null; echo x > /dev/null && echo ok";
    let bundle = peer.script_bundle(script, with_user_namespace);
    let chain: Vec<_> = bundle.dir.ancestors().collect();
    for dir in chain.iter().filter(|dir| dir.starts_with(std::env::temp_dir()) && **dir != std::env::temp_dir()) {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let outcome = bundle.run();
    let lines: Vec<&str> = outcome.out.lines().map(str::trim).collect();
    assert!(lines.len() == 5, "{outcome:?}");
    assert_eq!(lines[..3], ["0 100000 2000", "0 200000 2000", "0"], "{outcome:?}");
    // runc binds the host's own nodes in, whose owner is nobody here.
    assert!(["0", "65534"].contains(&lines[3]) && lines[4] == "ok", "{outcome:?}");
}

fn a_user_namespace_needs_maps(peer: &Peer) {
    let bundle = peer.bundle(|spec| set_namespaces(spec, &["pid", "network", "ipc", "uts", "mount", "user"]));
    assert_ne!(bundle.create().code, 0);
}

fn a_time_namespace_has_its_offset(peer: &Peer) {
    let out = peer.output("cut -d. -f1 /proc/uptime", |spec| {
        set_namespaces(spec, &["pid", "network", "ipc", "uts", "mount", "time"]);
        spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 10_000_000, "nanosecs": 0}});
    });
    assert!(out.trim().parse::<u64>().unwrap() >= 10_000_000, "{out}");
}

fn names_of_the_host(peer: &Peer) {
    let out = peer.output("hostname; cat /proc/sys/kernel/domainname", |spec| spec["domainname"] = "example".into());
    assert_eq!(out, "box\nexample\n");
}

fn a_host_name_needs_a_namespace(peer: &Peer) {
    let bundle = peer.bundle(|spec| set_namespaces(spec, &["pid", "network", "ipc", "mount"]));
    assert_ne!(bundle.create().code, 0);
}

fn kernel_settings(peer: &Peer) {
    let out =
        peer.output("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max", |spec| {
            spec["linux"]["sysctl"] =
                json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096", "fs.mqueue.msg_max": "77"});
        });
    assert_eq!(out, "1\n4096\n77\n");
}

fn settings_of_the_host_are_refused(peer: &Peer) {
    for name in ["kernel.core_pattern", "vm.swappiness", "kernel.pid_max"] {
        let bundle = peer.bundle(|spec| spec["linux"]["sysctl"] = json!({name: "1"}));
        assert_ne!(bundle.create().code, 0, "{name}");
    }
}

fn limits_are_in_the_cgroup(peer: &Peer) {
    let bundle = peer.bundle(|spec| {
        let resources = &mut spec["linux"]["resources"];
        resources["memory"] = json!({"limit": 67_108_864, "reservation": 33_554_432});
        resources["cpu"] = json!({"shares": 512, "quota": 25_000, "period": 50_000, "cpus": "0"});
        resources["pids"] = json!({"limit": 99});
    });
    bundle.start();
    assert_eq!(bundle.cgroup_file("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(bundle.cgroup_file("memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
    assert!(["512", "20"].contains(&bundle.cgroup_file("cpu", "cpu.shares", "cpu.weight").as_str()));
    assert!(["25000", "25000 50000"].contains(&bundle.cgroup_file("cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert_eq!(bundle.cgroup_file("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(bundle.cgroup_file("pids", "pids.max", "pids.max"), "99");
    bundle.kill_and_delete();
}

fn limits_change_in_place(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["linux"]["resources"]["memory"] = json!({"limit": 67_108_864}));
    bundle.start();
    let updated =
        peer.call(&["update", "--memory", "134217728", "--pids-limit", "55", "--cpu-share", "256", &bundle.id]);
    assert_eq!(updated.code, 0, "{updated:?}");
    assert_eq!(bundle.cgroup_file("memory", "memory.limit_in_bytes", "memory.max"), "134217728");
    assert_eq!(bundle.cgroup_file("pids", "pids.max", "pids.max"), "55");
    let file = bundle.dir.join("resources.json");
    fs::write(&file, json!({"memory": {"limit": 50_331_648}}).to_string()).unwrap();
    assert_eq!(peer.call(&["update", "--resources", file.to_str().unwrap(), &bundle.id]).code, 0);
    assert_eq!(bundle.cgroup_file("memory", "memory.limit_in_bytes", "memory.max"), "50331648");
    bundle.kill_and_delete();
}

fn with_mknod(spec: &mut Value) {
    let caps = json!(["CAP_MKNOD"]);
    spec["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
    // Nothing every container has, and harmless to open.
    spec["linux"]["devices"] =
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}]);
}

const OPEN: &str = "(exec 3< /dev/fuse) 2> /dev/null && echo open || echo shut; head -c 1 /dev/zero | wc -c";

fn devices_are_shut_by_default(peer: &Peer) {
    let bundle = peer.script_bundle(OPEN, with_mknod);
    assert_eq!(bundle.run().out, "shut\n1\n");
}

fn devices_are_opened_by_rules(peer: &Peer) {
    let bundle = peer.script_bundle(OPEN, |spec| {
        with_mknod(spec);
        spec["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
        ]);
    });
    assert_eq!(bundle.run().out, "open\n1\n");
}

fn a_cgroup_namespace_hides_the_path(peer: &Peer) {
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let out = peer.output("grep -E 'memory|^0::' /proc/self/cgroup | cut -d: -f3", |spec| set_namespaces(spec, &kinds));
    assert!(out.lines().all(|line| line == "/"), "{out}");
}

fn cgroups_are_mounted(peer: &Peer) {
    for kinds in [&["pid", "network", "ipc", "uts", "mount", "cgroup"][..], &["pid", "network", "ipc", "uts", "mount"]]
    {
        let script = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
        let out = peer.output(script, |spec| {
            set_namespaces(spec, kinds);
            spec["linux"]["resources"]["pids"] = json!({"limit": 77});
            let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        });
        assert_eq!(out, "77\n", "{kinds:?}");
    }
}

fn seccomp(spec: &mut Value, rule: Value) {
    spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"], "syscalls": [rule]});
}

fn seccomp_refuses_by_errno(peer: &Peer) {
    let bundle = peer.script_bundle("mkdir /made", |spec| {
        seccomp(spec, json!({"names": ["mkdir", "mkdirat", "nosuchcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}));
    });
    let outcome = bundle.run();
    assert!(outcome.code == 1 && outcome.err.contains("No space left"), "{outcome:?}");
}

fn seccomp_looks_at_arguments(peer: &Peer) {
    let arg = json!([{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}]);
    let bundle = peer.script_bundle("chmod 755 /data && echo one; chmod 700 /data || echo two", |spec| {
        seccomp(spec, json!({"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": arg}));
    });
    std::os::unix::fs::symlink("busybox", bundle.dir.join("rootfs/bin/chmod")).unwrap();
    assert_eq!(bundle.run().out, "one\ntwo\n");
}

fn seccomp_kills(peer: &Peer) {
    let bundle = peer.script_bundle("sh -c 'mkdir /made'; echo $?", |spec| {
        seccomp(spec, json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}));
    });
    // SIGSYS is 31.
    assert_eq!(bundle.run().out, "159\n");
}

/// With SPEC_ALLOW a filter leaves the mitigation of speculative stores alone.
fn seccomp_takes_the_kernels_flags(peer: &Peer) {
    for flags in
        [json!(["SECCOMP_FILTER_FLAG_LOG"]), json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"])]
    {
        let output = peer.output("grep -c Seccomp_filters: /proc/self/status; mkdir /made || echo refused", |spec| {
            seccomp(spec, json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}));
            spec["linux"]["seccomp"]["flags"] = flags;
        });
        assert_eq!(output, "1\nrefused\n");
    }
}

fn seccomp_without_no_new_privileges(peer: &Peer) {
    let out = peer.output("mkdir /made 2>/dev/null || echo refused; grep Seccomp: /proc/self/status", |spec| {
        spec["process"]["noNewPrivileges"] = false.into();
        seccomp(spec, json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}));
    });
    assert_eq!(out, "refused\nSeccomp:\t2\n");
}

fn wrong_versions_are_refused(peer: &Peer) {
    for version in ["", "1", "2.0.0", "x"] {
        assert_ne!(peer.bundle(|spec| spec["ociVersion"] = version.into()).create().code, 0, "{version}");
    }
}

fn events_count(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 99}));
    bundle.start();
    let events = peer.call(&["events", "--stats", &bundle.id]);
    let event: Value = serde_json::from_str(events.out.lines().next().unwrap()).unwrap();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(bundle.id.as_str())));
    assert_eq!(
        (event["data"]["pids"]["current"].as_u64(), event["data"]["pids"]["limit"].as_u64()),
        (Some(1), Some(99))
    );
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{event}");
    wait_until("some time on a CPU", || {
        bundle.exec("true");
        let events = peer.call(&["events", "--stats", &bundle.id]);
        let event: Value = serde_json::from_str(events.out.lines().next().unwrap()).unwrap();
        event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0
    });
    bundle.kill_and_delete();
}

fn features_are_told(peer: &Peer) {
    let features: Value = serde_json::from_str(&peer.call(&["features"]).out).unwrap();
    let lists = |list: &Value, wanted: &str| list.as_array().unwrap().iter().any(|one| one == wanted);
    assert!(features["ociVersionMax"].as_str().unwrap().starts_with("1."));
    assert!(lists(&features["hooks"], "createContainer") && lists(&features["mountOptions"], "rbind"));
    assert!(lists(&features["linux"]["namespaces"], "cgroup") && lists(&features["linux"]["capabilities"], "CAP_BPF"));
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

fn spec_writes_a_template(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    let mut command = peer.command();
    assert!(command.arg("spec").current_dir(&bundle.dir).status().unwrap().success());
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(bundle.dir.join("config.json")).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["sh", "-c", "echo from the template"]);
    fs::write(bundle.dir.join("config.json"), spec.to_string()).unwrap();
    let said = bundle.run();
    assert_eq!(said.out, "from the template\n", "{said:?}");
}
