//! Which gate a container has: from the template it was made from, else from its image, else the default. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use runtime::id::ContainerId;
use runtime::image::Digest;
use runtime::runtime::{ContainerState, ImageHealthcheck};

use super::Watched;
use crate::model::{ContainerTemplate, DesiredState, Healthcheck, Kind, ObservedContainer, ObservedState, Probe};

/// Without any port, running this long counts as ready.
const RUNNING_MS: u64 = 1_000;

/// Docker's default for interval and timeout.
const IMAGE_CHECK_MS: u64 = 30_000;

/// Docker's default.
const IMAGE_CHECK_RETRIES: u32 = 3;

/// What must hold for a container to be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// A check passes.
    Check(Healthcheck),
    /// All these ports accept.
    Ports(BTreeSet<u16>),
    /// It runs for so long.
    Running {
        /// Milliseconds.
        for_ms: u64,
    },
}

/// What to watch: every running container of an App, and of a Job what has a check. Jobs are never ready, they complete.
#[must_use]
pub fn targets(desired: &DesiredState, state: &ObservedState) -> BTreeMap<ContainerId, Watched> {
    let running = state.containers.iter().filter(|(_, container)| container.state == ContainerState::Running);
    let watched = running.flat_map(|(id, container)| {
        let is_app = container.replica.workload.kind == Kind::App;
        let template = template(container, desired, state);
        let host_network = template.is_some_and(|template| template.host_network);
        let address = container.address.as_ref().map(|(_, address)| *address);
        let address = address.or(host_network.then_some(Ipv4Addr::LOCALHOST));
        let one = |id: &ContainerId, name: String, template: Option<&ContainerTemplate>, image, started_boot_ms| {
            let check = |of: fn(&ContainerTemplate) -> &Option<Healthcheck>| {
                template.and_then(|template| of(template).clone()).filter(|check| can_ask(check, address))
            };
            let watched = Watched {
                object: container.replica.workload.clone(),
                name,
                gate: is_app.then(|| gate(template, image, state, address)),
                startup: check(|template| &template.startup),
                liveness: check(|template| &template.liveness),
                address,
                started_boot_ms,
            };
            (id.clone(), watched)
        };
        let name = container.replica.to_string();
        let Some(pod) = &container.pod else {
            return vec![one(id, name, template, &container.image, container.started_boot_ms)];
        };
        let running = pod.members.iter().filter(|(_, member)| member.state == ContainerState::Running);
        let watched = running.map(|(id, member)| {
            let role = pod.role(&member.name);
            let template = template.zip(role).and_then(|(template, role)| template.part(role, &member.name));
            one(id, format!("{name}/{}", member.name), template, &member.image, member.started_boot_ms)
        });
        watched.collect()
    });
    watched.filter(|(_, w)| w.gate.is_some() || w.startup.is_some() || w.liveness.is_some()).collect()
}

/// The template a container was made from. The manifest's own when it is of that revision, so that a changed check
/// (which replaces nothing) takes effect; the recorded revision's for older ones.
fn template<'a>(
    container: &ObservedContainer,
    desired: &'a DesiredState,
    state: &'a ObservedState,
) -> Option<&'a ContainerTemplate> {
    let key = &container.replica.workload;
    let wanted = desired.workloads.get(key).map(|workload| &workload.template);
    let wanted = wanted.or_else(|| desired.jobs.get(key).map(|job| &job.template));
    let revisions = state.revisions.get(key).map_or(&[][..], Vec::as_slice);
    let newest_is_its = revisions.last().is_none_or(|revision| revision.template_hash == container.template_hash);
    let its = revisions.iter().find(|revision| revision.template_hash == container.template_hash);
    if newest_is_its { wanted.or(its.map(|revision| &revision.template)) } else { its.map(|r| &r.template).or(wanted) }
}

fn gate(
    template: Option<&ContainerTemplate>,
    digest: &Digest,
    state: &ObservedState,
    address: Option<Ipv4Addr>,
) -> Gate {
    let check = match template.and_then(|template| template.healthcheck.as_ref()) {
        Some(check) => Some(check.clone()),
        None => {
            let image = state.images.values().find(|image| image.digest == *digest);
            image.and_then(|image| image.config.healthcheck.as_ref()).and_then(image_check)
        }
    };
    if let Some(check) = check.filter(|check| can_ask(check, address)) {
        return Gate::Check(check);
    }
    let ports = template.map(|template| template.container_ports.clone()).unwrap_or_default();
    if ports.is_empty() || address.is_none() { Gate::Running { for_ms: RUNNING_MS } } else { Gate::Ports(ports) }
}

/// Whether there is anything to ask, and we get there.
fn can_ask(check: &Healthcheck, address: Option<Ipv4Addr>) -> bool {
    match check.probe {
        Probe::Exec(_) => true,
        Probe::Http { .. } | Probe::Tcp { .. } | Probe::Grpc { .. } => address.is_some(),
        Probe::Off => false,
    }
}

/// An image's HEALTHCHECK as ours. `None`: it has none, or one that is switched off.
fn image_check(image: &ImageHealthcheck) -> Option<Healthcheck> {
    let (form, rest) = image.test.split_first()?;
    let args = match form.as_str() {
        "CMD" if !rest.is_empty() => rest.to_vec(),
        "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")],
        _ => return None,
    };
    Some(Healthcheck {
        probe: Probe::Exec(args),
        interval_ms: image.interval_ms.filter(|ms| *ms > 0).unwrap_or(IMAGE_CHECK_MS),
        timeout_ms: image.timeout_ms.filter(|ms| *ms > 0).unwrap_or(IMAGE_CHECK_MS),
        retries: image.retries.filter(|n| *n > 0).unwrap_or(IMAGE_CHECK_RETRIES),
        start_period_ms: image.start_period_ms.unwrap_or(0),
        successes: 1,
    })
}
