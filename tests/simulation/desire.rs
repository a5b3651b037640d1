//! Random desired states and random changes to them: what people write and edit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use controller::model::{
    Completion, ConcurrencyPolicy, ContainerTemplate, DependsOn, DesiredImage, DesiredJob, DesiredState, DesiredVolume,
    EnvValue, Hold, ImageSource, Kind, Member, Mount, MountWhat, NetworkUse, ObjectKey, OnChange, OnFailure, Pod,
    PublishedPort, PullPolicy, Restart, Role, RunPolicy, Schedule, SecretUse, SourceRef, UpdateStrategy, VolumeAccess,
    Workload,
};
use runtime::image::ImageRef;
use runtime::runtime::HostPort;
use runtime::runtime::{Resources, SecurityConfig};

use crate::rng::Rng;

pub(crate) const STACKS: [&str; 2] = ["blog", "shop"];
const APPS: [&str; 3] = ["cache", "db", "web"];
/// Tags of App images; `crate::world` says how each behaves. The first four are good.
pub(crate) const TAGS: [&str; 8] = ["1", "2", "5", "volume", "never-ready", "crash", "bad-exec", "follow"];
const JOB_TAGS: [&str; 4] = ["job-ok", "job-flaky", "job-fail", "job-slow"];

pub(crate) fn key(stack: &str, kind: Kind, name: &str) -> ObjectKey {
    ObjectKey { stack: stack.to_owned(), kind, name: name.to_owned() }
}

pub(crate) fn reference(tag: &str) -> ImageRef {
    format!("registry.example/sim:{tag}").parse().expect("a tag of ours")
}

fn source(key: &ObjectKey) -> SourceRef {
    SourceRef { file: format!("{}.yaml", key.name), line: 1, column: 1 }
}

/// Each stack is a source of its own, with files of the same names.
fn root(key: &ObjectKey) -> String {
    format!("/manifests/{}", key.stack)
}

fn template(key: &ObjectKey, tag: &str, rng: &mut Rng) -> ContainerTemplate {
    let env: BTreeMap<_, _> =
        (0..rng.small(2)).map(|i| (format!("V{i}"), EnvValue::Plain(rng.below(2).to_string()))).collect();
    let mut template = ContainerTemplate {
        image: ImageSource { reference: reference(tag), source: source(key) },
        entrypoint: None,
        args: rng.chance(200).then(|| vec!["serve".to_owned()]),
        env,
        working_dir: None,
        user: None,
        hostname: None,
        mounts: Vec::new(),
        resources: limits(rng),
        container_ports: BTreeSet::new(),
        healthcheck: None,
        startup: None,
        liveness: None,
        stop_grace_ms: 1_000 + rng.below(10_000),
        stop_signal: None,
        security: SecurityConfig::default(),
        shm_bytes: None,
        pull: PullPolicy::Missing,
        init: false,
        lossy_log: false,
        host_network: rng.chance(30),
        no_network: false,
        networks: Vec::new(),
        tty: false,
        tuning: Default::default(),
        pod: None,
    };
    template.pull = pull(template.stop_grace_ms);
    template.pod = pod(key, &template, rng);
    if rng.chance(100) {
        template.mounts.push(scratch(key));
    }
    template
}

/// Mostly nothing is said. Never is not among them: nobody loads images by hand here.
fn pull(dice: u64) -> PullPolicy {
    match dice % 20 {
        0..=4 => PullPolicy::Always,
        5 => PullPolicy::Every(3_600_000),
        _ => PullPolicy::Missing,
    }
}

