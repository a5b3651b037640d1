//! What the cases share: a runtime with an image, a network and a volume, and waiting with a deadline.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::id::{ContainerId, NetworkName, VolumeName};
use runtime::image::{BuildEntry, BuildLayer, Content, ImageBuild, StoreOptions};
use runtime::layout::Layout;
use runtime::linux::{LinuxOptions, LinuxRuntime};
use runtime::network::link::Netlink;
use runtime::runtime::{
    ContainerConfig, ContainerInfo, ContainerState, ExecStdio, ExitStatus, IdRange, ImageConfig, ImageInfo, LogConfig,
    NetworkConfig, NetworkMode, NoProgress, PullRequest, Resources, SecurityConfig, VolumeConfig,
};
use runtime::{FakeRuntime, Runtime};

use crate::guest;

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A runtime and what it has at the beginning.
pub(crate) struct Lab {
    runtime: Box<dyn Runtime>,
    fake: Option<FakeRuntime>,
    pub(crate) linux: Option<Linux>,
    pub(crate) image: ImageInfo,
    pub(crate) network: NetworkConfig,
    pub(crate) volume: VolumeName,
}

/// What only the real one has.
pub(crate) struct Linux {
    pub(crate) layout: Layout,
    pub(crate) keeper: Child,
    /// The keeper of after a kill.
    later_keeper: std::sync::Mutex<Option<Child>>,
    _dir: tempfile::TempDir,
}

impl Lab {
    /// On the fake.
    pub(crate) fn fake() -> Self {
        let fake = FakeRuntime::new();
        let reference = "registry.test/guest:1".parse().expect("a legal reference");
        fake.offer_image(&reference, ImageConfig { cmd: vec!["/bin/sleep".into()], ..ImageConfig::default() });
        let image = fake
            .pull_image(&PullRequest { reference, refresh: false, newer_only: false }, &NoProgress)
            .expect("it is offered");
        Self { fake: Some(fake.clone()), ..Self::furnish(Box::new(fake), None, image) }
    }

