//! What no plan may do, whatever it was made from. Tests call it on every plan, and so does whoever executes one.
//!
//! Must not know why a step was planned: only what is there and what the steps say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use runtime::id::{ContainerId, NetworkName};
use runtime::runtime::{ContainerState, EndpointTable};

use super::ids::apart;
use super::{Action, Plan, StepId};
use crate::model::{ObservedContainer, ObservedMember, ObservedState};

impl Plan {
    /// Whether the plan keeps the invariants that can be seen from it and from what it was made from.
    ///
    /// # Errors
    /// One sentence for each that is broken.
    pub fn check(&self, observed: &ObservedState) -> Result<(), Vec<String>> {
        let states = states(observed);
        let mut check = Check { plan: self, observed, states, before: Vec::new(), wrong: Vec::new() };
        check.edges();
        if check.wrong.is_empty() {
            check.subjects();
            check.containers();
            check.addresses();
            check.shared();
        }
        if check.wrong.is_empty() { Ok(()) } else { Err(check.wrong) }
    }
}

struct Check<'p> {
    plan: &'p Plan,
    observed: &'p ObservedState,
    /// Containers and members of pods.
    states: BTreeMap<&'p ContainerId, ContainerState>,
    /// For each step, all that must have succeeded before it.
    before: Vec<BTreeSet<StepId>>,
    wrong: Vec<String>,
}

impl<'p> Check<'p> {
    fn refuse(&mut self, id: StepId, what: impl std::fmt::Display) {
        self.wrong.push(format!("step {id}, {}: {what}", self.plan.steps[id].action.subject()));
    }

    /// Edges lead back, so there is no cycle.
    fn edges(&mut self) {
        for (id, step) in self.plan.steps.iter().enumerate() {
            let mut before = BTreeSet::new();
            for &prior in &step.after {
                match self.before.get(prior) {
                    Some(of_prior) => {
                        before.extend(of_prior);
                        before.insert(prior);
                    }
                    None => self.refuse(id, format!("waits for step {prior}, which is not before it")),
                }
            }
            self.before.push(before);
        }
    }

    /// No two steps do the same, none does what is being done.
    fn subjects(&mut self) {
        let mut seen = BTreeSet::new();
        for (id, step) in self.plan.steps.iter().enumerate() {
            let subject = step.action.subject();
            if self.observed.in_flight.contains(&subject) {
                self.refuse(id, "is being carried out already");
            }
            if !seen.insert(subject) {
                self.refuse(id, "is planned twice");
            }
        }
    }

    /// The step before `id` whose action passes the test.
    fn prior(&self, id: StepId, test: impl Fn(&Action) -> bool) -> bool {
        self.before[id].iter().any(|&prior| test(&self.plan.steps[prior].action))
    }

    fn prior_create(&self, id: StepId, of: &ContainerId) -> bool {
        self.prior(id, |action| matches!(action, Action::CreateContainer { config } if config.id == *of))
    }

    fn prior_stop(&self, id: StepId, of: &ContainerId) -> bool {
        self.prior(id, |action| matches!(action, Action::StopContainer { id, .. } if id == of))
    }

    fn prior_remove(&self, id: StepId, of: &ContainerId) -> bool {
        self.prior(id, |action| matches!(action, Action::RemoveContainer { id } if id == of))
    }

    /// Each container goes through its life in order, and nobody else's is touched.
    fn containers(&mut self) {
        let plan = self.plan;
        for (id, step) in plan.steps.iter().enumerate() {
            match &step.action {
                Action::CreateContainer { config } => {
                    if self.states.contains_key(&config.id) && !self.prior_remove(id, &config.id) {
                        self.refuse(id, "exists already");
                    }
                    match config.holder() {
                        None if ObservedContainer::from_config(config).is_none() => {
                            self.refuse(id, "its labels do not say whose it is");
                        }
                        None => {}
                        Some(_) if ObservedMember::from_config(config).is_none() => {
                            self.refuse(id, "its labels do not say which member it is");
                        }
                        Some(holder) if self.states.get(holder) != Some(&ContainerState::Running) => {
                            self.refuse(id, format!("its pod {holder} does not run"));
                        }
                        Some(_) => {}
                    }
                    let foreign = self.observed.foreign_id_ranges.iter();
                    if foreign.clone().any(|&(s, l)| !apart(config.ids.host_start, config.ids.len, s, l)) {
                        self.refuse(id, "its ids are somebody else's");
                    }
                }
                Action::StartContainer { id: of } => {
                    if self.states.get(of) != Some(&ContainerState::Created) && !self.prior_create(id, of) {
                        self.refuse(id, "is not created");
                    }
                }
                Action::StopContainer { id: of, .. } => self.stop(id, of),
                Action::RemoveContainer { id: of } => match self.states.get(of) {
                    None => self.refuse(id, "is not ours"),
                    Some(ContainerState::Running) if !self.prior_stop(id, of) => {
                        self.refuse(id, "still runs");
                    }
                    Some(_) => {}
                },
                Action::UpdateResources { id: of, .. } => {
                    if !self.states.contains_key(of) {
                        self.refuse(id, "is not ours");
                    }
                }
                Action::PullImage { .. }
                | Action::RemoveImage { .. }
                | Action::CreateNetwork { .. }
                | Action::RemoveNetwork { .. }
                | Action::CreateVolume { .. }
                | Action::RemoveVolume { .. }
                | Action::PublishEndpoints { .. }
                | Action::RecordRevision { .. }
                | Action::RecordJob { .. } => {}
            }
        }
    }

