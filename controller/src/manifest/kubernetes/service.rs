//! A Service: a name that leads to the pods it selects, and host ports for types NodePort and LoadBalancer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Lower, Metadata, keys};
use runtime::runtime::{HostPort, Protocol};

use crate::manifest::keys::object_name;
use crate::manifest::tree::Node;
use crate::model::object::{PortTarget, ServicePort, ServiceSpec};
use crate::model::{Kind, ObjectSpec, codes};

/// How it is reached from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Stack,
    NodePort,
    LoadBalancer,
}

pub(super) fn lower(lower: &mut Lower, root: &Node, metadata: &Metadata<'_>) -> Option<(Kind, String, ObjectSpec)> {
    lower.reading(Kind::Service, &metadata.name);
    let spec = lower.spec(root, &keys::SERVICE)?;
    let reach = match spec.get("type").map(|node| (lower.reader.text("type", node), node)) {
        None => Reach::Stack,
        Some((text, node)) => match text.as_deref() {
            Some("ClusterIP") => Reach::Stack,
            Some("NodePort") => Reach::NodePort,
            Some("LoadBalancer") => Reach::LoadBalancer,
            Some("ExternalName") => {
                lower.reader.not_honoured(node.extent, "`type: ExternalName`", "the name is not known here");
                Reach::Stack
            }
            _ => {
                lower.reader.wrong("type", "ClusterIP, NodePort, LoadBalancer or ExternalName", node);
                Reach::Stack
            }
        },
    };
    let selector = spec.get("selector").map(|node| labels(lower, "selector", node)).unwrap_or_default();
    let mut ports = Vec::new();
    if let Some(node) = spec.get("ports") {
        for item in lower.reader.list("ports", node) {
            ports.extend(port(lower, item, reach));
        }
    }
    let name = &metadata.name;
    let long = [format!("{name}.{}.svc", lower.stack), format!("{name}.{}.svc.cluster.local", lower.stack)];
    let names: BTreeSet<String> = long.into_iter().chain([name.clone()]).collect();
    let headless =
        spec.get("clusterIP").is_some_and(|node| lower.reader.text("clusterIP", node).as_deref() == Some("None"));
    Some((Kind::Service, object_name(name), ObjectSpec::Service(ServiceSpec { selector, names, headless, ports })))
}

fn port(lower: &mut Lower, item: &Node, reach: Reach) -> Option<ServicePort> {
    let found = lower.reader.keys(item, &keys::SERVICE_PORT);
    let mut number = |key: &str| found.get(key).map(|node| (lower.reader.number(key, node, 65_535), node));
    let (port, node_port) = (number("port"), number("nodePort"));
    let Some((port, port_node)) = port else {
        lower.reader.error(codes::MISSING_FIELD, item.extent, "a port of a Service needs a key `port`");
        return None;
    };
    let port = u16::try_from(port?).ok().filter(|port| *port > 0);
    let Some(port) = port else {
        lower.reader.error(codes::PORT, port_node.extent, "expected a port 1-65535");
        return None;
    };
    let mut protocol = Protocol::Tcp;
    if let Some(node) = found.get("protocol") {
        match lower.reader.text("protocol", node)?.as_str() {
            "TCP" => {}
            "UDP" => protocol = Protocol::Udp,
            "SCTP" => {
                if reach != Reach::Stack {
                    let what = format!("the SCTP port {port}");
                    lower.reader.not_honoured(node.extent, &what, "only TCP and UDP ports are published");
                }
                return None;
            }
            _ => lower.reader.wrong("protocol", "TCP, UDP or SCTP", node),
        }
    }
    let target = match found.get("targetPort") {
        None => PortTarget::Number(port),
        Some(node) => {
            let text = lower.reader.text("targetPort", node)?;
            match text.parse::<u16>() {
                Ok(number) if number > 0 => PortTarget::Number(number),
                _ => PortTarget::Name(text),
            }
        }
    };
    let at = |port| HostPort { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port, protocol };
    let publish = match (reach, node_port) {
        (Reach::Stack, _) => None,
        (Reach::LoadBalancer, _) => Some(at(port)),
        (Reach::NodePort, Some((number, _))) => Some(at(u16::try_from(number?).ok().filter(|port| *port > 0)?)),
        (Reach::NodePort, None) => None,
    };
    let choose = reach == Reach::NodePort && node_port.is_none();
    Some(ServicePort { port, protocol, publish, choose, target, span: lower.reader.span(port_node.extent) })
}

/// Labels as a mapping of texts.
pub(super) fn labels(lower: &mut Lower, what: &str, node: &Node) -> BTreeMap<String, String> {
    let entries = lower.reader.map(what, node);
    entries.iter().filter_map(|entry| Some((entry.key.clone(), lower.reader.text(what, &entry.value)?))).collect()
}
