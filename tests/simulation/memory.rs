//! The controller's memory and eyes in the simulation: what sled would hold, and what `observe` would make of it and of
//! the world. May be lost at any time; a crash loses what was not recorded.

use std::collections::{BTreeMap, BTreeSet};

use controller::model::{
    DesiredState, ExitRecord, Failure, JobRecord, ObjectKey, ObservedContainer, ObservedImage, ObservedNetwork,
    ObservedState, ObservedVolume, PreviousImage, ReplicaKey, Revision, needed_images,
};
use controller::plan::Action;
use runtime::id::ContainerId;
use runtime::runtime::ContainerState;

use crate::world::{Fail, World, image_config};

/// What is remembered.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) exits: BTreeMap<ReplicaKey, Vec<ExitRecord>>,
    pub(crate) revisions: BTreeMap<ObjectKey, Vec<Revision>>,
    pub(crate) jobs: BTreeMap<ObjectKey, JobRecord>,
    pub(crate) failures: BTreeMap<String, Failure>,
    pub(crate) asked: BTreeSet<ContainerId>,
    /// Pods that were seen to have ended by themselves.
    over: BTreeSet<ContainerId>,
}

impl Memory {
    /// One look at the world. Ends not yet recorded are.
    pub(crate) fn observe(&mut self, world: &mut World, desired: &DesiredState, in_flight: &[String]) -> ObservedState {
        let containers = self.settle_pods(world);
        self.record_exits(world, &containers);
        self.forget(world, desired);
        let mut observed = ObservedState {
            now_boot_ms: world.now,
            now_unix_ms: world.unix,
            images: images(world),
            containers,
            networks: world
                .networks
                .iter()
                .map(|(name, (config, intact))| {
                    (name.clone(), ObservedNetwork { config: config.clone(), intact: *intact })
                })
                .collect(),
            host_routes: vec![("10.88.0.0".parse().expect("an address"), 22)],
            volumes: world
                .volumes
                .iter()
                .filter_map(|(name, labels)| Some((name.clone(), ObservedVolume::from_labels(labels)?)))
                .collect(),
            published: world.published.clone(),
            exits: self.exits.clone(),
            revisions: self.revisions.clone(),
            jobs: self.jobs.clone(),
            id_ranges: BTreeMap::new(),
            foreign_id_ranges: vec![(100_000, 65_536)],
            failures: self.failures.clone(),
            in_flight: in_flight.iter().cloned().collect(),
        };
        stamp(world, desired, &observed);
        observed.images = images(world);
        observed
    }

    /// The containers, with what follows for each pod from its members.
    fn settle_pods(&mut self, world: &World) -> BTreeMap<ContainerId, ObservedContainer> {
        let mut all = BTreeMap::new();
        for (id, container) in &world.containers {
            let seen = container.settled(self.asked.contains(id), self.over.contains(id));
            if seen.pod.as_ref().is_some_and(|pod| pod.has_ended) {
                self.over.insert(id.clone());
            } else {
                self.over.remove(id);
            }
            all.insert(id.clone(), seen);
        }
        self.over.retain(|id| all.contains_key(id));
        all
    }

    fn record_exits(&mut self, world: &World, seen: &BTreeMap<ContainerId, ObservedContainer>) {
        for (id, container) in &world.containers {
            let Some(seen) = seen.get(id).filter(|seen| seen.state == ContainerState::Stopped) else { continue };
            let Some(exit) = seen.exit else { continue };
            let records = self.exits.entry(container.seen.replica.clone()).or_default();
            if records.iter().any(|record| record.attempt == container.seen.attempt) {
                continue;
            }
            records.push(ExitRecord {
                attempt: container.seen.attempt,
                template_hash: container.seen.template_hash.clone(),
                exit,
                finished_boot_ms: container.seen.finished_boot_ms,
                finished_unix_ms: world.unix,
                ready_for_ms: container.ready_for_ms,
                asked: self.asked.contains(id) && !self.over.contains(id),
                unhealthy: container.seen.unhealthy,
            });
            records.sort_by_key(|record| record.attempt);
            let excess = records.len().saturating_sub(ObservedState::EXITS_MAX);
            records.drain(..excess);
        }
    }

