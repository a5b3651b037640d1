//! What others on this host have taken: routes and id ranges. Text in, numbers out; a missing file means nothing taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use runtime::id::NetworkName;
use runtime::runtime::NetworkInfo;

use crate::model::{ObservedNetwork, by_hand};

/// Ids systemd-nspawn allocates from (systemd's "Users, Groups, UIDs and GIDs"): 524288 to 1879048191.
const SYSTEMD_CONTAINER_IDS: (u32, u32) = (524_288, 1_879_048_192 - 524_288);

/// What is taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) routes: Vec<(Ipv4Addr, u8)>,
    pub(super) id_ranges: Vec<(u32, u32)>,
}

/// Reads the host; routes of our own networks are left out, what containers made by hand have counts as others'.
pub(super) fn read(ours: &BTreeMap<NetworkName, ObservedNetwork>, by_hand: Vec<NetworkInfo>) -> Host {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let own: BTreeSet<(Ipv4Addr, u8)> = ours.values().map(|network| subnet(&network.config)).collect();
    let mut found = routes(&text("/proc/net/route"));
    found.retain(|route| !own.contains(route));
    found.extend(by_hand.iter().map(|network| subnet(&network.config)));
    found.sort_unstable();
    found.dedup();
    let mut id_ranges = vec![SYSTEMD_CONTAINER_IDS, by_hand::IDS];
    id_ranges.extend(subordinate_ids(&text("/etc/subuid")));
    id_ranges.extend(subordinate_ids(&text("/etc/subgid")));
    id_ranges.sort_unstable();
    id_ranges.dedup();
    Host { routes: found, id_ranges }
}

fn subnet(config: &runtime::runtime::NetworkConfig) -> (Ipv4Addr, u8) {
    let mask = u32::MAX.checked_shl(32 - u32::from(config.prefix_len)).unwrap_or(0);
    (Ipv4Addr::from_bits(config.gateway.to_bits() & mask), config.prefix_len)
}

/// Destinations of /proc/net/route (columns: Iface Destination Gateway Flags … Mask …; addresses in host byte order
/// of a network-order word), without the default route.
fn routes(text: &str) -> Vec<(Ipv4Addr, u8)> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let word = |n: usize| u32::from_str_radix(columns.get(n)?, 16).ok();
        let (destination, mask) = (word(1)?, word(7)?);
        let address = Ipv4Addr::from(destination.to_ne_bytes());
        u8::try_from(mask.count_ones()).ok().filter(|bits| *bits > 0).map(|bits| (address, bits))
    };
    let mut routes: Vec<_> = text.lines().skip(1).filter_map(route).collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

/// Ranges of subuid(5): `name:first:count`.
fn subordinate_ids(text: &str) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u32>().ok());
        Some((fields.next()??, fields.next()??))
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_id_ranges_are_read_from_their_files() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            broken line\n";
        let expected = if cfg!(target_endian = "little") {
            vec![(Ipv4Addr::new(172, 17, 0, 0), 16), (Ipv4Addr::new(192, 168, 1, 0), 24)]
        } else {
            return;
        };
        assert_eq!(routes(text), expected);
        assert_eq!(subordinate_ids("ann:100000:65536\nbroken\nbob:x:1\n"), [(100_000, 65_536)]);
    }
}
