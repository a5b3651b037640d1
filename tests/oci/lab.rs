//! Runtimes, bundles and ways to look at what they do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use serde_json::{Value, json};

/// Longest any state is waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// A program that speaks the command line.
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    program: &'static str,
    before: &'static [&'static str],
    /// Holds what cases run: written before the first of them, since a file that any process just forked still has open
    /// for writing cannot be run.
    shared: Arc<tempfile::TempDir>,
}

/// A runtime with a directory of state of its own: one case's.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'static str,
    runtime: &'a Runtime,
    dir: tempfile::TempDir,
}

/// A bundle on disk, and the container of the same name.
pub(crate) struct Bundle<'a> {
    peer: &'a Peer<'a>,
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Why nothing can be tested here.
pub(crate) fn why_not() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it takes root to start containers");
    }
    if !Path::new("/bin/busybox").exists() {
        return Some("/bin/busybox is missing (apt-get install busybox-static)");
    }
    None
}

/// boxship, and of runc and crun those that are installed.
pub(crate) fn runtimes() -> Vec<Runtime> {
    let shared = Arc::new(tempfile::Builder::new().prefix("boxship-oci-").tempdir().unwrap());
    fs::copy("/bin/busybox", shared.path().join("busybox")).unwrap();
    let new = |name, program, before| Runtime::new(name, program, before, &shared);
    let mut runtimes = vec![new("boxship", env!("CARGO_BIN_EXE_boxship"), &["oci"])];
    if Path::new("/usr/sbin/runc").exists() {
        runtimes.push(new("runc", "/usr/sbin/runc", &[]));
    }
    match Path::new("/usr/bin/crun").exists() {
        true if Path::new("/sys/fs/cgroup/unified").exists() => {
            runtimes.push(new("crun", "/bin/sh", WITHOUT_HYBRID));
        }
        true => runtimes.push(new("crun", "/usr/bin/crun", &[])),
        false => {}
    }
    runtimes
}

/// crun 1.8 refuses hybrid hosts with a controller on the v2 tree: it is not shown that tree.
const WITHOUT_HYBRID: &[&str] = &[
    "-c",
    "exec unshare -m --propagation slave sh -c 'umount /sys/fs/cgroup/unified; exec crun \"$@\"' crun \"$@\"",
    "crun",
];

/// Removes the directories that held the cgroups of all cases; one that still holds something refuses.
pub(crate) fn sweep_cgroups() {
    let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for tree in trees.chain([PathBuf::from("/sys/fs/cgroup")]) {
        // Of pods, podman removes only those it made itself: none on the v2 tree of a hybrid host.
        let pods = fs::read_dir(tree.join("libpod_parent")).into_iter().flatten().flatten().map(|entry| entry.path());
        for left in pods.chain(["libpod_parent", "boxship-oci-test"].map(|name| tree.join(name))) {
            let _ = fs::remove_dir(left);
        }
    }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Runtime {
    fn new(
        name: &'static str,
        program: &'static str,
        before: &'static [&'static str],
        shared: &Arc<tempfile::TempDir>,
    ) -> Self {
        let runtime = Self { name, program, before, shared: Arc::clone(shared) };
        let quoted: Vec<String> = before.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        let text = format!("#!/bin/sh\nexec {program} {} \"$@\"\n", quoted.join(" "));
        fs::write(runtime.script(), text).unwrap();
        fs::set_permissions(runtime.script(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        runtime
    }

    fn script(&self) -> PathBuf {
        self.shared.path().join(self.name)
    }
}

impl<'a> Peer<'a> {
    pub(crate) fn new(runtime: &'a Runtime) -> Self {
        let dir = tempfile::Builder::new().prefix("case-").tempdir_in(runtime.shared.path()).unwrap();
        Self { name: runtime.name, runtime, dir }
    }

    /// Whether this is the runtime under test.
    pub(crate) fn is_ours(&self) -> bool {
        self.name == "boxship"
    }

    /// The program as an engine is given it: a script, since engines pass options before verbs.
    pub(crate) fn script(&self) -> PathBuf {
        self.runtime.script()
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The command with its state directory.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.runtime.program);
        command.args(self.runtime.before).arg("--root").arg(self.state_dir());
        command
    }

    /// Runs a verb to its end.
    pub(crate) fn call(&self, args: &[&str]) -> Outcome {
        finish(self.command().args(args))
    }

    /// A bundle with busybox; `change` gets the template.
    pub(crate) fn bundle(&self, change: impl FnOnce(&mut Value)) -> Bundle<'_> {
        let id = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = self.dir.path().join(&id);
        make_root(&dir.join("rootfs"), &self.runtime.shared.path().join("busybox"));
        let mut spec = template(&id);
        change(&mut spec);
        fs::write(dir.join("config.json"), spec.to_string()).unwrap();
        Bundle { peer: self, id, dir }
    }

    /// A bundle that runs a script.
    pub(crate) fn script_bundle(&self, script: &str, change: impl FnOnce(&mut Value)) -> Bundle<'_> {
        self.bundle(|spec| {
            spec["process"]["args"] = json!(["sh", "-c", script]);
            change(spec);
        })
    }

    /// What a script writes to its standard output in a container; it must succeed.
    pub(crate) fn output(&self, script: &str, change: impl FnOnce(&mut Value)) -> String {
        let outcome = self.script_bundle(script, change).run();
        assert_eq!(outcome.code, 0, "{}: {outcome:?}", self.name);
        outcome.out
    }

    /// Removes what a failed case left.
    pub(crate) fn sweep(&self) {
        let names = fs::read_dir(self.state_dir()).into_iter().flatten().flatten();
        for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
            self.call(&["delete", "--force", &name]);
        }
    }
}

