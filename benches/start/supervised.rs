//! The row of the supervisor: containers through `LinuxRuntime`, as the controller makes them, on an image of one layer.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::Runtime as _;
use runtime::image::{BuildEntry, BuildLayer, Content, ImageBuild, StoreOptions};
use runtime::layout::Layout;
use runtime::linux::{LinuxOptions, LinuxRuntime};
use runtime::runtime::{
    ContainerConfig, IdRange, ImageConfig, LogConfig, NetworkMode, Resources, RuntimeEvent, SecurityConfig,
};

/// The keeper, and what it starts, are this program too: a controller beside them would only disturb the measurement.
pub(super) fn daemon() -> Option<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = || args.iter().skip(1).map(std::ffi::OsString::from);
    let ended = match args.first()?.as_str() {
        "keeper" => runtime::keeper::run(rest()),
        "supervisor" => runtime::supervisor::run(rest()),
        "switchboard" => runtime::switchboard::run(rest()),
        "unpack" => return Some(runtime::image::unpack_child(&args[1..])),
        _ => return None,
    };
    Some(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A supervisor of its own and what is needed to ask it.
pub(super) struct Supervised {
    linux: LinuxRuntime,
    keeper: Child,
    supervisor: i32,
    config: ContainerConfig,
    count: u32,
}

impl Supervised {
    pub(super) fn new(dir: &Path, run: &Path) -> Self {
        let layout = Layout::new(dir.join("data"), run.join("supervisor"));
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(&program);
        command.arg("keeper").args(layout.to_args()).args(["--with", "supervisor,switchboard"]);
        let keeper = command.stderr(Stdio::null()).spawn().expect("the keeper starts");
        let images = StoreOptions { unpack_program: program, ..StoreOptions::default() };
        let linux = LinuxRuntime::open(&layout, LinuxOptions { images, ..LinuxOptions::default() })
            .expect("the data root can be opened");
        let until = Instant::now() + Duration::from_secs(30);
        while linux.supervisor().ping().is_err() {
            assert!(Instant::now() < until, "the supervisor does not answer");
            super::quiet(Duration::from_millis(10));
        }
        let config = config(&linux);
        let supervisor = child_named(keeper.id(), "supervisor");
        Self { linux, keeper, supervisor, config, count: 0 }
    }

    /// Wall seconds from the request to the removal, CPU seconds of the supervisor, its children and this process.
    pub(super) fn once(&mut self) -> (f64, f64) {
        self.count += 1;
        self.config.id = format!("bench-{}", self.count).parse().expect("a legal name");
        let before = self.cpu();
        let begin = Instant::now();
        let mut watch = self.linux.watch().expect("the supervisor answers");
        self.linux.create_container(&self.config).expect("create");
        self.linux.start_container(&self.config.id).expect("start");
        while !matches!(watch.next().expect("the supervisor lives"), RuntimeEvent::Exited { .. }) {}
        self.linux.remove_container(&self.config.id).expect("remove");
        (begin.elapsed().as_secs_f64(), self.cpu() - before)
    }

    /// The runtime, and the container that [`Self::once`] runs, to be changed.
    pub(super) fn parts(&self) -> (&LinuxRuntime, ContainerConfig) {
        (&self.linux, self.config.clone())
    }

    /// In clock ticks of 10 ms as /proc tells it: right on average, not for one.
    pub(super) fn cpu(&self) -> f64 {
        let ticks = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
            let fields: Vec<i64> = stat[stat.rfind(')').expect("a name") + 2..]
                .split(' ')
                .filter_map(|field| field.parse().ok())
                .collect();
            fields[10..14].iter().sum::<i64>()
        };
        (ticks(&self.supervisor.to_string()) + ticks("self")) as f64 / 100.0
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        for info in self.linux.list_containers().unwrap_or_default() {
            let _ = self.linux.stop_container(&info.config.id, Duration::ZERO);
            let _ = self.linux.remove_container(&info.config.id);
        }
        let _ = kill(Pid::from_raw(self.keeper.id().cast_signed()), Signal::SIGTERM);
        let _ = self.keeper.wait();
    }
}

/// A container of `/bin/true` on an image made for it.
fn config(linux: &LinuxRuntime) -> ContainerConfig {
    let program =
        BuildEntry { path: "bin/true".into(), mode: 0o755, content: Content::HostFile("/bin/busybox".into()) };
    let config = ImageConfig { cmd: vec!["/bin/true".into()], ..ImageConfig::default() };
    let build = ImageBuild { layers: vec![BuildLayer { entries: vec![program] }], config };
    let image = linux.images().build(&"bench.test/true:1".parse().expect("a legal reference"), &build).expect("build");
    ContainerConfig {
        id: "bench".parse().expect("a legal name"),
        labels: BTreeMap::new(),
        hostname: "bench".into(),
        image: image.digest,
        entrypoint: None,
        args: None,
        env: BTreeMap::new(),
        sealed_env: BTreeMap::new(),
        working_dir: None,
        user: None,
        mounts: Vec::new(),
        network: NetworkMode::None,
        resources: Resources { memory_bytes: Some(256 << 20), pids_max: Some(100), ..Resources::default() },
        ids: IdRange { host_start: 1_600_000_000, len: 65_536 },
        security: SecurityConfig::default(),
        stop_signal: None,
        shm_bytes: 64 << 20,
        tty: false,
        init: false,
        dns_search: Vec::new(),
        extras: runtime::runtime::Extras::default(),
        log: LogConfig::default(),
        pod: None,
    }
}

/// Pid of the keeper's child that was started with this word.
fn child_named(keeper: u32, word: &str) -> i32 {
    let children =
        std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).expect("procfs shows children");
    let is_it = |pid: &&str| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|arg| arg == word.as_bytes()))
    };
    let found = children.split_whitespace().find(is_it).expect("the keeper has a supervisor");
    found.parse().expect("pids are numbers")
}