/// Containers beside the main one: some that end well at once or the second time, rarely never; some that serve.
fn pod(
    key: &ObjectKey,
    main: &ContainerTemplate,
    rng: &mut Rng,
) -> Option<Box<Pod<ImageSource, EnvValue, Mount, NetworkUse>>> {
    if !rng.chance(250) {
        return None;
    }
    let mut members = Vec::new();
    for (role, name) in [(Role::Init, "init"), (Role::Sidecar, "proxy"), (Role::Init, "late"), (Role::Beside, "aside")]
    {
        if !rng.chance(500) {
            continue;
        }
        let tag = match role {
            Role::Init if rng.chance(50) => "job-fail",
            Role::Init if rng.chance(300) => "job-flaky",
            Role::Init => "job-ok",
            Role::Sidecar | Role::Main | Role::Beside if rng.chance(50) => "crash",
            Role::Sidecar | Role::Main | Role::Beside => TAGS[rng.index(4)],
        };
        let image = ImageSource { reference: reference(tag), source: source(key) };
        let env = BTreeMap::new();
        let mut template = ContainerTemplate { image, resources: limits(rng), mounts: Vec::new(), env, ..main.clone() };
        if rng.chance(500) {
            template.mounts.push(Mount { path: format!("/{name}"), ..scratch(key) });
        }
        members.push(Member { name: name.to_owned(), role, template, env_from: Vec::new() });
    }
    Some(Box::new(Pod { main: "main".to_owned(), share_pids: rng.chance(200), members }))
}

fn scratch(key: &ObjectKey) -> Mount {
    let what = MountWhat::Scratch("work".to_owned());
    Mount { path: "/work".to_owned(), what, read_only: false, on_change: OnChange::None, source: source(key) }
}

fn limits(rng: &mut Rng) -> Resources {
    Resources {
        memory_bytes: rng.chance(500).then_some(64 << 20),
        cpu_millis: None,
        pids_max: None,
        ..Resources::default()
    }
}

fn mount(key: &ObjectKey, what: MountWhat, read_only: bool) -> Mount {
    Mount { path: "/data".to_owned(), what, read_only, on_change: OnChange::Roll, source: source(key) }
}

fn tag(rng: &mut Rng) -> &'static str {
    let tags = if rng.chance(500) { &TAGS[..4] } else { &TAGS[..] };
    tags[rng.index(tags.len())]
}

fn workload(key: &ObjectKey, desired: &mut DesiredState, rng: &mut Rng) -> Workload {
    let mut template = template(key, tag(rng), rng);
    let mut exclusive = false;
    let mut replicas = rng.small(5);
    if rng.chance(300) {
        let volume = crate::desire::key(&key.stack, Kind::Volume, &format!("{}-data", key.name));
        let access = if rng.chance(600) { VolumeAccess::Single } else { VolumeAccess::Shared };
        let found = desired.volumes.entry(volume.clone());
        let access = found.or_insert(DesiredVolume { source: source(key), access }).access;
        let read_only = rng.chance(200);
        template.mounts.push(mount(key, MountWhat::Volume(volume), read_only));
        exclusive = access == VolumeAccess::Single && !read_only;
        if exclusive {
            replicas = replicas.min(1);
        }
    }
    let host_port = 8000 + u16::try_from(rng.below(1000)).expect("less than 1000");
    let port = PublishedPort {
        at: HostPort::tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), host_port),
        container_port: 80,
        source: source(key),
    };
    let taken = desired.workloads.values().flat_map(|app| &app.ports).any(|port| port.at.port == host_port);
    Workload {
        source: source(key),
        replicas,
        ports: if rng.chance(500) && !taken { vec![port] } else { Vec::new() },
        strategy: UpdateStrategy {
            // no draw of its own: what a seed says stays
            ordered: template.stop_grace_ms.is_multiple_of(5),
            max_surge: rng.small(3),
            max_unavailable: rng.small(2),
            min_ready_ms: if rng.chance(300) { 3_000 } else { 0 },
            progress_deadline_ms: 30_000,
            on_failure: if rng.chance(850) { OnFailure::Undo } else { OnFailure::Hold },
        },
        exclusive,
        depends_on: BTreeMap::new(),
        restart: Restart::Always,
        aliases: BTreeSet::new(),
        headless: false,
        services: BTreeMap::new(),
        template,
    }
}

