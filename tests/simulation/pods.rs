//! Pods of the fake host: members live in what their holder holds, end alone, and go with it.

use controller::model::{ContainerTemplate, ObservedContainer, ObservedMember, Role};
use runtime::id::ContainerId;
use runtime::runtime::{ContainerConfig, ContainerState, ExitStatus, MountSource, Resources};

use crate::desire::TAGS;
use crate::rng::Rng;
use crate::world::{Container, Fail, Program, World, program_of};

/// When something happens to a member by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timing {
    pub(crate) ready_at: Option<u64>,
    pub(crate) ends_at: Option<(u64, u8)>,
}

/// Whether every member of a template is one that works in the end.
pub(crate) fn members_are_good(template: &ContainerTemplate) -> bool {
    let members = template.pod.iter().flat_map(|pod| &pod.members);
    members.into_iter().all(|member| {
        let tag = member.template.image.reference.tag().unwrap_or_default();
        match member.role {
            Role::Init => matches!(tag, "job-ok" | "job-flaky"),
            Role::Sidecar | Role::Main | Role::Beside => TAGS[..4].contains(&tag),
        }
    })
}

impl Container {
    /// Whether anything of it runs or may run.
    pub(crate) fn is_alive(&self) -> bool {
        let members = self.seen.pod.iter().flat_map(|pod| pod.members.values());
        self.seen.state != ContainerState::Stopped
            || members.into_iter().any(|member| member.state != ContainerState::Stopped)
    }

    /// As a controller would see it.
    pub(crate) fn settled(&self, asked: bool, was_over: bool) -> ObservedContainer {
        let mut seen = self.seen.clone();
        seen.settle_pod(asked, was_over);
        seen
    }

    fn member(&mut self, id: &ContainerId) -> Option<(&mut ObservedMember, &mut Timing)> {
        let member = self.seen.pod.as_mut()?.members.get_mut(id)?;
        Some((member, self.timings.entry(id.clone()).or_default()))
    }

    pub(crate) fn end_member(&mut self, id: &ContainerId, at: u64, exit: ExitStatus) {
        let Some((member, timing)) = self.member(id) else { return };
        if member.state != ContainerState::Stopped {
            member.state = ContainerState::Stopped;
            (member.exit, member.finished_boot_ms) = (Some(exit), at);
            member.ready_since_boot_ms = None;
            *timing = Timing::default();
        }
        self.draw_ready();
    }

    pub(crate) fn end_members(&mut self, at: u64, exit: ExitStatus) {
        for id in self.member_ids() {
            self.end_member(&id, at, exit);
        }
    }

    pub(crate) fn member_ids(&self) -> Vec<ContainerId> {
        self.seen.pod.iter().flat_map(|pod| pod.members.keys().cloned()).collect()
    }

    /// A pod is ready when its members are.
    fn draw_ready(&mut self) {
        if self.seen.pod.is_some() && self.seen.state == ContainerState::Running {
            self.seen.ready_since_boot_ms = self.settled(false, false).ready_since_boot_ms;
        }
    }

    /// What time brings to the members.
    pub(crate) fn advance_members(&mut self, now: u64) {
        for id in self.member_ids() {
            let Some((member, timing)) = self.member(&id) else { continue };
            if member.state != ContainerState::Running {
                continue;
            }
            if let Some((at, code)) = timing.ends_at.filter(|(at, _)| *at <= now) {
                self.end_member(&id, at, ExitStatus::Code(code));
            } else if let Some(at) = timing.ready_at.filter(|at| *at <= now) {
                member.ready_since_boot_ms.get_or_insert(at);
            }
        }
        self.draw_ready();
    }

    /// When something happens to a member by itself.
    pub(crate) fn next_member_event(&self) -> Option<u64> {
        let members = self.seen.pod.iter().flat_map(|pod| &pod.members);
        let running = members.filter(|(_, member)| member.state == ContainerState::Running);
        let events = running.flat_map(|(id, member)| {
            let timing = self.timings.get(id).copied().unwrap_or_default();
            [timing.ready_at.filter(|_| member.ready_since_boot_ms.is_none()), timing.ends_at.map(|(at, _)| at)]
        });
        events.flatten().min()
    }

    /// The host went down: what ran has ended unseen, what was made is half made.
    pub(crate) fn reboot_members(&mut self) {
        self.end_members_unseen();
        let members = self.seen.pod.iter_mut().flat_map(|pod| pod.members.values_mut());
        for member in members {
            (member.started_boot_ms, member.finished_boot_ms) = (0, 0);
        }
    }

    fn end_members_unseen(&mut self) {
        let running = |member: &ObservedMember| member.state == ContainerState::Running;
        for id in self.member_ids() {
            match self.member(&id) {
                Some((member, _)) if running(member) => self.end_member(&id, 0, ExitStatus::Unknown),
                Some((member, _)) if member.state == ContainerState::Created => member.state = ContainerState::Creating,
                Some(_) | None => {}
            }
        }
    }
}

impl World {
    /// The pod a member is in.
    pub(crate) fn pod_of(&mut self, id: &ContainerId) -> Option<&mut Container> {
        let is_in = |c: &&mut Container| c.seen.pod.as_ref().is_some_and(|pod| pod.members.contains_key(id));
        self.containers.values_mut().find(is_in)
    }

