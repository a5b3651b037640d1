//! Plans that never wait for each other: a call that hangs holds up its own object only, and nothing is done twice.

use std::sync::Condvar;
use std::time::Duration;

use runtime::fake::Verb;
use runtime::id::{NetworkName, VolumeName};
use runtime::runtime::HostPort;
use runtime::runtime::{ImageConfig, NetworkConfig, VolumeConfig};
use runtime::{FakeRuntime, clock};

use super::*;
use crate::plan::Reason;
use crate::store::VolatileStore;

/// Calls about this name wait until they are let go. `fail_when` of the fake cannot wait: it holds the world.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// Images whose pull waits at the gate; the rest is the fake.
struct Slow {
    fake: FakeRuntime,
    gate: Arc<Gate>,
}

macro_rules! delegate {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $out { self.fake.$name($($arg),*) })*
    };
}

impl Runtime for Slow {
    fn pull_image(
        &self,
        request: &PullRequest,
        progress: &dyn runtime::runtime::PullProgress,
    ) -> runtime::Result<runtime::runtime::ImageInfo> {
        if request.reference.to_string().contains("slow") {
            self.gate.wait();
        }
        self.fake.pull_image(request, progress)
    }

    delegate! {
        list_images() -> runtime::Result<Vec<runtime::runtime::ImageInfo>>;
        remove_image(reference: &ImageRef) -> runtime::Result<()>;
        ensure_network(config: &NetworkConfig) -> runtime::Result<()>;
        remove_network(name: &NetworkName) -> runtime::Result<()>;
        list_networks() -> runtime::Result<Vec<runtime::runtime::NetworkInfo>>;
        ensure_volume(config: &VolumeConfig) -> runtime::Result<()>;
        remove_volume(name: &VolumeName) -> runtime::Result<()>;
        list_volumes() -> runtime::Result<Vec<runtime::runtime::VolumeInfo>>;
        create_container(config: &ContainerConfig) -> runtime::Result<()>;
        start_container(id: &runtime::id::ContainerId) -> runtime::Result<()>;
        stop_container(id: &runtime::id::ContainerId, grace: Duration) -> runtime::Result<()>;
        remove_container(id: &runtime::id::ContainerId) -> runtime::Result<()>;
        update_resources(id: &runtime::id::ContainerId, resources: &runtime::runtime::Resources) -> runtime::Result<()>;
        list_containers() -> runtime::Result<Vec<runtime::runtime::ContainerInfo>>;
        exec(
            id: &runtime::id::ContainerId,
            config: &runtime::runtime::ExecConfig,
            stdio: runtime::runtime::ExecStdio
        ) -> runtime::Result<Box<dyn runtime::runtime::ExecSession>>;
        publish_endpoints(table: &EndpointTable) -> runtime::Result<()>;
        watch() -> runtime::Result<Box<dyn runtime::runtime::RuntimeWatch>>;
        sweep() -> runtime::Result<Vec<String>>;
        findings() -> runtime::Result<Vec<runtime::runtime::Finding>>;
        log_dir(id: &runtime::id::ContainerId) -> std::path::PathBuf;
    }
}

struct Bench {
    fake: FakeRuntime,
    gate: Arc<Gate>,
    memory: Arc<Memory>,
    executor: Arc<Executor>,
}

fn bench() -> Bench {
    let (fake, gate) = (FakeRuntime::new(), Arc::new(Gate::default()));
    for name in ["slow", "quick"] {
        fake.offer_image(&reference(name), ImageConfig::default());
    }
    let memory = Arc::new(Memory::open(Arc::new(VolatileStore::default()), "boot"));
    let runtime = Arc::new(Slow { fake: fake.clone(), gate: gate.clone() });
    let executor = Executor::new(runtime, memory.clone(), Arc::default());
    Bench { fake, gate, memory, executor }
}

fn reference(name: &str) -> ImageRef {
    format!("registry.example/{name}:1").parse().unwrap()
}

fn step(action: Action, after: &[usize]) -> Step {
    Step { action, object: None, reason: Reason::Missing, source: None, after: after.to_vec() }
}

fn pull(name: &str) -> Action {
    Action::PullImage { reference: reference(name), refresh: false }
}