fn job(key: &ObjectKey, rng: &mut Rng) -> DesiredJob {
    let concurrency = [ConcurrencyPolicy::Allow, ConcurrencyPolicy::Forbid, ConcurrencyPolicy::Replace];
    let tag = *rng.pick(&JOB_TAGS);
    let schedule = rng.chance(400).then(|| Schedule {
        cron: (*rng.pick(&["* * * * *", "*/5 * * * *", "0 3 * * *"])).to_owned(),
        time_zone: (*rng.pick(&["UTC", "Europe/Berlin"])).to_owned(),
        concurrency: *rng.pick(&concurrency),
    });
    let mut template = template(key, tag, rng);
    template.host_network = false;
    DesiredJob {
        source: source(key),
        template,
        schedule,
        backoff_limit: rng.small(4),
        runs: runs(rng),
        depends_on: BTreeMap::new(),
    }
}

fn runs(rng: &mut Rng) -> RunPolicy {
    let completions = if rng.chance(300) { 2 + rng.small(2) } else { 1 };
    RunPolicy {
        completions,
        parallelism: if rng.chance(500) { 2 + rng.small(2) } else { 1 },
        indexed: rng.chance(500),
        deadline_ms: rng.chance(150).then_some(30_000),
        ttl_ms: rng.chance(300).then_some(60_000),
        late_ms: rng.chance(300).then_some(90_000),
        suspend: rng.chance(50),
        keep_succeeded: rng.small(4),
        keep_failed: rng.small(2),
    }
}

/// A first state.
pub(crate) fn random(rng: &mut Rng) -> DesiredState {
    let mut desired = DesiredState { generation: 1, ..DesiredState::default() };
    for _ in 0..=rng.below(3) {
        change(&mut desired, rng);
    }
    desired
}

/// One edit.
pub(crate) fn change(desired: &mut DesiredState, rng: &mut Rng) {
    desired.generation += 1;
    let stack = if rng.chance(800) { STACKS[1] } else { STACKS[0] };
    let app_key = key(stack, Kind::App, APPS[rng.index(APPS.len())]);
    match rng.below(13) {
        0..=2 => {
            let app = workload(&app_key, desired, rng);
            desired.workloads.insert(app_key, app);
        }
        3..=6 => edit(desired, rng),
        7 => {
            desired.workloads.remove(&app_key);
            if rng.chance(500) {
                let mounted: Vec<ObjectKey> = desired.workloads.values().flat_map(volumes_of).collect();
                desired.volumes.retain(|key, _| mounted.contains(key));
            }
        }
        8 => remove_but_hold(desired, rng),
        9 => desired.holds.clear(),
        10 => {
            let job_key = key(stack, Kind::Job, "sweep");
            let job = job(&job_key, rng);
            desired.jobs.insert(job_key, job);
        }
        11 => drop(desired.jobs.remove(&key(stack, Kind::Job, "sweep"))),
        _ => image(desired, stack, rng),
    }
    depend(desired, rng);
    let workloads = &desired.workloads;
    desired.orders.retain(|key, _| workloads.contains_key(key));
    let owners = desired.workloads.keys().chain(desired.jobs.keys());
    desired.roots = owners.map(|key| (key.clone(), root(key))).collect();
}

fn volumes_of(app: &Workload) -> Vec<ObjectKey> {
    let volume = |mount: &Mount| match &mount.what {
        MountWhat::Volume(key) => Some(key.clone()),
        MountWhat::Bind(_)
        | MountWhat::Claim(_)
        | MountWhat::File { .. }
        | MountWhat::Secret { .. }
        | MountWhat::Tmpfs { .. }
        | MountWhat::Anonymous
        | MountWhat::Scratch(_) => None,
    };
    app.template.mounts.iter().filter_map(volume).collect()
}

fn image(desired: &mut DesiredState, stack: &str, rng: &mut Rng) {
    let image_key = key(stack, Kind::Image, "base");
    if desired.images.remove(&image_key).is_some() && rng.chance(500) {
        return;
    }
    let tag = if rng.chance(600) { "follow" } else { tag(rng) };
    let image = DesiredImage {
        source: source(&image_key),
        reference: reference(tag),
        follow_ms: rng.chance(700).then_some(60_000),
        keep: rng.small(3),
        pull: PullPolicy::Missing,
    };
    desired.images.insert(image_key, image);
}

