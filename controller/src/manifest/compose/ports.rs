//! `ports` and `expose`: host ports that lead to a service, and ports its program listens on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use runtime::runtime::Protocol;

use super::project::Project;
use super::{Context, keys};
use crate::manifest::keys::Entries;
use crate::manifest::tree::{Extent, Node};
use crate::model::codes;
use crate::model::object::PortSpec;

/// Most ports of one range.
const RANGE_MAX: u16 = 1_000;

/// What a service listens on.
#[derive(Default)]
pub(super) struct Ports {
    pub(super) published: Vec<PortSpec>,
    pub(super) listened: BTreeSet<u16>,
}

/// A port mapping before it is checked.
struct Mapping {
    address: Option<String>,
    host: Option<String>,
    container: String,
    protocol: String,
}

pub(super) fn lower(project: &mut Project<'_>, _context: &Context<'_>, service: &Entries<'_>) -> Ports {
    let mut ports = Ports::default();
    if let Some(node) = service.get("ports") {
        for item in project.reader.list("ports", node) {
            let mapping = if item.is_map() {
                long(project, item)
            } else {
                project.reader.text("ports", item).map(|text| short(&text))
            };
            if let Some(mapping) = mapping {
                add(project, &mut ports, &mapping, item);
            }
        }
    }
    if let Some(node) = service.get("expose") {
        for item in project.reader.list("expose", node) {
            let Some(text) = project.reader.text("expose", item) else { continue };
            let (number, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
            if let (Some(range), true) = (range(project, number, item.extent), protocol == "tcp") {
                ports.listened.extend(range);
            }
        }
    }
    ports
}

/// `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`; an IPv6 address is in brackets.
fn short(text: &str) -> Mapping {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (rest, container) = rest.rsplit_once(':').map_or((None, rest), |(rest, port)| (Some(rest), port));
    let (address, host) = match rest {
        None => (None, None),
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, host)) => (Some(address.to_owned()), Some(host.to_owned())),
            None => (None, Some(rest.to_owned())),
        },
    };
    let host = host.filter(|host| !host.is_empty());
    Mapping { address, host, container: container.to_owned(), protocol: protocol.to_owned() }
}

fn long(project: &mut Project<'_>, item: &Node) -> Option<Mapping> {
    let found = project.reader.keys(item, &keys::PORT);
    let mut text = |key| found.get(key).and_then(|node| project.reader.text(key, node));
    let (target, host, address) = (text("target"), text("published"), text("host_ip"));
    let protocol = text("protocol").unwrap_or_else(|| "tcp".to_owned());
    let Some(container) = target else {
        project.reader.error(codes::MISSING_FIELD, item.extent, "a port needs a key `target`");
        return None;
    };
    Some(Mapping { address, host: host.filter(|host| !host.is_empty()), container, protocol })
}

fn add(project: &mut Project<'_>, ports: &mut Ports, mapping: &Mapping, item: &Node) {
    let extent = item.extent;
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => {
            let what = format!("the sctp port {}", mapping.container);
            return project.reader.not_honoured(extent, &what, "only TCP and UDP ports are published");
        }
        other => {
            let what = format!("{other:?} is not a protocol: tcp or udp");
            return project.reader.error(codes::PORT, extent, what);
        }
    };
    let Some(containers) = range(project, &mapping.container, extent) else { return };
    if protocol.is_tcp() {
        ports.listened.extend(containers.clone());
    }
    let Some(host) = &mapping.host else {
        let what = format!("port {} without a host port", mapping.container);
        return project.reader.not_honoured(extent, &what, "no port is chosen; it is reached within the stack only");
    };
    let Some(hosts) = range(project, host, extent) else { return };
    let address = match mapping.address.as_deref() {
        None | Some("") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            match bare.parse() {
                Ok(address) => address,
                Err(_) => return project.reader.error(codes::PORT, extent, format!("{text:?} is not an IP address")),
            }
        }
    };
    if containers.len() == 1 && hosts.len() > 1 {
        let what = format!("the range of host ports {host}");
        project.reader.not_honoured(extent, &what, "the first one is published");
    } else if containers.len() != hosts.len() {
        let what = format!("the ranges {host} and {} have different lengths", mapping.container);
        return project.reader.error(codes::PORT, extent, what);
    }
    for (host_port, container_port) in hosts.zip(containers) {
        let span = project.reader.span(extent);
        ports.published.push(PortSpec { address, host_port, container_port, protocol, span });
    }
}

fn range(project: &mut Project<'_>, text: &str, extent: Extent) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|n| *n > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last && last - first < RANGE_MAX => Some(first..=last),
        _ => {
            project.reader.error(codes::PORT, extent, format!("expected a port 1-65535, or a range, found {text:?}"));
            None
        }
    }
}
