//! The whole controller but for the kernel: manifests on disk, the loop, the store, the socket, on a [`FakeRuntime`].

use std::path::PathBuf;

use runtime::FakeRuntime;
use runtime::fake::Verb;
use runtime::id::ContainerId;
use runtime::runtime::{ContainerState, ExitStatus, Finding, ImageConfig};
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::api::client::Client;
use crate::api::types::{Applied, Description, ExecFrame, ExecRequest, ObjectStatus, Phase, SourceRequest};
use crate::store::VolatileStore;

/// Longest wait for a state.
const DEADLINE_MS: u64 = 20_000;

/// A host whose containers outlive its controllers.
struct Host {
    dir: tempfile::TempDir,
    fake: FakeRuntime,
}

/// One controller on it.
struct Running {
    parts: Parts,
    client: Client,
    options: Options,
}

impl Host {
    fn new() -> Self {
        let fake = FakeRuntime::new();
        // Started long enough ago that "runs for a second" holds at once.
        fake.set_now(clock::boot_ms().saturating_sub(5_000).max(1), clock::unix_ms());
        for tag in ["1", "2"] {
            let reference = format!("registry.example/web:{tag}").parse().unwrap();
            fake.offer_image(&reference, ImageConfig { cmd: vec!["serve".to_owned()], ..ImageConfig::default() });
        }
        Self { dir: tempfile::tempdir().unwrap(), fake }
    }

    fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.manifests()).unwrap();
        std::fs::write(self.manifests().join(name), text).unwrap();
    }

    fn start(&self, run: &str) -> Running {
        self.start_on(run, None)
    }

    /// As `boxship controller --manifests DIR`.
    fn start_on(&self, run: &str, manifests: Option<PathBuf>) -> Running {
        let layout = Layout::new(self.dir.path().join(run), self.dir.path().join(run));
        std::fs::create_dir_all(layout.state_dir()).unwrap();
        let options = Options {
            layout,
            manifests,
            images: StoreOptions::default(),
            secret_key: self.dir.path().join("secret.key"),
            scrub_every: Duration::ZERO,
            kept: false,
        };
        let memory = Arc::new(Memory::open(Arc::new(VolatileStore::default()), "boot"));
        let runtime: Arc<dyn Runtime> = Arc::new(self.fake.clone());
        let listed = self.fake.list_containers().unwrap();
        let owners = listed.iter().filter_map(|info| ObservedContainer::from_config(&info.config));
        let owners = owners.map(|container| container.replica.workload).collect();
        let parts = Parts::start(&options, runtime, None, memory, crate::plan::plan, owners).unwrap();
        let client = Client::new(options.layout.socket("controller"));
        Running { parts, client, options }
    }

    /// Names of the containers that run.
    fn running(&self) -> Vec<ContainerId> {
        let listed = self.fake.list_containers().unwrap();
        let running = listed.into_iter().filter(|info| info.state == ContainerState::Running);
        running.map(|info| info.config.id).collect()
    }
}

impl Running {
    async fn up(&self, host: &Host, watch: bool, confirm_removal: bool) -> Applied {
        let request =
            SourceRequest { path: host.manifests(), default_stack: "shop".to_owned(), watch, confirm_removal };
        self.client.post("/v1/sources", &request).await.unwrap()
    }

    /// Waits until the page is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = clock::boot_ms() + DEADLINE_MS;
        let mut page: Status = self.client.get("/v1/status").await.unwrap();
        while !wanted(&page) {
            assert!(clock::boot_ms() < deadline, "not in time: {what}; {page:#?}");
            let path = format!("/v1/status?after={}&timeout_ms=500", page.version);
            page = self.client.get(&path).await.unwrap();
        }
        page
    }

    async fn end(self) {
        self.parts.end(&self.options).await;
    }
}

fn object<'a>(page: &'a Status, name: &str) -> Option<&'a ObjectStatus> {
    page.objects.iter().find(|object| object.key.name == name)
}

fn is_ready(page: &Status, name: &str, replicas: u32) -> bool {
    object(page, name).is_some_and(|o| o.phase == Phase::Ready && o.ready == replicas && o.desired == replicas)
}

