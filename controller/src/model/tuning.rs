//! What a container asks of the kernel and of its surroundings besides limits and security, as values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use runtime::runtime::{Extras, Ulimit};
use serde::{Deserialize, Serialize};

/// Resource limits that Linux has (getrlimit(2)), as their names are written.
pub const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// What is written for the host's own address, as in Docker.
pub const HOST_GATEWAY: &str = "host-gateway";

/// Of one container; the default asks for nothing. Another tuning is another container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tuning {
    /// What a program meets and what it may raise that to, by the limit's name; [`u64::MAX`] is no limit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, (u64, u64)>,
    /// Settings of its own namespaces, with dots.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Groups besides those of its user, by name in the image or number.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// How soon the kernel ends it when the host has no memory, -1000 to 1000; `None`: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i16>,
    /// Lines of /etc/hosts: name and address; without one, the host's on the container's network.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<(String, Option<IpAddr>)>,
    /// Domains in which names are searched after the stack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Options of resolv.conf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_options: Vec<String>,
    /// NIS domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Its stdin is a pipe that somebody may attach to, and that does not end; else it is empty.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
}

impl Tuning {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// By field, as canonical texts: what counts as another template, and what a plan shows.
    pub fn fields(&self) -> impl Iterator<Item = (String, String)> {
        let limit = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        let ulimits = self.ulimits.iter();
        let ulimits = ulimits
            .map(move |(name, (soft, hard))| (format!("ulimits.{name}"), format!("{}:{}", limit(*soft), limit(*hard))));
        let sysctls = self.sysctls.iter().map(|(name, value)| (format!("sysctls.{name}"), value.clone()));
        let groups = self.groups.iter().map(|name| (format!("groups.{name}"), "set".to_owned()));
        let address = |address: Option<IpAddr>| address.map_or_else(|| HOST_GATEWAY.to_owned(), |one| one.to_string());
        let hosts =
            self.hosts.iter().map(move |(name, of)| (format!("hosts.{name}.{}", address(*of)), "set".to_owned()));
        let list = |words: &[String]| (!words.is_empty()).then(|| words.join(" "));
        let rest = [
            ("dnsSearch", list(&self.dns_search)),
            ("dnsOptions", list(&self.dns_options)),
            ("oomScoreAdj", self.oom_score_adj.map(|adj| adj.to_string())),
            ("domainname", self.domainname.clone()),
            ("stdin", self.stdin.then(|| "true".to_owned())),
        ];
        let rest = rest.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        ulimits.chain(sysctls).chain(groups).chain(hosts).chain(rest)
    }

    /// Asks the runtime for it.
    pub fn ask(&self, extras: &mut Extras) {
        let ulimit =
            |(name, (soft, hard)): (&String, &(u64, u64))| Ulimit { name: name.clone(), soft: *soft, hard: *hard };
        extras.ulimits = self.ulimits.iter().map(ulimit).collect();
        extras.sysctls = self.sysctls.clone();
        extras.groups = self.groups.iter().cloned().collect();
        extras.oom_score_adj = self.oom_score_adj;
        extras.domainname = self.domainname.clone();
        extras.stdin = self.stdin;
        extras.hosts = self.hosts.iter().filter_map(|(name, address)| Some((name.clone(), (*address)?))).collect();
        let of_host = self.hosts.iter().filter(|(_, address)| address.is_none());
        extras.gateway_names = of_host.map(|(name, _)| name.clone()).collect();
        extras.dns_options = self.dns_options.clone();
    }
}
