//! Which subnet a network gets and which address a container gets. Pure: sets in, a choice out; whoever plans calls it.
//!
//! Must not know interfaces, files or clocks. What is taken is an argument: records of our networks, and the host's
//! routes as `network::host_routes` lists them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Prefix length of the subnets that [`pick_subnet`] is normally asked for: 253 containers per network.
pub const NETWORK_PREFIX_LEN: u8 = 24;

/// Prefix lengths that a network can have: 65,533 containers are more than a bridge has ports, and /29 holds five.
pub const PREFIX_LEN_MIN: u8 = 16;
/// See [`PREFIX_LEN_MIN`].
pub const PREFIX_LEN_MAX: u8 = 29;

/// Where subnets come from unless configured: 10.88.0.0 to 10.127.255.255. It keeps clear of Docker's 172.17-172.31
/// and of the ends of 10/8 that home routers and VPNs like.
pub const DEFAULT_POOL: [Subnet; 2] = [
    Subnet { base: Ipv4Addr::new(10, 88, 0, 0), prefix_len: 13 },
    Subnet { base: Ipv4Addr::new(10, 96, 0, 0), prefix_len: 11 },
];

/// An IPv4 network.
///
/// Invariant: the bits of `base` behind `prefix_len` are 0, and `prefix_len` ≤ 32 ([`Subnet::containing`] makes it so).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    prefix_len: u8,
}

/// Why a text is not a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IPv4 subnet: ADDRESS/LENGTH is expected, 10.88.0.0/16 say")]
pub struct SubnetError(String);

impl Subnet {
    /// The subnet of this length that an address lies in. Lengths over 32 count as 32.
    #[must_use]
    pub fn containing(address: Ipv4Addr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(32);
        Self { base: Ipv4Addr::from(u32::from(address) & mask(prefix_len)), prefix_len }
    }

    /// Its first address.
    #[must_use]
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Bits that are fixed, 0 to 32.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Its last address, the broadcast address of networks up to /30.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) | !mask(self.prefix_len))
    }

    /// The net mask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix_len))
    }

    /// The address we give to the bridge: the first after the base.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).saturating_add(1))
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::containing(address, self.prefix_len) == self
    }

    /// Whether two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = self.prefix_len.min(other.prefix_len);
        Self::containing(self.base, shorter) == Self::containing(other.base, shorter)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_len)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let refuse = || SubnetError(text.to_owned());
        let (address, len) = text.split_once('/').ok_or_else(refuse)?;
        let address: Ipv4Addr = address.parse().map_err(|_| refuse())?;
        let len: u8 = len.parse().map_err(|_| refuse())?;
        if len > 32 {
            return Err(refuse());
        }
        Ok(Self::containing(address, len))
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

/// The lowest subnet of length `prefix_len` in the pools, in their order, that overlaps nothing taken. The default
/// route is no obstacle. `None` when the pools are used up.
///
/// The work is bounded by the number of taken subnets: each obstacle is stepped over whole.
#[must_use]
pub fn pick_subnet(pools: &[Subnet], prefix_len: u8, taken: &BTreeSet<Subnet>) -> Option<Subnet> {
    pools.iter().find_map(|pool| pick_in_pool(*pool, prefix_len, taken))
}

fn pick_in_pool(pool: Subnet, prefix_len: u8, taken: &BTreeSet<Subnet>) -> Option<Subnet> {
    if prefix_len < pool.prefix_len || prefix_len > 32 {
        return None;
    }
    let end = u64::from(u32::from(pool.last()));
    let size = 1_u64 << (32 - prefix_len);
    let mut at = u64::from(u32::from(pool.base));
    while at + size - 1 <= end {
        let candidate = Subnet::containing(Ipv4Addr::from(u32::try_from(at).ok()?), prefix_len);
        let obstacle = taken.iter().filter(|t| t.prefix_len > 0 && t.overlaps(candidate)).map(|t| t.last()).max();
        let Some(obstacle) = obstacle else { return Some(candidate) };
        // Behind the obstacle, rounded up to our alignment.
        at = (u64::from(u32::from(obstacle)) + 1).div_ceil(size) * size;
    }
    None
}

