//! One container: from template, image and replica to a `ContainerConfig`, and the steps that make and start it. Whether
//! it should be made is decided elsewhere; here is only what it needs: volumes, network, address, ids, one writer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use runtime::id::{ContainerId, VolumeName};
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{
    ContainerConfig, ContainerState, ImageConfig, LogConfig, MountConfig, MountSource, NetworkAddress, NetworkMode,
    PodPart, Resources, SecurityConfig, VolumeConfig,
};

use super::bug::Bug;
use super::name::{container_id, member_id, volume_name};
use super::pass::{Found, Obstacle, Pass};
use super::volume;
use super::{Action, Reason, StepId, WaitingOn};
use crate::model::{
    ContainerTemplate, EnvValue, MountWhat, ObjectKey, ObservedContainer, ObservedImage, ReplicaKey, SourceRef,
    TemplateHash, labels,
};

/// Docker's size of /dev/shm.
const SHM_BYTES: u64 = 64 << 20;

/// A container to be made.
#[derive(Clone)]
pub(super) struct Make<'a> {
    pub(super) object: &'a ObjectKey,
    pub(super) ordinal: u32,
    pub(super) attempt: u32,
    /// Its number among the completions of an indexed Job.
    pub(super) index: Option<u32>,
    pub(super) template: &'a ContainerTemplate,
    pub(super) hash: TemplateHash,
    pub(super) image: &'a Digest,
    pub(super) image_config: &'a ImageConfig,
    pub(super) resources: &'a Resources,
    pub(super) source: &'a SourceRef,
}

/// A volume of a container: where it is mounted, how it is made, whether writes are refused.
type Mounted = (String, VolumeConfig, bool);

impl Make<'_> {
    fn replica(&self) -> ReplicaKey {
        ReplicaKey { workload: self.object.clone(), ordinal: self.ordinal }
    }

    /// Its id. Half-made ones of the same id are removed before.
    pub(super) fn id(&self) -> ContainerId {
        container_id(&self.replica(), &self.hash, self.attempt)
    }

    /// Volumes it mounts; of a pod those of all its containers, once each, writable when one of them may write.
    fn volumes(&self, images: &BTreeMap<ImageRef, ObservedImage>) -> Vec<Mounted> {
        let pod = self.id();
        let mut all = volumes_of(self, &pod, "");
        for member in self.template.pod.iter().flat_map(|pod| &pod.members) {
            let Some(image) = images.get(&member.template.image.reference) else { continue };
            let make = Make { template: &member.template, image_config: &image.config, ..self.clone() };
            all.extend(volumes_of(&make, &pod, &member.name));
        }
        if self.template.pod.is_some() {
            all.sort_by(|a, b| (&a.1.name, a.2).cmp(&(&b.1.name, b.2)));
            all.dedup_by(|later, earlier| later.1.name == earlier.1.name);
        }
        all
    }
}

/// Volumes of one container by itself. `member` is its name when it is not the main one of a pod.
fn volumes_of(make: &Make<'_>, pod: &ContainerId, member: &str) -> Vec<Mounted> {
    let replica = make.replica();
    let declared = make.template.mounts.iter().filter_map(|mount| match &mount.what {
        MountWhat::Volume(key) => Some((mount.path.clone(), volume::named(key), mount.read_only)),
        MountWhat::Claim(name) => Some((mount.path.clone(), volume::claimed(&replica, name), mount.read_only)),
        MountWhat::Scratch(name) => Some((mount.path.clone(), volume::scratch(&replica, pod, name), mount.read_only)),
        MountWhat::Bind(_)
        | MountWhat::File { .. }
        | MountWhat::Secret { .. }
        | MountWhat::Tmpfs { .. }
        | MountWhat::Anonymous => None,
    });
    let declared: Vec<Mounted> = declared.collect();
    let own: Vec<Mounted> = match member {
        "" => volume::anonymous_paths(make.template, make.image_config)
            .map(|path| (path.to_owned(), volume::anonymous(&replica, path), false))
            .collect(),
        member => {
            let is_asked = |path: &str| volume::is_anonymous(make.template, path);
            volume::anonymous_paths(make.template, make.image_config)
                .map(|path| match is_asked(path) {
                    // What several containers of a pod name by one path is one volume.
                    true => (path.to_owned(), volume::anonymous(&replica, path), false),
                    // What a member's image asks for goes with the pod.
                    false => (path.to_owned(), volume::scratch(&replica, pod, &format!("{member}:{path}")), false),
                })
                .collect()
        }
    };
    declared.into_iter().chain(own).collect()
}

