//! What the program is, has and may (OCI config, "Process"), in `run` and in `exec`.

use std::io::Read as _;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::Case;
use super::lab::{Peer, finish, wait_until};

pub(crate) const CASES: &[Case] = &[
    ("args_env_and_cwd", &[], args_env_and_cwd),
    ("the_working_directory_is_made", &[], the_working_directory_is_made),
    ("user_groups_and_umask", &[], user_groups_and_umask),
    ("home_comes_from_passwd", &[], home_comes_from_passwd),
    ("five_capability_sets", &[], five_capability_sets),
    ("no_capabilities_are_none", &[], no_capabilities_are_none),
    // crun refuses them.
    ("unknown_capabilities_are_passed_over", &["crun"], unknown_capabilities_are_passed_over),
    ("no_new_privileges", &[], no_new_privileges),
    ("resource_limits", &[], resource_limits),
    // Both of them take the last of two.
    ("a_limit_named_twice_is_refused", &["runc", "crun"], a_limit_named_twice_is_refused),
    ("the_oom_score", &[], the_oom_score),
    ("a_terminal_comes_through_the_socket", &[], a_terminal_comes_through_the_socket),
    // crun takes a terminal nobody gets.
    ("a_terminal_needs_a_socket", &["crun"], a_terminal_needs_a_socket),
    ("descriptors_are_preserved_and_no_others", &[], descriptors_are_preserved_and_no_others),
    ("exec_runs_beside_it", &[], exec_runs_beside_it),
    ("exec_takes_a_process_file", &[], exec_takes_a_process_file),
    // crun does not hand the PATH on with --env.
    ("exec_options", &["crun"], exec_options),
    // crun leaves no_new_privs out of an exec.
    ("exec_has_the_rights_of_the_container", &["crun"], exec_has_the_rights_of_the_container),
    ("exec_of_nothing_is_an_error", &[], exec_of_nothing_is_an_error),
    ("exec_detached_leaves_it_alone", &[], exec_detached_leaves_it_alone),
    ("exec_in_a_stopped_container_is_an_error", &[], exec_in_a_stopped_container_is_an_error),
    // crun takes a working directory that is not absolute.
    ("wrong_processes_are_refused", &["crun"], wrong_processes_are_refused),
    // Newer than these versions of both.
    ("scheduling_and_personality", &["runc", "crun"], scheduling_and_personality),
];

fn args_env_and_cwd(peer: &Peer) {
    let out = peer.output("echo \"$0 $1\"; pwd; echo $A/$B", |spec| {
        spec["process"]["args"] = json!(["sh", "-c", "echo \"$0 $1\"; pwd; echo $A/$B", "zero", "a b"]);
        spec["process"]["env"] = json!(["PATH=/bin", "A=1", "B=x=y"]);
        spec["process"]["cwd"] = "/home/app".into();
    });
    assert_eq!(out, "zero a b\n/home/app\n1/x=y\n");
}

fn the_working_directory_is_made(peer: &Peer) {
    assert_eq!(peer.output("pwd", |spec| spec["process"]["cwd"] = "/srv/deep/er".into()), "/srv/deep/er\n");
}

fn user_groups_and_umask(peer: &Peer) {
    let out = peer.output("id -u; id -g; id -G; umask", |spec| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o077});
    });
    assert_eq!(out, "1000\n1001\n1001 5 6\n0077\n");
}

fn home_comes_from_passwd(peer: &Peer) {
    let home = |env: Value| {
        peer.output("echo $HOME", |spec| {
            spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            spec["process"]["env"] = env;
        })
    };
    assert_eq!(home(json!(["PATH=/bin"])), "/home/app\n");
    assert_eq!(home(json!(["PATH=/bin", "HOME=/x"])), "/x\n");
}

fn caps(peer: &Peer, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let out = peer.output("grep ^Cap /proc/self/status", change);
    out.lines().map(|line| line.split_whitespace().last().unwrap().trim_start_matches('0').to_owned()).collect()
}

fn five_capability_sets(peer: &Peer) {
    // inheritable, permitted, effective, bounding, ambient; KILL is bit 5, CHOWN 0, SETUID 7.
    let found = caps(peer, |spec| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        });
    });
    // What is not ambient is lost by the exec of a user who is not root.
    assert_eq!(found, ["20", "20", "20", "a1", "20"]);
}

