//! Networks: the names in a template become what their objects say, and what excludes each other is found: subnets that
//! overlap, an address outside of its network or asked for twice.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use runtime::runtime::NETWORKS_MAX;

use super::{Resolver, template};
use crate::model::object::{NetworkUseSpec, ObjectSpec, TemplateSpec};
use crate::model::{DEFAULT_NETWORK, Diagnostic, Kind, NetworkRange, NetworkUse, ObjectKey, Span, codes};

/// What the networks of a template are; `None` when one does not exist or cannot be had: `key` is then marked as broken.
pub(super) fn resolve(resolver: &mut Resolver<'_>, key: &ObjectKey, spec: &TemplateSpec) -> Option<Vec<NetworkUse>> {
    if !spec.is_bridged() {
        return Some(Vec::new());
    }
    let key_of = |name: &str| ObjectKey { stack: key.stack.clone(), kind: Kind::Network, name: name.to_owned() };
    if spec.networks.is_empty() {
        let own = key_of(DEFAULT_NETWORK);
        let declared = resolver.out.desired.networks.get(&own);
        let own = declared.map(|of| NetworkUse {
            network: own,
            internal: of.internal,
            range: of.range,
            aliases: std::collections::BTreeSet::new(),
            address: None,
        });
        return Some(own.into_iter().collect());
    }
    let mut found = Vec::new();
    let mut whole = true;
    for wanted in &spec.networks {
        match one(resolver, key, wanted, key_of(&wanted.name)) {
            Some(network) => found.push(network),
            None => whole = false,
        }
    }
    if let Some(extra) = spec.networks.get(NETWORKS_MAX) {
        let what = format!("{} networks are more than the {NETWORKS_MAX} one can be on", spec.networks.len());
        resolver.fail(Diagnostic::error(codes::VALUE, what).at(extra.span.clone()), key);
        return None;
    }
    // The way out leads through the first.
    found.sort_by(|a, b| (a.internal, &a.network).cmp(&(b.internal, &b.network)));
    whole.then_some(found)
}

fn one(
    resolver: &mut Resolver<'_>,
    key: &ObjectKey,
    wanted: &NetworkUseSpec,
    network: ObjectKey,
) -> Option<NetworkUse> {
    let declared = resolver.out.desired.networks.get(&network);
    if declared.is_none() && (network.name != DEFAULT_NETWORK || resolver.is_declared(&network)) {
        template::dangling(resolver, key, &network, "networks", &wanted.span);
        return None;
    }
    let (internal, range) = declared.map_or((false, None), |of| (of.internal, of.range));
    if let Some(address) = wanted.address
        && !range.is_some_and(|range| has_place_for(range, address))
    {
        let name = &wanted.name;
        let what = match range {
            Some(range) => format!("{address} is no address for a container of network `{name}`, {}", range.subnet),
            None => format!("an address on network `{name}` can only be asked for where its object has a `subnet`"),
        };
        resolver.fail(Diagnostic::error(codes::VALUE, what).at(wanted.span.clone()), key);
        return None;
    }
    Some(NetworkUse { network, internal, range, aliases: wanted.aliases.clone(), address: wanted.address })
}

fn has_place_for(range: NetworkRange, address: Ipv4Addr) -> bool {
    let taken = [range.subnet.base(), range.subnet.last(), range.gateway];
    range.subnet.contains(address) && !taken.contains(&address)
}

/// Whether an App that asks for an address has one replica at most; says so otherwise.
pub(super) fn is_for_so_many(resolver: &mut Resolver<'_>, key: &ObjectKey, spec: &TemplateSpec, replicas: u32) -> bool {
    let fixed = spec.networks.iter().find_map(|wanted| Some((wanted, wanted.address?)));
    let Some((wanted, address)) = fixed.filter(|_| replicas > 1) else { return true };
    let what = format!("{replicas} replicas cannot all have the address {address}");
    let diagnostic = Diagnostic::error(codes::CONFLICT, what).at(wanted.span.clone());
    resolver.fail(diagnostic.help("leave the address out: names lead to each replica"), key);
    false
}

/// Subnets that overlap, and addresses that two ask for. The later one, by name, is the one that is told; both are broken.
pub(super) fn clashes(resolver: &mut Resolver<'_>) {
    let mut ranges: Vec<(ObjectKey, NetworkRange)> = Vec::new();
    for (key, network) in resolver.out.desired.networks.clone() {
        let Some(range) = network.range else { continue };
        if let Some((other, first)) = ranges.iter().find(|(_, other)| other.subnet.overlaps(range.subnet)) {
            let what = format!("subnet {} of Network `{}` overlaps another", range.subnet, key.name);
            let diagnostic = Diagnostic::error(codes::CONFLICT, what)
                .at(place(resolver, &key))
                .also_at(format!("{} of Network `{}`", first.subnet, other.name), place(resolver, other))
                .help("give one of them other addresses, or leave `subnet` out");
            resolver.fail(diagnostic, &key);
        }
        ranges.push((key, range));
    }
    let mut holders: BTreeMap<(ObjectKey, Ipv4Addr), ObjectKey> = BTreeMap::new();
    let uses: Vec<(ObjectKey, ObjectKey, Ipv4Addr)> = resolver
        .out
        .desired
        .workloads
        .iter()
        .flat_map(|(key, app)| app.template.networks.iter().map(move |network| (key, network)))
        .filter_map(|(key, network)| Some((key.clone(), network.network.clone(), network.address?)))
        .collect();
    for (key, network, address) in uses {
        if let Some(first) = holders.insert((network, address), key.clone()) {
            let what = format!("{address} is asked for by App `{}` and by App `{}`", first.name, key.name);
            let diagnostic = Diagnostic::error(codes::CONFLICT, what).at(place(resolver, &key));
            resolver.fail(diagnostic.also_at("the other one", place(resolver, &first)), &key);
            resolver.out.broken.insert(first);
        }
    }
}

/// Where an object says what clashes: its network's place, else its name.
fn place(resolver: &Resolver<'_>, key: &ObjectKey) -> Span {
    let Some(object) = resolver.index.get(key) else { return Span::file("") };
    let written = match &object.spec {
        ObjectSpec::App(app) => app.template.networks.iter().find(|network| network.address.is_some()),
        ObjectSpec::Image(_)
        | ObjectSpec::Job(_)
        | ObjectSpec::Volume(_)
        | ObjectSpec::Config(_)
        | ObjectSpec::Secret(_)
        | ObjectSpec::Service(_)
        | ObjectSpec::Network(_) => None,
    };
    written.map_or_else(|| object.span.clone(), |network| network.span.clone())
}
