//! What must hold before every step, whatever happened: the invariants of `docs/ARCHITECTURE.md`, written without the
//! planner's help, so that its mistakes are not repeated here.

use std::collections::BTreeMap;

use controller::model::{
    DesiredState, JobRecord, Kind, ObjectKey, ObservedContainer, ObservedState, ReplicaKey, RevisionResult, Role,
    Workload, labels,
};
use controller::plan::{Action, Plan, backoff};
use runtime::id::ContainerId;
use runtime::image::Digest;
use runtime::runtime::{Alteration, ContainerConfig, ContainerState, ExitStatus};

use crate::memory::Memory;
use crate::world::{Container, World};

/// I13, and the floor of I4: a plan never takes away more serving replicas than may be missing.
pub(crate) fn floor(desired: &DesiredState, observed: &ObservedState, plan: &Plan) -> Result<(), String> {
    let mut stops: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
    for step in &plan.steps {
        if let Action::StopContainer { id, .. } = &step.action
            && let Some(found) = observed.containers.get(id)
            && serves(found)
        {
            *stops.entry(&found.replica.workload).or_default() += 1;
        }
    }
    for (key, stopped) in stops {
        let Some(app) = desired.workloads.get(key) else { continue };
        let ready = observed.containers.iter().filter(|(id, c)| {
            let leaving = observed.in_flight.contains(&format!("stop {id}"));
            c.replica.workload == *key && serves(c) && !leaving
        });
        let left = ready.count() - stopped;
        let floor = floor_of(key, app, observed);
        if left < floor {
            return Err(format!("{key}: {stopped} stops leave {left} serving replicas, the floor is {floor}"));
        }
    }
    Ok(())
}

/// Ready, and to be reached.
fn serves(container: &ObservedContainer) -> bool {
    container.ready_since_boot_ms.is_some() && !container.altered.contains(&Alteration::Network) && !container.unhealthy
}

fn floor_of(key: &ObjectKey, app: &Workload, observed: &ObservedState) -> usize {
    let strategy = &app.strategy;
    // Where two containers of a slot cannot live side by side, one may always be missing.
    let lasts = |name| observed.volumes.get(name).is_none_or(|volume| volume.scratch_of.is_none());
    let mut of_app = observed.containers.values().filter(|c| c.replica.workload == *key);
    let mounts = of_app.any(|c| c.volumes.iter().any(|mounted| lasts(&mounted.name)));
    let image = observed.images.get(&app.template.image.reference);
    let has_volumes = image.is_some_and(|image| !image.config.volumes.is_empty());
    let in_place = app.exclusive || app.template.host_network || mounts || has_volumes || strategy.max_surge == 0;
    let mut revisions = observed.revisions.get(key).into_iter().flatten();
    // So it is on the way back to a revision that shared the host's network or whose image has volumes (seed 3617).
    let has_volumes =
        |digest: &Digest| observed.images.values().any(|i| i.digest == *digest && !i.config.volumes.is_empty());
    let in_place = in_place || revisions.any(|r| r.template.host_network || has_volumes(&r.image));
    let unavailable = if in_place { strategy.max_unavailable.max(1) } else { strategy.max_unavailable };
    app.replicas.saturating_sub(unavailable) as usize
}

