//! The members of a replica that is a pod: init containers in their order, each to completion; sidecars from their turn
//! on; then the main containers. A member that ends is made again alone, with back-off; what the pod as a whole comes to
//! is drawn by `model::pod`, and its slot, address, stop and removal are those of its holder, planned like any container.

use runtime::id::ContainerId;
use runtime::runtime::{Alteration, ContainerState, ExitStatus};

use super::backoff;
use super::bug::Bug;
use super::container::{Make, MemberOf, member_config};
use super::pass::{Found, Pass};
use super::rollout::Target;
use super::workload::is_not_run_again;
use super::{Action, Reason, WaitingOn, job};
use crate::model::{
    ContainerTemplate, DesiredJob, ObjectKey, ObservedMember, ObservedPod, Restart, Role, SourceRef, TemplateHash,
    Workload,
};

/// Members with a higher order are stopped first: the main containers, then sidecars, the last started first.
const STOP_MAIN: u32 = 1_000;

/// Docker's, where nobody remembers what was granted.
const STOP_GRACE_MS: u64 = 10_000;

/// What the pods of an App or Job are kept to.
pub(super) struct Kept<'a> {
    restart: Restart,
    source: &'a SourceRef,
    /// The template that is wanted now and its hash; other pods are of recorded revisions.
    wanted: (TemplateHash, &'a ContainerTemplate),
}

impl<'a> Kept<'a> {
    pub(super) fn of_app(app: &'a Workload, target: &Target<'a>) -> Self {
        Self { restart: app.restart, source: &app.source, wanted: (target.hash.clone(), target.template) }
    }

    /// A failed run of a Job is tried again as a whole.
    pub(super) fn of_job(job: &'a DesiredJob, hash: &TemplateHash) -> Self {
        Self { restart: Restart::Never, source: &job.source, wanted: (hash.clone(), &job.template) }
    }
}

/// Brings the pods of one App or Job on: each by itself, those that run and stay.
pub(super) fn plan_members<'a>(pass: &mut Pass<'a>, key: &'a ObjectKey, kept: &Kept<'a>) {
    let found = pass.owned.get(key).cloned().unwrap_or_default();
    for (id, container) in found {
        let stays = container.state == ContainerState::Running && !pass.leaving.contains(id);
        let Some(pod) = container.pod.as_ref().filter(|_| stays) else { continue };
        // Its holder is dead, or somebody took its network: what joined it is of no use any more.
        if container.altered.contains(&Alteration::Network) && !pass.has_bug(Bug::AlterationIgnored) {
            pass.stop((id, container), Reason::Drifted, Some(kept.source));
            continue;
        }
        let template = template_of(pass, key, &container.template_hash, kept);
        let mut members = Members { key, kept, holder: (id, container), pod, template };
        members.plan(pass);
    }
}

/// The template of a pod, as far as anything remembers it.
fn template_of<'a>(
    pass: &Pass<'a>,
    key: &ObjectKey,
    hash: &TemplateHash,
    kept: &Kept<'a>,
) -> Option<&'a ContainerTemplate> {
    if kept.wanted.0 == *hash {
        return Some(kept.wanted.1);
    }
    let revisions = pass.observed.revisions.get(key).into_iter().flatten();
    let mut same = revisions.filter(|revision| revision.template_hash == *hash);
    same.next_back().map(|revision| &revision.template)
}

/// One pod under planning.
struct Members<'p, 'a> {
    key: &'a ObjectKey,
    kept: &'p Kept<'a>,
    holder: Found<'a>,
    pod: &'a ObservedPod,
    template: Option<&'a ContainerTemplate>,
}

