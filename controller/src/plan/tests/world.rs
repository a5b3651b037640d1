//! Builders for the two sides of `plan()`, and a plan as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use runtime::id::ContainerId;
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{
    ContainerState, ExitStatus, ImageConfig, NetworkConfig, NetworkMode, Resources, SecurityConfig,
};

use runtime::runtime::HostPort;

use crate::model::{
    ConcurrencyPolicy, ContainerTemplate, DesiredJob, DesiredState, DesiredVolume, ImageSource, Kind, Mount, MountWhat,
    ObjectKey, ObservedContainer, ObservedImage, ObservedMember, ObservedNetwork, ObservedState, OnChange, OnFailure,
    PublishedPort, PullPolicy, Restart, RunPolicy, Schedule, SourceRef, UpdateStrategy, VolumeAccess, Workload,
};
use crate::plan::{Action, Plan, WaitingOn, network_name, plan};

/// Boot time of every look, unless a test says otherwise.
pub(super) const NOW: u64 = 1_000_000;

pub(super) fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey { stack: "shop".to_owned(), kind, name: name.to_owned() }
}

pub(super) fn app_key() -> ObjectKey {
    key(Kind::App, "web")
}

pub(super) fn source(line: u32) -> SourceRef {
    SourceRef { file: "shop/web.yaml".to_owned(), line, column: 1 }
}

pub(super) fn reference(tag: &str) -> ImageRef {
    format!("registry.example/shop/web:{tag}").parse().unwrap()
}

pub(super) fn digest(tag: &str) -> Digest {
    Digest::of(tag.as_bytes())
}

pub(super) fn template(tag: &str) -> ContainerTemplate {
    ContainerTemplate {
        image: ImageSource { reference: reference(tag), source: source(4) },
        entrypoint: None,
        args: None,
        env: BTreeMap::new(),
        working_dir: None,
        user: None,
        hostname: None,
        mounts: Vec::new(),
        resources: Resources::default(),
        container_ports: BTreeSet::new(),
        healthcheck: None,
        startup: None,
        liveness: None,
        stop_grace_ms: 20_000,
        stop_signal: None,
        security: SecurityConfig::default(),
        shm_bytes: None,
        pull: PullPolicy::Missing,
        init: false,
        lossy_log: false,
        host_network: false,
        no_network: false,
        networks: Vec::new(),
        tty: false,
        tuning: Default::default(),
        pod: None,
    }
}

/// An App `web` of this many replicas, start-first, one at a time.
pub(super) fn web(replicas: u32, tag: &str) -> Workload {
    Workload {
        source: source(1),
        replicas,
        template: template(tag),
        ports: Vec::new(),
        strategy: UpdateStrategy {
            ordered: false,
            max_surge: 1,
            max_unavailable: 0,
            min_ready_ms: 0,
            progress_deadline_ms: 120_000,
            on_failure: OnFailure::Undo,
        },
        exclusive: false,
        depends_on: BTreeMap::new(),
        restart: Restart::Always,
        aliases: BTreeSet::new(),
        headless: false,
        services: BTreeMap::new(),
    }
}

pub(super) fn desire(web: Workload) -> DesiredState {
    DesiredState { generation: 1, workloads: [(app_key(), web)].into(), ..DesiredState::default() }
}

/// A host with these images and the stack's network, `published` as a plan for it would have it.
pub(super) fn host(tags: &[&str]) -> ObservedState {
    let image = |tag: &&str| {
        let image = ObservedImage {
            digest: digest(tag),
            previous: Vec::new(),
            config: ImageConfig::default(),
            checked_boot_ms: 1,
            answered: None,
            unused_since_boot_ms: None,
        };
        (reference(tag), image)
    };
    let name = network_name("shop");
    let config =
        NetworkConfig { name: name.clone(), gateway: "10.88.0.1".parse().unwrap(), prefix_len: 22, internal: false };
    ObservedState {
        now_boot_ms: NOW,
        now_unix_ms: 1_700_000_000_000,
        images: tags.iter().map(image).collect(),
        networks: [(name, ObservedNetwork { config, intact: true })].into(),
        ..ObservedState::default()
    }
}

