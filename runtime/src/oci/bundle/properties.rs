//! Any `config.json`: never a panic, an error names the property, and what is accepted is the same when it is written and
//! read again. [`fuzz_one`] takes bytes as any fuzzer has them; the properties below feed it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cgroup::{devices, resources};
use crate::rootfs::mounts::{Surroundings, plan};

/// Nearly every property there is, each with a value that is accepted.
fn full() -> Value {
    let mut spec: Value = serde_json::from_str(include_str!("../template.json")).unwrap();
    spec["domainname"] = json!("example");
    spec["annotations"] = json!({"org.example.key": "value"});
    let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 3}]);
    spec["hooks"] = json!({"prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
        "poststart": hook, "poststop": hook});
    let process = &mut spec["process"];
    process["consoleSize"] = json!({"height": 24, "width": 80});
    process["user"] = json!({"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]});
    process["oomScoreAdj"] = json!(100);
    process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 4});
    process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    process["execCPUAffinity"] = json!({"initial": "0-1", "final": "1"});
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts
        .push(json!({"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rro", "ridmap"],
        "uidMappings": map, "gidMappings": map}));
    let linux = &mut spec["linux"];
    linux["namespaces"].as_array_mut().unwrap().extend([json!({"type": "user"}), json!({"type": "time"})]);
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    linux["timeOffsets"] = json!({"monotonic": {"secs": 5, "nanosecs": 7}});
    linux["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel/shmmax": "4096"});
    linux["cgroupsPath"] = json!("/a/b");
    linux["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0,
        "gid": 0}]);
    linux["rootfsPropagation"] = json!("slave");
    linux["personality"] = json!({"domain": "LINUX32"});
    linux["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["read", "clone"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
            "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}]});
    linux["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]});
    linux["netDevices"] = json!({"eth9": {"name": "eth0"}});
    let throttle = json!([{"major": 8, "minor": 0, "rate": 1_000}]);
    linux["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}],
        "memory": {"limit": 1_000_000, "reservation": 5, "swap": 2_000_000, "kernel": -1, "kernelTCP": -1,
            "swappiness": 10, "disableOOMKiller": false, "useHierarchy": true, "checkBeforeUpdate": true},
        "cpu": {"shares": 1024, "quota": 5_000, "period": 100_000, "burst": 3, "realtimeRuntime": 1,
            "realtimePeriod": 2, "cpus": "0-1", "mems": "0", "idle": 0},
        "pids": {"limit": 100},
        "blockIO": {"weight": 10, "leafWeight": 20, "weightDevice": [{"major": 8, "minor": 0, "weight": 5}],
            "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
            "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
        "unified": {"memory.high": "1000"},
    });
    spec
}

/// The paths of all values of a document, as JSON pointers.
fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let at = format!("{at}/{}", escape(key));
                into.push(at.clone());
                pointers(value, &at, into);
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                let at = format!("{at}/{number}");
                into.push(at.clone());
                pointers(value, &at, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn odd(number: u8) -> Value {
    const TEXTS: [&str; 12] =
        ["", "/", "..", "../../x", "x\0y", "bind", "tmpfs", "user", "0-", "4294967295", "SCMP_ACT_NOTIFY", "\u{1f980}"];
    match number % 24 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(0),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1.5),
        7 => json!([]),
        8 => json!({}),
        9 => json!([null]),
        10 => json!({"odd": [true]}),
        11 => json!("x".repeat(5_000)),
        text => json!(TEXTS[usize::from(text) - 12]),
    }
}

/// One change: which value, what happens to it.
fn mutate(spec: &mut Value, which: u16, how: u8) -> String {
    let mut all = Vec::new();
    pointers(spec, "", &mut all);
    let Some(pointer) = all.get(usize::from(which) % all.len().max(1)).cloned() else { return String::new() };
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match how {
        0..=127 => *spec.pointer_mut(&pointer).unwrap() = odd(how),
        128..=191 => match spec.pointer_mut(parent) {
            Some(Value::Object(map)) => drop(map.remove(&key.replace("~1", "/").replace("~0", "~"))),
            Some(Value::Array(list)) => drop(list.remove(key.parse().unwrap())),
            _ => *spec = json!([]),
        },
        192..=223 => {
            let copy = spec.pointer(&pointer).cloned().unwrap();
            if let Some(Value::Array(list)) = spec.pointer_mut(parent) {
                list.push(copy);
            }
        }
        224.. => {
            let from = all[usize::from(how) % all.len()].clone();
            let other = spec.pointer(&from).cloned().unwrap();
            *spec.pointer_mut(&pointer).unwrap() = other;
        }
    }
    pointer
}