/// What must hold when a step is begun.
pub(crate) fn step(action: &Action, desired: &DesiredState, world: &World, memory: &Memory) -> Result<(), String> {
    match action {
        Action::CreateContainer { config } => {
            ours(&config.id, world)?;
            left_alone(&config.id, config, desired)?;
            paused(config, desired, world, memory)?;
            ceiling(config, desired, world)?;
            job_once(config, desired, world, memory)
        }
        Action::StartContainer { id } => {
            ours(id, world)?;
            members_in_order(id, world)?;
            backed_off(id, world, memory)
        }
        Action::StopContainer { id, .. } | Action::RemoveContainer { id } => {
            ours(id, world)?;
            if let Some(container) = world.containers.get(id) {
                left_alone(id, &container.config, desired)?;
            }
            not_held(id, desired, world)?;
            dependants_first(id, desired, world, memory)
        }
        Action::UpdateResources { id, .. } => ours(id, world),
        Action::RemoveVolume { name } => {
            let kind = world.volumes.get(name).and_then(|labels| labels.get(labels::KIND));
            let is_data = kind.is_some_and(|kind| *kind == Kind::Volume.to_string());
            if is_data { Err(format!("volume {name} holds data")) } else { Ok(()) }
        }
        Action::RemoveImage { reference } => {
            let templates = desired.workloads.values().map(|app| &app.template);
            let templates = templates.chain(desired.jobs.values().map(|job| &job.template));
            let named = templates.flat_map(|template| template.all()).any(|one| one.image.reference == *reference)
                || desired.images.values().any(|image| image.reference == *reference);
            if named {
                return Err(format!("image {reference} is declared"));
            }
            let digest = world.images.get(reference).map(|image| &image.digest).or_else(|| reference.digest());
            let mut apps = memory.revisions.iter().filter(|(key, _)| desired.workloads.contains_key(*key));
            let needed = apps.any(|(_, revisions)| {
                let good = revisions.iter().rev().find(|revision| revision.result == RevisionResult::Ready);
                good.is_some_and(|good| Some(&good.image) == digest)
            });
            if needed { Err(format!("image {reference} is needed for an undo")) } else { Ok(()) }
        }
        Action::RecordJob { job, record } => {
            let before = memory.jobs.get(job);
            let stepped_back = before.is_some_and(|before| before.considered_unix_ms > world.unix + 3_600_000);
            let scheduled = desired.jobs.get(job).is_some_and(|job| job.schedule.is_some());
            let again = before.is_some_and(|b| b.run < record.run && b.considered_unix_ms >= record.considered_unix_ms);
            // A run begun while the Job had no schedule is only told of (seed 18874).
            let run = ReplicaKey { workload: job.clone(), ordinal: record.run };
            let mut found = world.containers.values().map(|c| &c.seen.replica).chain(memory.exits.keys());
            let has_run = found.any(|replica| *replica == run);
            if again && scheduled && !stepped_back && !has_run {
                Err(format!("{job} runs twice for one time"))
            } else {
                Ok(())
            }
        }
        Action::PullImage { .. }
        | Action::CreateNetwork { .. }
        | Action::RemoveNetwork { .. }
        | Action::CreateVolume { .. }
        | Action::PublishEndpoints { .. }
        | Action::RecordRevision { .. } => Ok(()),
    }
}

/// What a person holds is left as it is.
fn left_alone(id: &ContainerId, config: &ContainerConfig, desired: &DesiredState) -> Result<(), String> {
    let Some(container) = ObservedContainer::from_config(config) else { return Ok(()) };
    let by_hand = desired.orders.get(&container.replica.workload);
    let is_held = by_hand.is_some_and(|by_hand| by_hand.is_left_alone());
    if is_held { Err(format!("{id} is touched although its App is held by hand")) } else { Ok(()) }
}

/// While a roll-out is paused no slot that had another template gets the newest revision's.
fn paused(config: &ContainerConfig, desired: &DesiredState, world: &World, memory: &Memory) -> Result<(), String> {
    let Some(new) = ObservedContainer::from_config(config) else { return Ok(()) };
    let key = &new.replica.workload;
    if !desired.orders.get(key).is_some_and(|by_hand| by_hand.paused) {
        return Ok(());
    }
    let ran = |c: &&Container| matches!(c.seen.state, ContainerState::Running | ContainerState::Stopped);
    let of_slot = world.containers.values().filter(|c| c.seen.replica == new.replica).filter(ran);
    let before = of_slot.max_by_key(|c| c.seen.attempt).map(|c| &c.seen.template_hash);
    let newest = memory.revisions.get(key).and_then(|revisions| revisions.last()).map(|r| &r.template_hash);
    match before {
        Some(before) if *before != new.template_hash && newest == Some(&new.template_hash) => {
            Err(format!("{} takes a paused roll-out further", config.id))
        }
        Some(_) | None => Ok(()),
    }
}

