//! What excludes each other: two publishers of one host port, more writers than a volume allows, circles of waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use runtime::runtime::Protocol;

use super::{Resolver, title};
use crate::model::object::{Object, ObjectSpec};
use crate::model::{Diagnostic, Kind, MountWhat, ObjectKey, PublishedPort, Span, VolumeAccess, codes};

/// Both sides of a clash are broken: whoever ran before keeps running by `accept`'s rule, and nobody wins by order.
pub(super) fn ports(resolver: &mut Resolver<'_>) {
    let ours = resolver.out.desired.workloads.iter().map(|(key, w)| (key, w, true));
    let kept = resolver.kept.workloads.iter().map(|(key, w)| (key, w, false));
    let all: Vec<(ObjectKey, PublishedPort, bool)> = ours
        .chain(kept)
        .flat_map(|(key, w, ours)| w.ports.iter().map(move |port| (key.clone(), port.clone(), ours)))
        .collect();
    let mut by_port: BTreeMap<(Protocol, u16), Vec<_>> = BTreeMap::new();
    for entry in all {
        by_port.entry((entry.1.at.protocol, entry.1.at.port)).or_default().push(entry);
    }
    for entries in by_port.values() {
        for (i, (second_key, second, second_ours)) in entries.iter().enumerate() {
            let clash = entries[..i].iter().find(|(_, first, _)| overlap(first.at.address, second.at.address));
            let Some((first_key, first, first_ours)) = clash else { continue };
            let (key, port, other_key, other) = if *second_ours {
                (second_key, second, first_key, first)
            } else {
                (first_key, first, second_key, second)
            };
            let place = |key: &ObjectKey, port: &PublishedPort| {
                let object = resolver.index.get(key).map(|object| &object.spec);
                let written = match object {
                    Some(ObjectSpec::App(app)) => app.ports.iter().find(|p| p.span.start() == port.source),
                    _ => None,
                };
                written.map_or_else(|| point(port), |written| written.span.clone())
            };
            let what = format!("port {} on {} is published twice", port.at.port, port.at.address);
            let diagnostic = Diagnostic::error(codes::PORT_CONFLICT, what)
                .at(place(key, port))
                .why(format!("by App `{}` here", key.name))
                .also_at(
                    format!("and by App `{}` on {} here", other_key.name, other.at.address),
                    place(other_key, other),
                )
                .help("give one of them another host port");
            let (key, other_key) = (key.clone(), other_key.clone());
            resolver.fail(diagnostic, &key);
            if *first_ours && *second_ours {
                resolver.out.broken.insert(other_key);
            }
        }
    }
}

fn point(port: &PublishedPort) -> Span {
    let at = &port.source;
    Span { file: at.file.clone(), line: at.line, column: at.column, end_line: at.line, end_column: at.column + 1 }
}

/// One listener keeps the other out (`::` also takes IPv4, the kernel's default).
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let takes = |a: IpAddr, b: IpAddr| match a {
        IpAddr::V4(a) => a.is_unspecified() && b.is_ipv4(),
        IpAddr::V6(a) => a.is_unspecified(),
    };
    a == b || takes(a, b) || takes(b, a)
}

/// A volume with single access has one writing App with at most one replica.
pub(super) fn writers(resolver: &mut Resolver<'_>) {
    let mut writers: BTreeMap<ObjectKey, Vec<(ObjectKey, u32, Span)>> = BTreeMap::new();
    for (key, workload) in &resolver.out.desired.workloads {
        for mount in workload.template.mounts.iter().filter(|mount| !mount.read_only) {
            let MountWhat::Volume(volume) = &mount.what else { continue };
            let single = resolver.out.desired.volumes.get(volume).is_none_or(|v| v.access == VolumeAccess::Single);
            if single {
                let span = written_mount(resolver.index.get(key).copied(), mount.source.line, mount.source.column);
                let span = span.unwrap_or_else(|| Span::file(mount.source.file.clone()));
                writers.entry(volume.clone()).or_default().push((key.clone(), workload.replicas, span));
            }
        }
    }
    let help =
        "`access: shared` on the Volume, if its content allows several writers, or `readOnly: true` on the mount";
    for (volume, users) in writers {
        for (key, replicas, span) in &users {
            if *replicas > 1 {
                let what = format!(
                    "volume `{}` may have one writer, but App `{}` has {replicas} replicas",
                    volume.name, key.name
                );
                resolver.fail(Diagnostic::error(codes::ACCESS, what).at(span.clone()).help(help), key);
            }
        }
        let apps: BTreeSet<&ObjectKey> = users.iter().map(|(key, _, _)| key).collect();
        if let ([(first, _, first_span), ..], true) = (users.as_slice(), apps.len() > 1) {
            for (key, _, span) in users.iter().filter(|(key, _, _)| key != first) {
                let what = format!("volume `{}` may have one writer, but two Apps write to it", volume.name);
                let diagnostic = Diagnostic::error(codes::ACCESS, what)
                    .at(span.clone())
                    .why(format!("App `{}`", key.name))
                    .also_at(format!("App `{}`", first.name), first_span.clone())
                    .help(help);
                resolver.fail(diagnostic, key);
                resolver.out.broken.insert(first.clone());
            }
        }
    }
}

