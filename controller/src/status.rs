//! What people read: the state of each object in Kubernetes' words, made from desired state, what was seen, and the
//! plan. Pure: the same pass gives the same page.

mod app;
mod detail;
mod job;
mod members;
mod other;
mod problem;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use runtime::id::ContainerId;
use runtime::image::ImageRef;
use runtime::runtime::ContainerState;

pub use detail::{Detail, describe};
pub use text::waiting_text;

use crate::api::types::{LayerStatus, ObjectStatus, Phase, PullStatus, ReplicaStatus, Status};
use crate::execute::Layer;
use crate::model::{Kind, ObjectKey, ObservedContainer, ObservedPod};
use crate::plan::WaitingOn;
use crate::reconcile::View;

/// Ends of a program in a row after which its App counts as failed.
const FAILED_AFTER: u32 = 3;

/// What the page is made of beside the last pass.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// What the last try of a failing probe said.
    pub probes: BTreeMap<ContainerId, String>,
    /// Images on their way.
    pub pulls: BTreeMap<ImageRef, Vec<Layer>>,
}

/// The whole page, without notices and sources.
#[must_use]
pub fn status(view: &View, live: &Live) -> Status {
    let page = Page { view, live };
    let objects: Vec<ObjectStatus> = page.keys().into_iter().map(|key| page.object(key)).collect();
    Status {
        version: 0,
        generation: view.desired.generation,
        converged_generation: if view.settled { view.desired.generation } else { 0 },
        objects,
        pulls: live.pulls.iter().map(|(reference, layers)| pull_status(reference, layers)).collect(),
        notices: Vec::new(),
        sources: Vec::new(),
    }
}

fn pull_status(reference: &ImageRef, layers: &[Layer]) -> PullStatus {
    let layer = |layer: &Layer| LayerStatus {
        digest: layer.digest.clone(),
        phase: layer.phase,
        done_bytes: layer.done_bytes,
        total_bytes: layer.total_bytes,
    };
    PullStatus { reference: reference.clone(), layers: layers.iter().map(layer).collect() }
}

/// One pass, for the functions that make its parts readable.
#[derive(Clone, Copy)]
struct Page<'a> {
    view: &'a View,
    live: &'a Live,
}

