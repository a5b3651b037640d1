//! Limits and settings of the kernel, as the native dialect writes them.
//!
//! Must not know documents beyond the fields it adds.

use std::net::IpAddr;

use runtime::runtime::Resources;
use serde_json::{Map, Value as Json};

use super::{Document, memory, put};
use crate::model::Tuning;
use crate::model::tuning::HOST_GATEWAY;

pub(super) fn resources(document: &mut Document, resources: &Resources) {
    let mut limits = Document::new();
    if let Some(millis) = resources.cpu_millis {
        put(&mut limits, "cpu", format!("{millis}m"));
    }
    if let Some(bytes) = resources.memory_bytes {
        put(&mut limits, "memory", memory(bytes));
    }
    if let Some(pids) = resources.pids_max {
        put(&mut limits, "pids", pids);
    }
    match resources.swap_bytes {
        Some(u64::MAX) => put(&mut limits, "swap", "unlimited"),
        Some(bytes) => put(&mut limits, "swap", memory(bytes)),
        None => {}
    }
    if let Some(bytes) = resources.memory_reservation_bytes {
        put(&mut limits, "memoryReservation", memory(bytes));
    }
    if let Some(shares) = resources.cpu_shares {
        put(&mut limits, "cpuShares", shares);
    }
    if !limits.is_empty() {
        put(document, "resources", limits);
    }
}

pub(super) fn tuning(document: &mut Document, tuning: &Tuning) {
    let mut fields = Document::new();
    let limit = |value: u64| if value == u64::MAX { Json::from("unlimited") } else { Json::from(value) };
    let both = |(soft, hard): (u64, u64)| match soft == hard {
        true => limit(soft),
        false => serde_json::json!({ "soft": limit(soft), "hard": limit(hard) }),
    };
    if !tuning.ulimits.is_empty() {
        let limits = tuning.ulimits.iter().map(|(name, limits)| (name.clone(), both(*limits)));
        put(&mut fields, "ulimits", limits.collect::<Map<_, _>>());
    }
    if !tuning.sysctls.is_empty() {
        let settings = tuning.sysctls.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str())));
        put(&mut fields, "sysctls", settings.collect::<Map<_, _>>());
    }
    if !tuning.groups.is_empty() {
        put(&mut fields, "groups", tuning.groups.iter().cloned().collect::<Vec<_>>());
    }
    if let Some(score) = tuning.oom_score_adj {
        put(&mut fields, "oomScoreAdj", score);
    }
    if !tuning.hosts.is_empty() {
        let address = |address: Option<IpAddr>| address.map_or_else(|| HOST_GATEWAY.to_owned(), |one| one.to_string());
        let hosts = tuning.hosts.iter().map(|(name, of)| (name.clone(), Json::from(address(*of))));
        put(&mut fields, "hosts", hosts.collect::<Map<_, _>>());
    }
    for (key, words) in [("dnsSearch", &tuning.dns_search), ("dnsOptions", &tuning.dns_options)] {
        if !words.is_empty() {
            put(&mut fields, key, words.clone());
        }
    }
    if let Some(name) = &tuning.domainname {
        put(&mut fields, "domainname", name.as_str());
    }
    if !fields.is_empty() {
        put(document, "tuning", fields);
    }
}