/// Carries out every step of a plan at once: images appear, containers run, stopped ones have exited with 0.
pub(super) fn apply(plan: &Plan, observed: &mut ObservedState) {
    for step in &plan.steps {
        match &step.action {
            Action::PullImage { reference: wanted, .. } => {
                let tag = wanted.tag().unwrap_or("latest").to_owned();
                observed.images.extend(host(&[tag.as_str()]).images);
            }
            Action::RemoveImage { reference } => drop(observed.images.remove(reference)),
            Action::CreateNetwork { config } => {
                let network = ObservedNetwork { config: config.clone(), intact: true };
                observed.networks.insert(config.name.clone(), network);
            }
            Action::RemoveNetwork { name } => drop(observed.networks.remove(name)),
            Action::CreateVolume { config } => {
                let volume = crate::model::ObservedVolume::from_labels(&config.labels).unwrap();
                observed.volumes.insert(config.name.clone(), volume);
            }
            Action::RemoveVolume { name } => drop(observed.volumes.remove(name)),
            Action::CreateContainer { config } if config.holder().is_some() => {
                let mut member = ObservedMember::from_config(config).unwrap();
                member.state = ContainerState::Created;
                let pod = observed.containers.get_mut(config.holder().unwrap()).unwrap().pod.as_mut().unwrap();
                pod.members.insert(config.id.clone(), member);
            }
            Action::CreateContainer { config } => {
                let mut container = ObservedContainer::from_config(config).unwrap();
                container.state = ContainerState::Created;
                assert!(!matches!(config.network, NetworkMode::None));
                observed.containers.insert(config.id.clone(), container);
            }
            Action::StartContainer { id } if member(observed, id).is_some() => {
                let now = observed.now_boot_ms;
                let member = member(observed, id).unwrap();
                (member.state, member.started_boot_ms) = (ContainerState::Running, now);
            }
            Action::StartContainer { id } => {
                let container = observed.containers.get_mut(id).unwrap();
                container.state = ContainerState::Running;
                container.started_boot_ms = observed.now_boot_ms;
            }
            Action::StopContainer { id, .. } => {
                let now = observed.now_boot_ms;
                let Some(container) = observed.containers.get_mut(id) else {
                    end_member(member(observed, id).unwrap(), now, 0);
                    continue;
                };
                let members = container.pod.iter_mut().flat_map(|pod| pod.members.values_mut());
                members.for_each(|member| end_member(member, now, 0));
                end(container, now, 0);
            }
            Action::RemoveContainer { id } => {
                observed.containers.remove(id);
                let pods = observed.containers.values_mut().filter_map(|container| container.pod.as_mut());
                pods.for_each(|pod| drop(pod.members.remove(id)));
            }
            Action::UpdateResources { id, resources } => {
                observed.containers.get_mut(id).unwrap().resources = resources.clone();
            }
            Action::PublishEndpoints { table } => observed.published = Some(table.clone()),
            Action::RecordRevision { app, revision } => {
                ObservedState::put_revision(observed.revisions.entry(app.clone()).or_default(), (**revision).clone());
            }
            Action::RecordJob { job, record } => drop(observed.jobs.insert(job.clone(), record.clone())),
        }
    }
}

pub(super) fn end(container: &mut ObservedContainer, now: u64, code: u8) {
    container.state = ContainerState::Stopped;
    container.ready_since_boot_ms = None;
    container.finished_boot_ms = now;
    container.exit = Some(ExitStatus::Code(code));
}

/// A container of a pod.
pub(super) fn member<'o>(observed: &'o mut ObservedState, id: &ContainerId) -> Option<&'o mut ObservedMember> {
    observed.containers.values_mut().find_map(|container| container.pod.as_mut()?.members.get_mut(id))
}

pub(super) fn end_member(member: &mut ObservedMember, now: u64, code: u8) {
    member.state = ContainerState::Stopped;
    member.ready_since_boot_ms = None;
    member.finished_boot_ms = now;
    member.exit = Some(ExitStatus::Code(code));
}

/// Makes everything that runs ready, since a minute; a pod as its members are.
pub(super) fn all_ready(observed: &mut ObservedState) {
    let now = observed.now_boot_ms;
    for container in observed.containers.values_mut().filter(|container| container.pod.is_some()) {
        let members = container.pod.iter_mut().flat_map(|pod| pod.members.values_mut());
        for member in members.filter(|member| member.state == ContainerState::Running) {
            member.ready_since_boot_ms.get_or_insert(now - 60_000);
        }
        container.settle_pod(false, false);
    }
    let plain = observed.containers.values_mut().filter(|container| container.pod.is_none());
    for container in plain.filter(|c| c.state == ContainerState::Running) {
        container.ready_since_boot_ms.get_or_insert(now - 60_000);
    }
}

/// A host on which this was carried out until nothing was left to do.
pub(super) fn settled(desired: &DesiredState, mut observed: ObservedState) -> ObservedState {
    for _ in 0..40 {
        all_ready(&mut observed);
        let next = plan(desired, &observed);
        next.check(&observed).unwrap();
        if next.steps.is_empty() {
            return observed;
        }
        apply(&next, &mut observed);
    }
    panic!("does not settle: {}", text(&plan(desired, &observed)));
}

pub(super) fn volume_mount(name: &str) -> Mount {
    let what = MountWhat::Volume(key(Kind::Volume, name));
    Mount { path: "/data".to_owned(), what, read_only: false, on_change: OnChange::Roll, source: source(5) }
}

