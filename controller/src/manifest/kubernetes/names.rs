//! What a pod says of names: lines of its /etc/hosts and words of its resolv.conf.

use super::{Lower, keys};
use crate::manifest::format::Format as _;
use crate::manifest::keys::Entries;
use crate::manifest::native::dns::DnsName;
use crate::manifest::native::tuning::{DnsOption, HostAddress};
use crate::model::Tuning;

pub(super) fn lower(lower: &mut Lower, pod: &Entries<'_>, tuning: &mut Tuning) {
    for item in pod.get("hostAliases").map(|node| lower.reader.list("hostAliases", node)).unwrap_or_default() {
        let found = lower.reader.keys(item, &keys::HOST_ALIAS);
        let Some(address) = found.get("ip").and_then(|node| lower.reader.format::<HostAddress>("ip", node)) else {
            continue;
        };
        for name in found.get("hostnames").map(|node| lower.reader.list("hostnames", node)).unwrap_or_default() {
            let name = lower.reader.format::<DnsName>("hostnames", name);
            tuning.hosts.extend(name.map(|name| (name.0, address.0)));
        }
    }
    let Some(node) = pod.get("dnsConfig") else { return };
    let found = lower.reader.keys(node, &keys::DNS_CONFIG);
    for item in found.get("searches").map(|node| lower.reader.list("searches", node)).unwrap_or_default() {
        tuning.dns_search.extend(lower.reader.format::<DnsName>("searches", item).map(|name| name.0));
    }
    for item in found.get("options").map(|node| lower.reader.list("options", node)).unwrap_or_default() {
        let option = lower.reader.keys(item, &keys::SYSCTL);
        let mut text = |key| option.get(key).and_then(|node| lower.reader.text(key, node));
        let Some(name) = text("name") else { continue };
        let word = text("value").map_or_else(|| name.clone(), |value| format!("{name}:{value}"));
        match DnsOption::parse(&word) {
            Ok(option) => tuning.dns_options.push(option.0),
            Err(bad) => lower.reader.bad("options", bad, item.extent),
        }
    }
}