fn no_capabilities_are_none(peer: &Peer) {
    let found = caps(peer, |spec| spec["process"]["capabilities"] = json!({}));
    assert_eq!(found, ["", "", "", "", ""]);
}

fn unknown_capabilities_are_passed_over(peer: &Peer) {
    let found = caps(peer, |spec| {
        let set = json!(["CAP_KILL", "CAP_MAGIC"]);
        spec["process"]["capabilities"] = json!({"bounding": set, "effective": set, "permitted": set});
    });
    assert_eq!(found[3], "20");
    if peer.is_ours() {
        let bundle = peer.bundle(|spec| spec["process"]["capabilities"]["bounding"] = json!(["TEST_CAP"]));
        let created = bundle.create();
        assert!(created.code != 0 && created.err.contains("TEST_CAP"), "{created:?}");
    }
}

fn no_new_privileges(peer: &Peer) {
    for (on, shown) in [(true, "1"), (false, "0")] {
        let out =
            peer.output("grep NoNewPrivs /proc/self/status", |spec| spec["process"]["noNewPrivileges"] = on.into());
        assert!(out.trim().ends_with(shown), "{out}");
    }
}

fn resource_limits(peer: &Peer) {
    let out = peer.output("grep -E 'open files|core file' /proc/self/limits | tr -s ' '", |spec| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
    });
    assert_eq!(out, "Max core file size 0 0 bytes \nMax open files 100 200 files \n");
    let bundle =
        peer.bundle(|spec| spec["process"]["rlimits"] = json!([{"type": "RLIMIT_MAGIC", "soft": 1, "hard": 1}]));
    assert_ne!(bundle.create().code, 0);
}

fn a_limit_named_twice_is_refused(peer: &Peer) {
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200});
    assert_ne!(peer.bundle(|spec| spec["process"]["rlimits"] = json!([limit, limit])).create().code, 0);
}

fn the_oom_score(peer: &Peer) {
    let out = peer.output("cat /proc/self/oom_score_adj", |spec| spec["process"]["oomScoreAdj"] = 321.into());
    assert_eq!(out, "321\n");
}

fn read_master(listener: &UnixListener) -> std::fs::File {
    let (socket, _) = listener.accept().unwrap();
    let (_, mut fds) = runtime::sys::fdpass::receive(&socket, true).unwrap().unwrap();
    std::fs::File::from(fds.remove(0))
}

fn a_terminal_comes_through_the_socket(peer: &Peer) {
    let bundle = peer.script_bundle("tty; stty size; test -c /dev/console && echo console", |spec| {
        spec["process"]["terminal"] = true.into();
        spec["process"]["consoleSize"] = json!({"height": 24, "width": 91});
    });
    let path = bundle.dir.join("tty.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut create = bundle.with(&["create", "--console-socket", path.to_str().unwrap()]);
    assert!(create.status().unwrap().success());
    let mut master = read_master(&listener);
    assert_eq!(bundle.call("start").code, 0);
    let mut text = Vec::new();
    let mut piece = [0; 1000];
    while let Ok(count @ 1..) = master.read(&mut piece) {
        text.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, "/dev/pts/0\r\n24 91\r\nconsole\r\n");
    bundle.wait_status("stopped");
    assert_eq!(bundle.call("delete").code, 0);
}

fn a_terminal_needs_a_socket(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["process"]["terminal"] = true.into());
    assert_ne!(bundle.create().code, 0);
    let bundle = peer.bundle(|_| {});
    let path = bundle.dir.join("tty.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    assert_ne!(finish(&mut bundle.with(&["create", "--console-socket", path.to_str().unwrap()])).code, 0);
}

fn descriptors_are_preserved_and_no_others(peer: &Peer) {
    let bundle = peer.script_bundle("cat <&3; ls /proc/self/fd | tr '\\n' ' '", |_| {});
    let script = format!(
        "exec 3</etc/hostname 4</etc/hostname 5</etc/hostname; exec {} --root {} run --preserve-fds 2 --bundle {} {}",
        peer.script().display(),
        bundle.dir.join("state").display(),
        bundle.dir.display(),
        bundle.id
    );
    let outcome = finish(std::process::Command::new("sh").args(["-c", &script]));
    let hostname = std::fs::read_to_string("/etc/hostname").unwrap();
    // `ls` itself opens the directory it lists.
    assert_eq!(outcome.out, format!("{hostname}0 1 2 3 4 5 "), "{outcome:?}");
}

fn exec_runs_beside_it(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let outcome = bundle.exec("echo out; echo err >&2; hostname; cat /proc/1/comm; exit 9");
    assert_eq!((outcome.code, outcome.out.as_str()), (9, "out\nbox\nsleep\n"));
    assert_eq!(outcome.err, "err\n");
    bundle.kill_and_delete();
}

fn exec_takes_a_process_file(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let file = bundle.dir.join("process.json");
    let process = json!({
        "terminal": false,
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [7]},
        "args": ["sh", "-c", "id -u; id -G; pwd; echo $A"],
        "env": ["PATH=/bin", "A=b"],
        "cwd": "/tmp",
    });
    std::fs::write(&file, process.to_string()).unwrap();
    let outcome = peer.call(&["exec", "--process", file.to_str().unwrap(), &bundle.id]);
    assert_eq!(outcome.out, "1000\n1000 7\n/tmp\nb\n", "{outcome:?}");
    bundle.kill_and_delete();
}

