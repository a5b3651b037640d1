//! Texts of the generated files in /etc. Pure.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::LowerInput;
use super::launch::EtcFiles;
use crate::runtime::NetworkMode;

/// Where the container's resolver listens: an address of its own loopback, answered from outside.
pub(crate) const RESOLVER: &str = "127.0.0.11";

pub(super) fn files(input: &LowerInput<'_>) -> EtcFiles {
    let config = input.config;
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    match &config.network {
        NetworkMode::Bridge { address, .. } => drop(writeln!(hosts, "{address}\t{}", config.hostname)),
        NetworkMode::None | NetworkMode::Host => drop(writeln!(hosts, "127.0.1.1\t{}", config.hostname)),
    }
    for (name, address) in &config.extras.hosts {
        let _ = writeln!(hosts, "{address}\t{name}");
    }
    let gateway = match &config.network {
        NetworkMode::Bridge { .. } => input.bridges.first().map(|bridge| bridge.gateway),
        NetworkMode::Host => Some(Ipv4Addr::LOCALHOST),
        NetworkMode::None => None,
    };
    for (name, address) in config.extras.gateway_names.iter().filter_map(|name| Some((name, gateway?))) {
        let _ = writeln!(hosts, "{address}\t{name}");
    }
    let asked = &config.extras.nameservers;
    let resolv_conf = match &config.network {
        NetworkMode::Bridge { .. } | NetworkMode::Host if !asked.is_empty() => {
            Some(asked.iter().map(|server| format!("nameserver {server}\n")).collect())
        }
        NetworkMode::Bridge { .. } => {
            let search = config.dns_search.join(" ");
            let search = if search.is_empty() { String::new() } else { format!("search {search}\n") };
            // The last word on an option counts (resolv.conf(5)).
            let asked: String = config.extras.dns_options.iter().map(|option| format!(" {option}")).collect();
            Some(format!("{search}nameserver {RESOLVER}\noptions ndots:0{asked}\n"))
        }
        NetworkMode::None => Some(String::new()),
        NetworkMode::Host => None,
    };
    EtcFiles { hosts, hostname: format!("{}\n", config.hostname), resolv_conf }
}