impl<'a> Page<'a> {
    /// Every object that is declared or has something left.
    fn keys(&self) -> BTreeSet<&'a ObjectKey> {
        let desired = &self.view.desired;
        let mut keys: BTreeSet<&ObjectKey> = desired.images.keys().chain(desired.volumes.keys()).collect();
        keys.extend(desired.workloads.keys().chain(desired.jobs.keys()).chain(desired.networks.keys()));
        let state = &self.view.seen.state;
        keys.extend(state.containers.values().map(|container| &container.replica.workload));
        keys.extend(state.volumes.values().filter(|v| v.anonymous_of.is_none()).map(|volume| &volume.owner));
        keys
    }

    fn object(self, key: &ObjectKey) -> ObjectStatus {
        let desired = &self.view.desired;
        let base = self.base(key);
        let (phase, message) = self.held(key).unwrap_or_else(|| {
            if let Some(workload) = desired.workloads.get(key) {
                app::phase(self, key, workload, &base)
            } else if let Some(job) = desired.jobs.get(key) {
                job::phase(self, key, job)
            } else if let Some(image) = desired.images.get(key) {
                other::image(self, key, image)
            } else if key.kind == Kind::Volume {
                other::volume(self, key)
            } else if let Some(network) = desired.networks.get(key) {
                other::network(self, key, network)
            } else {
                (Phase::Removing, "removing: no manifest names it".to_owned())
            }
        });
        ObjectStatus { phase, message, problem: problem::problem(self, key), ..base }
    }

    /// All but phase and message.
    fn base(self, key: &ObjectKey) -> ObjectStatus {
        let desired = &self.view.desired;
        let app = desired.workloads.get(key);
        let job = desired.jobs.get(key);
        let image = desired.images.get(key);
        let replicas = self.replicas(key);
        let ready = replicas.iter().filter(|replica| replica.ready).count();
        let state = &self.view.seen.state;
        let exits = state.exits.iter().filter(|(replica, _)| replica.workload == *key && key.kind == Kind::App);
        let exits: Vec<_> = exits.flat_map(|(_, exits)| exits).filter(|exit| !exit.asked).collect();
        let (ready, wanted) = match key.kind {
            Kind::App => {
                let wanted = app.map_or(0, |app| app.replicas);
                let ready = u32::try_from(ready).unwrap_or(u32::MAX);
                (if app.is_some() { ready.min(wanted) } else { ready }, wanted)
            }
            Kind::Job => {
                (u32::from(job::succeeded(self, key)), u32::from(job.is_some_and(|job| job.schedule.is_none())))
            }
            Kind::Image => (u32::from(image.is_some_and(|i| state.images.contains_key(&i.reference))), 1),
            Kind::Volume => {
                let is_there = state.volumes.values().any(|volume| volume.owner == *key);
                (u32::from(is_there), u32::from(desired.volumes.contains_key(key)))
            }
            Kind::Network => other::network_counts(self, key),
            Kind::Config | Kind::Secret | Kind::Service => (0, 0),
        };
        let template = app.map(|app| &app.template).or(job.map(|job| &job.template));
        let sources = [app.map(|a| &a.source), job.map(|j| &j.source), image.map(|i| &i.source)];
        let volume = desired.volumes.get(key).map(|volume| &volume.source);
        let volume = volume.or_else(|| desired.networks.get(key).map(|network| &network.source));
        let containers = self.view.seen.containers.iter().filter(|info| {
            state.containers.get(&info.config.id).is_some_and(|container| container.replica.workload == *key)
        });
        ObjectStatus {
            key: key.clone(),
            ready,
            desired: wanted,
            phase: Phase::Pending,
            message: String::new(),
            problem: None,
            restarts: u32::try_from(exits.len()).unwrap_or(u32::MAX).saturating_add(self.member_restarts(key)),
            last_restart_unix_ms: exits.iter().map(|exit| exit.finished_unix_ms).max().unwrap_or(0),
            since_unix_ms: containers.map(|info| info.times.created_unix_ms).min().unwrap_or(0),
            ports: app.map(|app| app.ports.iter().map(text::port_text).collect()).unwrap_or_default(),
            revision: state.revisions.get(key).and_then(|all| all.last()).map(|revision| revision.number),
            image: template.map(|t| &t.image.reference).or(image.map(|image| &image.reference)).cloned(),
            source: sources.into_iter().flatten().chain(volume).next().cloned(),
            replicas,
        }
    }

    /// How often containers of its pods were started again.
    fn member_restarts(self, key: &ObjectKey) -> u32 {
        self.containers(key).filter_map(|(_, container)| container.pod.as_ref()).map(ObservedPod::restarts).sum()
    }

    fn containers(self, key: &ObjectKey) -> impl Iterator<Item = (&'a ContainerId, &'a ObservedContainer)> {
        let key = key.clone();
        self.view.seen.state.containers.iter().filter(move |(_, container)| container.replica.workload == key)
    }

    fn replicas(self, key: &ObjectKey) -> Vec<ReplicaStatus> {
        let revisions = self.view.seen.state.revisions.get(key).into_iter().flatten().rev();
        let replica = |(id, container): (&ContainerId, &ObservedContainer)| {
            let info = self.view.seen.containers.iter().find(|info| info.config.id == *id);
            ReplicaStatus {
                name: container.replica.to_string(),
                container: id.clone(),
                state: container.state,
                revision: revisions.clone().find(|r| r.template_hash == container.template_hash).map(|r| r.number),
                ready: container.state == ContainerState::Running && container.ready_since_boot_ms.is_some(),
                pid: info.and_then(|info| info.pid),
                address: container.address.as_ref().map(|(_, address)| *address),
                started_unix_ms: info.map_or(0, |info| info.times.started_unix_ms),
                exit: container.exit,
                attempt: container.attempt,
                probe: self.live.probes.get(id).cloned().or_else(|| {
                    let failed = container.pod.iter().flat_map(|pod| pod.members.keys());
                    failed.into_iter().find_map(|id| self.live.probes.get(id)).cloned()
                }),
                pod: container.pod.as_ref().map(members::word),
                members: container.pod.as_ref().map(|pod| members::members(self, pod)).unwrap_or_default(),
            }
        };
        let mut replicas: Vec<(u32, ReplicaStatus)> =
            self.containers(key).map(|(id, c)| (c.replica.ordinal, replica((id, c)))).collect();
        replicas.sort_by(|(a, x), (b, y)| (a, x.attempt).cmp(&(b, y.attempt)));
        replicas.into_iter().map(|(_, replica)| replica).collect()
    }

    fn waiting(self, key: &ObjectKey) -> impl Iterator<Item = &'a WaitingOn> {
        let key = key.clone();
        self.view
            .plan
            .waiting
            .iter()
            .filter(move |waiting| waiting.object.as_ref() == Some(&key))
            .map(|waiting| &waiting.on)
    }

    /// Whether the plan has something to do for it.
    fn has_steps(self, key: &ObjectKey) -> bool {
        self.view.plan.steps.iter().any(|step| step.object.as_ref() == Some(key))
    }

    fn held(self, key: &ObjectKey) -> Option<(Phase, String)> {
        let by_hand = self.view.desired.orders.get(key).filter(|by_hand| by_hand.is_left_alone());
        if let Some(hold) = by_hand.and_then(|by_hand| by_hand.hold.as_ref()) {
            return Some((Phase::Held, format!("Held by hand: {}", hold.why)));
        }
        self.waiting(key).find_map(|on| {
            let WaitingOn::Held { reason } = on else { return None };
            Some((Phase::Held, format!("held: {reason}")))
        })
    }

    /// Why it does not get on by itself at the moment. A program that ends a few times may only have to wait for another;
    /// an action that failed is told at once.
    fn back_off(self, key: &ObjectKey) -> Option<(Phase, String)> {
        let state = &self.view.seen.state;
        self.waiting(key).find_map(|on| {
            let WaitingOn::BackOff { until_boot_ms, message, failures } = on else { return None };
            let secs = until_boot_ms.saturating_sub(state.now_boot_ms).div_ceil(1_000);
            let action_failed = state.failures.values().any(|failure| failure.message == *message);
            let failed = action_failed || *failures >= FAILED_AFTER;
            let phase = if failed { Phase::Failed } else { Phase::Progressing };
            Some((phase, format!("Backoff {secs}s: {message}")))
        })
    }

    /// What it waits for, unless that is only its own replicas to become ready.
    fn obstacle(self, key: &ObjectKey) -> Option<(Phase, String)> {
        let obstacle = self.waiting(key).find(|on| !matches!(on, WaitingOn::Ready { .. } | WaitingOn::BackOff { .. }));
        obstacle.map(|on| match on {
            WaitingOn::Image { reference } => self.pulling(reference),
            WaitingOn::AbsentImage { .. } | WaitingOn::LostImage { .. } | WaitingOn::Exhausted { .. } => {
                (Phase::Failed, waiting_text(on))
            }
            WaitingOn::Dependency { .. }
            | WaitingOn::Exclusive { .. }
            | WaitingOn::Dependant { .. }
            | WaitingOn::Held { .. }
            | WaitingOn::Ready { .. }
            | WaitingOn::BackOff { .. } => (Phase::Pending, waiting_text(on)),
        })
    }

    /// How far an image is that is not there yet.
    fn pulling(self, reference: &ImageRef) -> (Phase, String) {
        if self.live.pulls.contains_key(reference) {
            // How far it is stands in `pulls`: a line that changes with each block would flood a log.
            return (Phase::Progressing, format!("Pulling {reference}"));
        }
        match self.view.seen.state.failures.get(&format!("pull {reference}")) {
            Some(failure) => (Phase::Failed, format!("image {reference}: {}", failure.message)),
            None => (Phase::Progressing, format!("Waiting for image {reference}")),
        }
    }
}