impl<'a> Members<'_, 'a> {
    fn plan(&mut self, pass: &mut Pass<'a>) {
        self.clear(pass);
        self.set_limits(pass);
        self.stop_unhealthy(pass);
        if self.is_over(pass) {
            pass.stop(self.holder, Reason::Exited, Some(self.kept.source));
            return;
        }
        let has_begun = self.pod.has_begun() && !pass.has_bug(Bug::InitContainersIgnored);
        for (at, (role, name)) in self.pod.parts.iter().enumerate() {
            let goes_on = match role {
                Role::Init if has_begun || pass.has_bug(Bug::InitContainersIgnored) => true,
                Role::Init => self.run_to_completion(pass, at, name),
                Role::Sidecar => self.keep_running(pass, at, name, Restart::Always) || has_begun,
                Role::Main | Role::Beside => {
                    self.keep_running(pass, at, name, self.kept.restart);
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// What a crash left half made, and all but the last container of each name that ended.
    fn clear(&self, pass: &mut Pass<'a>) {
        for (id, member) in &self.pod.members {
            let is_newest = self.pod.newest(&member.name).is_some_and(|(newest, _)| newest == id);
            let reason = match member.state {
                ContainerState::Creating if !pass.is_being_made(id) => Reason::HalfMade,
                ContainerState::Stopped if !is_newest => Reason::Replaced,
                ContainerState::Creating
                | ContainerState::Created
                | ContainerState::Running
                | ContainerState::Stopped => continue,
            };
            let action = Action::RemoveContainer { id: id.clone() };
            pass.push(action, Some(self.key), reason, Some(self.kept.source), Vec::new());
        }
    }

    fn set_limits(&self, pass: &mut Pass<'a>) {
        let Some(template) = self.template else { return };
        for (id, member) in &self.pod.members {
            let part = self.pod.role(&member.name).and_then(|role| template.part(role, &member.name));
            let Some(limits) = part.map(|part| &part.resources) else { continue };
            let is_live = matches!(member.state, ContainerState::Created | ContainerState::Running);
            let reason = match member.resources == *limits {
                _ if !is_live => continue,
                false => Reason::LimitsChanged,
                true if member.is_altered => Reason::Drifted,
                true => continue,
            };
            let action = Action::UpdateResources { id: id.clone(), resources: limits.clone() };
            pass.push(action, Some(self.key), reason, Some(self.kept.source), Vec::new());
        }
    }

    /// What hangs is stopped; its end leads to another.
    fn stop_unhealthy(&self, pass: &mut Pass<'a>) {
        let hangs = |member: &ObservedMember| member.unhealthy && member.state == ContainerState::Running;
        let grace_ms = self.template.map_or(STOP_GRACE_MS, |template| template.stop_grace_ms);
        for (id, _) in self.pod.members.iter().filter(|(_, member)| hangs(member)) {
            if !pass.has_bug(Bug::UnhealthyLeftAlone) {
                let action = Action::StopContainer { id: id.clone(), grace_ms };
                pass.push(action, Some(self.key), Reason::Unhealthy, Some(self.kept.source), Vec::new());
            }
        }
    }

    /// Whether nothing of it will run again: its main containers have done their work, one before them has failed for
    /// good, or nobody knows any more what it was to run.
    fn is_over(&self, pass: &Pass<'a>) -> bool {
        let left = |name: &str| {
            let newest = self.pod.newest(name).map(|(_, member)| member);
            newest.is_some_and(|member| self.is_left_alone(member, self.kept.restart))
        };
        let mut mains = self.pod.parts.iter().filter(|(role, _)| role.is_main());
        if self.pod.has_begun() {
            return mains.all(|(_, name)| left(name)) && !pass.has_bug(Bug::EndedPodKept);
        }
        let failed = |(role, name): &(Role, String)| {
            let newest = self.pod.newest(name).map(|(_, member)| member);
            let has_failed = |member: &ObservedMember| is_ended(member) && !has_succeeded(member);
            *role == Role::Init && newest.is_some_and(has_failed) && left(name)
        };
        self.template.is_none() || self.pod.parts.iter().any(failed)
    }

    /// A failed container that stays so.
    fn is_left_alone(&self, member: &ObservedMember, restart: Restart) -> bool {
        let failures = || member.failures + 1;
        is_ended(member) && member.exit.is_some_and(|exit| is_not_run_again(restart, exit, failures))
    }

    /// An init container; `true` when it has succeeded.
    fn run_to_completion(&self, pass: &mut Pass<'a>, at: usize, name: &'a str) -> bool {
        match self.pod.newest(name) {
            Some((_, member)) if has_succeeded(member) => return true,
            Some((id, member)) if !is_ended(member) => self.start(pass, id, member),
            newest => self.make(pass, at, name, newest.map(|(_, member)| member), Reason::Retry),
        }
        false
    }

    /// A container that is to run; `true` when it does.
    fn keep_running(&self, pass: &mut Pass<'a>, at: usize, name: &'a str, restart: Restart) -> bool {
        match self.pod.newest(name) {
            Some((_, member)) if self.is_left_alone(member, restart) => {}
            Some((id, member)) if !is_ended(member) => {
                self.start(pass, id, member);
                return member.state == ContainerState::Running;
            }
            newest => self.make(pass, at, name, newest.map(|(_, member)| member), Reason::Exited),
        }
        false
    }

    fn start(&self, pass: &mut Pass<'a>, id: &ContainerId, member: &ObservedMember) {
        if member.state == ContainerState::Created {
            let action = Action::StartContainer { id: id.clone() };
            pass.push(action, Some(self.key), Reason::Missing, Some(self.kept.source), Vec::new());
        }
    }

    /// The next container of a name, once its back-off is over.
    fn make(&self, pass: &mut Pass<'a>, at: usize, name: &'a str, before: Option<&'a ObservedMember>, again: Reason) {
        let role = self.pod.parts[at].0;
        let Some(template) = self.template.and_then(|template| template.part(role, name)) else { return };
        let (holder, found) = self.holder;
        let failures = before.map_or(0, failures_after);
        if before.is_some() && pass.has_bug(Bug::MemberNeverReplaced) {
            return;
        }
        if let Some(before) = before {
            let until_boot_ms = before.finished_boot_ms.saturating_add(delay_after(before));
            if until_boot_ms > pass.now() && !pass.has_bug(Bug::BackOffIgnored) {
                let exit = before.exit.unwrap_or(ExitStatus::Unknown);
                let message = format!("container `{name}` of {}: {exit}", found.replica);
                pass.wait(self.key, WaitingOn::BackOff { until_boot_ms, failures, message });
                return;
            }
        }
        // A pod goes on with the images it was made with, wherever their tags lead by now (simulation seed 13791).
        let own = if role == Role::Main { Some(&found.image) } else { before.map(|before| &before.image) };
        let own = own.and_then(|digest| Some((digest, *pass.images.get(digest)?)));
        let found_image = own.or_else(|| pass.image(template, self.key));
        let Some((image, image_config)) = found_image else { return };
        let make = Make {
            object: self.key,
            ordinal: found.replica.ordinal,
            attempt: before.map_or(0, |before| before.attempt + 1),
            index: job::index_of(pass, self.key, found.replica.ordinal),
            template,
            hash: found.template_hash.clone(),
            image,
            image_config,
            resources: &template.resources,
            source: self.kept.source,
        };
        let member = MemberOf {
            name,
            is_main: role == Role::Main,
            failures,
            share_pids: self.template.and_then(|template| template.pod.as_ref()).is_some_and(|pod| pod.share_pids),
            stop_order: if role.is_main() { STOP_MAIN } else { u32::try_from(at).unwrap_or(STOP_MAIN) },
        };
        let config = Box::new(member_config(&make, holder, found, member));
        let id = config.id.clone();
        if self.pod.members.contains_key(&id) {
            // Half made; it is removed first.
            return;
        }
        let reason = if before.is_some() { again } else { Reason::Missing };
        let source = Some(self.kept.source);
        let created = pass.push(Action::CreateContainer { config }, Some(self.key), reason.clone(), source, Vec::new());
        if let Some(created) = created {
            pass.push(Action::StartContainer { id }, Some(self.key), reason, source, vec![created]);
        }
    }
}

fn is_ended(member: &ObservedMember) -> bool {
    member.state == ContainerState::Stopped
}

fn has_succeeded(member: &ObservedMember) -> bool {
    is_ended(member) && member.exit == Some(ExitStatus::Code(0))
}

/// How long a member ran. What ended in an earlier boot ended with its pod.
fn ran_ms(member: &ObservedMember) -> u64 {
    match member.started_boot_ms {
        0 => 0,
        started => member.finished_boot_ms.saturating_sub(started),
    }
}

/// Ends in a row, this one included; ten good minutes end the row.
fn failures_after(member: &ObservedMember) -> u32 {
    if ran_ms(member) >= backoff::FORGIVEN_MS { 1 } else { member.failures.saturating_add(1) }
}

/// As for whole containers: the first restart after a good start is immediate.
fn delay_after(member: &ObservedMember) -> u64 {
    match failures_after(member) {
        1 if ran_ms(member) >= backoff::STARTED_WELL_MS => 0,
        1 => backoff::delay_ms(1),
        failures => backoff::delay_ms(failures - 1),
    }
}
