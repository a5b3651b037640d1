//! Services give names and host ports to the Apps of their stack that have certain labels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use runtime::image::Digest;
use runtime::runtime::{HostPort, Protocol};

use super::Resolver;
use crate::model::object::{AppSpec, Object, ObjectSpec, PortTarget, ServicePort, ServiceSpec};
use crate::model::{Diagnostic, ObjectKey, PublishedPort, ServiceUse, codes};

/// The range that Kubernetes gives ports of a NodePort from.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Adds to each selected App. Kept Apps are as they were resolved before, names included.
pub(super) fn join(resolver: &mut Resolver<'_>) {
    let objects: Vec<_> = resolver.index.values().copied().collect();
    let mut chosen = Chosen::beside(&objects);
    for object in objects {
        let ObjectSpec::Service(service) = &object.spec else { continue };
        let mut service = service.clone();
        for port in service.ports.iter_mut().filter(|port| port.choose) {
            port.publish = chosen.choose(&object.key, port);
        }
        let selected = selected(resolver, &object.key, &service);
        if selected.is_empty() && !service.selector.is_empty() {
            let what = format!("Service `{}` selects no workload of stack `{}`", object.key.name, object.key.stack);
            let warning = Diagnostic::warning(codes::DANGLING, what).at(object.span.clone()).of(&object.key);
            resolver.out.diagnostics.push(warning.help("compare its `selector` with the labels of the pod template"));
        }
        let is_shared = selected.len() > 1;
        for (key, app) in selected {
            let targets = targets(resolver, &object.key, &service, app);
            let Some(workload) = resolver.out.desired.workloads.get_mut(&key) else { continue };
            workload.aliases.extend(service.names.iter().filter(|name| **name != key.name).cloned());
            let published = targets.iter().filter_map(|(port, container_port)| {
                let (container_port, source) = (*container_port, port.span.start());
                Some(PublishedPort { at: port.publish?, container_port, source })
            });
            workload.ports.extend(published);
            if service.headless {
                workload.headless |= service.names.contains(&key.name);
                continue;
            }
            // By the App's own address every port leads to itself: nothing else is needed.
            if !is_shared && targets.iter().all(|(port, target)| port.port == *target) {
                continue;
            }
            let ports = targets.iter().map(|(port, target)| (port.protocol, port.port, *target)).collect();
            let of_app = ServiceUse { names: service.names.clone(), ports };
            workload.services.insert(object.key.name.clone(), of_app);
        }
    }
}

/// Ports of the host that are taken, by manifests or by choice.
struct Chosen(BTreeSet<(Protocol, u16)>);

impl Chosen {
    fn beside(objects: &[&Object]) -> Self {
        let of = |object: &&Object| -> Vec<(Protocol, u16)> {
            match &object.spec {
                ObjectSpec::App(app) => app.ports.iter().map(|port| (port.protocol, port.host_port)).collect(),
                ObjectSpec::Service(service) => {
                    service.ports.iter().filter_map(|port| Some((port.protocol, port.publish?.port))).collect()
                }
                ObjectSpec::Image(_)
                | ObjectSpec::Job(_)
                | ObjectSpec::Volume(_)
                | ObjectSpec::Config(_)
                | ObjectSpec::Secret(_)
                | ObjectSpec::Network(_) => Vec::new(),
            }
        };
        Self(objects.iter().flat_map(of).collect())
    }

    /// A port on all addresses: the same whenever it is asked, unless another manifest has taken it.
    fn choose(&mut self, service: &ObjectKey, port: &ServicePort) -> Option<HostPort> {
        let count = NODE_PORTS.end() - NODE_PORTS.start() + 1;
        let name = format!("{}/{}/{}/{:?}", service.stack, service.name, port.port, port.protocol);
        let digest = Digest::of(name.as_bytes()).to_string();
        // The last 8 of its hex digits.
        let hash = digest.get(digest.len().saturating_sub(8)..).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let first = u16::try_from(hash.unwrap_or(0) % u32::from(count)).unwrap_or(0);
        let candidates = (0..count).map(|n| NODE_PORTS.start() + (first + n) % count);
        let free = candidates.map(|number| (port.protocol, number)).find(|candidate| !self.0.contains(candidate))?;
        self.0.insert(free);
        Some(HostPort { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: free.1, protocol: port.protocol })
    }
}

fn selected<'a>(resolver: &Resolver<'a>, key: &ObjectKey, service: &ServiceSpec) -> Vec<(ObjectKey, &'a AppSpec)> {
    let fits = |labels: &BTreeMap<String, String>| {
        !service.selector.is_empty() && service.selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    let apps = resolver.index.iter().filter(|(other, _)| other.stack == key.stack);
    let apps = apps.filter_map(|(key, object)| match &object.spec {
        ObjectSpec::App(app) if fits(&app.labels) => Some(((*key).clone(), &**app)),
        ObjectSpec::App(_)
        | ObjectSpec::Image(_)
        | ObjectSpec::Job(_)
        | ObjectSpec::Volume(_)
        | ObjectSpec::Config(_)
        | ObjectSpec::Secret(_)
        | ObjectSpec::Service(_)
        | ObjectSpec::Network(_) => None,
    });
    apps.collect()
}

/// The ports of a Service, each with the App's port it leads to.
fn targets<'s>(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    service: &'s ServiceSpec,
    app: &AppSpec,
) -> Vec<(&'s ServicePort, u16)> {
    let mut targets = Vec::new();
    for port in &service.ports {
        match &port.target {
            PortTarget::Number(number) => targets.push((port, *number)),
            PortTarget::Name(name) => match app.port_names.get(name) {
                Some(number) => targets.push((port, *number)),
                None => {
                    let what = format!("Service `{}` names port `{name}`, which the workload does not have", key.name);
                    let near = crate::text::nearest(name, app.port_names.keys().map(String::as_str));
                    let near = near.map(str::to_owned);
                    let diagnostic = Diagnostic::error(codes::DANGLING, what).at(port.span.clone()).suggest(near);
                    resolver.fail(diagnostic, key);
                }
            },
        }
    }
    targets
}
