//! What each case needs: an image of busybox in two layers, a data root of its own, ways to start and to look.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use oci_spec::runtime::Spec;
use runtime::cgroup::{Cgroup, Hierarchies};
use runtime::layout::Layout;
use runtime::process::{self, ExecConfig, ExecEvent, ExecTarget, InitEvent, Spawned, Stdio};
use runtime::runtime::{ContainerConfig, IdRange, ImageConfig, LogConfig, NetworkMode, Resources, SecurityConfig};
use runtime::spec::launch::{Launch, RootSource};
use runtime::spec::{Bridge, LowerInput, lower};
use runtime::{Error, Result};
use rustix::fs::XattrFlags;

/// `cap_net_raw=ep` as setcap(8) writes it: `struct vfs_cap_data` of version 2.
pub(crate) const NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Longest any state is waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// First host id of the containers.
pub(crate) const HOST_START: u32 = 0x2_0000;

/// A data root with an image.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    /// The table of paths below it.
    pub(crate) layout: Layout,
    cgroup_parent: String,
    next: Cell<u32>,
}

/// A started container.
pub(crate) struct Running {
    /// What it was made from.
    pub(crate) spec: Spec,
    /// What it was made from.
    pub(crate) launch: Launch,
    /// Its processes.
    pub(crate) spawned: Spawned,
    /// Its resolver sockets, when it announced them.
    pub(crate) dns: Option<[OwnedFd; 2]>,
    /// Its terminal, when it announced one.
    pub(crate) terminal: Option<OwnedFd>,
    output: Option<OwnedFd>,
}

/// How a program ended and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Exit code, or 128 and the signal.
    pub(crate) code: i32,
    /// stdout and stderr together.
    pub(crate) output: String,
}

