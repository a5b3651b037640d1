//! Networks, names and published ports as they cross the boundary. Who makes them is `network` and `switchboard`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, NetworkName};

/// A bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Its name; the bridge's interface name is derived from it by `network::bridge_name`.
    pub name: NetworkName,
    /// The bridge's own address, the containers' gateway.
    pub gateway: Ipv4Addr,
    /// Prefix length of the network, 16 to 29.
    pub prefix_len: u8,
    /// No way out: no masquerade, no forwarding of DNS.
    pub internal: bool,
}

/// A network as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// What it was made with.
    pub config: NetworkConfig,
    /// Bridge, address and rules are all in place.
    pub intact: bool,
}

/// How a container is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// The host's network.
    Host,
    /// One address on each of some bridge networks, DNS at 127.0.0.11.
    Bridge {
        /// Which network; must be present. The way out leads through it.
        network: NetworkName,
        /// Address inside the network's subnet; whoever plans picks it.
        address: Ipv4Addr,
        /// Further networks, in the order of the interfaces eth1, eth2, …; at most [`NETWORKS_MAX`] in all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        more: Vec<NetworkAddress>,
    },
}

/// Most networks that one container is on.
pub const NETWORKS_MAX: usize = 8;

/// An address on a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// Which network; must be present.
    pub network: NetworkName,
    /// Address inside its subnet; whoever plans picks it.
    pub address: Ipv4Addr,
}

impl NetworkMode {
    /// On one network.
    #[must_use]
    pub fn on(network: NetworkName, address: Ipv4Addr) -> Self {
        Self::Bridge { network, address, more: Vec::new() }
    }

    /// The bridge networks it is on with its addresses there, in the order of its interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = (&NetworkName, Ipv4Addr)> {
        let (first, more) = match self {
            Self::Bridge { network, address, more } => (Some((network, *address)), more.as_slice()),
            Self::None | Self::Host => (None, &[][..]),
        };
        first.into_iter().chain(more.iter().map(|other| (&other.network, other.address)))
    }

    /// The number of its interface on a network.
    #[must_use]
    pub fn interface_on(&self, name: &NetworkName) -> Option<usize> {
        self.addresses().position(|(network, _)| network == name)
    }
}

/// Names and published ports of the whole data root, one atomic value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTable {
    /// Published ports.
    pub listeners: Vec<Listener>,
    /// Names of each network: name → addresses. A name without addresses answers with no data, not "no such name".
    pub zones: BTreeMap<NetworkName, BTreeMap<String, Vec<IpAddr>>>,
    /// Which zone answers the container's queries first: its network's search domain.
    pub views: BTreeMap<ContainerId, DnsView>,
    /// Addresses that stand for several containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

/// An address of a network that leads to whatever is ready behind it, and stays when that changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// Where it is reached.
    pub network: NetworkName,
    /// In the network's subnet, the gateway's and no container's; whoever plans picks it and keeps to it.
    pub address: Ipv4Addr,
    /// Names that are answered with it instead of with what is in the zone, which `tasks.NAME` is answered with. Where the
    /// host cannot have such addresses, names lead to what is in the zone.
    pub names: Vec<String>,
    /// Ports that lead to others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Where all other ports lead, each to itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<Ipv4Addr>,
}

impl Service {
    /// Every address it leads to.
    pub fn leads_to(&self) -> impl Iterator<Item = Ipv4Addr> {
        let ports = self.ports.iter().flat_map(|port| port.backends.iter().map(|backend| *backend.ip()));
        self.backends.iter().copied().chain(ports)
    }
}

/// A port of a service that leads to another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServicePort {
    /// Of what kind.
    #[serde(default, skip_serializing_if = "Protocol::is_tcp")]
    pub protocol: Protocol,
    /// Of the service.
    pub port: u16,
    /// Where it leads.
    pub backends: Vec<SocketAddrV4>,
}

/// What one container sees of the names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsView {
    /// Networks it is on.
    pub networks: Vec<NetworkName>,
    /// Unknown names go to the host's resolvers.
    pub forward: bool,
}

/// The transport of a published port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Whether it is the one that is meant where none is written.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        *self == Self::Tcp
    }
}

/// A port of the host. As text: `127.0.0.1:80`, `[::]:53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// Host address.
    pub address: IpAddr,
    /// Host port.
    pub port: u16,
    /// TCP where nothing is said, as it was before there was a choice.
    #[serde(default, skip_serializing_if = "Protocol::is_tcp")]
    pub protocol: Protocol,
}

impl HostPort {
    /// A TCP port.
    #[must_use]
    pub fn tcp(address: IpAddr, port: u16) -> Self {
        Self { address, port, protocol: Protocol::Tcp }
    }

    /// Where a socket is bound to.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => self.socket_address().fmt(f),
            Protocol::Udp => write!(f, "{}/udp", self.socket_address()),
        }
    }
}

impl FromStr for HostPort {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (bare, protocol) = text.strip_suffix("/udp").map_or((text, Protocol::Tcp), |bare| (bare, Protocol::Udp));
        bare.parse::<SocketAddr>().map(|at| Self { address: at.ip(), port: at.port(), protocol })
    }
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// Of the host.
    #[serde(flatten)]
    pub at: HostPort,
    /// Where connections go, or clients with all their datagrams, in turn; empty: they wait up to `park_ms`.
    pub backends: Vec<SocketAddr>,
    /// How long a new connection, or a datagram, waits for a backend before it is closed, or dropped.
    pub park_ms: u32,
}
