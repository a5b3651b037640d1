//! States and transitions (OCI runtime, "Runtime and Lifecycle").

use std::process::Stdio;

use serde_json::json;

use super::Case;
use super::lab::{Peer, finish, wait_until};

pub(crate) const CASES: &[Case] = &[
    ("a_container_goes_through_its_states", &[], a_container_goes_through_its_states),
    ("state_says_what_the_specification_asks_for", &[], state_says_what_the_specification_asks_for),
    ("an_id_is_taken_once", &[], an_id_is_taken_once),
    ("a_bundle_without_configuration_is_refused", &[], a_bundle_without_configuration_is_refused),
    ("a_container_starts_once", &[], a_container_starts_once),
    ("a_stopped_container_does_not_start", &[], a_stopped_container_does_not_start),
    // crun takes a signal to a dead container for delivered.
    ("only_what_lives_is_signalled", &["crun"], only_what_lives_is_signalled),
    // crun 1.8 sends something for any word.
    ("a_signal_arrives", &["crun"], a_signal_arrives),
    ("a_running_container_is_not_deleted", &[], a_running_container_is_not_deleted),
    // runc kills and removes a created container although nobody forced it.
    ("a_created_container_is_not_deleted", &["runc", "crun"], a_created_container_is_not_deleted),
    // crun tells of a container that is not there even when forced.
    ("force_deletes_anything", &["crun"], force_deletes_anything),
    ("a_deleted_container_is_gone", &[], a_deleted_container_is_gone),
    ("what_is_not_there_is_an_error", &[], what_is_not_there_is_an_error),
    ("a_deleted_id_is_free", &[], a_deleted_id_is_free),
    ("run_gives_the_exit_code", &[], run_gives_the_exit_code),
    ("run_tells_of_a_signal", &[], run_tells_of_a_signal),
    ("run_leaves_nothing_behind", &[], run_leaves_nothing_behind),
    ("the_configuration_is_read_at_create", &[], the_configuration_is_read_at_create),
    // Neither takes options after the id.
    ("options_stand_before_and_after_the_id", &["runc", "crun"], options_stand_before_and_after_the_id),
    ("the_pid_file_holds_the_host_pid", &[], the_pid_file_holds_the_host_pid),
    ("list_shows_every_container", &[], list_shows_every_container),
    ("a_pause_stops_time", &[], a_pause_stops_time),
    ("only_what_runs_is_paused", &[], only_what_runs_is_paused),
    // crun says which file is missing instead.
    ("a_log_in_json_says_what_failed", &["crun"], a_log_in_json_says_what_failed),
    ("a_failed_create_leaves_nothing", &[], a_failed_create_leaves_nothing),
    // crun's `ps` prints pids alone.
    ("kill_all_reaches_every_process", &["crun"], kill_all_reaches_every_process),
    // The same.
    ("ps_lists_its_processes", &["crun"], ps_lists_its_processes),
    // What is counted is ours.
    ("the_start_path_makes_few_system_calls", &["runc", "crun"], the_start_path_makes_few_system_calls),
    ("bad_ids_are_refused", &[], bad_ids_are_refused),
];

fn a_container_goes_through_its_states(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    assert_eq!(bundle.create().code, 0);
    assert_eq!(bundle.status(), "created");
    assert_eq!(bundle.call("start").code, 0);
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.call_with("kill", &["KILL"]).code, 0);
    bundle.wait_status("stopped");
    assert_eq!(bundle.call("delete").code, 0);
    assert_ne!(bundle.call("state").code, 0);
}

fn state_says_what_the_specification_asks_for(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["annotations"] = json!({"org.example.a": "b"}));
    assert_eq!(bundle.create().code, 0);
    let state = bundle.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], bundle.id.as_str());
    assert_eq!(state["bundle"].as_str().unwrap(), bundle.dir.to_str().unwrap());
    assert_eq!(state["annotations"], json!({"org.example.a": "b"}));
    let pid = state["pid"].as_i64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    bundle.kill_and_delete();
}

fn an_id_is_taken_once(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    assert_eq!(bundle.create().code, 0);
    let pid = bundle.pid();
    assert_ne!(bundle.create().code, 0);
    assert_eq!((bundle.status(), bundle.pid()), ("created".to_owned(), pid));
    bundle.kill_and_delete();
}

fn a_bundle_without_configuration_is_refused(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    std::fs::remove_file(bundle.dir.join("config.json")).unwrap();
    assert_ne!(bundle.create().code, 0);
    assert_ne!(bundle.call("state").code, 0);
    std::fs::write(bundle.dir.join("config.json"), "{").unwrap();
    assert_ne!(bundle.create().code, 0);
}

fn a_container_starts_once(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    assert_ne!(bundle.call("start").code, 0);
    assert_eq!(bundle.status(), "running");
    bundle.kill_and_delete();
}

fn a_stopped_container_does_not_start(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["process"]["args"] = json!(["true"]));
    bundle.start();
    bundle.wait_status("stopped");
    assert_ne!(bundle.call("start").code, 0);
    assert_eq!(bundle.call("delete").code, 0);
}

