//! The end of a seed: faults stop, and within a bounded number of passes everything is as wanted and nothing is planned
//! any more (I8), the last good revision serving where the wanted one failed (I13).

use controller::model::{
    ContainerTemplate, Kind, MountWhat, ObjectKey, OnFailure, Orders, PullPolicy, RevisionResult, TemplateHash,
    VolumeAccess, Workload, labels,
};
use controller::plan::{network_name, pod_hash};
use runtime::image::Digest;
use runtime::runtime::ContainerState;

use crate::desire::{TAGS, reference};
use crate::invariant::is_held;
use crate::pods::members_are_good;
use crate::run::Sim;
use crate::world::{World, program_of};

/// Passes that a settled state may take.
const PASSES_MAX: u64 = 300;

pub(crate) fn settle(sim: &mut Sim) -> Result<(), String> {
    calm(sim)?;
    until_nothing_is_planned(sim)?;
    as_wanted(sim).map_err(|error| format!("{error}; there is {}", host(sim)))?;
    if sim.rng.chance(350) {
        // A day later unused images go, and a nightly job may run.
        sim.world.advance(25 * 3_600_000);
        until_nothing_is_planned(sim)?;
        as_wanted(sim).map_err(|error| format!("a day later {error}; there is {}", host(sim)))?;
    }
    Ok(())
}

/// No more faults, and nothing wanted that can never be.
fn calm(sim: &mut Sim) -> Result<(), String> {
    sim.say(|_| "faults stop".to_owned());
    sim.world.fault_per_mille = 0;
    sim.world.registry_down = false;
    sim.world.taken_ports.clear();
    // A pull on its way may bring another image under a tag that is judged below (seed 13791).
    sim.land()?;
    sim.desired.generation += 1;
    if sim.rng.chance(700) {
        sim.desired.holds.clear();
    }
    if sim.rng.chance(200) {
        sim.say(|_| "everything is taken down".to_owned());
        sim.desired.workloads.clear();
        sim.desired.jobs.clear();
        sim.desired.volumes.clear();
    }
    // What is undone by hand stays so; a person who holds or pauses is not waited for.
    sim.desired.orders.retain(|_, by_hand| {
        *by_hand = Orders { undo: by_hand.undo.take(), ..Orders::default() };
        by_hand.undo.is_some()
    });
    sim.desired.jobs.retain(|_, job| job.schedule.as_ref().is_none_or(|schedule| schedule.cron == "0 3 * * *"));
    // A Job whose sidecar never runs and whose main container never ends (seed 2278).
    for job in sim.desired.jobs.values_mut().filter(|job| !members_are_good(&job.template)) {
        job.template.pod = None;
    }
    sim.desired.images.values_mut().for_each(|image| image.follow_ms = None);
    let apps = sim.desired.workloads.values_mut().map(|app| &mut app.template);
    for template in apps.chain(sim.desired.jobs.values_mut().map(|job| &mut job.template)) {
        stop_following(template);
    }
    let jobs: Vec<ObjectKey> = sim.desired.jobs.keys().cloned().collect();
    let keys: Vec<ObjectKey> = sim.desired.workloads.keys().cloned().collect();
    for key in keys {
        let app = &sim.desired.workloads[&key];
        let digest = sim.world.images.get(&app.template.image.reference).map(|image| image.digest.clone());
        let program = digest.map(|digest| program_of(&digest));
        let is_good = program.is_some_and(|program| program.is_good()) && members_are_good(&app.template);
        let can_undo = app.strategy.on_failure == OnFailure::Undo && has_good(sim, &key, app);
        let good = World::good_tag(&mut sim.rng);
        if let Some(app) = sim.desired.workloads.get_mut(&key) {
            app.depends_on.retain(|on, _| !jobs.contains(on));
            if !is_good && !can_undo {
                app.template.image.reference = good;
                if !members_are_good(&app.template) {
                    app.template.pod = None;
                }
            }
        }
        if is_good && sim.rng.chance(400) {
            push_bad(sim, &key);
        } else if is_good && sim.rng.chance(300) {
            take_back(sim, &key);
        }
    }
    Ok(())
}

/// Somebody takes a good revision back by hand: the one before has to serve in the end.
fn take_back(sim: &mut Sim, key: &ObjectKey) {
    if let Some(undo) = sim.an_undo(key) {
        sim.say(|_| format!("{key} is undone by hand: {undo:?}"));
        sim.desired.orders.entry(key.clone()).or_default().undo = Some(undo);
    }
}

/// A bad image is pushed where a good one serves: it must be undone in the end.
fn push_bad(sim: &mut Sim, key: &ObjectKey) {
    let app = &sim.desired.workloads[key];
    let wanted = wanted_hash(sim, app);
    let last = sim.memory.revisions.get(key).and_then(|revisions| revisions.last());
    let serves = last
        .zip(wanted)
        .is_some_and(|(last, wanted)| last.result == RevisionResult::Ready && last.template_hash == wanted);
    if serves && app.strategy.on_failure == OnFailure::Undo {
        let bad = reference(TAGS[4 + sim.rng.index(3)]);
        sim.say(|_| format!("{bad} is pushed to {key}"));
        if let Some(app) = sim.desired.workloads.get_mut(key) {
            app.template.image.reference = bad;
        }
    }
}