fn app(name: &str, replicas: u32, rest: &str) -> String {
    format!(
        "apiVersion: boxship/v1\nkind: App\nname: {name}\nreplicas: {replicas}\nimage: registry.example/web:1\n{rest}\n---\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_converge_and_a_killed_one_is_replaced() {
    let host = Host::new();
    host.write("web.yaml", &app("web", 3, ""));
    let running = host.start("a");
    let applied = running.up(&host, false, false).await;
    assert_eq!((applied.errors, applied.changed, applied.generation), (0, true, 1));
    let page = running.until("ready", |page| is_ready(page, "web", 3) && page.converged_generation == 1).await;
    let victim = object(&page, "web").unwrap().replicas[1].container.clone();

    host.fake.end_container(&victim, ExitStatus::Signal(9));
    let page = running
        .until("replaced", |page| {
            is_ready(page, "web", 3) && page.converged_generation == 1 && object(page, "web").unwrap().restarts == 1
        })
        .await;
    assert_eq!(host.running().len(), 3);
    assert!(!host.running().contains(&victim));
    assert_eq!(object(&page, "web").unwrap().message, "Running rev 1");

    let again = running.up(&host, false, false).await;
    assert_eq!((again.changed, again.generation), (false, 1));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_app_delays_no_other() {
    let host = Host::new();
    let bad = app("bad", 1, "entrypoint: [sh, -c, \"exit 3\"]");
    let missing = app("missing", 1, "").replace("web:1", "nowhere:1");
    host.write("all.yaml", &format!("{bad}{missing}{}", app("web", 2, "")));
    let running = host.start("a");
    running.up(&host, false, false).await;
    let page = running
        .until("one ready, two failing", |page| {
            is_ready(page, "web", 2)
                && object(page, "bad").is_some_and(|o| o.message.starts_with("Backoff"))
                && object(page, "missing").is_some_and(|o| o.phase == Phase::Failed)
        })
        .await;
    assert!(object(&page, "bad").unwrap().message.ends_with("exit 3"), "{page:#?}");
    assert!(object(&page, "missing").unwrap().message.contains("nowhere"), "{page:#?}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_state_touches_no_container() {
    let host = Host::new();
    host.write("web.yaml", &app("web", 2, ""));
    let running = host.start("a");
    running.up(&host, false, false).await;
    running.until("ready", |page| is_ready(page, "web", 2) && page.converged_generation == 1).await;
    running.end().await;
    let before = host.running();
    host.fake.take_calls();

    let running = host.start("lost");
    let page = running.until("held", |page| object(page, "web").is_some_and(|o| o.phase == Phase::Held)).await;
    assert!(page.notices.iter().any(|notice| notice.message.contains("not known any more")), "{page:#?}");
    running.up(&host, false, false).await;
    running.until("ready again", |page| is_ready(page, "web", 2) && page.converged_generation == page.generation).await;
    running.end().await;
    assert_eq!(host.running(), before);
    let touching = [Verb::CreateContainer, Verb::StartContainer, Verb::StopContainer, Verb::RemoveContainer];
    let touched: Vec<_> = host.fake.take_calls().into_iter().filter(|(verb, _)| touching.contains(verb)).collect();
    assert_eq!(touched, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_source_is_held_until_confirmed_and_a_followed_one_is_followed() {
    let host = Host::new();
    host.write("web.yaml", &app("web", 1, ""));
    host.write("db.yaml", &app("db", 1, ""));
    let running = host.start("a");
    running.up(&host, true, false).await;
    running.until("ready", |page| is_ready(page, "web", 1) && is_ready(page, "db", 1)).await;

    std::fs::remove_file(host.manifests().join("db.yaml")).unwrap();
    running.until("removed", |page| object(page, "db").is_none() && is_ready(page, "web", 1)).await;

    std::fs::remove_file(host.manifests().join("web.yaml")).unwrap();
    let page = running.until("held", |page| object(page, "web").is_some() && page.sources[0].held.is_some()).await;
    assert!(page.notices.iter().any(|n| n.help.as_deref().is_some_and(|help| help.contains("--confirm-removal"))));
    assert_eq!(host.running().len(), 1);

    running.up(&host, true, true).await;
    running.until("gone", |page| page.objects.is_empty()).await;
    assert_eq!(host.running().len(), 0);
    running.end().await;
}

/// Containers by name, so that "untouched" means the very same one.
fn names(host: &Host) -> Vec<String> {
    host.running().iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_started_on_another_directory_goes_on_and_removes_nothing_by_surprise() {
    let host = Host::new();
    let (old, new, gone) = (host.dir.path().join("old"), host.dir.path().join("new"), host.dir.path().join("gone"));
    for dir in [&old, &new] {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("web.yaml"), app("web", 2, "")).unwrap();
    }
    std::fs::write(old.join("db.yaml"), app("db", 1, "")).unwrap();
    let running = host.start_on("a", Some(old.clone()));
    running.until("ready", |page| is_ready(page, "web", 2) && is_ready(page, "db", 1)).await;
    running.end().await;
    let before = names(&host);

    // A directory that is not there: an error never deletes.
    let running = host.start_on("a", Some(gone.clone()));
    let page = running.until("held", |page| is_ready(page, "web", 2) && is_ready(page, "db", 1)).await;
    let codes: Vec<&str> = page.notices.iter().map(|notice| notice.code.as_str()).collect();
    assert_eq!(codes, ["BX0130", "BX0151", "BX0153"], "{page:#?}");
    running.end().await;

    // Another one: what both define goes on, what only the old one defines stays, and a line says so.
    let running = host.start_on("a", Some(new.clone()));
    let page = running.until("ready", |page| is_ready(page, "web", 2) && is_ready(page, "db", 1)).await;
    assert_eq!(names(&host), before);
    let [moved] = page.notices.as_slice() else { panic!("{page:#?}") };
    let says = format!(
        "the controller follows {} now and no longer reads {}; what only the latter defines stays as it is: \
         default/app/db",
        new.display(),
        old.display()
    );
    assert_eq!((moved.code.as_str(), &moved.message), ("BX0153", &says));
    assert_eq!(moved.help, Some(format!("boxship down {}", old.display())));
    let followed: Vec<_> = page.sources.iter().map(|source| (source.path.clone(), source.watch)).collect();
    assert_eq!(followed, [(new.clone(), true), (old.clone(), false)]);
    // What happens in the old directory has no effect any more; `up` on the new one leaves it followed.
    std::fs::remove_file(old.join("web.yaml")).unwrap();
    let request =
        SourceRequest { path: new.clone(), default_stack: "new".to_owned(), watch: false, confirm_removal: false };
    let applied: Applied = running.client.post("/v1/sources", &request).await.unwrap();
    assert!(!applied.changed, "{applied:?}");
    // The command that was named.
    let _: Applied = running.client.delete(&format!("/v1/sources?path={}", old.display())).await.unwrap();
    let page = running.until("confirmed", |page| object(page, "db").is_none()).await;
    assert_eq!((page.notices.len(), page.sources.len()), (0, 1), "{page:#?}");
    assert!(page.sources[0].watch);
    assert_eq!(names(&host), before.into_iter().filter(|name| !name.contains("db")).collect::<Vec<_>>());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_had_is_told_with_code_place_and_command() {
    let host = Host::new();
    host.write("web.yaml", &app("web", 1, "").replace("web:1", "web:nowhere"));
    host.write("base.yaml", "apiVersion: boxship/v1\nkind: Image\nname: base\nref: registry.example/base:1\n");
    let running = host.start("a");
    running.up(&host, false, false).await;
    let failed =
        |page: &Status, name: &str| object(page, name).is_some_and(|o| o.phase == Phase::Failed && o.problem.is_some());
    let page = running.until("failed", |page| failed(page, "web") && failed(page, "base")).await;
    for (name, place, reference) in [("web", "web.yaml:5:8", "web:nowhere"), ("base", "base.yaml:4:6", "base:1")] {
        let problem = object(&page, name).unwrap().problem.clone().unwrap();
        assert_eq!(problem.code, "BX0302");
        assert_eq!(problem.place.unwrap().to_string(), place);
        let help = format!("boxship image pull registry.example/{reference}");
        assert!(problem.help.as_ref().is_some_and(|said| said.starts_with(&help)), "{:?}", problem.help);
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_is_told_and_what_has_no_owner_is_swept() {
    let host = Host::new();
    host.write("web.yaml", &app("web", 1, ""));
    let running = host.start("a");
    running.until("empty", |page| page.version > 0).await;
    // While the controller runs, not only when it starts: networks that come ask for a look at once.
    let (what, effect) = ("chain `FORWARD` drops".to_owned(), "nothing outside is reached".to_owned());
    host.fake.set_findings(vec![Finding { what, effect, fix: "nft insert rule".to_owned() }]);
    host.fake.leave_orphan("bv-lost");
    running.up(&host, false, false).await;
    let page = running.until("told", |page| is_ready(page, "web", 1) && !page.notices.is_empty()).await;
    let [notice] = page.notices.as_slice() else { panic!("{page:#?}") };
    assert_eq!(notice.code, "BX0402");
    assert_eq!(notice.message, "chain `FORWARD` drops: nothing outside is reached");
    assert_eq!(notice.help.as_deref(), Some("nft insert rule"));
    let described: Description = running.client.get("/v1/objects/shop/app/web").await.unwrap();
    assert_eq!(described.notices, page.notices);
    assert_eq!(host.fake.orphans(), [""; 0]);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_runs_over_the_socket_and_its_exit_comes_back() {
    let host = Host::new();
    host.write("web.yaml", &app("web", 1, ""));
    let running = host.start("a");
    running.up(&host, false, false).await;
    running.until("ready", |page| is_ready(page, "web", 1)).await;
    let request = ExecRequest {
        stack: "shop".to_owned(),
        target: "web".to_owned(),
        container: None,
        args: vec!["sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()],
        tty: None,
        stdin: false,
        user: None,
        working_dir: None,
        env: Vec::new(),
    };
    let mut stream = running.client.upgrade("/v1/exec", "boxship-exec", &request).await.unwrap();
    let (kind, len) = (stream.read_u8().await.unwrap(), stream.read_u32().await.unwrap());
    assert_eq!(ExecFrame::from_byte(kind), Some(ExecFrame::Exit));
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload).await.unwrap();
    assert_eq!(serde_json::from_slice::<ExitStatus>(&payload).unwrap(), ExitStatus::Code(7));
    let error =
        running.client.upgrade("/v1/exec", "boxship-exec", &ExecRequest { target: "no".into(), ..request }).await;
    assert!(error.is_err());
    running.end().await;
}