/// Bytes as a document: with a first even byte they are one, else they say how the full one is changed.
fn fuzz_one(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    if first % 2 == 0 {
        check(rest);
        return;
    }
    let mut spec = full();
    for change in rest.chunks_exact(3) {
        mutate(&mut spec, u16::from_be_bytes([change[0], change[1]]), change[2]);
    }
    check(&serde_json::to_vec(&spec).unwrap());
}

const PROPERTIES: [&str; 9] =
    ["ociVersion", "root", "process", "linux", "mounts", "hostname", "domainname", "hooks", "annotations"];

fn check(text: &[u8]) -> Option<String> {
    let bundle = match examine(text, PathBuf::from("/bundle"), "c1") {
        Ok(bundle) => bundle,
        Err(error) => {
            let said = error.to_string();
            let named = PROPERTIES.iter().any(|name| said.contains(&format!("`{name}")));
            let whole = said.contains("`config.json`") || said.contains("is no JSON");
            assert!(named || whole, "no property is named: {said}");
            return Some(said);
        }
    };
    let Bundle { spec, launch, .. } = bundle;
    for bits in 0..8 {
        let around = Surroundings {
            user: bits & 1 != 0,
            network: bits & 2 != 0,
            cgroup_given: bits & 4 != 0,
            cgroup_own: bits & 4 == 0,
        };
        // a mount it cannot make is an error of its own
        drop(plan(&spec, &launch, around));
    }
    assert!(!launch.cgroup.split('/').any(|part| matches!(part, "" | "." | "..")), "{}", launch.cgroup);
    let linux = spec.linux().as_ref().expect("it is checked");
    let limits = linux.resources().as_ref().expect("it has some then");
    for setting in resources::v1(limits).into_iter().chain(resources::v2(limits)) {
        assert!(!setting.file.contains('/') && setting.file != "..", "{setting:?}");
    }
    drop(devices::program::v2(limits.devices().as_deref().unwrap_or_default()));
    let again: Spec = serde_json::from_slice(&serde_json::to_vec(&spec).unwrap()).expect("what is written is read");
    assert_eq!(again, spec);
    validate::check(&again).expect("what was right is right");
    None
}

#[test]
fn the_full_document_is_accepted_and_has_everything() {
    let spec = full();
    assert_eq!(check(&serde_json::to_vec(&spec).unwrap()), None);
    let mut all = Vec::new();
    pointers(&spec, "", &mut all);
    assert!(all.len() > 300, "{}", all.len());
    // what the parser does not know would be lost
    let mut adjusted = spec.clone();
    assert_eq!(adjust_process(&mut adjusted["process"]), [""; 0]);
    let parsed: Spec = serde_json::from_value(adjusted).unwrap();
    let mut known = Vec::new();
    pointers(&serde_json::to_value(parsed).unwrap(), "", &mut known);
    let known: BTreeSet<String> = known.into_iter().collect();
    let lost: Vec<&String> = all.iter().filter(|pointer| !known.contains(*pointer)).collect();
    assert_eq!(lost, [""; 0]);
}

#[test]
fn what_is_no_document_is_told() {
    for text in ["", "[]", "{", "null", "3", "{\"process\": []}", "{\"process\": {\"capabilities\": 3}}"] {
        assert!(check(text.as_bytes()).is_some(), "{text}");
    }
}

/// The property that is wrong, as the error names it, for one wrong value at each place of the full document.
#[test]
fn a_wrong_value_is_named_by_its_path() {
    let mut all = Vec::new();
    pointers(&full(), "", &mut all);
    for pointer in all {
        let mut spec = full();
        *spec.pointer_mut(&pointer).unwrap() = json!({"odd": [true]});
        let Some(said) = check(&serde_json::to_vec(&spec).unwrap()) else { continue };
        let first = pointer.trim_start_matches('/').split('/').next().unwrap();
        // without its list of namespaces, something else has none
        if said.contains(" namespace") {
            continue;
        }
        let names = said.split('`').skip(1).step_by(2);
        let is_near = names.into_iter().any(|name| name.split(['.', '[']).next() == Some(first));
        assert!(is_near, "{pointer}: {said}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_told_from_a_configuration(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_one(&data);
    }

    #[test]
    fn any_change_of_a_configuration_is_survived(changes in prop::collection::vec(any::<u8>(), 3..13)) {
        fuzz_one(&[&[1], &changes[..]].concat());
    }

    /// Text that is nearly right: cut off, or with a byte changed.
    #[test]
    fn a_torn_configuration_is_told(cut in any::<prop::sample::Index>(), byte in any::<u8>(), whole in any::<bool>()) {
        let mut text = serde_json::to_vec(&full()).unwrap();
        let at = cut.index(text.len());
        if whole {
            text[at] = byte;
        } else {
            text.truncate(at);
        }
        fuzz_one(&[&[0], &text[..]].concat());
    }
}