    /// On this host, with a keeper of its own.
    pub(crate) fn linux() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let layout = Layout::new(dir.path().join("data"), dir.path().join("run"));
        let boot_id = dir.path().join("boot_id");
        std::fs::write(&boot_id, "first boot").expect("files can be written");
        let layout = Layout { boot_id_path: boot_id, ..layout };
        let keeper = start_keeper(&layout);
        let linux = open(&layout);
        let image = build_image(&linux);
        wait_for("the supervisor", || linux.supervisor().ping().ok());
        let own = Linux { layout, keeper, later_keeper: None.into(), _dir: dir };
        Self::furnish(Box::new(linux), Some(own), image)
    }

    fn furnish(runtime: Box<dyn Runtime>, linux: Option<Linux>, image: ImageInfo) -> Self {
        let name: NetworkName = "front".parse().expect("a legal name");
        let network = NetworkConfig { name, gateway: Ipv4Addr::new(10, 79, 0, 1), prefix_len: 24, internal: true };
        runtime.ensure_network(&network).expect("a network can be made");
        let volume: VolumeName = "data".parse().expect("a legal name");
        let config = VolumeConfig { name: volume.clone(), labels: BTreeMap::from([("a".into(), "b".into())]) };
        runtime.ensure_volume(&config).expect("a volume can be made");
        Self { runtime, fake: None, linux, image, network, volume }
    }

    pub(crate) fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    /// A container that runs these arguments, without network.
    pub(crate) fn config(&self, id: &str, args: &[&str]) -> ContainerConfig {
        ContainerConfig {
            id: self.id(id),
            labels: BTreeMap::from([("test".to_owned(), id.to_owned())]),
            hostname: id.to_owned(),
            image: self.image.digest.clone(),
            entrypoint: None,
            args: Some(args.iter().map(ToString::to_string).collect()),
            env: BTreeMap::new(),
            sealed_env: BTreeMap::new(),
            working_dir: None,
            user: None,
            mounts: Vec::new(),
            network: NetworkMode::None,
            resources: Resources::default(),
            ids: IdRange { host_start: 1_500_000_000, len: 65_536 },
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

    pub(crate) fn id(&self, id: &str) -> ContainerId {
        id.parse().expect("a legal name")
    }

    /// Creates and starts.
    pub(crate) fn run(&self, config: &ContainerConfig) -> ContainerId {
        ok("create", self.runtime().create_container(config));
        ok("start", self.runtime().start_container(&config.id));
        config.id.clone()
    }

    pub(crate) fn find(&self, id: &ContainerId) -> Option<ContainerInfo> {
        ok("list", self.runtime().list_containers()).into_iter().find(|info| info.config.id == *id)
    }

    /// Kills the first process of a container, as somebody else would.
    pub(crate) fn kill(&self, id: &ContainerId) {
        match &self.fake {
            Some(fake) => fake.end_container(id, ExitStatus::Signal(9)),
            None => {
                let pid = self.find(id).and_then(|info| info.pid).expect("it runs");
                kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
            }
        }
    }

    /// Waits until a container is in a state.
    pub(crate) fn reaches(&self, id: &ContainerId, state: ContainerState) -> ContainerInfo {
        wait_for(&format!("{id} to be {state:?}"), || {
            self.runtime().list_containers().ok()?.into_iter().find(|i| i.config.id == *id && i.state == state)
        })
    }

    pub(crate) fn own(&self) -> &Linux {
        self.linux.as_ref().expect("only real cases ask for it")
    }

    /// The text of a container's log, oldest first.
    pub(crate) fn log(&self, id: &ContainerId) -> String {
        let dir = self.runtime().log_dir(id);
        let mut text = String::new();
        for n in (0..32).rev() {
            let name = if n == 0 { "current".to_owned() } else { n.to_string() };
            text.push_str(&std::fs::read_to_string(dir.join(name)).unwrap_or_default());
        }
        text
    }
}

/// stdin, stdout and stderr for an exec: nothing in, a pipe out.
pub(crate) fn exec_stdio() -> (ExecStdio, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    let null = std::fs::File::open("/dev/null").expect("there is /dev/null");
    let err: OwnedFd = writer.try_clone().expect("descriptors can be duplicated").into();
    (ExecStdio::Fds([null.into(), writer.into(), err]), reader)
}

/// Unwraps with the whole chain.
pub(crate) fn ok<T>(what: &str, result: runtime::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {}", runtime::error::chain(&error)))
}

/// Polls until something is there.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited {} s for {what}", DEADLINE.as_secs());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Runs a case on a real runtime and ends everything it made; what stays behind is a failure.
pub(crate) fn on_linux(case: fn(&Lab)) {
    let lab = Lab::linux();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&lab)));
    if outcome.is_err() {
        println!("  run directory: {:?}", std::fs::read_dir(&lab.own().layout.run_dir).map(Iterator::count));
    }
    let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lab.tear_down()));
    if let Err(panic) = outcome.and(left) {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    /// Ends this keeper too when the lab ends.
    pub(crate) fn adopt_keeper(&self, keeper: Child) {
        *self.own().later_keeper.lock().expect("not poisoned") = Some(keeper);
    }

    fn tear_down(mut self) {
        for info in ok("list", self.runtime().list_containers()) {
            // a member may have gone with its holder
            for done in [
                self.runtime().stop_container(&info.config.id, Duration::ZERO),
                self.runtime().remove_container(&info.config.id),
            ] {
                assert!(done.is_ok() || done.as_ref().is_err_and(runtime::Error::is_not_found), "{done:?}");
            }
        }
        ok("remove network", self.runtime().remove_network(&self.network.name));
        let held = held_names(&self.own().layout);
        let cgroups = cgroups_of(&self.own().layout);
        let Some(own) = &mut self.linux else { return };
        own.end_keepers();
        assert_eq!(held, Vec::<String>::new(), "descriptors the keeper still holds");
        assert_eq!(cgroups, Vec::<PathBuf>::new(), "cgroups left");
        let exits = std::fs::read_dir(own.layout.run_dir.join("exits")).expect("it is there").count();
        assert_eq!(exits, 0, "ends nobody took");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs shows mounts");
        let root = own.layout.data_root.display().to_string();
        assert!(!mounts.contains(&root), "mounts left in the host's namespace");
    }
}

