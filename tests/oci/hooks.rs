//! Hooks (OCI config, "POSIX-platform Hooks"): when they run, where, and what they are told.

use std::fs;

use serde_json::{Value, json};

use super::Case;
use super::lab::{Bundle, Peer};

pub(crate) const CASES: &[Case] = &[
    ("hooks_run_in_their_order_and_are_told_the_state", &[], hooks_run_in_their_order_and_are_told_the_state),
    ("hooks_run_on_their_side", &[], hooks_run_on_their_side),
    ("a_failing_hook_fails_the_create", &[], a_failing_hook_fails_the_create),
    // crun runs them at create.
    ("a_failing_hook_fails_the_start", &["crun"], a_failing_hook_fails_the_start),
    // runc runs them at create, crun only warns, as the specification wanted until 1.2.
    ("a_failing_poststart_hook_ends_the_container", &["runc", "crun"], a_failing_poststart_hook_ends_the_container),
    // Only its newest versions.
    ("a_hook_inside_has_the_programs_environment", &["runc", "crun"], a_hook_inside_has_the_programs_environment),
    ("a_hook_has_its_time", &[], a_hook_has_its_time),
    ("a_hook_gets_its_own_arguments_and_environment", &[], a_hook_gets_its_own_arguments_and_environment),
    ("a_hook_mounts_into_the_root", &[], a_hook_mounts_into_the_root),
];

const KINDS: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

/// A hook that appends the state it is told to a file.
fn noting(kind: &str, file: &std::path::Path) -> Value {
    let script = format!("echo {kind} $(cat) >> {}", file.display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

fn noted(file: &std::path::Path) -> Vec<(String, Value)> {
    let text = fs::read_to_string(file).unwrap();
    let part = |line: &str| {
        let (kind, state) = line.split_once(' ').unwrap();
        (kind.to_owned(), serde_json::from_str(state).unwrap())
    };
    text.lines().map(part).collect()
}

fn hooks_run_in_their_order_and_are_told_the_state(peer: &Peer) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hooks");
    let bundle = peer.bundle(|spec| {
        spec["hooks"] = KINDS
            .iter()
            .map(|kind| ((*kind).to_owned(), noting(kind, &file)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        spec["annotations"] = json!({"org.example.a": "b"});
    });
    bundle.start();
    let pid = bundle.pid();
    bundle.kill_and_delete();
    let noted = noted(&file);
    let kinds: Vec<&str> = noted.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, KINDS);
    for (kind, state) in &noted {
        assert_eq!(state["id"], bundle.id.as_str(), "{kind}");
        assert_eq!(state["bundle"], bundle.dir.to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"]["org.example.a"], "b", "{kind}");
        if kind == "prestart" || kind == "createRuntime" || kind == "poststart" {
            assert_eq!(state["pid"], pid, "{kind}");
        }
    }
    if peer.is_ours() {
        let of =
            |kind: &str| noted.iter().find(|(name, _)| name == kind).unwrap().1["status"].as_str().unwrap().to_owned();
        let status: Vec<String> = KINDS.iter().map(|kind| of(kind)).collect();
        assert_eq!(status, ["created", "creating", "creating", "running", "stopped"]);
        assert!(noted.iter().all(|(_, state)| state["ociVersion"] == "1.0.2"), "{noted:?}");
    }
}

fn hooks_run_on_their_side(peer: &Peer) {
    let dir = tempfile::tempdir().unwrap();
    let hook = |name: &str| {
        let script = format!("readlink /proc/self/ns/uts > {}", dir.path().join(name).display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    let bundle = peer.bundle(|spec| {
        spec["hooks"] = json!({
            "createRuntime": hook("runtime"),
            "createContainer": hook("container"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "readlink /proc/self/ns/uts > /tmp/started; hostname >> /tmp/started"], "env": ["PATH=/bin"]}],
        });
    });
    bundle.start();
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap();
    let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/uts")).unwrap().to_string_lossy().into_owned() + "\n";
    let inside = link(&bundle.pid().to_string());
    assert_eq!(read(dir.path().join("runtime")), link("self"));
    assert_eq!(read(dir.path().join("container")), inside);
    assert_eq!(read(bundle.dir.join("rootfs/tmp/started")), format!("{inside}box\n"));
    bundle.kill_and_delete();
}

fn failing<'a>(peer: &'a Peer, kind: &str) -> Bundle<'a> {
    peer.bundle(|spec| {
        spec["hooks"] = json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]})
    })
}