fn only_what_lives_is_signalled(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["process"]["args"] = json!(["true"]));
    bundle.start();
    bundle.wait_status("stopped");
    assert_ne!(bundle.call_with("kill", &["TERM"]).code, 0);
    assert_eq!(bundle.status(), "stopped");
    assert_eq!(bundle.call("delete").code, 0);
}

fn a_signal_arrives(peer: &Peer) {
    let script = "trap 'echo got; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    let bundle = peer.script_bundle(script, |_| {});
    bundle.start();
    wait_until("the trap", || bundle.log() == "ready\n");
    assert_ne!(bundle.call_with("kill", &["NOSUCH"]).code, 0);
    assert_eq!(bundle.call_with("kill", &["USR1"]).code, 0);
    bundle.wait_status("stopped");
    assert_eq!(bundle.log(), "ready\ngot\n");
    assert_eq!(bundle.call("delete").code, 0);
}

fn a_running_container_is_not_deleted(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    assert_ne!(bundle.call("delete").code, 0);
    assert_eq!(bundle.status(), "running");
    bundle.kill_and_delete();
}

fn a_created_container_is_not_deleted(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    assert_eq!(bundle.create().code, 0);
    assert_ne!(bundle.call("delete").code, 0);
    assert_eq!(bundle.status(), "created");
    bundle.kill_and_delete();
}

fn force_deletes_anything(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    assert_eq!(bundle.call_with("delete", &["--force"]).code, 0);
    assert_ne!(bundle.call("state").code, 0);
    assert_eq!(bundle.call_with("delete", &["--force"]).code, 0);
}

fn a_deleted_container_is_gone(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let pid = bundle.pid();
    bundle.kill_and_delete();
    for verb in ["state", "start", "delete", "pause", "resume"] {
        assert_ne!(bundle.call(verb).code, 0, "{verb}");
    }
    assert!(!std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists());
}

fn what_is_not_there_is_an_error(peer: &Peer) {
    for args in [&["state", "nobody"][..], &["start", "nobody"], &["kill", "nobody", "TERM"], &["delete", "nobody"]] {
        assert_ne!(peer.call(args).code, 0, "{args:?}");
    }
    for args in [&["state"][..], &["start"], &["kill"], &["delete"], &["create"]] {
        assert_ne!(peer.call(args).code, 0, "{args:?}");
    }
}

fn a_deleted_id_is_free(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    for _ in 0..2 {
        bundle.start();
        bundle.kill_and_delete();
    }
}

fn run_gives_the_exit_code(peer: &Peer) {
    let outcome = peer.script_bundle("echo out; echo err >&2; exit 7", |_| {}).run();
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (7, "out\n", "err\n"));
}

fn run_tells_of_a_signal(peer: &Peer) {
    let script = "sh -c 'kill -TERM $$'; exit $?";
    assert_eq!(peer.script_bundle(script, |_| {}).run().code, 143);
}

fn run_leaves_nothing_behind(peer: &Peer) {
    let bundle = peer.script_bundle("true", |_| {});
    assert_eq!(bundle.run().code, 0);
    assert_ne!(bundle.call("state").code, 0);
    let left = |root: &str| std::path::Path::new(root).join("boxship-oci-test").join(&bundle.id).exists();
    assert!(!left("/sys/fs/cgroup") && !left("/sys/fs/cgroup/memory") && !left("/sys/fs/cgroup/unified"));
    assert_eq!(bundle.run().code, 0);
}

fn the_configuration_is_read_at_create(peer: &Peer) {
    let bundle = peer.script_bundle("echo as created", |_| {});
    assert_eq!(bundle.create().code, 0);
    std::fs::write(bundle.dir.join("config.json"), "{}").unwrap();
    assert_eq!(bundle.call("start").code, 0);
    bundle.wait_status("stopped");
    assert_eq!(bundle.log(), "as created\n");
    assert_eq!(bundle.call("delete").code, 0);
}

fn options_stand_before_and_after_the_id(peer: &Peer) {
    let bundle = peer.script_bundle("echo ran", |_| {});
    let dir = bundle.dir.to_str().unwrap();
    assert_eq!(peer.call(&["run", "--bundle", dir, &bundle.id]).out, "ran\n");
    assert_eq!(peer.call(&["run", &bundle.id, "--bundle", dir]).out, "ran\n");
    assert_eq!(peer.call(&["run", &bundle.id, "-b", dir]).out, "ran\n");
}

fn the_pid_file_holds_the_host_pid(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    let file = bundle.dir.join("pid");
    let mut create = bundle.with(&["create", "--pid-file", file.to_str().unwrap()]);
    let created = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(created.success());
    assert_eq!(std::fs::read_to_string(file).unwrap(), bundle.pid().to_string());
    bundle.kill_and_delete();
}