    /// Drops what belongs to nothing any more.
    fn forget(&mut self, world: &World, desired: &DesiredState) {
        let mut keys: BTreeSet<&ObjectKey> = desired.workloads.keys().chain(desired.jobs.keys()).collect();
        keys.extend(world.containers.values().map(|c| &c.seen.replica.workload));
        self.exits.retain(|replica, _| keys.contains(&replica.workload));
        self.revisions.retain(|key, _| keys.contains(key));
        self.jobs.retain(|key, _| keys.contains(key));
        self.asked.retain(|id| world.containers.contains_key(id));
        self.failures.retain(|_, failure| failure.last_boot_ms + 900_000 > world.now);
    }

    /// What the executor remembers of a call.
    pub(crate) fn record(&mut self, action: &Action, result: &Result<(), Fail>, now: u64) {
        match result {
            Ok(()) => {
                self.failures.remove(&action.subject());
                if let Action::PublishEndpoints { table } = action {
                    for listener in &table.listeners {
                        self.failures.remove(&Action::listener_subject(listener.at));
                    }
                }
            }
            Err(fail) => {
                let subject = match fail {
                    Fail::PortInUse(at) => Action::listener_subject(*at),
                    Fail::Refused(_) | Fail::Fault => action.subject(),
                };
                let new = Failure { attempts: 0, last_boot_ms: now, message: format!("{fail:?}"), code: None };
                let failure = self.failures.entry(subject).or_insert(new);
                failure.attempts += 1;
                failure.last_boot_ms = now;
                return;
            }
        }
        match action {
            Action::RecordRevision { app, revision } => {
                ObservedState::put_revision(self.revisions.entry(app.clone()).or_default(), (**revision).clone());
            }
            Action::RecordJob { job, record } => drop(self.jobs.insert(job.clone(), record.clone())),
            Action::PullImage { .. }
            | Action::RemoveImage { .. }
            | Action::CreateNetwork { .. }
            | Action::RemoveNetwork { .. }
            | Action::CreateVolume { .. }
            | Action::RemoveVolume { .. }
            | Action::CreateContainer { .. }
            | Action::StartContainer { .. }
            | Action::StopContainer { .. }
            | Action::RemoveContainer { .. }
            | Action::UpdateResources { .. }
            | Action::PublishEndpoints { .. } => {}
        }
    }

    /// The database is gone.
    pub(crate) fn lose(&mut self) {
        *self = Self::default();
    }

    /// Times of an earlier boot mean nothing in this one.
    pub(crate) fn reboot(&mut self) {
        for exit in self.exits.values_mut().flatten() {
            exit.finished_boot_ms = 0;
        }
        for revision in self.revisions.values_mut().flatten() {
            revision.progress_boot_ms = 0;
        }
    }
}

fn images(world: &World) -> BTreeMap<runtime::image::ImageRef, ObservedImage> {
    let image = |image: &crate::world::Image| {
        let previous = image.previous.iter().map(|digest| PreviousImage {
            digest: digest.clone(),
            config: image_config(digest),
            unused_since_boot_ms: image.unused_since.get(digest).copied(),
        });
        ObservedImage {
            digest: image.digest.clone(),
            previous: previous.collect(),
            config: image_config(&image.digest),
            checked_boot_ms: image.checked_boot_ms,
            // Nobody moves a tag by hand here: what it leads to is what the registry said.
            answered: Some(image.digest.clone()),
            unused_since_boot_ms: image.unused_since.get(&image.digest).copied(),
        }
    };
    world.images.iter().map(|(reference, found)| (reference.clone(), image(found))).collect()
}

/// Keeps the time since which each image is needed by nothing.
fn stamp(world: &mut World, desired: &DesiredState, observed: &ObservedState) {
    let users = observed.containers.values().flat_map(|container| container.images());
    let (references, digests) = needed_images(desired, &observed.images, users, &observed.revisions);
    let now = world.now;
    for (reference, image) in &mut world.images {
        let current_needed = references.contains(reference) || digests.contains(&image.digest);
        let mut unused: Vec<_> = image.previous.iter().filter(|digest| !digests.contains(digest)).cloned().collect();
        if !current_needed {
            unused.push(image.digest.clone());
        }
        image.unused_since.retain(|digest, _| unused.contains(digest));
        for digest in unused {
            image.unused_since.entry(digest).or_insert(now);
        }
    }
}