impl Linux {
    fn end_keepers(&mut self) {
        if let Some(mut later) = self.later_keeper.get_mut().expect("not poisoned").take() {
            end_keeper(&mut later);
        }
        end_keeper(&mut self.keeper);
    }
}

impl Drop for Linux {
    /// After a failed case: no keeper, no container stays behind.
    fn drop(&mut self) {
        if self.keeper.try_wait().is_ok_and(|ended| ended.is_none())
            || self.later_keeper.get_mut().expect("not poisoned").is_some()
        {
            self.end_keepers();
        }
        let Ok(hierarchies) = runtime::cgroup::Hierarchies::of_host() else { return };
        let parent = runtime::linux::cgroup_parent(&self.layout);
        for entry in std::fs::read_dir(hierarchies.unified.join(&parent)).into_iter().flatten().flatten() {
            let path = format!("{parent}/{}", entry.file_name().display());
            let cgroup = runtime::cgroup::Cgroup::new(hierarchies, &path);
            let _ = cgroup.kill();
            for _ in 0..100 {
                if !entry.path().is_dir() || cgroup.remove().is_ok() {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        let _ = cgroups_of(&self.layout);
    }
}

/// What the keeper holds of containers.
fn held_names(layout: &Layout) -> Vec<String> {
    let store = ok("connect", runtime::keeper::KeeperStore::connect(layout));
    let names = ok("get", store.get("")).into_iter().map(|(name, _)| name);
    names.filter(|name| !name.ends_with("/listener") && !name.starts_with("listen/")).collect()
}

/// Directories of this data root's containers in any cgroup hierarchy.
fn cgroups_of(layout: &Layout) -> Vec<PathBuf> {
    let parent = runtime::linux::cgroup_parent(layout);
    let hierarchies = ok("hierarchies", runtime::cgroup::Hierarchies::of_host());
    let roots = std::iter::once(&hierarchies.unified).chain(hierarchies.controllers.iter().map(|(_, root)| root));
    let mut left = Vec::new();
    for root in roots {
        let dir = root.join(&parent);
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
        }
        // the parent itself stays for the next container; the data root of this test has none
        let _ = std::fs::remove_dir(&dir);
    }
    left
}

/// Starts a keeper with supervisor and switchboard.
pub(crate) fn start_keeper(layout: &Layout) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.arg("keeper").args(layout.to_args()).args(["--with", "supervisor,switchboard"]);
    command.spawn().expect("this program starts")
}

/// Ends a keeper in order.
pub(crate) fn end_keeper(keeper: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(keeper.id()).expect("pids are positive"));
    let _ = kill(pid, Signal::SIGTERM);
    wait_for("the keeper to end", || keeper.try_wait().expect("it is our child"));
}

/// Opens the runtime of a layout.
pub(crate) fn open(layout: &Layout) -> LinuxRuntime {
    let program = std::env::current_exe().expect("this program has a path");
    let images = StoreOptions { unpack_program: program, ..StoreOptions::default() };
    ok("open", LinuxRuntime::open(layout, LinuxOptions { images, ..LinuxOptions::default() }))
}

fn build_image(linux: &LinuxRuntime) -> ImageInfo {
    let program = std::env::current_exe().expect("this program has a path");
    let entry = |path: String, content| BuildEntry { path, mode: 0o755, content };
    let mut entries = vec![entry("bin/guest".into(), Content::HostFile(program))];
    entries.extend(guest::NAMES.iter().map(|name| entry(format!("bin/{name}"), Content::Symlink("guest".into()))));
    let config =
        ImageConfig { cmd: vec!["/bin/sleep".into()], env: vec!["PATH=/bin".into()], ..ImageConfig::default() };
    let build = ImageBuild { layers: vec![BuildLayer { entries }], config };
    let reference = "registry.test/guest:1".parse().expect("a legal reference");
    ok("build", linux.images().build(&reference, &build))
}

/// Enters own network and mount namespaces; the reason when that is impossible.
pub(crate) fn enter_namespaces() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root".into());
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(|error| format!("cannot unshare: {error}"))?;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|error| error.to_string())?;
    Netlink::open().and_then(|mut netlink| netlink.set_up(1)).map_err(|error| error.to_string())
}