fn written_mount(object: Option<&Object>, line: u32, column: u32) -> Option<Span> {
    let template = match &object?.spec {
        ObjectSpec::App(app) => &app.template,
        ObjectSpec::Job(job) => &job.template,
        ObjectSpec::Image(_)
        | ObjectSpec::Volume(_)
        | ObjectSpec::Config(_)
        | ObjectSpec::Secret(_)
        | ObjectSpec::Service(_)
        | ObjectSpec::Network(_) => return None,
    };
    let mut spans = template.mounts.iter().map(|mount| &mount.span);
    spans.find(|span| span.line == line && span.column == column).cloned()
}

/// Everything that waits in a circle is broken; the circle is printed.
pub(super) fn cycles(resolver: &mut Resolver<'_>) {
    let mut edges: BTreeMap<ObjectKey, Vec<ObjectKey>> = BTreeMap::new();
    for (key, workload) in &resolver.out.desired.workloads {
        edges.insert(key.clone(), workload.depends_on.keys().cloned().collect());
    }
    for (key, job) in &resolver.out.desired.jobs {
        edges.insert(key.clone(), job.depends_on.keys().cloned().collect());
    }
    let mut done: BTreeSet<ObjectKey> = BTreeSet::new();
    for start in edges.keys() {
        let Some(circle) = circle_from(start, &edges, &mut done) else { continue };
        let mut names: Vec<String> = circle.iter().map(|key| format!("{}/{}", key.kind, key.name)).collect();
        names.push(names[0].clone());
        let first = &circle[0];
        let what = format!("objects wait for each other: {}", names.join(" -> "));
        let span = dependency_span(resolver, first, &circle[1 % circle.len()]);
        let mut diagnostic = Diagnostic::error(codes::CYCLE, what).at(span).why("this closes the circle");
        for (i, key) in circle.iter().enumerate().skip(1) {
            let next = &circle[(i + 1) % circle.len()];
            let text = format!("{} `{}` waits for `{}` here", title(key.kind), key.name, next.name);
            diagnostic = diagnostic.also_at(text, dependency_span(resolver, key, next));
        }
        resolver.fail(diagnostic.help("remove one of these `dependsOn`"), first);
        resolver.out.broken.extend(circle.iter().cloned());
    }
}

/// Depth first, without recursion: a circle reachable from `start` through keys not seen before.
fn circle_from(
    start: &ObjectKey,
    edges: &BTreeMap<ObjectKey, Vec<ObjectKey>>,
    done: &mut BTreeSet<ObjectKey>,
) -> Option<Vec<ObjectKey>> {
    let mut path: Vec<(ObjectKey, usize)> = vec![(start.clone(), 0)];
    if done.contains(start) {
        return None;
    }
    while let Some((key, next)) = path.last_mut() {
        let targets = edges.get(key).map_or(&[][..], Vec::as_slice);
        let Some(target) = targets.get(*next).cloned() else {
            done.insert(key.clone());
            path.pop();
            continue;
        };
        *next += 1;
        if let Some(at) = path.iter().position(|(key, _)| *key == target) {
            let circle: Vec<ObjectKey> = path[at..].iter().map(|(key, _)| key.clone()).collect();
            done.extend(path.into_iter().map(|(key, _)| key));
            return Some(circle);
        }
        if !done.contains(&target) {
            path.push((target, 0));
        }
    }
    None
}

fn dependency_span(resolver: &Resolver<'_>, from: &ObjectKey, to: &ObjectKey) -> Span {
    let object = resolver.index.get(from);
    let wanted = object.and_then(|object| match &object.spec {
        ObjectSpec::App(app) => Some(&app.depends_on),
        ObjectSpec::Job(job) => Some(&job.depends_on),
        ObjectSpec::Image(_)
        | ObjectSpec::Volume(_)
        | ObjectSpec::Config(_)
        | ObjectSpec::Secret(_)
        | ObjectSpec::Service(_)
        | ObjectSpec::Network(_) => None,
    });
    let fits = |kind: Option<Kind>| kind.is_none_or(|kind| kind == to.kind);
    let entry = wanted.and_then(|list| list.iter().find(|d| d.name == to.name && fits(d.kind)));
    match (entry, object) {
        (Some(entry), _) => entry.span.clone(),
        (None, Some(object)) => object.span.clone(),
        (None, None) => Span::file(""),
    }
}
