//! The last read of the world in a pass: what the runtime lists, merged with what only memory knows, as one value.
//!
//! The only room that reads the world. It refreshes one record per image, container, network and volume and adds each
//! exit to the history exactly once. Objects without our labels are left out, so that no plan can name them.

mod host;
mod remembered;

use std::collections::{BTreeMap, BTreeSet};

use runtime::id::ContainerId;
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{
    Alteration, ContainerConfig, ContainerInfo, ContainerState, ExitStatus, ImageInfo, NetworkInfo, VolumeInfo,
};
use runtime::{Result, Runtime, clock};

use crate::memory::{ContainerRecord, Inner, Memory, World};
use crate::model::{
    DesiredState, ExitRecord, ObjectKey, ObservedContainer, ObservedImage, ObservedMember, ObservedNetwork,
    ObservedPod, ObservedState, ObservedVolume, PreviousImage, ReplicaKey, by_hand, needed_images,
};

/// Earlier digests remembered per reference; what `keep:` may ask for at most.
const PREVIOUS_MAX: usize = 10;

pub use remembered::{Found, remembered};

/// What a look needs.
#[derive(Clone, Copy)]
pub struct Looking<'a> {
    /// What to ask.
    pub runtime: &'a dyn Runtime,
    /// What was known, and where to write what is.
    pub memory: &'a Memory,
    /// Since when the readiness gate of each container passes, boot time.
    pub ready: &'a BTreeMap<ContainerId, u64>,
    /// Which failed their liveness or startup check for good.
    pub unhealthy: &'a BTreeSet<ContainerId>,
    /// Subjects of what is being carried out at this moment.
    pub in_flight: &'a BTreeSet<String>,
    /// Containers being created at this moment: they show as `Creating`, so that slot, address and ids are taken.
    pub creating: &'a [ContainerConfig],
    /// What is wanted: it decides which images are in use and which histories are kept.
    pub desired: &'a DesiredState,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// For the planner.
    pub state: ObservedState,
    /// Containers as listed, for display.
    pub containers: Vec<ContainerInfo>,
    /// Images as listed, for display.
    pub images: Vec<ImageInfo>,
}

/// Looks at the world once. Blocks; ends with everything durable that can be made so.
///
/// # Errors
/// Those of the runtime's lists. Nothing was recorded then: not knowing is not absence.
pub fn observe(looking: Looking<'_>) -> Result<Seen> {
    let runtime = looking.runtime;
    let now_boot_ms = clock::boot_ms();
    let containers = runtime.list_containers()?;
    let images = runtime.list_images()?;
    let (by_hand, listed) = runtime.list_networks()?.into_iter().partition(is_by_hand);
    let networks = networks(listed, &containers);
    let volumes = volumes(runtime.list_volumes()?);
    let host = host::read(&networks, by_hand);

    let mut inner = looking.memory.lock();
    let records = container_records(looking, &mut inner, &containers);
    // images of containers that are not ours are in use as well
    let foreign = containers.iter().filter(|info| !records.contains_key(&info.config.id));
    let foreign = foreign.map(|info| &info.config.image);
    let users = records.values().flat_map(|record| record.observed.images()).chain(foreign);
    let images_now = image_records(looking.desired, &inner, &images, users, now_boot_ms);
    let present: BTreeSet<&ObjectKey> = records.values().map(|r| &r.observed.replica.workload).collect();
    let wanted = |key: &ObjectKey| {
        present.contains(key) || looking.desired.workloads.contains_key(key) || looking.desired.jobs.contains_key(key)
    };
    looking.memory.forget_objects(&mut inner, wanted);
    looking.memory.drop_old_failures(&mut inner, now_boot_ms);
    for record in records.values() {
        looking.memory.record_id_range(&mut inner, &record.observed.replica.workload, record.observed.ids);
    }
    looking.memory.record_world(&mut inner, World { images: images_now, containers: records, networks, volumes });
    let mut state = snapshot(&inner, now_boot_ms, host);
    drop(inner);
    state.in_flight.clone_from(looking.in_flight);
    add_creating(&mut state, looking.creating);
    looking.memory.flush();
    Ok(Seen { state, containers, images })
}

fn add_creating(state: &mut ObservedState, creating: &[ContainerConfig]) {
    for config in creating {
        if let Some(member) = ObservedMember::from_config(config) {
            let holder = config.holder().and_then(|holder| state.containers.get_mut(holder));
            if let Some(pod) = holder.and_then(|holder| holder.pod.as_mut()) {
                pod.members.entry(config.id.clone()).or_insert(member);
            }
        }
        if let Some(container) = ObservedContainer::from_config(config) {
            state.id_ranges.entry(container.replica.workload.clone()).or_insert(container.ids);
            // One that shows already has landed since: what was seen is newer.
            state.containers.entry(config.id.clone()).or_insert(container);
        }
    }
}

