//! Networks: those of the file, and those a service is on. An external one is made here like any other, which is told:
//! services of other stacks are not on it.

use std::collections::BTreeSet;

use super::project::Project;
use super::{Context, keys, merge};
use crate::manifest::keys::{Entries, object_name};
use crate::manifest::native::dns::DnsName;
use crate::manifest::native::network::{AddressText, SubnetText, range};
use crate::manifest::tree::{Entry, Node};
use crate::model::object::{NetworkSpec, NetworkUseSpec};
use crate::model::{DEFAULT_NETWORK, Diagnostic, Kind, NetworkRange, Object, ObjectSpec, codes};

/// One of the file's networks.
pub(super) fn lower(project: &mut Project<'_>, context: &Context<'_>, entry: &Entry) -> Option<Object> {
    let key = super::key(project, context, Kind::Network, entry)?;
    let before = project.reader.errors();
    let found = project.reader.keys(&entry.value, &keys::NETWORK);
    let internal = found.get("internal").is_some_and(|node| project.reader.flag("internal", node));
    let range = found.get("ipam").and_then(|node| ipam(project, node));
    if project.reader.errors() > before {
        return None;
    }
    // Said as it is without being said, it is not said at all: nothing about the stack's own network changes.
    if key.name == DEFAULT_NETWORK && !internal && range.is_none() {
        return None;
    }
    let spec = ObjectSpec::Network(NetworkSpec { internal, range });
    Some(Object { key, span: super::place(project, entry.key_extent), spec })
}

/// The first IPv4 subnet.
fn ipam(project: &mut Project<'_>, node: &Node) -> Option<NetworkRange> {
    let found = project.reader.keys(node, &keys::IPAM);
    let mut first = None;
    for item in found.get("config").map(|node| project.reader.list("config", node)).unwrap_or_default() {
        let found = project.reader.keys(item, &keys::IPAM_CONFIG);
        let Some(written) = found.get("subnet") else { continue };
        if written.scalar().is_some_and(|scalar| scalar.text.contains("::")) {
            let effect = "addresses inside are IPv4";
            project.reader.not_honoured(written.extent, "this IPv6 subnet", effect);
            continue;
        }
        if first.is_some() {
            let effect = "addresses are chosen within the first subnet";
            project.reader.not_honoured(written.extent, "a second subnet", effect);
            continue;
        }
        let subnet = project.reader.format::<SubnetText>("subnet", written)?;
        let gateway = found.get("gateway");
        let address = match gateway {
            Some(node) => Some(project.reader.format::<AddressText>("gateway", node)?.0),
            None => None,
        };
        match range(subnet.0, address) {
            Ok(range) => first = Some(range),
            Err(what) => project.reader.error(codes::VALUE, gateway.unwrap_or(written).extent, what),
        }
    }
    first
}

/// The networks a service is on; none: the stack's own.
pub(super) fn uses(
    project: &mut Project<'_>,
    context: &Context<'_>,
    own: &str,
    service: &Entries<'_>,
) -> Vec<NetworkUseSpec> {
    let Some(node) = service.get("networks") else { return Vec::new() };
    if let Some(mode) = service.get("network_mode") {
        let what = "`network_mode` and `networks` exclude each other";
        project.reader.error(codes::CONFLICT, mode.extent, what);
    }
    let node = merge::as_map(node.clone(), "networks");
    let mut uses = Vec::new();
    for entry in project.reader.map("networks", &node) {
        if entry.key != DEFAULT_NETWORK && context.networks.iter().all(|known| known.key != entry.key) {
            let names = context.networks.iter().map(|known| known.key.as_str());
            let near = crate::text::nearest(&entry.key, names).map(str::to_owned);
            let what = format!("network `{}` is not declared under `networks`", entry.key);
            let diagnostic = Diagnostic::error(codes::DANGLING, what).at(project.reader.span(entry.key_extent));
            project.reader.push(diagnostic.suggest(near));
        }
        let found = project.reader.keys(&entry.value, &keys::ATTACHMENT);
        let mut aliases: BTreeSet<String> = BTreeSet::new();
        if let Some(node) = found.get("aliases") {
            for item in project.reader.list("aliases", node) {
                aliases.extend(project.reader.format::<DnsName>("aliases", item).map(|name| name.0));
            }
        }
        aliases.remove(own);
        let address = found.get("ipv4_address");
        let address = address.and_then(|node| project.reader.format::<AddressText>("ipv4_address", node));
        let span = project.reader.span(entry.key_extent);
        uses.push(NetworkUseSpec { name: object_name(&entry.key), aliases, address: address.map(|a| a.0), span });
    }
    uses
}
