//! `tuning`: what a container asks of the kernel besides limits and security. Its formats serve the other dialects too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use runtime::security::sysctl;
use schemars::JsonSchema;
use serde::Deserialize;

use super::dns::DnsName;
use super::text::AnyScalar;
use crate::manifest::format::{Bad, Format, ShortOr, wire_format};
use crate::model::tuning::{HOST_GATEWAY, ULIMITS};
use crate::model::{Tuning, codes};

/// What few programs need of the kernel.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Wire {
    /// Resource limits (getrlimit(2)) by name: nofile: 65536, or {soft: 1024, hard: 65536}; unlimited is one too.
    #[serde(default)]
    pub(crate) ulimits: BTreeMap<String, ShortOr<LimitText, UlimitPair>>,
    /// The kernel's settings of the container's own namespaces: net.core.somaxconn: 1024.
    #[serde(default)]
    pub(crate) sysctls: BTreeMap<String, AnyScalar>,
    /// Groups its programs have besides those of their user, by name in the image or number.
    #[serde(default)]
    pub(crate) groups: Vec<AnyScalar>,
    /// How soon the kernel ends it when the host has no memory: -1000 (never) to 1000 (first). Default 0.
    #[schemars(range(min = -1000, max = 1000))]
    pub(crate) oom_score_adj: Option<i16>,
    /// Further lines of /etc/hosts: an address for a name, or host-gateway for the host's own.
    #[serde(default)]
    pub(crate) hosts: BTreeMap<String, HostAddress>,
    /// Domains in which names are searched after the stack.
    #[serde(default)]
    pub(crate) dns_search: Vec<DnsName>,
    /// Options of resolv.conf(5): ndots:2.
    #[serde(default)]
    pub(crate) dns_options: Vec<DnsOption>,
    /// NIS domain name.
    pub(crate) domainname: Option<String>,
}

/// A limit with two values.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UlimitPair {
    /// What a program meets.
    pub(crate) soft: LimitText,
    /// What it may raise that to.
    pub(crate) hard: LimitText,
}

impl Wire {
    /// As the model has it; `bad` is told of each name or value that is none, by its field and key.
    pub(crate) fn lower(self, stdin: bool, mut bad: impl FnMut(&str, &str, Bad)) -> Tuning {
        let mut tuning = Tuning {
            groups: self.groups.into_iter().map(|group| group.0).collect(),
            oom_score_adj: self.oom_score_adj,
            domainname: self.domainname,
            dns_search: self.dns_search.into_iter().map(|name| name.0).collect(),
            dns_options: self.dns_options.into_iter().map(|option| option.0).collect(),
            stdin,
            ..Tuning::default()
        };
        for (key, limit) in self.ulimits {
            let (soft, hard) = match limit {
                ShortOr::Short(both) => (both.0, both.0),
                ShortOr::Long(pair) => (pair.soft.0, pair.hard.0),
            };
            match UlimitName::parse(&key) {
                Ok(_) if soft > hard => bad("ulimits", &key, Bad::new(codes::VALUE, SOFT_ABOVE_HARD)),
                Ok(name) => drop(tuning.ulimits.insert(name.0, (soft, hard))),
                Err(why) => bad("ulimits", &key, why),
            }
        }
        for (key, address) in self.hosts {
            match DnsName::parse(&key) {
                Ok(name) => drop(tuning.hosts.insert((name.0, address.0))),
                Err(why) => bad("hosts", &key, why),
            }
        }
        for (key, value) in self.sysctls {
            match SysctlName::parse(&key) {
                Ok(name) => drop(tuning.sysctls.insert(name.0, value.0)),
                Err(why) => bad("sysctls", &key, why),
            }
        }
        tuning
    }
}

pub(crate) const SOFT_ABOVE_HARD: &str = "the soft limit is above the hard one";

/// The name of a resource limit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UlimitName(pub(crate) String);

/// A number, or `unlimited` (also `-1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitText(pub(crate) u64);

/// A setting of a namespace, with dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SysctlName(pub(crate) String);

/// An address, or none for the host's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostAddress(pub(crate) Option<IpAddr>);

/// A word of an `options` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DnsOption(pub(crate) String);

wire_format!(LimitText, HostAddress, DnsOption);

impl Format for UlimitName {
    const NAME: &'static str = "ulimitName";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "A resource limit of getrlimit(2) in lower case: nofile, memlock, core";
    fn parse(text: &str) -> Result<Self, Bad> {
        if ULIMITS.contains(&text) {
            return Ok(Self(text.to_owned()));
        }
        let near = crate::text::nearest(text, ULIMITS.iter().copied()).map(str::to_owned);
        let bad = Bad::new(codes::VALUE, format!("there is no resource limit `{text}`: {}", ULIMITS.join(", ")));
        Err(Bad { suggestion: near, ..bad })
    }
}

impl Format for LimitText {
    const NAME: &'static str = "limit";
    const TYPES: &'static [&'static str] = &["string", "integer"];
    const ABOUT: &'static str = "A number, or unlimited";
    fn parse(text: &str) -> Result<Self, Bad> {
        match text {
            "-1" | "unlimited" => Ok(Self(u64::MAX)),
            number => number
                .parse()
                .map(Self)
                .map_err(|_| Bad::new(codes::VALUE, format!("expected a number or unlimited, found {text:?}"))),
        }
    }
}

impl Format for SysctlName {
    const NAME: &'static str = "sysctl";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str =
        "A setting of a network, IPC or UTS namespace: net.core.somaxconn, kernel.shmmax, fs.mqueue.msg_max";
    fn parse(text: &str) -> Result<Self, Bad> {
        if sysctl::namespace_of(text).is_some() {
            return Ok(Self(sysctl::dotted(text)));
        }
        let what = format!("`{text}` belongs to no namespace: it would be set for the whole host");
        let help = "containers have net.*, fs.mqueue.*, kernel.shm*, kernel.msg* and kernel.sem for themselves";
        Err(Bad { help: Some(help.to_owned()), ..Bad::new(codes::VALUE, what) })
    }
}

impl Format for HostAddress {
    const NAME: &'static str = "hostAddress";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "An IP address, or host-gateway for the host's own";
    fn parse(text: &str) -> Result<Self, Bad> {
        if text == HOST_GATEWAY {
            return Ok(Self(None));
        }
        let address = text.trim_matches(['[', ']']).parse().map(|address| Self(Some(address)));
        address.map_err(|_| Bad::new(codes::VALUE, format!("expected an IP address or {HOST_GATEWAY}, found {text:?}")))
    }
}

impl Format for DnsOption {
    const NAME: &'static str = "dnsOption";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "An option of resolv.conf(5): ndots:2, use-vc";
    fn parse(text: &str) -> Result<Self, Bad> {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '_');
        if !text.is_empty() && text.chars().all(is_letter) {
            return Ok(Self(text.to_owned()));
        }
        Err(Bad::new(codes::VALUE, format!("{text:?} is not an option of resolv.conf, such as ndots:2")))
    }
}
