//! `network_mode: service:NAME`: both services become containers of one replica, which shares its network, so that what is
//! to be behind a tunnel is behind it or does not run. The one that is named gives the replica its name, ports and names;
//! the other is reached with `-c`.

use std::collections::BTreeMap;

use super::project::Project;
use super::{Context, object_name, peek};
use crate::model::object::{AppSpec, ObjectSpec};
use crate::model::{Diagnostic, Kind, Member, Object, Pod, Restart, Role, codes};

/// Finds whose network each service is in: that of the last one of a chain. Services that run to completion are by
/// themselves, and so are those of a circle.
pub(super) fn note(context: &mut Context<'_>) {
    let named = |name: &str| {
        let mode = peek(&context.active.get(name)?.value, "network_mode")?;
        let host = mode.scalar()?.text.strip_prefix("service:")?;
        context.active.get_key_value(host).map(|(host, _)| *host)
    };
    let mut hosts = BTreeMap::new();
    for guest in context.active.keys().copied() {
        let mut last = guest;
        for _ in 0..context.active.len() {
            last = named(last).unwrap_or(last);
        }
        let is_circle = named(last).is_some();
        if last != guest && !is_circle && !context.jobs.contains(guest) && !context.jobs.contains(last) {
            hosts.insert(guest, last);
        }
    }
    context.hosts = hosts;
}

/// Puts the guests into their hosts' replicas.
pub(super) fn join(project: &mut Project<'_>, context: &Context<'_>, objects: Vec<Object>) -> Vec<Object> {
    let host_of = |object: &Object| {
        let is_guest =
            |(guest, _): &(&&str, &&str)| object.key.kind == Kind::App && object_name(guest) == object.key.name;
        context.hosts.iter().find(is_guest).map(|(_, host)| object_name(host))
    };
    let (guests, mut others): (Vec<Object>, Vec<Object>) =
        objects.into_iter().partition(|object| host_of(object).is_some());
    for guest in guests {
        let name = host_of(&guest).unwrap_or_default();
        let host = others.iter_mut().find(|object| object.key.kind == Kind::App && object.key.name == name);
        // A host with an error is not there; without it the guest cannot be either.
        let Some(Object { spec: ObjectSpec::App(host), .. }) = host else { continue };
        let Object { key, span, spec: ObjectSpec::App(guest) } = guest else { continue };
        for (differs, what) in [
            (guest.replicas != host.replicas, "another number of replicas"),
            (guest.restart != host.restart && guest.restart != Restart::Never, "another `restart`"),
        ] {
            if differs {
                let what = format!("{what} than that of `{name}`, whose network it is in,");
                let what = format!("{what} is not honoured: they are containers of one replica");
                project.reader.push(Diagnostic::warning(codes::NOT_HONOURED, what).at(span.clone()).of(&key));
            }
        }
        take_in(host, &name, key.name, *guest);
    }
    others
}

fn take_in(host: &mut AppSpec, host_name: &str, name: String, guest: AppSpec) {
    host.aliases.insert(name.clone());
    host.ports.extend(guest.ports);
    for dependency in guest.depends_on {
        if host.depends_on.iter().all(|known| known.name != dependency.name) {
            host.depends_on.push(dependency);
        }
    }
    host.template.stop_grace_ms = host.template.stop_grace_ms.max(guest.template.stop_grace_ms);
    let mut template = guest.template;
    (template.hostname, template.networks) = (None, Vec::new());
    let empty = || Pod { main: host_name.to_owned(), share_pids: false, members: Vec::new() };
    let pod = host.template.pod.get_or_insert_with(|| Box::new(empty()));
    pod.members.push(Member { name, role: Role::Beside, template, env_from: guest.env_from });
}
