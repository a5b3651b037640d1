//! What few containers ask for: as values.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::HostPort;

/// Of one container; the default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// It is written down before it is made, stays after its end and may be started again with its writable layer.
    pub kept: bool,
    /// Its writable layer is written out at its end, so that it may be started again after a power cut too.
    pub lasting: bool,
    /// Its stdin is a pipe that somebody attaches to; else it is empty.
    pub stdin: bool,
    /// Lines of /etc/hosts: name and address.
    pub hosts: Vec<(String, IpAddr)>,
    /// Names of the host in /etc/hosts: they have the gateway's address on its first network.
    pub gateway_names: Vec<String>,
    /// Options of resolv.conf, `ndots:2` say.
    pub dns_options: Vec<String>,
    /// Name servers in the place of ours; empty: ours, or with the host's network the host's.
    pub nameservers: Vec<IpAddr>,
    /// Resource limits of its first process.
    pub ulimits: Vec<Ulimit>,
    /// Settings of its own namespaces, `net.core.somaxconn` say.
    pub sysctls: BTreeMap<String, String>,
    /// Groups its programs have besides those of their user, by name in the image or number.
    pub groups: Vec<String>,
    /// How soon the kernel ends it when the host has no memory, -1000 to 1000.
    pub oom_score_adj: Option<i16>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Names and ports that the runtime publishes while it runs, beside the table of whoever plans.
    pub endpoints: Option<OwnEndpoints>,
}

impl Extras {
    /// Nothing is asked for.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What belongs to namespaces, which the holder of a pod has for all.
    #[must_use]
    pub fn of_namespaces(&self) -> Self {
        let Self { hosts, gateway_names, nameservers, sysctls, domainname, endpoints, .. } = self.clone();
        Self { hosts, gateway_names, nameservers, sysctls, domainname, endpoints, ..Self::default() }
    }

    /// All but what its pod's holder has for it.
    #[must_use]
    pub fn without_namespaces(&self) -> Self {
        Self { sysctls: BTreeMap::new(), domainname: None, endpoints: None, ..self.clone() }
    }
}

/// A resource limit, by the kernel's name in lower case without `RLIMIT_`: `nofile`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Which.
    pub name: String,
    /// What a program meets; [`u64::MAX`] is none.
    pub soft: u64,
    /// What it may raise that to.
    pub hard: u64,
}

/// Names and ports of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnEndpoints {
    /// Names on its network.
    pub names: Vec<String>,
    /// Published ports.
    pub ports: Vec<PublishedPort>,
}

/// A port of the host that leads into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Of the host.
    pub at: HostPort,
    /// Inside.
    pub container_port: u16,
}