/// Whether another revision was ready and can run again.
fn has_good(sim: &Sim, key: &ObjectKey, app: &Workload) -> bool {
    let Some(wanted) = wanted_hash(sim, app) else { return false };
    let revisions = sim.memory.revisions.get(key).into_iter().flatten();
    let mut good = revisions.filter(|r| r.result == RevisionResult::Ready && r.template_hash != wanted);
    good.next_back().is_some_and(|good| {
        program_of(&good.image).is_good()
            && members_are_good(&good.template)
            && sim.world.images.values().any(|i| i.digest == good.image || i.previous.contains(&good.image))
    })
}

fn until_nothing_is_planned(sim: &mut Sim) -> Result<(), String> {
    for passes in 1..=PASSES_MAX {
        let plan = sim.pass()?;
        sim.counts.settle_passes_max = sim.counts.settle_passes_max.max(passes);
        if !plan.steps.is_empty() {
            if sim.is_busy() && sim.rng.chance(500) {
                sim.skip_to_next(3_600_000)?;
            }
            continue;
        }
        // Nothing to do now. What time brings within ten minutes belongs to settling: back-off, deadlines, readiness.
        if !sim.skip_to_next(600_000)? {
            return Ok(());
        }
    }
    let plan = sim.pass()?;
    let steps: Vec<String> =
        plan.steps.iter().map(|s| format!("{} [{}]", s.action.subject(), s.reason.name())).collect();
    Err(format!("not settled after {PASSES_MAX} passes: {}; waiting {:?}", steps.join(", "), plan.waiting))
}

fn as_wanted(sim: &Sim) -> Result<(), String> {
    for (key, app) in &sim.desired.workloads {
        app_is_as_wanted(sim, key, app)?;
    }
    for container in sim.world.containers.values() {
        let key = &container.seen.replica.workload;
        let is_declared = sim.desired.workloads.contains_key(key) || sim.desired.jobs.contains_key(key);
        if !is_declared && !is_held(&container.seen, &sim.desired) {
            return Err(format!("{} is left over", container.config.id));
        }
    }
    for container in sim.world.containers.values().filter(|c| c.seen.state == ContainerState::Running) {
        if container.seen.replica.workload.kind == Kind::Job
            && container.settled(false, false).pod.is_some_and(|pod| pod.has_ended)
        {
            return Err(format!("{} has ended and is kept", container.config.id));
        }
    }
    for (name, found) in &sim.world.volumes {
        let of = found.get(labels::SCRATCH_OF);
        if of.is_some_and(|of| !sim.world.containers.keys().any(|id| id.as_str() == of)) {
            return Err(format!("volume {name} is left over"));
        }
    }
    let is_empty = sim.world.containers.is_empty() && sim.desired.workloads.is_empty() && sim.desired.jobs.is_empty();
    match sim.world.networks.keys().next() {
        Some(name) if is_empty => Err(format!("network {name} is left over")),
        Some(_) | None => Ok(()),
    }
}

/// The hash of what an App wants, by the digests its tags stand for now.
fn wanted_hash(sim: &Sim, app: &Workload) -> Option<TemplateHash> {
    let digest = |template: &controller::model::ContainerTemplate| {
        sim.world.images.get(&template.image.reference).map(|image| &image.digest)
    };
    let of_members: Vec<&Digest> = app.template.all().skip(1).map(digest).collect::<Option<_>>()?;
    Some(pod_hash(&app.template, digest(&app.template)?, of_members.into_iter()))
}

/// The template that should run at the end.
fn expected(sim: &Sim, key: &ObjectKey, app: &Workload) -> Option<TemplateHash> {
    let wanted = wanted_hash(sim, app)?;
    let revisions = sim.memory.revisions.get(key)?;
    let failed = revisions
        .last()
        .is_some_and(|last| last.template_hash == wanted && matches!(last.result, RevisionResult::Failed { .. }));
    let present =
        |digest: &Digest| sim.world.images.values().any(|i| i.digest == *digest || i.previous.contains(digest));
    let undo = sim.desired.orders.get(key).and_then(|by_hand| by_hand.undo.as_ref());
    let undo = undo.filter(|undo| {
        revisions.last().is_some_and(|last| (last.number, &last.template_hash) == (undo.revision, &undo.of))
    });
    let back = undo.and_then(|undo| revisions.iter().rev().find(|r| r.template_hash == undo.to));
    if let Some(back) = back.filter(|back| present(&back.image)) {
        return Some(back.template_hash.clone());
    }
    let mut good = revisions.iter().filter(|r| r.result == RevisionResult::Ready && r.template_hash != wanted);
    let good = good.next_back().filter(|good| present(&good.image));
    match good {
        Some(good) if failed && app.strategy.on_failure == OnFailure::Undo => Some(good.template_hash.clone()),
        Some(_) | None => Some(wanted),
    }
}