fn snapshot(inner: &Inner, now_boot_ms: u64, host: host::Host) -> ObservedState {
    ObservedState {
        now_boot_ms,
        now_unix_ms: clock::unix_ms(),
        images: inner.images.clone(),
        containers: inner.containers.iter().map(|(id, record)| (id.clone(), record.observed.clone())).collect(),
        networks: inner.networks.clone(),
        host_routes: host.routes,
        volumes: inner.volumes.clone(),
        published: inner.published.clone(),
        exits: inner.exits.clone(),
        revisions: inner.revisions.clone(),
        jobs: inner.jobs.clone(),
        id_ranges: inner.id_ranges.clone(),
        foreign_id_ranges: host.id_ranges,
        failures: inner.failures.clone(),
        in_flight: BTreeSet::new(),
    }
}

/// The containers of ours, with the past of each; exits are added to the history on the way.
fn container_records(
    looking: Looking<'_>,
    inner: &mut Inner,
    listed: &[ContainerInfo],
) -> BTreeMap<ContainerId, ContainerRecord> {
    let mut records = BTreeMap::new();
    let mut members = members(looking, listed);
    for info in listed {
        let Some(mut observed) = ObservedContainer::from_config(&info.config) else { continue };
        observed.state = info.state;
        let id = &info.config.id;
        let known = inner.containers.get(id).cloned();
        observed.started_boot_ms = info.times.started_boot_ms;
        observed.finished_boot_ms = info.times.finished_boot_ms;
        observed.exit = info.exit;
        observed.altered.clone_from(&info.altered);
        let was_ready = known.as_ref().and_then(|record| record.observed.ready_since_boot_ms);
        let stop_asked = known.as_ref().is_some_and(|record| record.stop_asked);
        let mut exit_recorded = known.as_ref().is_some_and(|record| record.exit_recorded);
        if info.state == ContainerState::Running {
            observed.ready_since_boot_ms = looking.ready.get(id).copied();
            observed.unhealthy = looking.unhealthy.contains(id);
        }
        if let Some(pod) = &mut observed.pod {
            pod.members = members.remove(id).unwrap_or_default();
            let before = known.as_ref().and_then(|record| record.observed.pod.as_ref());
            let was_over = before.is_some_and(|before| before.has_ended);
            add_member_ends(looking.memory, inner, &observed.replica, pod, before, stop_asked);
            observed.settle_pod(stop_asked, was_over);
        }
        let stop_asked = stop_asked && !observed.pod.as_ref().is_some_and(|pod| pod.has_ended);
        match observed.state {
            ContainerState::Running => {}
            ContainerState::Stopped => {
                observed.unhealthy = known.as_ref().is_some_and(|record| record.observed.unhealthy);
                if !exit_recorded {
                    add_exit(looking.memory, inner, &observed, info, was_ready, stop_asked);
                    exit_recorded = true;
                }
            }
            ContainerState::Creating | ContainerState::Created => {}
        }
        let stop_asked = known.as_ref().is_some_and(|record| record.stop_asked);
        records.insert(id.clone(), ContainerRecord { observed, exit_recorded, stop_asked });
    }
    let vanished: Vec<_> = inner.containers.iter().filter(|(id, _)| !records.contains_key(*id)).collect();
    let vanished: Vec<_> = vanished.into_iter().map(|(id, record)| (id.clone(), record.clone())).collect();
    for (id, record) in vanished {
        if record.observed.state == ContainerState::Running {
            add_vanished(looking.memory, inner, &id, &record);
        }
    }
    records
}

/// The members of pods, by their holder.
fn members(
    looking: Looking<'_>,
    listed: &[ContainerInfo],
) -> BTreeMap<ContainerId, BTreeMap<ContainerId, ObservedMember>> {
    let mut members: BTreeMap<ContainerId, BTreeMap<ContainerId, ObservedMember>> = BTreeMap::new();
    for info in listed {
        let ready = looking.ready.get(&info.config.id).copied();
        if let (Some(holder), Some(member)) =
            (info.config.holder(), ObservedMember::from_info(info, ready, looking.unhealthy.contains(&info.config.id)))
        {
            members.entry(holder.clone()).or_default().insert(info.config.id.clone(), member);
        }
    }
    members
}

/// Tells of members that have ended since the last look.
fn add_member_ends(
    memory: &Memory,
    inner: &mut Inner,
    replica: &ReplicaKey,
    pod: &ObservedPod,
    before: Option<&ObservedPod>,
    asked: bool,
) {
    for (id, member) in &pod.members {
        let known = before.and_then(|before| before.members.get(id)).is_some_and(|known| known.exit.is_some());
        let Some(exit) = member.exit.filter(|_| !known) else { continue };
        let warning = !asked && exit != ExitStatus::Code(0);
        let message = format!("{replica}/{} {exit}", member.name);
        memory.add_event(inner, Some(&replica.workload), "Exited", message, warning);
    }
}