impl Bundle<'_> {
    /// `run`, in the foreground.
    pub(crate) fn run(&self) -> Outcome {
        finish(&mut self.with(&["run"]))
    }

    /// A verb with the bundle before the id.
    pub(crate) fn with(&self, verb: &[&str]) -> Command {
        let mut command = self.peer.command();
        command.args(verb).arg("--bundle").arg(&self.dir).arg(&self.id);
        command
    }

    /// `create`; what the container writes goes to a file.
    pub(crate) fn create(&self) -> Outcome {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let error = fs::File::create(self.dir.join("errors")).unwrap();
        let status = self.with(&["create"]).stdin(Stdio::null()).stdout(log).stderr(error).status().unwrap();
        let err = fs::read_to_string(self.dir.join("errors")).unwrap();
        Outcome { code: status.code().unwrap(), out: String::new(), err }
    }

    /// `create` and `start`, which must work.
    pub(crate) fn start(&self) -> &Self {
        let created = self.create();
        assert_eq!(created.code, 0, "{created:?}");
        let started = self.call("start");
        assert_eq!(started.code, 0, "{started:?}");
        self
    }

    /// A verb that takes the id alone.
    pub(crate) fn call(&self, verb: &str) -> Outcome {
        self.peer.call(&[verb, &self.id])
    }

    /// A verb with words after the id.
    pub(crate) fn call_with(&self, verb: &str, rest: &[&str]) -> Outcome {
        self.peer.call(&[&[verb, &self.id], rest].concat())
    }

    /// Runs a script in it.
    pub(crate) fn exec(&self, script: &str) -> Outcome {
        self.call_with("exec", &["sh", "-c", script])
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// The state document.
    pub(crate) fn state(&self) -> Value {
        let outcome = self.call("state");
        assert_eq!(outcome.code, 0, "{outcome:?}");
        serde_json::from_str(&outcome.out).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits for a state.
    pub(crate) fn wait_status(&self, wanted: &str) {
        wait_until(wanted, || self.status() == wanted);
    }

    /// Host pid of its first process.
    pub(crate) fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap()
    }

    pub(crate) fn kill_and_delete(&self) {
        self.call_with("kill", &["KILL"]);
        self.wait_status("stopped");
        let deleted = self.call("delete");
        assert_eq!(deleted.code, 0, "{deleted:?}");
    }

    /// A file of one of its v1 cgroups, or on a host with v2 only of its cgroup.
    pub(crate) fn cgroup_file(&self, controller: &str, v1: &str, v2: &str) -> String {
        let pid = self.pid();
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let path = |wanted: &str| {
            let line = table.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|name| name == wanted));
            line.map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned())
        };
        let file = match path(controller) {
            Some(path) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
            None => format!("/sys/fs/cgroup{}/{v2}", path("").unwrap()),
        };
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
    }
}

/// Waits until `holds`, at most the deadline.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not happen in time");
        let _ = poll(&mut [], PollTimeout::from(10_u8));
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap());
    Outcome { code, out: text(stdout), err: text(stderr) }
}

/// What busybox is in these roots.
const APPLETS: &str = "sh cat id ls stat touch mkdir ln sleep true hostname grep mount env pwd kill readlink umask \
    dnsdomainname tty stty ps test seq nice ulimit dd head mknod unshare rm wc tr cut ip";

fn make_root(root: &Path, busybox: &Path) {
    for name in ["bin", "etc", "tmp", "home/app", "data", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::hard_link(busybox, root.join("bin/busybox")).unwrap();
    for name in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n").unwrap();
    fs::write(root.join("data/seed"), "seed\n").unwrap();
}

fn template(id: &str) -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["sleep", "1000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "box",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/boxship-oci-test/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
        },
    })
}

/// Appends to the mounts of a spec.
pub(crate) fn add_mount(spec: &mut Value, target: &str, kind: &str, source: &Path, options: &[&str]) {
    let mount = json!({"destination": target, "type": kind, "source": source, "options": options});
    spec["mounts"].as_array_mut().unwrap().push(mount);
}
