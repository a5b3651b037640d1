//! podman with boxship as its runtime: containers on an image of busybox in a store of the case's own.

use std::path::Path;
use std::process::Command;

use super::Case;
use super::lab::{Outcome, Peer, finish};

pub(crate) const CASES: &[Case] = &[
    ("podman_runs_a_container", &["runc", "crun"], podman_runs_a_container),
    ("podman_manages_a_container", &["runc", "crun"], podman_manages_a_container),
    ("podman_makes_a_pod", &["runc", "crun"], podman_makes_a_pod),
];

/// A store and a runtime; everything in it is removed at the end.
struct Podman {
    dir: tempfile::TempDir,
    runtime: std::path::PathBuf,
}

impl Podman {
    /// `None` where it is not installed, which is said.
    fn new(peer: &Peer) -> Option<Self> {
        if !Path::new("/usr/bin/podman").exists() {
            println!("skipped: podman is not installed (apt-get install podman)");
            return None;
        }
        let podman =
            Self { dir: tempfile::Builder::new().prefix("boxship-podman-").tempdir().unwrap(), runtime: peer.script() };
        let root = podman.dir.path().join("image");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in ["sh", "echo", "sleep", "cat", "id", "hostname", "true", "ls"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let archive = podman.dir.path().join("image.tar");
        let made = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap();
        assert!(made.success());
        podman.ok(&["import", "-q", archive.to_str().unwrap(), "localhost/box:1"]);
        Some(podman)
    }

    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new("timeout");
        command.args([
            "60",
            "podman",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
            "--storage-driver",
            "vfs",
        ]);
        for (option, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.dir.path().join(name));
        }
        finish(command.arg("--runtime").arg(&self.runtime).args(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        let outcome = self.call(args);
        assert_eq!(outcome.code, 0, "podman {args:?}: {outcome:?}");
        outcome.out
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["pod", "rm", "--all", "--force", "--time", "0"]);
        self.call(&["rm", "--all", "--force", "--time", "0"]);
    }
}

const RUN: [&str; 4] = ["run", "--network", "none", "--rm"];

fn podman_runs_a_container(peer: &Peer) {
    let Some(podman) = Podman::new(peer) else { return };
    let run = |rest: &[&str]| podman.call(&[&RUN[..], rest].concat());
    let hello = run(&["box:1", "echo", "hello"]);
    assert_eq!(hello.out, "hello\n", "{hello:?}");
    assert_eq!(run(&["box:1", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(
        run(&["--hostname", "h", "--user", "5:6", "box:1", "sh", "-c", "hostname; id -u; id -g"]).out,
        "h\n5\n6\n"
    );
    assert_eq!(run(&["-t", "box:1", "echo", "on a terminal"]).out, "on a terminal\r\n");
    assert_eq!(
        run(&["--read-only", "--memory", "64m", "--pids-limit", "50", "box:1", "echo", "limited"]).out,
        "limited\n"
    );
    let missing = run(&["box:1", "/no/such/program"]);
    assert_eq!(missing.code, 127, "{missing:?}");
}

fn podman_manages_a_container(peer: &Peer) {
    let Some(podman) = Podman::new(peer) else { return };
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    podman.ok(&["run", "-d", "--network", "none", "--name", "c", "--health-cmd", "true", "box:1", "sh", "-c", script]);
    assert_eq!(podman.ok(&["exec", "c", "echo", "inside"]), "inside\n");
    assert_eq!(podman.call(&["exec", "c", "sh", "-c", "exit 5"]).code, 5);
    assert_eq!(podman.ok(&["exec", "-t", "c", "echo", "tty"]), "tty\r\n");
    podman.ok(&["healthcheck", "run", "c"]);
    podman.ok(&["pause", "c"]);
    assert_eq!(podman.ok(&["inspect", "--format", "{{.State.Status}}", "c"]), "paused\n");
    podman.ok(&["unpause", "c"]);
    assert!(podman.ok(&["top", "c"]).contains("sh"));
    assert!(podman.ok(&["stats", "--no-stream", "--format", "{{.Name}}", "c"]).contains('c'));
    podman.ok(&["stop", "c"]);
    assert_eq!(podman.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "c"]), "exited 0\n");
    assert_eq!(podman.ok(&["logs", "c"]), "up\nbye\n");
    podman.ok(&["start", "c"]);
    podman.ok(&["kill", "c"]);
    podman.ok(&["wait", "c"]);
    podman.ok(&["rm", "c"]);
}

fn podman_makes_a_pod(peer: &Peer) {
    let Some(podman) = Podman::new(peer) else { return };
    podman.ok(&[
        "pod",
        "create",
        "--name",
        "p",
        "--network",
        "none",
        "--infra-image",
        "localhost/box:1",
        "--infra-command",
        "sleep 1000",
    ]);
    podman.ok(&["run", "-d", "--pod", "p", "--name", "one", "box:1", "sleep", "1000"]);
    let namespace = |name: &str| podman.ok(&["exec", name, "ls", "-l", "/proc/self/ns/ipc"]);
    podman.ok(&["run", "-d", "--pod", "p", "--name", "two", "box:1", "sleep", "1000"]);
    let last = |text: String| text.split_whitespace().last().unwrap().to_owned();
    assert_eq!(last(namespace("one")), last(namespace("two")));
    podman.ok(&["pod", "stop", "--time", "0", "p"]);
    podman.ok(&["pod", "rm", "p"]);
}