fn volume(name: &str) -> Action {
    Action::CreateVolume { config: VolumeConfig { name: name.parse().unwrap(), labels: BTreeMap::new() } }
}

fn plan(steps: Vec<Step>) -> Plan {
    Plan { steps, ..Plan::default() }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = clock::boot_ms() + 10_000;
    while !holds() {
        assert!(clock::boot_ms() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_holds_up_nothing_else_and_is_joined_by_the_next_plan() {
    let bench = bench();
    let first =
        bench.executor.execute(plan(vec![step(pull("slow"), &[]), step(volume("a"), &[0]), step(volume("b"), &[])]));
    until("the rest is done", || bench.fake.list_volumes().unwrap().len() == 1).await;
    assert!(bench.executor.in_flight().0.contains(&pull("slow").subject()));

    let second =
        bench.executor.execute(plan(vec![step(pull("slow"), &[]), step(volume("c"), &[0]), step(pull("quick"), &[])]));
    until("the quick one is done", || bench.fake.list_images().unwrap().len() == 1).await;
    bench.gate.open();
    assert_eq!(second.await.unwrap().outcomes, [Outcome::Done; 3]);
    // What had not begun of the older plan was dropped; what had is done once.
    assert_eq!(first.await.unwrap().outcomes, [Outcome::Done, Outcome::Superseded, Outcome::Done]);
    let calls = bench.fake.take_calls();
    let pulls = calls.iter().filter(|(verb, name)| *verb == Verb::PullImage && name.contains("slow"));
    assert_eq!(pulls.count(), 1);
    assert!(!bench.executor.busy());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_step_for_a_thing_in_flight_is_left_for_later() {
    let bench = bench();
    let first = bench.executor.execute(plan(vec![step(pull("slow"), &[])]));
    until("in flight", || bench.executor.busy()).await;
    let remove = Action::RemoveImage { reference: reference("slow") };
    let second = bench.executor.execute(plan(vec![step(remove, &[]), step(volume("a"), &[0])]));
    assert_eq!(second.await.unwrap().outcomes, [Outcome::Busy, Outcome::Skipped]);
    bench.gate.open();
    assert_eq!(first.await.unwrap().outcomes, [Outcome::Done]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_remembered_by_subject_and_forgotten_on_success() {
    let bench = bench();
    let missing = pull("nowhere");
    let report = bench.executor.execute(plan(vec![step(missing.clone(), &[]), step(volume("a"), &[0])])).await.unwrap();
    assert_eq!(report.outcomes, [Outcome::Failed, Outcome::Skipped]);
    assert_eq!(bench.memory.lock().failures[&missing.subject()].attempts, 1);
    bench.fake.offer_image(&reference("nowhere"), ImageConfig::default());
    bench.executor.execute(plan(vec![step(missing, &[])])).await.unwrap();
    assert!(bench.memory.lock().failures.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_left_out_and_the_others_are_in_force() {
    let bench = bench();
    let listener = |port| runtime::runtime::Listener {
        at: HostPort::tcp(std::net::Ipv4Addr::LOCALHOST.into(), port),
        backends: Vec::new(),
        park_ms: 0,
    };
    bench.fake.take_port(std::net::Ipv4Addr::LOCALHOST.into(), 81);
    let table = EndpointTable { listeners: vec![listener(80), listener(81), listener(82)], ..EndpointTable::default() };
    let publish = || plan(vec![step(Action::PublishEndpoints { table: table.clone() }, &[])]);
    bench.executor.execute(publish()).await.unwrap();
    let ports = |table: &EndpointTable| table.listeners.iter().map(|l| l.at.port).collect::<Vec<_>>();
    assert_eq!(ports(bench.memory.lock().published.as_ref().unwrap()), [80, 82]);
    let subject = Action::listener_subject(listener(81).at);
    assert_eq!(bench.memory.lock().failures.keys().collect::<Vec<_>>(), [&subject]);

    bench.fake.free_port(std::net::Ipv4Addr::LOCALHOST.into(), 81);
    bench.executor.execute(publish()).await.unwrap();
    assert_eq!(ports(bench.memory.lock().published.as_ref().unwrap()), [80, 81, 82]);
    assert!(bench.memory.lock().failures.is_empty());
}
