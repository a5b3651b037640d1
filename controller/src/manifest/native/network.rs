//! `kind: Network`, and the networks an App or Job names: what is written, the formats of its texts, its lowering.

use std::net::Ipv4Addr;

use runtime::network::ipam;
use schemars::JsonSchema;
use serde::Deserialize;

use super::dns::DnsName;
use super::text::Name;
use super::{Lower, wire};
use crate::manifest::format::{Bad, Format, ShortOr, wire_format};
use crate::manifest::tree::Path;
use crate::model::object::{NetworkSpec, NetworkUseSpec};
use crate::model::{NetworkRange, codes};

/// A network beside the stack's own; the one called `default` says how the stack's own is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Network {
    /// Its name within the stack, for `networks`; `default` is the network of those which name none.
    #[expect(dead_code, reason = "read from the tree before decoding; here for the schema")]
    pub(crate) name: Name,
    /// Nothing on it reaches the outside or the host, and no name of the outside is answered. Default false.
    pub(crate) internal: Option<bool>,
    /// Its addresses, from /16 to /29: 10.99.0.0/24. Default: chosen clear of what the host routes.
    pub(crate) subnet: Option<SubnetText>,
    /// The host's own address in `subnet`. Default: the first one.
    pub(crate) gateway: Option<AddressText>,
}

/// A network that an App or Job is on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NetworkUse {
    /// The name of a Network of this stack, or `default`.
    pub(crate) name: Name,
    /// Further names on this network.
    #[serde(default)]
    pub(crate) aliases: Vec<DnsName>,
    /// Its address there, where the Network has a `subnet` and there is one replica. Default: chosen.
    pub(crate) address: Option<AddressText>,
}

/// An IPv4 subnet that can be a container network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubnetText(pub(crate) ipam::Subnet);
/// An IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressText(pub(crate) Ipv4Addr);

wire_format!(SubnetText, AddressText);

impl Format for SubnetText {
    const NAME: &'static str = "subnet";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "An IPv4 subnet from /16 to /29, such as 10.99.0.0/24";
    fn parse(text: &str) -> Result<Self, Bad> {
        let refuse = |why: String| Bad::new(codes::VALUE, why);
        let subnet: ipam::Subnet = text.parse().map_err(|error: ipam::SubnetError| refuse(error.to_string()))?;
        if !(ipam::PREFIX_LEN_MIN..=ipam::PREFIX_LEN_MAX).contains(&subnet.prefix_len()) {
            let (min, max) = (ipam::PREFIX_LEN_MIN, ipam::PREFIX_LEN_MAX);
            return Err(refuse(format!("a network has from /{min} to /{max} addresses, found {text:?}")));
        }
        Ok(Self(subnet))
    }
}

impl Format for AddressText {
    const NAME: &'static str = "ipv4Address";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "An IPv4 address, such as 10.99.0.5";
    fn parse(text: &str) -> Result<Self, Bad> {
        let address = text.parse().map(Self);
        address.map_err(|_| Bad::new(codes::VALUE, format!("{text:?} is not an IPv4 address such as 10.99.0.5")))
    }
}

pub(super) fn lower(lower: &mut Lower<'_>, network: &Network) -> Option<NetworkSpec> {
    let gateway = network.gateway.map(|gateway| gateway.0);
    let range = match (network.subnet, gateway) {
        (Some(SubnetText(subnet)), gateway) => Some(range(subnet, gateway)),
        (None, None) => None,
        (None, Some(_)) => Some(Err("`gateway` needs a `subnet` that it is in".to_owned())),
    };
    match range.transpose() {
        Ok(range) => Some(NetworkSpec { internal: network.internal.unwrap_or(false), range }),
        Err(what) => {
            let diagnostic = lower.error(codes::VALUE, &Path::default().key("gateway"), what);
            lower.push(diagnostic);
            None
        }
    }
}

/// A subnet with its gateway, the first address unless one is given.
///
/// # Errors
/// The gateway is none that a host can have there: why.
pub(crate) fn range(subnet: ipam::Subnet, gateway: Option<Ipv4Addr>) -> Result<NetworkRange, String> {
    let gateway = gateway.unwrap_or_else(|| subnet.gateway());
    if !subnet.contains(gateway) || gateway == subnet.base() || gateway == subnet.last() {
        return Err(format!("{gateway} is no address for a gateway of {subnet}"));
    }
    Ok(NetworkRange { subnet, gateway })
}

/// The networks of a template.
pub(super) fn uses(lower: &mut Lower<'_>, wire: Vec<ShortOr<Name, NetworkUse>>) -> Vec<NetworkUseSpec> {
    let at = Path::default().key("networks");
    let mut uses: Vec<NetworkUseSpec> = Vec::new();
    for (i, network) in wire.into_iter().enumerate() {
        let span = lower.span(&at.index(i));
        let (name, aliases, address) = match network {
            ShortOr::Short(name) => (name.0, Vec::new(), None),
            ShortOr::Long(long) => (long.name.0, long.aliases, long.address.map(|address| address.0)),
        };
        if uses.iter().any(|known| known.name == name) {
            let diagnostic = lower.error(codes::CONFLICT, &at.index(i), format!("network `{name}` is named twice"));
            lower.push(diagnostic);
            continue;
        }
        let aliases = aliases.into_iter().map(|alias| alias.0).filter(|alias| *alias != lower.key.name).collect();
        uses.push(NetworkUseSpec { name, aliases, address, span });
    }
    uses
}

/// `network: host` or `none` and networks exclude each other.
pub(super) fn check_mode(lower: &mut Lower<'_>, mode: Option<wire::Network>, uses: &[NetworkUseSpec]) {
    let mode = match mode {
        None => return,
        Some(wire::Network::Host) => "host",
        Some(wire::Network::None) => "none",
    };
    if !uses.is_empty() {
        let what = format!("`network: {mode}` and `networks` exclude each other");
        let diagnostic = lower.error(codes::CONFLICT, &Path::default().key("networks"), what);
        lower.push(diagnostic.help("remove one of them"));
    }
}