fn list_shows_every_container(peer: &Peer) {
    let (one, two) = (peer.bundle(|_| {}), peer.bundle(|_| {}));
    one.start();
    two.create();
    let list: serde_json::Value = serde_json::from_str(&peer.call(&["list", "--format", "json"]).out).unwrap();
    let mut found: Vec<(String, String)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry["status"].as_str().unwrap().to_owned()))
        .collect();
    found.sort();
    let mut expected = vec![(one.id.clone(), "running".to_owned()), (two.id.clone(), "created".to_owned())];
    expected.sort();
    assert_eq!(found, expected);
    let quiet = peer.call(&["list", "-q"]).out;
    assert_eq!(quiet.lines().count(), 2, "{quiet}");
    assert!(peer.call(&["list"]).out.contains(&one.id));
    one.kill_and_delete();
    two.kill_and_delete();
}

fn a_pause_stops_time(peer: &Peer) {
    let bundle = peer.script_bundle("while :; do echo x; sleep 0.01; done", |_| {});
    bundle.start();
    assert_eq!(bundle.call("pause").code, 0);
    assert_eq!(bundle.status(), "paused");
    let before = bundle.log().len();
    assert_ne!(bundle.exec("true").code, 0);
    assert_ne!(bundle.call("start").code, 0);
    assert_eq!(bundle.log().len(), before);
    assert_eq!(bundle.call("resume").code, 0);
    assert_eq!(bundle.status(), "running");
    wait_until("more output", || bundle.log().len() > before);
    bundle.kill_and_delete();
}

fn only_what_runs_is_paused(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["process"]["args"] = json!(["true"]));
    bundle.start();
    bundle.wait_status("stopped");
    assert_ne!(bundle.call("pause").code, 0);
    assert_ne!(bundle.call("resume").code, 0);
    assert_eq!(bundle.call("delete").code, 0);
}

fn a_log_in_json_says_what_failed(peer: &Peer) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    assert_ne!(peer.call(&["--log", path, "--log-format", "json", "start", "nobody"]).code, 0);
    let text = std::fs::read_to_string(path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next_back().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("not exist"), "{line}");
}

fn a_failed_create_leaves_nothing(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["process"]["args"] = json!(["/no/such/program"]));
    let created = bundle.create();
    // The specification leaves it to create or start to find out.
    if created.code == 0 {
        assert_ne!(bundle.call("start").code, 0);
        assert_eq!(bundle.call_with("delete", &["--force"]).code, 0);
    }
    assert_ne!(bundle.call("state").code, 0);
    let left = std::path::Path::new("/sys/fs/cgroup/memory/boxship-oci-test").join(&bundle.id);
    assert!(!left.exists());
}

fn kill_all_reaches_every_process(peer: &Peer) {
    let bundle = peer.script_bundle("sleep 1000 & sleep 1000", |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    bundle.start();
    wait_until("both", || bundle.call_with("ps", &[]).out.matches("sleep 1000").count() >= 2);
    assert_eq!(peer.call(&["kill", "--all", &bundle.id, "KILL"]).code, 0);
    bundle.wait_status("stopped");
    assert_eq!(bundle.call("delete").code, 0);
}

fn ps_lists_its_processes(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let pids: Vec<i64> = serde_json::from_str(&peer.call(&["ps", "--format", "json", &bundle.id]).out).unwrap();
    assert_eq!(pids, [bundle.pid()]);
    assert!(bundle.call("ps").out.contains("sleep 1000"));
    bundle.kill_and_delete();
}

fn bad_ids_are_refused(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    let dir = bundle.dir.to_str().unwrap();
    for id in ["../x", "a/b", "..", ""] {
        assert_ne!(peer.call(&["create", "--bundle", dir, id]).code, 0, "{id}");
    }
}

/// Calls of `run` of a `true` and everything it clones, on a host with cgroup v2 only. May only shrink.
const CALLS_MAX: usize = 440;
/// Further ones for each v1 hierarchy.
const CALLS_PER_HIERARCHY_MAX: usize = 14;

fn the_start_path_makes_few_system_calls(peer: &Peer) {
    if !std::path::Path::new("/usr/bin/strace").exists() {
        println!("skipped: strace is not installed (apt-get install strace)");
        return;
    }
    let bundle = peer.bundle(|spec| spec["process"]["args"] = json!(["true"]));
    let calls = bundle.dir.join("calls");
    let run = bundle.with(&["run"]);
    let mut traced = std::process::Command::new("strace");
    traced.args(["-f", "-qq", "-o"]).arg(&calls).arg(run.get_program()).args(run.get_args());
    let outcome = finish(&mut traced);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let text = std::fs::read_to_string(calls).unwrap();
    // A call that another process's interrupts stands on two lines; signals and ends are none.
    let is_call = |line: &&str| !["resumed>", "+++", "---"].iter().any(|mark| line.contains(mark));
    let count = text.lines().filter(is_call).count();
    let hierarchies = runtime::cgroup::Hierarchies::all_of_host().unwrap().controllers.len();
    let most = CALLS_MAX + CALLS_PER_HIERARCHY_MAX * hierarchies;
    assert!(count <= most, "{count} system calls, with {hierarchies} v1 hierarchies at most {most} are allowed");
    println!("  {count} system calls with {hierarchies} v1 hierarchies");
}