/// Labels that say which replica something belongs to.
pub(super) fn replica_labels(replica: &ReplicaKey) -> BTreeMap<String, String> {
    let key = &replica.workload;
    let labels = [
        (labels::STACK, key.stack.clone()),
        (labels::KIND, key.kind.to_string()),
        (labels::NAME, key.name.clone()),
        (labels::ORDINAL, replica.ordinal.to_string()),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl<'a> Pass<'a> {
    /// What keeps a container from being made now, if those in `freed` were gone.
    pub(super) fn make_obstacle(&self, make: &Make<'a>, freed: &[Found<'a>]) -> Option<Obstacle> {
        let id = make.id();
        if let Some(obstacle) = self.obstacle_of(&format!("create {id}")) {
            return Some(obstacle);
        }
        if make.template.is_bridged()
            && let Some(obstacle) = self.network_obstacle(make, freed)
        {
            return Some(obstacle);
        }
        for (_, config, _) in make.volumes(&self.observed.images) {
            if !self.observed.volumes.contains_key(&config.name)
                && let Some(obstacle) = self.obstacle_of(&format!("volume {}", config.name))
            {
                return Some(obstacle);
            }
        }
        let freed: BTreeSet<&ContainerId> = freed.iter().map(|(id, _)| *id).collect();
        self.other_writer(make, &freed).map(|id| Obstacle::Wait(WaitingOn::Exclusive { id: id.clone() }))
    }

    /// A container that writes to what this one must have for itself, and that neither `freed` nor this plan ends.
    fn other_writer(&self, make: &Make<'a>, freed: &BTreeSet<&ContainerId>) -> Option<&ContainerId> {
        if self.has_bug(Bug::ExclusiveIgnored) {
            return None;
        }
        let wanted = volume::exclusive_volumes(self.desired, make.template, make.image_config, &make.replica());
        let mut writers = wanted.iter().filter_map(|name| self.writers.get(name)).flatten();
        writers.find(|id| !freed.contains(id) && !self.stopped.contains_key(*id))
    }

    /// Plans what makes and starts a container; `None` when something is in the way after all.
    pub(super) fn make(&mut self, make: &Make<'a>, reason: Reason, mut after: Vec<StepId>) -> Option<StepId> {
        if let Some(obstacle) = self.make_obstacle(make, &[]) {
            self.blocked(make.object, obstacle);
            return None;
        }
        let Some(ids) = self.ids.of(make.object) else {
            self.wait(make.object, WaitingOn::Exhausted { what: "id ranges".to_owned() });
            return None;
        };
        let id = make.id();
        // A half-made one of the same name must be gone first: in this plan, else in a later one.
        match self.removed.get(&id) {
            Some(step) => after.push(*step),
            None if self.observed.containers.contains_key(&id) => return None,
            None => {}
        }
        let mut writes: Vec<VolumeName> = Vec::new();
        let volumes = make.volumes(&self.observed.images);
        for (_, config, read_only) in volumes.clone() {
            for writer in self.writers.get(&config.name).into_iter().flatten() {
                after.extend(self.stopped.get(writer));
            }
            if !read_only {
                writes.push(config.name.clone());
            }
            after.extend(self.volume_step(config, make.object, make.source));
        }
        let network = match (make.template.host_network, make.template.no_network) {
            (true, _) => NetworkMode::Host,
            (false, true) => NetworkMode::None,
            (false, false) => {
                let mode = self.take_addresses(make, &mut after)?;
                let view = self.view_of(mode.addresses().map(|(network, _)| network));
                self.views.insert(id.clone(), view);
                mode
            }
        };
        let mut config = Box::new(container_config(make, id.clone(), ids, network));
        config.labels.extend(self.origin_labels(make.object));
        if let Some(parts) = &make.template.pod {
            hold_pod(&mut config, parts.label(), volumes);
        }
        self.made.insert(id.clone());
        let create = Action::CreateContainer { config };
        let step = self.push(create, Some(make.object), reason.clone(), Some(make.source), after)?;
        // The name may be that of a half-made one that goes first: it is back now (simulation seed 9494).
        self.stopped.remove(&id);
        for name in writes {
            self.writers.entry(name).or_default().push(id.clone());
        }
        let before = if self.has_bug(Bug::StartNotAfterCreate) { Vec::new() } else { vec![step] };
        self.start(&id, make.object, reason, Some(make.source), before);
        Some(step)
    }

    /// Labels that say where an App or Job comes from and what it depends on.
    fn origin_labels(&self, object: &ObjectKey) -> impl Iterator<Item = (String, String)> {
        let root = self.desired.roots.get(object).cloned();
        let app = self.desired.workloads.get(object).map(|app| &app.depends_on);
        let depends_on = app.or_else(|| self.desired.jobs.get(object).map(|job| &job.depends_on));
        let keys = depends_on.filter(|on| !on.is_empty()).map(|on| {
            let keys: Vec<String> = on.keys().map(ToString::to_string).collect();
            keys.join(" ")
        });
        let labels = [root.map(|root| (labels::ROOT, root)), keys.map(|keys| (labels::DEPENDS_ON, keys))];
        labels.into_iter().flatten().map(|(name, value)| (name.to_owned(), value))
    }

    /// Starts a created container once it has its view of the names.
    pub(super) fn start(
        &mut self,
        id: &ContainerId,
        object: &ObjectKey,
        reason: Reason,
        source: Option<&SourceRef>,
        after: Vec<StepId>,
    ) {
        let step = self.push(Action::StartContainer { id: id.clone() }, Some(object), reason, source, after);
        let in_force = self.observed.published.as_ref();
        if let Some(step) = step
            && !in_force.is_some_and(|table| table.views.contains_key(id))
        {
            self.viewless_starts.push(step);
        }
    }

    /// The attempt number of a slot's next container, given all it has and had. A half-made one does not count.
    pub(super) fn next_attempt(&self, object: &ObjectKey, ordinal: u32, found: &[Found<'a>]) -> u32 {
        let counted = found.iter().filter(|(id, container)| {
            let half_made = container.state == ContainerState::Creating && !self.is_being_made(id);
            let removed = container.state == ContainerState::Created && self.removed.contains_key(*id);
            !half_made && !removed
        });
        let found = counted.map(|(_, container)| container.attempt + 1).max().unwrap_or(0);
        // Cheap when there is no history at all, the usual case of a first start.
        if self.observed.exits.is_empty() {
            return found;
        }
        let replica = ReplicaKey { workload: object.clone(), ordinal };
        let ended = self.observed.exits.get(&replica).into_iter().flatten();
        found.max(ended.map(|exit| exit.attempt + 1).max().unwrap_or(0))
    }
}

/// Makes of a replica's container the holder of its pod: it has the address and names the volumes of all, and runs nothing
/// of a user.
fn hold_pod(config: &mut ContainerConfig, parts: String, volumes: Vec<Mounted>) {
    config.labels.insert(labels::MEMBERS.to_owned(), parts);
    let volume = |(target, volume, read_only): Mounted| MountConfig {
        target,
        source: MountSource::Volume { name: volume.name },
        read_only,
    };
    *config = ContainerConfig {
        id: config.id.clone(),
        labels: std::mem::take(&mut config.labels),
        hostname: std::mem::take(&mut config.hostname),
        image: config.image.clone(),
        network: config.network.clone(),
        dns_search: std::mem::take(&mut config.dns_search),
        entrypoint: Some(vec!["boxship-pod".to_owned()]),
        args: None,
        env: BTreeMap::new(),
        sealed_env: BTreeMap::new(),
        working_dir: Some("/".to_owned()),
        user: Some("0:0".to_owned()),
        mounts: volumes.into_iter().map(volume).collect(),
        resources: Resources::default(),
        ids: config.ids,
        security: SecurityConfig {
            cap_drop: vec!["ALL".to_owned()],
            read_only_root: true,
            ..SecurityConfig::default()
        },
        stop_signal: None,
        shm_bytes: SHM_BYTES,
        tty: false,
        init: false,
        log: config.log,
        extras: config.extras.of_namespaces(),
        pod: Some(PodPart::Holder),
    };
}

/// A container of a pod: what it runs, in its holder's namespaces.
pub(super) fn member_config(
    make: &Make<'_>,
    holder: &ContainerId,
    found: &ObservedContainer,
    member: MemberOf<'_>,
) -> ContainerConfig {
    let network = match found.address.clone() {
        Some((network, address)) => {
            let more = found.more_addresses.iter().cloned();
            let more = more.map(|(network, address)| NetworkAddress { network, address });
            NetworkMode::Bridge { network, address, more: more.collect() }
        }
        None => NetworkMode::Host,
    };
    let of_main = if member.is_main { "" } else { member.name };
    let volumes = volumes_of(make, holder, of_main);
    let mut config = container_config(make, member_id(holder, member.name, make.attempt), found.ids, network);
    config.mounts.retain(|mount| !matches!(mount.source, MountSource::Volume { .. }));
    // A newer image of a tag that moved may ask for volumes the pod was not made with.
    let is_held = |volume: &VolumeConfig| found.volumes.iter().any(|held| held.name == volume.name);
    let volumes = volumes.into_iter().filter(|(_, volume, _)| is_held(volume));
    config.mounts.extend(volumes.map(|(target, volume, read_only)| MountConfig {
        target,
        source: MountSource::Volume { name: volume.name },
        read_only,
    }));
    config.extras = config.extras.without_namespaces();
    config.labels.insert(labels::MEMBER.to_owned(), member.name.to_owned());
    config.labels.insert(labels::FAILURES.to_owned(), member.failures.to_string());
    config.pod =
        Some(PodPart::Member { of: holder.clone(), share_pids: member.share_pids, stop_order: member.stop_order });
    config
}

/// What a container is in its pod.
#[derive(Clone, Copy)]
pub(super) struct MemberOf<'a> {
    pub(super) name: &'a str,
    pub(super) is_main: bool,
    pub(super) failures: u32,
    pub(super) share_pids: bool,
    pub(super) stop_order: u32,
}

fn container_config(
    make: &Make<'_>,
    id: ContainerId,
    ids: runtime::runtime::IdRange,
    network: NetworkMode,
) -> ContainerConfig {
    let replica = make.replica();
    let template = make.template;
    let mut labels = replica_labels(&replica);
    labels.insert(labels::TEMPLATE.to_owned(), make.hash.0.clone());
    labels.insert(labels::ATTEMPT.to_owned(), make.attempt.to_string());
    labels.insert(labels::SOURCE.to_owned(), make.source.file.clone());
    let (mut env, mut sealed_env) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in &template.env {
        match value {
            EnvValue::Plain(value) => env.insert(name.clone(), value.clone()),
            EnvValue::Secret(value) => sealed_env.insert(name.clone(), value.sealed.clone()),
        };
    }
    if let Some(index) = make.index {
        env.insert("JOB_COMPLETION_INDEX".to_owned(), index.to_string());
    }
    let mut extras = runtime::runtime::Extras::default();
    template.tuning.ask(&mut extras);
    ContainerConfig {
        id,
        labels,
        hostname: template.hostname.clone().unwrap_or_else(|| super::name::label(&replica.to_string(), 63)),
        image: make.image.clone(),
        entrypoint: template.entrypoint.clone(),
        args: template.args.clone(),
        env,
        sealed_env,
        working_dir: template.working_dir.clone(),
        user: template.user.clone(),
        mounts: mounts(make),
        network,
        resources: make.resources.clone(),
        ids,
        security: template.security.clone(),
        stop_signal: template.stop_signal.clone(),
        shm_bytes: template.shm_bytes.unwrap_or(SHM_BYTES),
        tty: template.tty,
        init: template.init,
        dns_search: std::iter::once(&make.object.stack).chain(&template.tuning.dns_search).cloned().collect(),
        extras,
        log: LogConfig { lossy: template.lossy_log, ..LogConfig::default() },
        pod: None,
    }
}

fn mounts(make: &Make<'_>) -> Vec<MountConfig> {
    let written = make.template.mounts.iter().filter_map(|mount| {
        let source = match &mount.what {
            MountWhat::Anonymous => return None,
            MountWhat::Scratch(name) => {
                MountSource::Volume { name: volume::scratch(&make.replica(), &make.id(), name).name }
            }
            MountWhat::Claim(name) => MountSource::Volume { name: volume::claimed(&make.replica(), name).name },
            MountWhat::Volume(key) => MountSource::Volume { name: volume_name(key) },
            MountWhat::Bind(path) => MountSource::Bind { path: PathBuf::from(path) },
            MountWhat::File { content, mode } => MountSource::File { content: content.to_vec(), mode: *mode },
            MountWhat::Secret { value, mode, owner } => {
                MountSource::Secret { sealed: value.sealed.clone(), mode: *mode, owner: *owner }
            }
            MountWhat::Tmpfs { size_bytes } => MountSource::Tmpfs { size_bytes: *size_bytes },
        };
        Some(MountConfig { target: mount.path.clone(), source, read_only: mount.read_only })
    });
    let replica = make.replica();
    let anonymous = volume::anonymous_paths(make.template, make.image_config).map(|path| MountConfig {
        target: path.to_owned(),
        source: MountSource::Volume { name: volume::anonymous(&replica, path).name },
        read_only: false,
    });
    written.chain(anonymous).collect()
}