fn exec_options(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let args = [
        "exec",
        "--user",
        "1000:1001",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        &bundle.id,
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $A",
    ];
    let outcome = peer.call(&args);
    assert_eq!(outcome.out, "1000\n1001\n/tmp\nb\n", "{outcome:?}");
    bundle.kill_and_delete();
}

fn exec_has_the_rights_of_the_container(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let script = "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/PID/status";
    let own = bundle.exec(&script.replace("PID", "self")).out;
    let init = bundle.exec(&script.replace("PID", "1")).out;
    assert_eq!(own, init);
    let cgroups =
        bundle.exec("cat /proc/1/cgroup > /tmp/a; cat /proc/self/cgroup > /tmp/b; grep -E 'memory|pids|:cpu' /tmp/a");
    assert_eq!(bundle.exec("grep -E 'memory|pids|:cpu' /tmp/b").out, cgroups.out);
    bundle.kill_and_delete();
}

fn exec_of_nothing_is_an_error(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    assert_ne!(bundle.call_with("exec", &["/no/such/program"]).code, 0);
    assert_ne!(bundle.call("exec").code, 0);
    assert_eq!(bundle.status(), "running");
    bundle.kill_and_delete();
}

fn exec_detached_leaves_it_alone(peer: &Peer) {
    let bundle = peer.bundle(|_| {});
    bundle.start();
    let pid_file = bundle.dir.join("exec-pid");
    let mut command = peer.command();
    command.args(["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), &bundle.id, "sleep", "999"]);
    assert!(command.status().unwrap().success());
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    wait_until("the program", || {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\0999\0")
    });
    bundle.kill_and_delete();
}

fn exec_in_a_stopped_container_is_an_error(peer: &Peer) {
    let bundle = peer.bundle(|spec| spec["process"]["args"] = json!(["true"]));
    bundle.start();
    bundle.wait_status("stopped");
    assert_ne!(bundle.exec("true").code, 0);
    assert_eq!(bundle.call("delete").code, 0);
}

fn wrong_processes_are_refused(peer: &Peer) {
    let refused = |change: fn(&mut Value)| {
        let bundle = peer.bundle(change);
        assert!(bundle.create().code != 0 || bundle.call("start").code != 0);
        bundle.call_with("delete", &["--force"]);
    };
    refused(|spec| spec["process"]["cwd"] = "relative".into());
    refused(|spec| spec["process"]["args"] = json!([]));
    refused(|spec| spec["process"]["args"] = json!(["/data"]));
    refused(|spec| spec["process"] = Value::Null);
}

fn scheduling_and_personality(peer: &Peer) {
    let out = peer.output("cut -d' ' -f19 /proc/self/stat; cat /proc/self/personality", |spec| {
        spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
        spec["linux"]["personality"] = json!({"domain": "LINUX32"});
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    });
    assert_eq!(out, "5\n00000008\n");
}