/// The lowest address of a subnet that is free: neither in `used`, nor the gateway, nor the subnet's own first or last
/// address. `None` when the subnet is full.
#[must_use]
pub fn pick_address(subnet: Subnet, gateway: Ipv4Addr, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = u32::from(subnet.base).checked_add(1)?;
    let last = u32::from(subnet.last()).checked_sub(1)?;
    (first..=last).map(Ipv4Addr::from).find(|address| *address != gateway && !used.contains(address))
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_subnet_of_the_default_pool() {
        assert_eq!(pick_subnet(&DEFAULT_POOL, 24, &BTreeSet::new()), Some(net("10.88.0.0/24")));
        let first = pick_subnet(&DEFAULT_POOL, 24, &BTreeSet::new()).unwrap();
        assert_eq!(first.gateway(), Ipv4Addr::new(10, 88, 0, 1));
        assert_eq!(pick_address(first, first.gateway(), &BTreeSet::new()), Some(Ipv4Addr::new(10, 88, 0, 2)));
    }

    #[test]
    fn a_wide_route_is_stepped_over_and_the_default_route_ignored() {
        let taken = [net("0.0.0.0/0"), net("10.88.0.0/16"), net("10.89.0.0/25")].into();
        assert_eq!(pick_subnet(&DEFAULT_POOL, 24, &taken), Some(net("10.89.1.0/24")));
        assert_eq!(pick_subnet(&DEFAULT_POOL, 24, &[net("10.0.0.0/8")].into()), None);
    }

    #[test]
    fn texts_that_are_no_subnets() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/0", "10.0.0.0/-1"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert_eq!(net("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }

    fn subnet() -> impl Strategy<Value = Subnet> {
        (0x0a58_0000_u32..0x0a80_0000, 11_u8..=32).prop_map(|(a, l)| Subnet::containing(Ipv4Addr::from(a), l))
    }

    proptest! {
        #[test]
        fn a_picked_subnet_is_in_the_pool_and_free(taken in prop::collection::btree_set(subnet(), 0..40), len in 16_u8..=29) {
            let picked = pick_subnet(&DEFAULT_POOL, len, &taken);
            if let Some(picked) = picked {
                prop_assert!(DEFAULT_POOL.iter().any(|p| p.overlaps(picked) && p.prefix_len() <= picked.prefix_len()));
                prop_assert!(taken.iter().all(|t| !t.overlaps(picked)));
                prop_assert_eq!(picked.prefix_len(), len);
            } else {
                // Nothing free of that size: the pool's subnets all overlap something.
                let all = DEFAULT_POOL.iter().flat_map(|p| {
                    let (first, last) = (u32::from(p.base()), u32::from(p.last()));
                    (first..=last).step_by(1 << (32 - len)).map(move |a| Subnet::containing(Ipv4Addr::from(a), len))
                });
                for candidate in all {
                    prop_assert!(taken.iter().any(|t| t.overlaps(candidate)));
                }
            }
        }

        #[test]
        fn a_picked_address_is_the_lowest_free_one(used in prop::collection::btree_set(0_u32..16, 0..16), gateway in 1_u32..15) {
            let subnet = net("10.88.0.0/28");
            let at = |n: u32| Ipv4Addr::from(u32::from(subnet.base()) + n);
            let used: BTreeSet<Ipv4Addr> = used.into_iter().map(at).collect();
            let free = (1..15).map(at).find(|a| !used.contains(a) && *a != at(gateway));
            prop_assert_eq!(pick_address(subnet, at(gateway), &used), free);
        }

        #[test]
        fn subnets_read_back_what_they_print(subnet in subnet()) {
            prop_assert_eq!(net(&subnet.to_string()), subnet);
        }
    }
}