/// A volume for one writer, declared in this line.
pub(super) fn single(line: u32) -> DesiredVolume {
    DesiredVolume { source: source(line), access: VolumeAccess::Single }
}

pub(super) fn port(host_port: u16) -> PublishedPort {
    PublishedPort { at: HostPort::tcp("127.0.0.1".parse().unwrap(), host_port), container_port: 80, source: source(6) }
}

pub(super) fn job(tag: &str, cron: Option<&str>) -> DesiredJob {
    let schedule = cron.map(|cron| Schedule {
        cron: cron.to_owned(),
        time_zone: "UTC".to_owned(),
        concurrency: ConcurrencyPolicy::Forbid,
    });
    let depends_on = BTreeMap::new();
    DesiredJob {
        source: source(1),
        template: template(tag),
        schedule,
        backoff_limit: 2,
        runs: RunPolicy::default(),
        depends_on,
    }
}

/// A plan as people would read it: a line for each step, then what is waited for. Ids lose their hash.
pub(super) fn text(plan: &Plan) -> String {
    let mut out = String::new();
    for (id, step) in plan.steps.iter().enumerate() {
        let after: Vec<String> = step.after.iter().map(|id| format!("#{id}")).collect();
        let after = if after.is_empty() { String::new() } else { format!("  after {}", after.join(" ")) };
        writeln!(out, "#{id} {}  {}{after}", action(&step.action), reason(&step.reason)).unwrap();
    }
    for waiting in &plan.waiting {
        let object = waiting.object.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string);
        writeln!(out, "waiting {object}: {}", waited(&waiting.on)).unwrap();
    }
    out
}

fn waited(on: &WaitingOn) -> String {
    match on {
        WaitingOn::Image { reference } => format!("image {reference}"),
        WaitingOn::AbsentImage { reference } => format!("absent image {reference}"),
        WaitingOn::Dependency { on } => format!("dependency {on}"),
        WaitingOn::Ready { id } => format!("ready {}", short(id)),
        WaitingOn::BackOff { until_boot_ms, failures, .. } => {
            format!("back-off of {} ms after failure {failures}", until_boot_ms.saturating_sub(NOW))
        }
        WaitingOn::Dependant { id } => format!("the end of its dependant {}", short(id)),
        WaitingOn::Exclusive { id } => format!("the end of {}", short(id)),
        WaitingOn::Held { reason } => format!("held, {reason}"),
        WaitingOn::LostImage { digest } => format!("lost image {}", digest.short()),
        WaitingOn::Exhausted { what } => format!("no more {what}"),
    }
}

fn short(id: &runtime::id::ContainerId) -> String {
    id.as_str().rsplit_once('-').map_or("", |(head, _)| head).to_owned()
}

fn reason(reason: &crate::plan::Reason) -> String {
    match reason {
        crate::plan::Reason::TemplateChanged { fields } => format!("TemplateChanged({})", fields.join(", ")),
        crate::plan::Reason::Undo { to } => format!("Undo(to {to})"),
        other => other.name().to_owned(),
    }
}

fn action(action: &Action) -> String {
    let what = match action {
        Action::PullImage { reference, .. } | Action::RemoveImage { reference } => reference.to_string(),
        Action::CreateNetwork { config } => format!("{} {}/{}", config.name, config.gateway, config.prefix_len),
        Action::RemoveNetwork { name } => name.to_string(),
        Action::CreateVolume { config } => config.name.to_string(),
        Action::RemoveVolume { name } => name.to_string(),
        Action::CreateContainer { config } => {
            let address = match &config.network {
                NetworkMode::Bridge { address, .. } => address.to_string(),
                NetworkMode::None => "none".to_owned(),
                NetworkMode::Host => "host".to_owned(),
            };
            format!("{} try {} at {address}", short(&config.id), config.labels[crate::model::labels::ATTEMPT])
        }
        Action::StartContainer { id }
        | Action::StopContainer { id, .. }
        | Action::RemoveContainer { id }
        | Action::UpdateResources { id, .. } => short(id),
        Action::PublishEndpoints { table } => {
            let zone = |names: &BTreeMap<String, Vec<_>>| {
                let name = |(name, addresses): (&String, &Vec<std::net::IpAddr>)| format!("{name}={}", addresses.len());
                names.iter().map(name).collect::<Vec<_>>().join(" ")
            };
            let zones: Vec<String> = table.zones.values().map(zone).collect();
            let listeners: Vec<String> =
                table.listeners.iter().map(|l| format!(":{}={}", l.at.port, l.backends.len())).collect();
            format!("{} {} views={}", zones.join(" "), listeners.join(" "), table.views.len())
        }
        Action::RecordRevision { revision, .. } => format!("{} {:?}", revision.number, revision.result),
        Action::RecordJob { record, .. } => {
            format!("run {} {:?} failures {}", record.run, record.outcome, record.failures)
        }
    };
    format!("{} {}", action.name(), what.trim())
}
