//! Networks, names and published ports as they cross the boundary. Who makes them is `network` and `switchboard`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

/// Names and published ports of the whole data root, one atomic value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTable {
    /// Published ports.
    pub listeners: Vec<Listener>,
    /// Names of each network: name → addresses. A name without addresses answers with no data, not "no such name".
    pub zones: BTreeMap<NetworkName, BTreeMap<String, Vec<IpAddr>>>,
    /// Which zone answers the container's queries first: its network's search domain.
    pub views: BTreeMap<ContainerId, DnsView>,
}

/// What one container sees of the names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsView {
    /// Networks it is on.
    pub networks: Vec<NetworkName>,
    /// Unknown names go to the host's resolvers.
    pub forward: bool,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// Host address.
    pub address: IpAddr,
    /// Host port.
    pub port: u16,
    /// Where connections go, in turn; empty: they wait up to `park_ms`.
    pub backends: Vec<SocketAddr>,
    /// How long a new connection waits for a backend before it is closed.
    pub park_ms: u32,
}
