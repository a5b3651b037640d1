//! The working memory of one call of `plan()`: what is known, indexed, and the steps so far. Subjects write into it in
//! turn; nothing here decides what an App needs, only what any step needs: not to be repeated while it is carried out
//! or backs off, and to come after what it relies on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use runtime::id::{ContainerId, NetworkName, VolumeName};
use runtime::image::Digest;
use runtime::runtime::{ContainerState, DnsView, ImageConfig};

use super::backoff;
use super::bug::Bug;
use super::ids::IdRanges;
use super::network::Networks;
use super::order::order;
use super::{Action, Plan, Reason, Step, StepId, Waiting, WaitingOn};
use crate::model::{DesiredState, Hold, ObjectKey, ObservedContainer, ObservedState, SourceRef};

/// A container and its id.
pub(super) type Found<'a> = (&'a ContainerId, &'a ObservedContainer);

/// Why a step may not be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// It is being carried out.
    InFlight,
    /// Something to tell.
    Wait(WaitingOn),
}

/// Who writes to a volume: a container, and the step that ends it if this plan does.
pub(super) type Writers = BTreeMap<VolumeName, Vec<ContainerId>>;

pub(super) struct Pass<'a> {
    pub(super) desired: &'a DesiredState,
    pub(super) observed: &'a ObservedState,
    pub(super) ids: IdRanges<'a>,
    pub(super) networks: Networks,
    /// Containers by their App or Job, in id order.
    pub(super) owned: BTreeMap<&'a ObjectKey, Vec<Found<'a>>>,
    pub(super) images: BTreeMap<&'a Digest, &'a ImageConfig>,
    pub(super) writers: Writers,
    /// Containers that this or an earlier plan stops or removes: they serve no more.
    pub(super) leaving: BTreeSet<&'a ContainerId>,
    /// Containers that no manifest names and that stay for now.
    pub(super) kept: BTreeSet<&'a ContainerId>,
    /// The step after which a container runs no more.
    pub(super) stopped: BTreeMap<ContainerId, StepId>,
    /// The step after which it is no more.
    pub(super) removed: BTreeMap<ContainerId, StepId>,
    /// Containers this plan makes.
    pub(super) made: BTreeSet<ContainerId>,
    /// Views of containers this plan makes.
    pub(super) views: BTreeMap<ContainerId, DnsView>,
    /// Stops of containers the table in force still names.
    pub(super) drains: Vec<StepId>,
    /// Starts of containers the table in force gives no view yet.
    pub(super) viewless_starts: Vec<StepId>,
    /// Addresses the table in force leads to; `None`: not known, so any.
    in_force: Option<BTreeSet<IpAddr>>,
    publish_blocked: bool,
    bug: Option<Bug>,
    steps: Vec<Step>,
    subjects: BTreeMap<String, StepId>,
    waiting: Vec<Waiting>,
    wake_at: Option<u64>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(desired: &'a DesiredState, observed: &'a ObservedState, bug: Option<Bug>) -> Self {
        let mut owned: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut writers = Writers::new();
        for (id, container) in &observed.containers {
            owned.entry(&container.replica.workload).or_default().push((id, container));
            if container.state != ContainerState::Stopped {
                for mounted in container.volumes.iter().filter(|volume| !volume.read_only) {
                    writers.entry(mounted.name.clone()).or_default().push(id.clone());
                }
            }
        }
        let mut images: BTreeMap<_, _> = BTreeMap::new();
        for image in observed.images.values() {
            images.insert(&image.digest, &image.config);
            images.extend(image.previous.iter().map(|previous| (&previous.digest, &previous.config)));
        }
        let leaving = observed.containers.keys().filter(|id| {
            observed.in_flight.contains(&Action::StopContainer { id: (*id).clone(), grace_ms: 0 }.subject())
        });
        let leaving = if observed.in_flight.is_empty() { BTreeSet::new() } else { leaving.collect() };
        let in_force = observed.published.as_ref().map(|table| {
            let backends = table.listeners.iter().flat_map(|l| l.backends.iter().map(std::net::SocketAddr::ip));
            let named = table.zones.values().flat_map(BTreeMap::values).flatten().copied();
            let served = table.services.iter().flat_map(runtime::runtime::Service::leads_to).map(IpAddr::V4);
            backends.chain(named).chain(served).collect()
        });
        let mut pass = Self {
            desired,
            observed,
            ids: IdRanges::new(observed),
            networks: Networks::new(desired, observed, bug),
            owned,
            images,
            writers,
            leaving,
            kept: BTreeSet::new(),
            stopped: BTreeMap::new(),
            removed: BTreeMap::new(),
            made: BTreeSet::new(),
            views: BTreeMap::new(),
            drains: Vec::new(),
            viewless_starts: Vec::new(),
            in_force,
            publish_blocked: false,
            bug,
            steps: Vec::new(),
            subjects: BTreeMap::new(),
            waiting: Vec::new(),
            wake_at: None,
        };
        pass.publish_blocked = pass.obstacle_of("endpoints").is_some();
        pass
    }

    /// Whether a planted mistake is on.
    pub(super) fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(super) fn now(&self) -> u64 {
        self.observed.now_boot_ms
    }

    /// Asks for another look at this boot time, if it is still to come.
    pub(super) fn wake(&mut self, at_boot_ms: u64) {
        if at_boot_ms > self.now() {
            self.wake_at = Some(self.wake_at.map_or(at_boot_ms, |before| before.min(at_boot_ms)));
        }
    }

    pub(super) fn wait(&mut self, object: &ObjectKey, on: WaitingOn) {
        self.wait_for(Some(object.clone()), on);
    }

    fn wait_for(&mut self, object: Option<ObjectKey>, on: WaitingOn) {
        if let WaitingOn::BackOff { until_boot_ms, .. } = &on {
            self.wake(*until_boot_ms);
        }
        self.waiting.push(Waiting { object, on });
    }

    /// Notes an obstacle, unless somebody is at it already.
    pub(super) fn blocked(&mut self, object: &ObjectKey, obstacle: Obstacle) {
        match obstacle {
            Obstacle::InFlight => {}
            Obstacle::Wait(on) => self.wait(object, on),
        }
    }

    /// Why the action with this subject may not be taken now.
    pub(super) fn obstacle_of(&self, subject: &str) -> Option<Obstacle> {
        if self.observed.in_flight.contains(subject) {
            return Some(Obstacle::InFlight);
        }
        let failure = self.observed.failures.get(subject)?;
        let until_boot_ms = backoff::retry_at(failure, self.now());
        let wait = WaitingOn::BackOff { until_boot_ms, failures: failure.attempts, message: failure.message.clone() };
        (until_boot_ms > self.now()).then_some(Obstacle::Wait(wait))
    }

    /// Adds a step, or finds the one that does the same. `None`: it is being carried out or backs off, and so must wait
    /// whatever would come after it.
    pub(super) fn push(
        &mut self,
        action: Action,
        object: Option<&ObjectKey>,
        reason: Reason,
        source: Option<&SourceRef>,
        after: Vec<StepId>,
    ) -> Option<StepId> {
        let subject = action.subject();
        if let Some(obstacle) = self.obstacle_of(&subject) {
            match (obstacle, &action) {
                (Obstacle::InFlight, _) => {}
                // An image nobody needs keeps nobody from having converged.
                (Obstacle::Wait(WaitingOn::BackOff { until_boot_ms, .. }), Action::RemoveImage { .. }) => {
                    self.wake(until_boot_ms);
                }
                (Obstacle::Wait(on), _) => self.wait_for(object.cloned(), on),
            }
            return None;
        }
        if let Some(&step) = self.subjects.get(&subject) {
            return Some(step);
        }
        let id = self.steps.len();
        self.subjects.insert(subject, id);
        self.steps.push(Step { action, object: object.cloned(), reason, source: source.cloned(), after });
        Some(id)
    }

    /// Stops a container after it was taken out of the table; from here on it counts as leaving, even if the step must wait.
    pub(super) fn stop(
        &mut self,
        (id, container): Found<'a>,
        reason: Reason,
        source: Option<&SourceRef>,
    ) -> Option<StepId> {
        self.leaving.insert(id);
        let drain = self.is_served(container) && !self.has_bug(Bug::StopWithoutDrain);
        if drain && self.publish_blocked {
            return None;
        }
        let object = &container.replica.workload;
        let action = Action::StopContainer { id: id.clone(), grace_ms: self.grace_ms(container) };
        let step = self.push(action, Some(object), reason, source, Vec::new())?;
        if drain {
            self.drains.push(step);
        }
        self.stopped.insert(id.clone(), step);
        Some(step)
    }

    /// Removes a container that does not run, or stops it first.
    pub(super) fn remove(&mut self, found: Found<'a>, reason: Reason, source: Option<&SourceRef>) -> Option<StepId> {
        let (id, container) = found;
        let after = match container.state {
            ContainerState::Running => vec![self.stop(found, reason.clone(), source)?],
            ContainerState::Creating | ContainerState::Created | ContainerState::Stopped => Vec::new(),
        };
        let after = if self.has_bug(Bug::RemoveNotAfterStop) { Vec::new() } else { after };
        self.leaving.insert(id);
        let action = Action::RemoveContainer { id: id.clone() };
        let step = self.push(action, Some(&container.replica.workload), reason, source, after)?;
        self.removed.insert(id.clone(), step);
        self.stopped.entry(id.clone()).or_insert(step);
        Some(step)
    }

    /// Whether the table in force may send somebody there.
    fn is_served(&self, container: &ObservedContainer) -> bool {
        let mut own = container.addresses().map(|(_, address)| IpAddr::V4(address));
        container.address.is_some()
            && self.in_force.as_ref().is_none_or(|known| own.any(|address| known.contains(&address)))
    }

    /// What the container's own template grants it to stop, else today's, else Docker's 10 s.
    fn grace_ms(&self, container: &ObservedContainer) -> u64 {
        let key = &container.replica.workload;
        let of_revision = self.observed.revisions.get(key).into_iter().flatten();
        let mut of_revision = of_revision.filter(|revision| revision.template_hash == container.template_hash);
        let template = of_revision
            .next_back()
            .map(|revision| &revision.template)
            .or_else(|| self.desired.workloads.get(key).map(|workload| &workload.template))
            .or_else(|| self.desired.jobs.get(key).map(|job| &job.template));
        template.map_or(10_000, |template| template.stop_grace_ms)
    }

    /// Whether something half made is being made right now.
    pub(super) fn is_being_made(&self, id: &ContainerId) -> bool {
        // Built without a ContainerConfig: the same text as `Action::subject`, held together by a test.
        !self.observed.in_flight.is_empty() && self.observed.in_flight.contains(&format!("create {id}"))
    }

    /// The hold that keeps an object nobody declares, if there is one.
    pub(super) fn hold(&self, container: &ObservedContainer) -> Option<&'a str> {
        if self.has_bug(Bug::HoldIgnored) {
            return None;
        }
        let root = container.source_root.as_deref().filter(|_| !self.has_bug(Bug::HoldOfAnotherSource));
        let keeps = |hold: &&Hold| hold.keeps(root, &container.source_file);
        self.desired.holds.iter().find(keeps).map(|hold| hold.reason.as_str())
    }

    /// Makes steps wait for another one that was thought of later.
    pub(super) fn add_edges(&mut self, steps: &[StepId], before: StepId) {
        for &step in steps {
            self.steps[step].after.push(before);
        }
    }

    pub(super) fn is_publish_blocked(&self) -> bool {
        self.publish_blocked
    }

    /// The finished plan.
    pub(super) fn finish(mut self) -> Plan {
        self.waiting.sort_by(|a, b| a.object.cmp(&b.object));
        self.waiting.dedup();
        Plan { steps: order(self.steps), waiting: self.waiting, wake_at_boot_ms: self.wake_at }
    }

    /// What a container on these networks sees: unknown names are asked outside if one of them leads there.
    pub(super) fn view_of<'n>(&self, networks: impl Iterator<Item = &'n NetworkName>) -> DnsView {
        let networks: Vec<NetworkName> = networks.cloned().collect();
        let forward = networks.iter().any(|name| self.networks.leads_out(name));
        DnsView { networks, forward }
    }
}