impl Lab {
    /// Builds the image.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("boxship-kernel-").tempdir().unwrap();
        let layout = Layout::new(dir.path().join("data"), dir.path().join("run"));
        let lab =
            Self { layout, dir, cgroup_parent: format!("boxship-kernel-{}", std::process::id()), next: Cell::new(0) };
        lab.build_base();
        lab.build_top();
        lab
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn build_base(&self) {
        let base = self.layer("base");
        for name in ["bin", "etc", "tmp", "root", "home/app", "seed/sub", "caps", "proc"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        for name in [
            "sh", "echo", "cat", "id", "ls", "stat", "touch", "mkdir", "ln", "sleep", "true", "hostname", "ip", "ping",
            "nc", "head", "wc", "env", "pwd", "kill", "readlink", "grep", "mount", "chown", "unshare", "dd",
            "nslookup", "tty", "ps", "test", "seq",
        ] {
            symlink("busybox", base.join("bin").join(name)).unwrap();
        }
        fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n").unwrap();
        fs::write(base.join("etc/group"), "root:x:0:\napp:x:1001:\nvideo:x:44:app\n").unwrap();
        fs::write(base.join("gone"), "from below").unwrap();
        fs::write(base.join("seed/file"), "seed").unwrap();
        fs::write(base.join("caps/ping"), "").unwrap();
        rustix::fs::setxattr(base.join("caps/ping"), "security.capability", NET_RAW, XattrFlags::empty()).unwrap();
        fs::write(base.join("bin/no-interpreter"), "#!/nowhere/sh\n").unwrap();
        fs::write(base.join("bin/not-executable"), "").unwrap();
        std::os::unix::fs::chown(base.join("home/app"), Some(1000), Some(1001)).unwrap();
        std::os::unix::fs::chown(base.join("seed"), Some(1000), Some(1001)).unwrap();
        std::os::unix::fs::chown(base.join("seed/file"), Some(1000), Some(1001)).unwrap();
        for (name, mode) in [("bin/no-interpreter", 0o755), ("tmp", 0o1777), ("seed", 0o750), ("seed/file", 0o640)] {
            fs::set_permissions(base.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn build_top(&self) {
        let top = self.layer("top");
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(top.join("etc/top"), "top").unwrap();
        let whiteout = nix::sys::stat::SFlag::S_IFCHR;
        nix::sys::stat::mknod(&top.join("gone"), whiteout, nix::sys::stat::Mode::empty(), 0).unwrap();
    }

    /// A configuration that runs a shell script.
    pub(crate) fn script(&self, script: &str) -> ContainerConfig {
        let number = self.next.get();
        self.next.set(number + 1);
        ContainerConfig {
            id: format!("c{number}").parse().unwrap(),
            labels: BTreeMap::new(),
            hostname: format!("host-{number}"),
            image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            entrypoint: Some(vec!["sh".into(), "-c".into(), script.into()]),
            args: None,
            env: BTreeMap::new(),
            sealed_env: BTreeMap::new(),
            working_dir: None,
            user: None,
            mounts: vec![],
            network: NetworkMode::None,
            resources: Resources::default(),
            ids: IdRange { host_start: HOST_START, len: 1 << 16 },
            security: SecurityConfig::default(),
            stop_signal: None,
            shm_bytes: 64 << 20,
            tty: false,
            init: false,
            dns_search: vec!["stack".into()],
            extras: runtime::runtime::Extras::default(),
            log: LogConfig::default(),
            pod: None,
        }
    }

    /// Where the writable layer of a container that is not made yet will be.
    pub(crate) fn upper(&self, config: &ContainerConfig) -> PathBuf {
        self.layout.container_dir(&config.id).join("upper")
    }

    /// Lowers a configuration and makes its directories.
    pub(crate) fn lower(&self, config: &ContainerConfig, bridge: Option<Bridge>) -> Result<(Spec, Launch)> {
        let dir = self.layout.container_dir(&config.id);
        for name in ["upper", "work"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        lower(&LowerInput {
            secrets: &BTreeMap::new(),
            config,
            image: &ImageConfig::default(),
            layers: vec![self.layer("top"), self.layer("base")],
            layout: &self.layout,
            cgroup_parent: &self.cgroup_parent,
            bridges: bridge.into_iter().collect(),
        })
    }

    /// Starts a container and returns when its program runs.
    pub(crate) fn start(&self, config: &ContainerConfig) -> Result<Running> {
        self.start_on(config, None)
    }

    /// The same, on a bridge.
    pub(crate) fn start_on(&self, config: &ContainerConfig, bridge: Option<Bridge>) -> Result<Running> {
        let mut running = self.create(config, bridge)?;
        running.spawned.channel.start()?;
        match running.event() {
            InitEvent::Started => Ok(running),
            InitEvent::Failed { error } => {
                running.finish();
                Err(error)
            }
            other @ (InitEvent::Created { .. } | InitEvent::Mounted) => panic!("{other:?}"),
        }
    }

    /// Creates a container and returns when it waits for its start.
    pub(crate) fn create(&self, config: &ContainerConfig, bridge: Option<Bridge>) -> Result<Running> {
        let (spec, launch) = self.lower(config, bridge)?;
        let (output, stdio) = stdio(config.tty);
        let spawned = process::spawn(&spec, &launch, stdio)?;
        let mut running = Running { spec, launch, spawned, dns: None, terminal: None, output };
        match running.event() {
            InitEvent::Created { dns, terminal } => {
                (running.dns, running.terminal) = (dns, terminal);
                let code = wait_for(&running.spawned.stage.as_ref().expect("a helper").pidfd);
                assert_eq!(code, 0, "stage");
                Ok(running)
            }
            InitEvent::Failed { error } => {
                wait_for(&running.spawned.stage.as_ref().expect("a helper").pidfd);
                running.finish();
                Err(error)
            }
            other @ (InitEvent::Started | InitEvent::Mounted) => panic!("{other:?} before it was told to start"),
        }
    }

    /// Runs a configuration to its end and checks that nothing is left of it.
    pub(crate) fn run(&self, config: &ContainerConfig) -> Outcome {
        self.start(config).unwrap().finish()
    }

    /// Runs a script to its end; it must succeed.
    pub(crate) fn output(&self, script: &str) -> String {
        let outcome = self.run(&self.script(script));
        assert_eq!(outcome.code, 0, "{}", outcome.output);
        outcome.output
    }

    /// The error of a configuration that must not start.
    pub(crate) fn error(&self, config: &ContainerConfig) -> Error {
        match self.start(config) {
            Ok(running) => panic!("it started: {:?}", running.finish()),
            Err(error) => error,
        }
    }

    /// A directory on the host.
    pub(crate) fn host_dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Directories of this lab's cgroups that still exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let found = Hierarchies::of_host().unwrap();
        std::iter::once(&found.unified)
            .chain(found.controllers.iter().map(|(_, root)| root))
            .map(|root| root.join(&self.cgroup_parent))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for Lab {
    /// A case that failed may have left its container running.
    fn drop(&mut self) {
        let all = Cgroup::new(Hierarchies::of_host().unwrap(), &self.cgroup_parent);
        let _ = all.kill();
        let until = Instant::now() + DEADLINE;
        while all.remove().is_err() && Instant::now() < until {
            let _ = poll(&mut [], PollTimeout::from(5_u8));
        }
    }
}

impl Running {
    /// The next event.
    pub(crate) fn event(&mut self) -> InitEvent {
        let until = Instant::now() + DEADLINE;
        loop {
            wait_readable(&self.spawned.channel, until);
            if let Some(event) = self.spawned.channel.receive().unwrap() {
                return event;
            }
        }
    }

    /// Waits for its end, reads its output and cleans up.
    pub(crate) fn finish(mut self) -> Outcome {
        let code = wait_for(&self.spawned.pidfd);
        process::cleanup(&self.launch).unwrap();
        Outcome { code, output: self.output.take().map(read_all).unwrap_or_default() }
    }

    /// Its writable layer on the host.
    pub(crate) fn upper(&self) -> &Path {
        let RootSource::Layers(layers) = &self.launch.root else { panic!("an image is layers") };
        &layers.upper
    }

    /// Kills it and cleans up.
    pub(crate) fn kill(self) -> Outcome {
        let _ = rustix::process::pidfd_send_signal(&self.spawned.pidfd, rustix::process::Signal::KILL);
        self.finish()
    }

    /// A line of /proc/PID/status of its first process, without the name.
    pub(crate) fn status(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.spawned.pid)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        line.trim().replace('\t', " ")
    }

    /// Runs a further program to its end.
    pub(crate) fn exec(&self, config: &ExecConfig) -> Result<Outcome> {
        let target = ExecTarget {
            pid: self.spawned.pid,
            pidfd: self.spawned.pidfd.as_fd(),
            spec: &self.spec,
            launch: &self.launch,
        };
        let (output, stdio) = stdio(config.tty);
        let mut exec = process::exec(&target, config, stdio)?;
        let until = Instant::now() + DEADLINE;
        let mut program = None;
        let answer = loop {
            wait_readable(&exec.channel, until);
            match exec.channel.receive()? {
                None => {}
                Some(ExecEvent::Created { pidfd, terminal, .. }) => program = Some((pidfd, terminal)),
                Some(ExecEvent::Started) => break Ok(()),
                Some(ExecEvent::Failed { error }) => break Err(error),
            }
        };
        wait_for(&exec.stage.pidfd);
        let Some((pidfd, terminal)) = program else { return Err(answer.unwrap_err()) };
        let (code, output) = match terminal {
            Some(master) => {
                let output = read_terminal(master);
                (wait_for(&pidfd), output)
            }
            None => (wait_for(&pidfd), output.map(read_all).unwrap_or_default()),
        };
        answer.map(|()| Outcome { code, output })
    }
}

/// Runs this script in a shell.
pub(crate) fn shell(script: &str) -> ExecConfig {
    ExecConfig {
        args: vec!["sh".into(), "-c".into(), script.into()],
        env: BTreeMap::new(),
        working_dir: None,
        user: None,
        tty: false,
    }
}

/// Reads a terminal until its last user is gone.
pub(crate) fn read_terminal(master: OwnedFd) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        wait_readable(&master, Instant::now() + DEADLINE);
        match rustix::io::read(&master, &mut piece) {
            Ok(0) | Err(rustix::io::Errno::IO) => return String::from_utf8(text).unwrap(),
            Ok(count) => text.extend_from_slice(&piece[..count]),
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// Waits until `holds`, at most the deadline.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not happen in time");
        let _ = poll(&mut [], PollTimeout::from(5_u8));
    }
}

/// stdin from nowhere, stdout and stderr into one pipe.
fn stdio(tty: bool) -> (Option<OwnedFd>, Stdio) {
    if tty {
        return (None, Stdio::Terminal);
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let copy = write.try_clone().unwrap();
    (Some(read), Stdio::Fds([null, write, copy]))
}

fn read_all(fd: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn wait_readable(fd: &impl AsFd, until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap();
    let ready = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
    assert!(ready > 0, "nothing happened in time");
}

/// Reaps a child: its exit code, or 128 and the signal.
fn wait_for(pidfd: &OwnedFd) -> i32 {
    wait_readable(pidfd, Instant::now() + DEADLINE);
    match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap() {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

/// The owner of a path on the host, not following links.
pub(crate) fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}