fn app_is_as_wanted(sim: &Sim, key: &ObjectKey, app: &Workload) -> Result<(), String> {
    let of_app = sim.world.containers.values().filter(|c| c.seen.replica.workload == *key);
    let live: Vec<_> = of_app.filter(|c| c.seen.state != ContainerState::Stopped).collect();
    if live.is_empty() && !app.depends_on.is_empty() {
        // It may rightly wait for an App that went back to fewer replicas than wanted.
        return Ok(());
    }
    let Some(hash) = expected(sim, key, app) else { return Err(format!("{key} has no image or no history")) };
    if app.replicas > 1 && has_one_writer(sim, key, &hash) {
        return Ok(());
    }
    for container in &live {
        let id = &container.config.id;
        let seen = &container.seen;
        if seen.template_hash != hash || seen.replica.ordinal > app.replicas {
            return Err(format!("{id} lives although {hash} × {} is expected", app.replicas));
        }
        if seen.ready_since_boot_ms.is_none() {
            return Err(format!("{id} is {:?} and not ready", seen.state));
        }
        if !seen.altered.is_empty() {
            return Err(format!("{id} is altered: {:?}", seen.altered));
        }
        if seen.unhealthy {
            return Err(format!("{id} is unhealthy and still runs"));
        }
        let role = |name: &str| seen.pod.as_ref().and_then(|pod| pod.role(name));
        let limits = |name: &str| app.template.part(role(name)?, name).map(|part| &part.resources);
        let as_limited = match &seen.pod {
            None => seen.resources == app.template.resources,
            Some(pod) => {
                let mut live = pod.members.values().filter(|m| m.state != ContainerState::Stopped);
                live.all(|member| limits(&member.name) == Some(&member.resources))
            }
        };
        // After an undo the limits of members are those of their own revision.
        let is_wanted = wanted_hash(sim, app).is_some_and(|wanted| wanted == seen.template_hash);
        if !as_limited && (is_wanted || seen.pod.is_none()) {
            return Err(format!("{id} has other limits"));
        }
    }
    if live.len() != app.replicas as usize {
        return Err(format!("{key} has {} replicas, wanted {}", live.len(), app.replicas));
    }
    if !app.template.is_bridged() || live.iter().any(|c| c.seen.address.is_none()) {
        return Ok(());
    }
    let table = sim.world.published.as_ref().ok_or("no table is in force")?;
    let zone = table.zones.get(&network_name(&key.stack));
    let named = zone.and_then(|zone| zone.get(&key.name)).map_or(0, Vec::len);
    if named != live.len() {
        return Err(format!("{key} has {} replicas, its name leads to {named}", live.len()));
    }
    for port in &app.ports {
        let listener = table.listeners.iter().find(|listener| listener.at == port.at);
        if listener.is_none_or(|listener| listener.backends.len() != live.len()) {
            return Err(format!("{key}: port {} does not lead to its {} replicas", port.at.port, live.len()));
        }
    }
    Ok(())
}

/// An undo to a revision that writes to a volume for one, when more replicas were wanted only later: it goes back as far
/// as the volume allows, and what else serves goes on serving.
fn has_one_writer(sim: &Sim, key: &ObjectKey, hash: &TemplateHash) -> bool {
    let mut revisions = sim.memory.revisions.get(key).into_iter().flatten();
    let mounts = revisions.find(|revision| revision.template_hash == *hash).map(|revision| &revision.template.mounts);
    mounts.into_iter().flatten().filter(|mount| !mount.read_only).any(|mount| match &mount.what {
        MountWhat::Volume(volume) => {
            sim.desired.volumes.get(volume).is_none_or(|volume| volume.access == VolumeAccess::Single)
        }
        MountWhat::Bind(_)
        | MountWhat::Claim(_)
        | MountWhat::File { .. }
        | MountWhat::Secret { .. }
        | MountWhat::Tmpfs { .. }
        | MountWhat::Anonymous
        | MountWhat::Scratch(_) => false,
    })
}

/// Every container, for a failing seed.
fn host(sim: &Sim) -> String {
    let line = |c: &crate::world::Container| {
        let seen = &c.seen;
        format!(
            "\n  {} {} {:?} ready since {:?}, {:?}",
            c.config.id,
            seen.template_hash,
            seen.state,
            seen.ready_since_boot_ms,
            program_of(&seen.image)
        )
    };
    sim.world.containers.values().map(line).collect()
}

/// From here on no tag leads elsewhere.
fn stop_following(template: &mut ContainerTemplate) {
    if matches!(template.pull, PullPolicy::Every(_)) {
        template.pull = PullPolicy::Missing;
    }
    for member in template.pod.iter_mut().flat_map(|pod| &mut pod.members) {
        stop_following(&mut member.template);
    }
}