/// Changes one thing of one App.
fn edit(desired: &mut DesiredState, rng: &mut Rng) {
    let count = desired.workloads.len();
    if count == 0 {
        return;
    }
    let chosen = rng.index(count);
    let Some(app) = desired.workloads.values_mut().nth(chosen) else { return };
    match rng.below(11) {
        0..=4 => app.template.image.reference = reference(tag(rng)),
        5 => app.replicas = if app.exclusive { rng.small(2) } else { rng.small(5) },
        6 | 7 => {
            // Another one than before.
            let limits_now = &mut app.template.resources;
            limits_now.memory_bytes = limits_now.memory_bytes.xor(Some(64 << 20));
            for member in app.template.pod.iter_mut().flat_map(|pod| &mut pod.members) {
                member.template.resources = limits(rng);
            }
        }
        8 => {
            let value = rng.below(4);
            let secret = || SecretUse { secret: "s".to_owned(), key: "k".to_owned(), sealed: format!("s1:{value}") };
            let value = if value < 2 { EnvValue::Plain(value.to_string()) } else { EnvValue::Secret(secret()) };
            app.template.env.insert("V0".to_owned(), value);
        }
        9 => app.template.mounts.push(Mount {
            path: "/etc/app.conf".to_owned(),
            what: MountWhat::File { content: rng.next().to_le_bytes().as_slice().into(), mode: 0o644 },
            read_only: true,
            on_change: if rng.chance(500) { OnChange::Roll } else { OnChange::None },
            source: app.source.clone(),
        }),
        _ => app.strategy.max_surge = rng.small(3),
    }
    let mut paths = BTreeSet::new();
    app.template.mounts.reverse();
    app.template.mounts.retain(|mount| paths.insert(mount.path.clone()));
    app.template.mounts.reverse();
}

/// A source goes away without a word: its objects leave the desired state, and a hold comes.
fn remove_but_hold(desired: &mut DesiredState, rng: &mut Rng) {
    let keys: Vec<ObjectKey> = desired.workloads.keys().cloned().collect();
    if keys.is_empty() {
        return;
    }
    let chosen = rng.pick(&keys).clone();
    if let Some(app) = desired.workloads.remove(&chosen) {
        let file = rng.chance(700).then_some(app.source.file);
        // Of its own source, of another one (where a file of the same name is none of its business), or of all.
        let root = match rng.below(10) {
            0 => None,
            1..=3 => Some(root(&ObjectKey { stack: rng.pick(&STACKS).to_string(), ..chosen })),
            _ => Some(root(&chosen)),
        };
        desired.holds.push(Hold { root, file, reason: "cannot be read".to_owned() });
    }
    depend(desired, rng);
}

/// Dependencies that exist and make no cycle, as `model::resolve` would have it: on names before one's own.
fn depend(desired: &mut DesiredState, rng: &mut Rng) {
    let apps: Vec<ObjectKey> = desired.workloads.keys().cloned().collect();
    let jobs: Vec<ObjectKey> =
        desired.jobs.iter().filter(|(_, j)| j.schedule.is_none()).map(|(k, _)| k.clone()).collect();
    for (key, app) in &mut desired.workloads {
        app.depends_on.retain(|on, _| (apps.contains(on) && on < key) || jobs.contains(on));
        if rng.chance(60) {
            match apps.iter().find(|on| *on < key && on.stack == key.stack) {
                Some(on) if rng.chance(700) => {
                    let how = if rng.chance(500) { DependsOn::Ready } else { DependsOn::Started };
                    app.depends_on.insert(on.clone(), how);
                }
                Some(_) | None => {
                    if let Some(on) = jobs.first() {
                        app.depends_on.insert(on.clone(), DependsOn::Completed(Completion::Success));
                    }
                }
            }
        }
    }
}