    /// Whether creating this member is legal.
    pub(crate) fn check_create_member(&self, config: &ContainerConfig) -> Result<(), String> {
        let id = &config.id;
        let Some(holder) = config.holder().and_then(|holder| self.containers.get(holder)) else {
            return Err(format!("{id} has no pod"));
        };
        if holder.seen.state != ContainerState::Running {
            return Err(format!("{id}: its pod {} is {:?}", holder.config.id, holder.seen.state));
        }
        if holder.member_ids().contains(id) || self.containers.contains_key(id) {
            return Err(format!("{id} exists"));
        }
        if !self.images.values().any(|image| image.digest == config.image || image.previous.contains(&config.image)) {
            return Err(format!("{id}: no image {}", config.image));
        }
        for mount in &config.mounts {
            if let MountSource::Volume { name } = &mount.source {
                if !self.volumes.contains_key(name) {
                    return Err(format!("{id}: no volume {name}"));
                }
                if !holder.seen.volumes.iter().any(|held| held.name == *name) {
                    return Err(format!("{id}: volume {name} is not among those of its pod"));
                }
            }
        }
        let new = ObservedMember::from_config(config).ok_or_else(|| format!("{id} has no labels"))?;
        let pod = holder.seen.pod.as_ref().ok_or_else(|| format!("{} holds no pod", holder.config.id))?;
        let twin = pod.members.values().find(|m| m.name == new.name && m.state != ContainerState::Stopped);
        twin.map_or(Ok(()), |_| Err(format!("{id} would live beside another `{}`", new.name)))
    }

    /// Puts a member among those of its pod, as far as it got.
    pub(crate) fn add_member(&mut self, config: &ContainerConfig, state: ContainerState) {
        let Some(member) = ObservedMember::from_config(config) else { return };
        let holder = config.holder().and_then(|holder| self.containers.get_mut(holder));
        if let Some(pod) = holder.and_then(|holder| holder.seen.pod.as_mut()) {
            pod.members.insert(config.id.clone(), ObservedMember { state, ..member });
        }
    }

    pub(crate) fn create_member(&mut self, config: &ContainerConfig, fails: bool, rng: &mut Rng) -> Result<(), Fail> {
        self.check_create_member(config).map_err(Fail::Refused)?;
        if !fails {
            self.add_member(config, ContainerState::Created);
            return Ok(());
        }
        if rng.chance(400) {
            self.add_member(config, ContainerState::Creating);
        }
        Err(Fail::Fault)
    }

    /// `None`: it is no member.
    pub(crate) fn start_member(&mut self, id: &ContainerId, fails: bool) -> Option<Result<(), Fail>> {
        let now = self.now;
        let holder = self.pod_of(id)?;
        let tries = holder.seen.attempt;
        let (member, timing) = holder.member(id)?;
        if member.state != ContainerState::Created {
            return Some(Err(Fail::Refused(format!("start of {id}, which is {:?}", member.state))));
        }
        let program = program_of(&member.image);
        if fails || program == Program::NotExecutable {
            return Some(Err(Fail::Fault));
        }
        (member.state, member.started_boot_ms) = (ContainerState::Running, now);
        match program {
            Program::Serves { ready_after_ms } => timing.ready_at = Some(now + ready_after_ms),
            Program::Crashes { after_ms } => timing.ends_at = Some((now + after_ms, 1)),
            Program::Ends { after_ms, failures_first, code } => {
                let code = if tries + member.attempt < failures_first { 7 } else { code };
                timing.ends_at = Some((now + after_ms, code));
            }
            Program::NeverReady | Program::NotExecutable => {}
        }
        Some(Ok(()))
    }

    /// `None`: it is no member.
    pub(crate) fn remove_member(&mut self, id: &ContainerId, fails: bool) -> Option<Result<(), Fail>> {
        let holder = self.pod_of(id)?;
        let (member, _) = holder.member(id)?;
        if member.state == ContainerState::Running {
            return Some(Err(Fail::Refused(format!("removal of {id}, which runs"))));
        }
        if fails {
            return Some(Err(Fail::Fault));
        }
        holder.timings.remove(id);
        if let Some(pod) = &mut holder.seen.pod {
            pod.members.remove(id);
        }
        holder.draw_ready();
        Some(Ok(()))
    }

    /// `None`: it is no member.
    pub(crate) fn limit_member(
        &mut self,
        id: &ContainerId,
        resources: &Resources,
        fails: bool,
    ) -> Option<Result<(), Fail>> {
        let (member, _) = self.pod_of(id)?.member(id)?;
        if fails {
            return Some(Err(Fail::Fault));
        }
        (member.resources, member.is_altered) = (resources.clone(), false);
        Some(Ok(()))
    }

    /// Some member that runs dies.
    pub(crate) fn kill_member(&mut self, rng: &mut Rng) -> Option<ContainerId> {
        let running = self.containers.values().flat_map(|c| c.seen.pod.iter().flat_map(|pod| &pod.members));
        let running = running.filter(|(_, member)| member.state == ContainerState::Running);
        let ids: Vec<ContainerId> = running.map(|(id, _)| id.clone()).collect();
        if ids.is_empty() {
            return None;
        }
        let id = rng.pick(&ids).clone();
        let now = self.now;
        if let Some(holder) = self.pod_of(&id) {
            holder.end_member(&id, now, ExitStatus::Signal(9));
        }
        Some(id)
    }
}