fn add_exit(
    memory: &Memory,
    inner: &mut Inner,
    observed: &ObservedContainer,
    info: &ContainerInfo,
    was_ready: Option<u64>,
    asked: bool,
) {
    let exit = observed.exit.unwrap_or(ExitStatus::Unknown);
    let finished = info.times.finished_boot_ms;
    let ready_for_ms = was_ready.map_or(0, |since| finished.saturating_sub(since));
    memory.record_exit(
        inner,
        observed.replica.clone(),
        ExitRecord {
            attempt: observed.attempt,
            template_hash: observed.template_hash.clone(),
            exit,
            finished_boot_ms: finished,
            finished_unix_ms: info.times.finished_unix_ms,
            ready_for_ms,
            asked,
            unhealthy: observed.unhealthy,
        },
    );
    let warning = !asked && exit != ExitStatus::Code(0);
    let message = format!("{} {}", observed.replica, exit);
    memory.add_event(inner, Some(&observed.replica.workload), "Exited", message, warning);
}

/// A container that ran at the last look and is not there any more, although nobody asked us to remove it.
fn add_vanished(memory: &Memory, inner: &mut Inner, id: &ContainerId, record: &ContainerRecord) {
    let ContainerRecord { observed, stop_asked, .. } = record;
    memory.record_exit(
        inner,
        observed.replica.clone(),
        ExitRecord {
            attempt: observed.attempt,
            template_hash: observed.template_hash.clone(),
            exit: ExitStatus::Unknown,
            finished_boot_ms: clock::boot_ms(),
            finished_unix_ms: clock::unix_ms(),
            ready_for_ms: observed.ready_since_boot_ms.map_or(0, |since| clock::boot_ms().saturating_sub(since)),
            asked: *stop_asked,
            unhealthy: observed.unhealthy,
        },
    );
    let message = format!("{}: container {id} was removed behind our back", observed.replica);
    memory.add_event(inner, Some(&observed.replica.workload), "Vanished", message, true);
}

/// Images by reference, with what their earlier records know, and since when nothing needs them.
fn image_records<'a>(
    desired: &DesiredState,
    inner: &Inner,
    listed: &[ImageInfo],
    users: impl Iterator<Item = &'a Digest>,
    now_boot_ms: u64,
) -> BTreeMap<ImageRef, ObservedImage> {
    let mut records = BTreeMap::new();
    for image in listed {
        for reference in &image.references {
            let known = inner.images.get(reference);
            let same = known.filter(|known| known.digest == image.digest);
            let record = ObservedImage {
                digest: image.digest.clone(),
                previous: previous_images(known, &image.digest, listed),
                config: image.config.clone(),
                answered: inner.answers.get(reference).or(known.and_then(|known| known.answered.as_ref())).cloned(),
                checked_boot_ms: known.map_or(now_boot_ms, |known| known.checked_boot_ms),
                unused_since_boot_ms: same.and_then(|known| known.unused_since_boot_ms),
            };
            records.insert(reference.clone(), record);
        }
    }
    let users: Vec<Digest> = users.cloned().collect();
    let (references, digests) = needed_images(desired, &records, users.iter(), &inner.revisions);
    let references: BTreeSet<ImageRef> = references.into_iter().cloned().collect();
    let digests: BTreeSet<Digest> = digests.into_iter().cloned().collect();
    let stamp = |used: bool, since: &mut Option<u64>| *since = (!used).then(|| since.unwrap_or(now_boot_ms));
    for (reference, image) in &mut records {
        let used = references.contains(reference) || digests.contains(&image.digest);
        stamp(used, &mut image.unused_since_boot_ms);
        for previous in &mut image.previous {
            stamp(digests.contains(&previous.digest), &mut previous.unused_since_boot_ms);
        }
    }
    records
}

/// What a reference was locked to before and is still present, newest first.
fn previous_images(known: Option<&ObservedImage>, now: &Digest, images: &[ImageInfo]) -> Vec<PreviousImage> {
    let Some(known) = known else { return Vec::new() };
    let mut previous = known.previous.clone();
    if known.digest != *now {
        let (digest, config) = (known.digest.clone(), known.config.clone());
        previous.insert(0, PreviousImage { digest, config, unused_since_boot_ms: None });
    }
    previous.retain(|p| p.digest != *now && images.iter().any(|image| image.digest == p.digest));
    previous.truncate(PREVIOUS_MAX);
    previous
}

/// The network of containers made by hand: nothing a plan may name.
fn is_by_hand(info: &NetworkInfo) -> bool {
    info.config.name.as_str() == by_hand::NETWORK
}

/// A network one of whose containers is off its bridge is not intact: to make it present attaches them again.
fn networks(
    listed: Vec<NetworkInfo>,
    containers: &[ContainerInfo],
) -> BTreeMap<runtime::id::NetworkName, ObservedNetwork> {
    let off = containers.iter().filter(|info| info.altered.contains(&Alteration::Link));
    let off: BTreeSet<_> = off.flat_map(|info| info.config.network.addresses().map(|(name, _)| name)).collect();
    let observed = |info: NetworkInfo| {
        let name = info.config.name.clone();
        let intact = info.intact && !off.contains(&name);
        (name, ObservedNetwork { config: info.config, intact })
    };
    listed.into_iter().map(observed).collect()
}

fn volumes(listed: Vec<VolumeInfo>) -> BTreeMap<runtime::id::VolumeName, ObservedVolume> {
    let observed = |info: VolumeInfo| Some((info.config.name, ObservedVolume::from_labels(&info.config.labels)?));
    listed.into_iter().filter_map(observed).collect()
}