fn a_failing_hook_fails_the_create(peer: &Peer) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let bundle = failing(peer, kind);
        let created = bundle.create();
        assert_ne!(created.code, 0, "{kind}");
        assert_ne!(bundle.call("state").code, 0, "{kind}");
        if peer.is_ours() {
            assert!(created.err.contains(kind) || kind == "prestart", "{created:?}");
            assert!(created.err.contains("because"), "{created:?}");
        }
    }
}

fn a_failing_hook_fails_the_start(peer: &Peer) {
    let bundle = peer.bundle(|spec| {
        spec["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]})
    });
    assert_eq!(bundle.create().code, 0);
    let started = bundle.call("start");
    // runc's start does not wait for what becomes of it.
    assert!(started.code != 0 || peer.name != "boxship", "{started:?}");
    bundle.wait_status("stopped");
    assert_eq!(bundle.call_with("delete", &["--force"]).code, 0);
}

fn a_failing_poststart_hook_ends_the_container(peer: &Peer) {
    let bundle = failing(peer, "poststart");
    assert_eq!(bundle.create().code, 0);
    let started = bundle.call("start");
    assert_ne!(started.code, 0, "{started:?}");
    bundle.wait_status("stopped");
    if peer.is_ours() {
        assert!(started.err.contains("because"), "{started:?}");
    }
    assert_eq!(bundle.call("delete").code, 0);
}

fn a_hook_inside_has_the_programs_environment(peer: &Peer) {
    let script = "echo $A-$B > /tmp/seen";
    let hook = |env: Value| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": env});
    for (env, seen) in [(Value::Null, "one-two\n"), (json!(["PATH=/bin", "B=own"]), "-own\n")] {
        let bundle = peer.bundle(|spec| {
            spec["process"]["env"] = json!(["PATH=/bin", "A=one", "B=two"]);
            spec["hooks"] = json!({"startContainer": [hook(env)]});
        });
        bundle.start();
        assert_eq!(fs::read_to_string(bundle.dir.join("rootfs/tmp/seen")).unwrap(), seen);
        bundle.kill_and_delete();
    }
}

fn a_hook_has_its_time(peer: &Peer) {
    let hook = json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
    let bundle = peer.bundle(|spec| spec["hooks"] = json!({"createRuntime": hook}));
    assert_ne!(bundle.create().code, 0);
}

fn a_hook_gets_its_own_arguments_and_environment(peer: &Peer) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("cat > /dev/null; echo $0 $1 $A $HOME > {}", dir.path().join("x").display());
    let bundle = peer.bundle(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "A=of the container", "LD_PRELOAD=/evil.so"]);
        spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["A=hook"]}]});
    });
    assert_eq!(bundle.create().code, 0);
    assert_eq!(fs::read_to_string(dir.path().join("x")).unwrap(), "zero one hook\n");
    bundle.kill_and_delete();
}

/// As hooks for graphics cards do.
fn a_hook_mounts_into_the_root(peer: &Peer) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("driver"), "from the host\n").unwrap();
    let bundle = peer.script_bundle("cat /data/driver", |spec| {
        let script = format!("mount --bind {} rootfs/data", dir.path().display());
        let script = format!("cd $(cat | tr , '\\n' | grep bundle | cut -d'\"' -f4) && {script}");
        spec["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]});
    });
    let outcome = bundle.run();
    assert_eq!(outcome.out, "from the host\n", "{outcome:?}");
}