/// In order: an empty slot is filled only while every one below it has a container that is ready.
pub(crate) fn turns(desired: &DesiredState, observed: &ObservedState, plan: &Plan) -> Result<(), String> {
    for step in &plan.steps {
        let Action::CreateContainer { config } = &step.action else { continue };
        let Some(made) = ObservedContainer::from_config(config) else { continue };
        let key = &made.replica.workload;
        if !desired.workloads.get(key).is_some_and(|app| app.strategy.ordered) {
            continue;
        }
        let live = |ordinal: u32| {
            let of_slot = move |c: &&ObservedContainer| c.replica.workload == *key && c.replica.ordinal == ordinal;
            observed.containers.values().filter(of_slot).filter(|c| c.state != ContainerState::Stopped)
        };
        if live(made.replica.ordinal).next().is_some() {
            continue;
        }
        if let Some(below) = (1..made.replica.ordinal).find(|n| !live(*n).any(|c| c.ready_since_boot_ms.is_some())) {
            return Err(format!("{} is made while number {below} is not ready", config.id));
        }
    }
    Ok(())
}

/// Hands off what is not ours.
fn ours(id: &ContainerId, world: &World) -> Result<(), String> {
    if world.foreign.contains(id) { Err(format!("{id} is somebody else's")) } else { Ok(()) }
}

fn live<'w>(world: &'w World, key: &'w ObjectKey) -> impl Iterator<Item = &'w Container> {
    let of_key = world.containers.values().filter(move |c| c.seen.replica.workload == *key);
    of_key.filter(|c| c.seen.state != ContainerState::Stopped)
}

/// I4: no more containers than wanted and surge allow; one for each slot and template.
fn ceiling(config: &ContainerConfig, desired: &DesiredState, world: &World) -> Result<(), String> {
    let Some(new) = controller::model::ObservedContainer::from_config(config) else { return Ok(()) };
    let key = &new.replica.workload;
    let twin = live(world, key).find(|c| c.seen.replica == new.replica && c.seen.template_hash == new.template_hash);
    if let Some(twin) = twin {
        return Err(format!("{} would live beside {}", config.id, twin.config.id));
    }
    let Some(app) = desired.workloads.get(key) else { return Ok(()) };
    let ceiling = app.replicas + app.strategy.max_surge;
    let count = live(world, key).count() + 1;
    if count > ceiling as usize {
        return Err(format!("{} would be container {count} of {key}, the ceiling is {ceiling}", config.id));
    }
    Ok(())
}

/// Absence deletes; an error never does.
fn not_held(id: &ContainerId, desired: &DesiredState, world: &World) -> Result<(), String> {
    let Some(container) = world.containers.get(id) else { return Ok(()) };
    let key = &container.seen.replica.workload;
    if desired.workloads.contains_key(key) || desired.jobs.contains_key(key) {
        return Ok(());
    }
    if is_held(&container.seen, desired) { Err(format!("{id} is held")) } else { Ok(()) }
}

/// What goes with those that depend on it goes after them, unless their stop fails or something holds them.
fn dependants_first(id: &ContainerId, desired: &DesiredState, world: &World, memory: &Memory) -> Result<(), String> {
    let is_declared = |key: &ObjectKey| desired.workloads.contains_key(key) || desired.jobs.contains_key(key);
    let Some(own) = world.containers.get(id).filter(|c| c.seen.state == ContainerState::Running) else { return Ok(()) };
    let key = &own.seen.replica.workload;
    let fails = |other: &ContainerId| memory.failures.contains_key(&format!("stop {other}"));
    let dependant = world.containers.iter().find(|(other, c)| {
        let depends =
            c.config.labels.get(labels::DEPENDS_ON).is_some_and(|on| on.split(' ').any(|on| on == key.to_string()));
        let runs = c.seen.state == ContainerState::Running && !is_held(&c.seen, desired);
        depends && runs && !is_declared(&c.seen.replica.workload) && !fails(other)
    });
    match dependant {
        Some((other, _)) if !is_declared(key) => Err(format!("{id} is stopped before {other}, which depends on it")),
        Some(_) | None => Ok(()),
    }
}

/// Whether a hold keeps an undeclared container: of all sources or of its own, of all files or of its own.
pub(crate) fn is_held(seen: &ObservedContainer, desired: &DesiredState) -> bool {
    let same = |held: &Option<String>, own: Option<&str>| held.as_deref().is_none_or(|held| Some(held) == own);
    let mut holds = desired.holds.iter();
    holds.any(|hold| same(&hold.root, seen.source_root.as_deref()) && same(&hold.file, Some(&seen.source_file)))
}