    /// A container is ours, and nobody is sent to it any more when it is stopped.
    fn stop(&mut self, id: StepId, of: &ContainerId) {
        let Some(container) = self.observed.containers.get(of) else {
            // A member serves with its pod, which stays.
            if !self.states.contains_key(of) {
                self.refuse(id, "is not ours");
            }
            return;
        };
        let leads_there = |table: &EndpointTable| container.addresses().any(|(_, address)| leads_to(table, address));
        let is_in_force = self.observed.published.as_ref().is_none_or(leads_there) && container.address.is_some();
        let drained = |action: &Action| matches!(action, Action::PublishEndpoints { table } if !leads_there(table));
        if container.state == ContainerState::Running && is_in_force && !self.prior(id, drained) {
            self.refuse(id, "serves until it is stopped: no table without it is published before");
        }
    }

    /// One address, one container.
    fn addresses(&mut self) {
        let mut holders: BTreeMap<(&NetworkName, Ipv4Addr), &ContainerId> = BTreeMap::new();
        for (id, container) in &self.observed.containers {
            if container.state != ContainerState::Stopped {
                holders.extend(container.addresses().map(|held| (held, id)));
            }
        }
        let plan = self.plan;
        for (id, step) in plan.steps.iter().enumerate() {
            let Action::CreateContainer { config } = &step.action else { continue };
            // A member has its holder's.
            for (network, address) in config.network.addresses().filter(|_| config.holder().is_none()) {
                let holder = holders.insert((network, address), &config.id);
                if let Some(holder) = holder.filter(|holder| **holder != config.id)
                    && !self.prior_stop(id, holder)
                    && !self.prior_remove(id, holder)
                {
                    self.refuse(id, format!("{address} is the address of {holder}"));
                }
            }
        }
    }

    /// Networks, volumes and images go only when nothing needs them.
    fn shared(&mut self) {
        let plan = self.plan;
        for (id, step) in plan.steps.iter().enumerate() {
            let users: Vec<&ContainerId> = match &step.action {
                Action::RemoveNetwork { name } => {
                    self.users(|container| container.addresses().any(|(network, _)| network == name))
                }
                Action::RemoveVolume { name } => {
                    if self.observed.volumes.get(name).is_none_or(|volume| volume.anonymous_of.is_none()) {
                        self.refuse(id, "is not an anonymous volume: data is removed by people");
                    }
                    self.users(|container| container.volumes.iter().any(|mounted| mounted.name == *name))
                }
                Action::RemoveImage { reference } => {
                    let digest = reference
                        .digest()
                        .filter(|_| !self.observed.images.contains_key(reference))
                        .or_else(|| self.observed.images.get(reference).map(|image| &image.digest));
                    let same = self.observed.images.iter().filter(|(other, _)| *other != reference);
                    let elsewhere = same.clone().any(|(_, image)| Some(&image.digest) == digest);
                    if elsewhere {
                        Vec::new()
                    } else {
                        self.users(|container| container.images().any(|image| Some(image) == digest))
                    }
                }
                Action::PullImage { .. }
                | Action::CreateNetwork { .. }
                | Action::CreateVolume { .. }
                | Action::CreateContainer { .. }
                | Action::StartContainer { .. }
                | Action::StopContainer { .. }
                | Action::RemoveContainer { .. }
                | Action::UpdateResources { .. }
                | Action::PublishEndpoints { .. }
                | Action::RecordRevision { .. }
                | Action::RecordJob { .. } => continue,
            };
            for user in users {
                if !self.prior_remove(id, user) {
                    self.refuse(id, format!("{user} uses it"));
                }
            }
        }
    }

    fn users(&self, test: impl Fn(&ObservedContainer) -> bool) -> Vec<&'p ContainerId> {
        self.observed.containers.iter().filter(|(_, container)| test(container)).map(|(id, _)| id).collect()
    }
}

fn states(observed: &ObservedState) -> BTreeMap<&ContainerId, ContainerState> {
    let mut states = BTreeMap::new();
    for (id, container) in &observed.containers {
        states.insert(id, container.state);
        let members = container.pod.iter().flat_map(|pod| &pod.members);
        states.extend(members.map(|(id, member)| (id, member.state)));
    }
    states
}

fn leads_to(table: &EndpointTable, address: Ipv4Addr) -> bool {
    let served = table.services.iter().any(|service| service.leads_to().any(|replica| replica == address));
    let address = IpAddr::V4(address);
    served
        || table.listeners.iter().any(|listener| listener.backends.iter().any(|backend| backend.ip() == address))
        || table.zones.values().flat_map(BTreeMap::values).flatten().any(|named| *named == address)
}
