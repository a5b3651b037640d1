//! Services give names and host ports to the Apps of their stack that have certain labels.

use std::collections::BTreeMap;

use super::Resolver;
use crate::model::object::{AppSpec, ObjectSpec, PortTarget, ServiceSpec};
use crate::model::{Diagnostic, ObjectKey, PublishedPort, codes};

/// Adds to each selected App. Kept Apps are as they were resolved before, names included.
pub(super) fn join(resolver: &mut Resolver<'_>) {
    let objects: Vec<_> = resolver.index.values().copied().collect();
    for object in objects {
        let ObjectSpec::Service(service) = &object.spec else { continue };
        let selected = selected(resolver, &object.key, service);
        if selected.is_empty() && !service.selector.is_empty() {
            let what = format!("Service `{}` selects no workload of stack `{}`", object.key.name, object.key.stack);
            let warning = Diagnostic::warning(codes::DANGLING, what).at(object.span.clone()).of(&object.key);
            resolver.out.diagnostics.push(warning.help("compare its `selector` with the labels of the pod template"));
        }
        for (key, app) in selected {
            let ports = ports(resolver, &object.key, service, app);
            if let Some(workload) = resolver.out.desired.workloads.get_mut(&key) {
                workload.aliases.extend(service.names.iter().filter(|name| **name != key.name).cloned());
                workload.ports.extend(ports);
            }
        }
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

fn ports(resolver: &mut Resolver<'_>, key: &ObjectKey, service: &ServiceSpec, app: &AppSpec) -> Vec<PublishedPort> {
    let mut ports = Vec::new();
    for port in &service.ports {
        let container_port = match &port.target {
            PortTarget::Number(number) => *number,
            PortTarget::Name(name) => match app.port_names.get(name) {
                Some(number) => *number,
                None => {
                    let what = format!("Service `{}` names port `{name}`, which the workload does not have", key.name);
                    let near = crate::text::nearest(name, app.port_names.keys().map(String::as_str));
                    let near = near.map(str::to_owned);
                    let diagnostic = Diagnostic::error(codes::DANGLING, what).at(port.span.clone()).suggest(near);
                    resolver.fail(diagnostic, key);
                    continue;
                }
            },
        };
        if container_port != port.port {
            let what = format!(
                "port {} of Service `{}` is not honoured within the stack: its name leads to the containers themselves, \
                 which listen on {container_port}",
                port.port, key.name
            );
            let warning = Diagnostic::warning(codes::NOT_HONOURED, what).at(port.span.clone()).of(key);
            if !resolver.out.diagnostics.contains(&warning) {
                resolver.out.diagnostics.push(warning);
            }
        }
        let Some(at) = port.publish else { continue };
        ports.push(PublishedPort { at, container_port, source: port.span.start() });
    }
    ports
}