/// The main containers of a pod start when its init containers have succeeded, one after the other; a member that fails
/// again and again is given time.
fn members_in_order(id: &ContainerId, world: &World) -> Result<(), String> {
    let pods = world.containers.values().filter_map(|c| c.seen.pod.as_ref());
    let Some(pod) = pods.into_iter().find(|pod| pod.members.contains_key(id)) else { return Ok(()) };
    let member = &pod.members[id];
    let begun = pod.members.iter().any(|(other, m)| {
        let is_main = pod.parts.iter().any(|(role, name)| role.is_main() && *name == m.name);
        is_main && m.state != ContainerState::Creating && other != id && m.started_boot_ms > 0
    });
    for (role, name) in pod.parts.iter().take_while(|(_, name)| *name != member.name) {
        let succeeded = pod.members.values().any(|m| m.name == *name && m.exit == Some(ExitStatus::Code(0)));
        if *role == Role::Init && !succeeded && !begun {
            return Err(format!("{id} starts before `{name}` has succeeded"));
        }
    }
    let before = pod.members.values().find(|m| m.name == member.name && m.attempt + 1 == member.attempt);
    let Some(before) = before.filter(|_| member.failures > 1) else { return Ok(()) };
    let since = world.now.saturating_sub(before.finished_boot_ms);
    if before.finished_boot_ms > 0 && since < backoff::DELAY_MS_MIN {
        return Err(format!("{id} starts {since} ms after failure {}", member.failures));
    }
    Ok(())
}

/// I15: the second failure in a row and later ones are waited out.
fn backed_off(id: &ContainerId, world: &World, memory: &Memory) -> Result<(), String> {
    let Some(container) = world.containers.get(id) else { return Ok(()) };
    let exits = memory.exits.get(&container.seen.replica).into_iter().flatten();
    let same = exits.filter(|exit| exit.template_hash == container.seen.template_hash);
    let failures: Vec<_> = same.filter(|exit| !exit.asked && exit.finished_boot_ms > 0).collect();
    let Some(last) = failures.last().filter(|_| failures.len() > 1) else { return Ok(()) };
    let since = world.now.saturating_sub(last.finished_boot_ms);
    if last.ready_for_ms < backoff::FORGIVEN_MS && since < backoff::DELAY_MS_MIN && last.finished_boot_ms <= world.now {
        return Err(format!("{id} starts {since} ms after failure {}", failures.len()));
    }
    Ok(())
}

/// A Job without a schedule runs to success once for each template and completion.
fn job_once(config: &ContainerConfig, desired: &DesiredState, world: &World, memory: &Memory) -> Result<(), String> {
    let Some(new) = controller::model::ObservedContainer::from_config(config) else { return Ok(()) };
    let key = &new.replica.workload;
    let Some(job) = desired.jobs.get(key).filter(|job| job.schedule.is_none()) else { return Ok(()) };
    let found = world.containers.values().filter(|c| c.seen.replica.workload == *key);
    let latest = found.clone().map(|c| c.seen.replica.ordinal).max().unwrap_or(0);
    // Of its own slot; with one completion, of the Job.
    let is_single = |record: &JobRecord| record.completions <= 1;
    let is_single = job.runs.completions == 1 && memory.jobs.get(key).is_none_or(is_single);
    let slot = found.filter(|c| is_single || c.seen.replica == new.replica);
    let done_here = slot.max_by_key(|c| (c.seen.replica.ordinal, c.seen.attempt)).is_some_and(|c| {
        c.seen.template_hash == new.template_hash
            && c.settled(false, false).exit == Some(ExitStatus::Code(0))
            && !memory.asked.contains(&c.config.id)
            && !c.seen.unhealthy
    });
    let same = |record: &&JobRecord| record.completions.max(1) == job.runs.completions;
    let recorded = memory.jobs.get(key).filter(same).filter(|record| record.run + job.runs.completions > latest);
    let done_before = recorded.is_some_and(|record| {
        record.outcome == controller::model::JobOutcome::Succeeded && record.template_hash == new.template_hash
    });
    if done_here || done_before { Err(format!("{} repeats a job that is done", config.id)) } else { Ok(()) }
}
