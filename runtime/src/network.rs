//! Bridge networks on the host: names, subnets, bridges, rules. One bridge per network, one nftables table per data root.
//!
//! `ipam` and `ruleset` are pure; `bridge` and `nftables` act. What should exist is on disk (`networks/<name>.json`);
//! every call renders the whole rule set from those records and swaps it in one transaction, so there is nothing to
//! drift. Must not know containers beyond their ids, nor who answers DNS or published ports (`switchboard`).

pub mod ipam;
pub mod link;

use sha2::{Digest as _, Sha256};

use crate::id::{ContainerId, NetworkName};
use crate::layout::Layout;
use crate::runtime::{NetworkConfig, NetworkInfo};
use crate::{Error, Result};

/// The name of a network's bridge: `bx-`, five characters of the data root's tag, seven of the network's.
///
/// 15 bytes, the kernel's limit (`IFNAMSIZ` counts a NUL). Five and seven base-32 characters are 25 and 35 bits.
#[must_use]
pub fn bridge_name(layout: &Layout, network: &NetworkName) -> String {
    format!("bx-{}{}", tag(layout), hash("network", network.as_str(), 7))
}

/// The name of the host's end of a container's veth pair: `bv-`, the data root's tag, seven characters of the container's.
#[must_use]
pub fn veth_name(layout: &Layout, container: &ContainerId) -> String {
    format!("bv-{}{}", tag(layout), hash("container", container.as_str(), 7))
}

/// Makes a network present with exactly this configuration: record, bridge with address, forwarding, rules.
/// Idempotent. Where the host has no nftables, containers still reach each other, and the error says what they lack.
///
/// # Errors
/// `Unsupported` names the missing kernel feature or right; `Conflict` when an interface of another kind has the name.
pub fn ensure(layout: &Layout, config: &NetworkConfig) -> Result<()> {
    let _ = layout;
    Err(Error::Unsupported(format!("network `{}`: bridge networks are not built in yet", config.name)))
}

/// Removes a network: rules, bridge, record. With the last one, what was switched on for forwarding is switched off.
///
/// # Errors
/// `NotFound`; `Conflict` while an interface is attached to the bridge.
pub fn remove(layout: &Layout, name: &NetworkName) -> Result<()> {
    let _ = layout;
    Err(Error::Unsupported(format!("network `{name}`: bridge networks are not built in yet")))
}

/// Networks on disk and whether the kernel has them as they should be.
///
/// # Errors
/// `Io`.
pub fn list(layout: &Layout) -> Result<Vec<NetworkInfo>> {
    let _ = layout;
    Err(Error::Unsupported("bridge networks are not built in yet".to_owned()))
}

/// What marks interfaces and tables of one data root: 25 bits of its path's hash.
fn tag(layout: &Layout) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    base32(&Sha256::digest(layout.data_root.as_os_str().as_bytes()), 5)
}

/// A short hash that differs between kinds of things with equal names.
fn hash(kind: &str, name: &str, len: usize) -> String {
    base32(&Sha256::digest(format!("{kind}/{name}").as_bytes()), len)
}

/// The first `len` characters of RFC 4648 base 32 in small letters: legal in interface and table names.
fn base32(bytes: &[u8], len: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |n: usize| (bytes[n / 8] >> (7 - n % 8)) & 1;
    (0..len).map(|at| char::from(ALPHABET[(0..5).fold(0, |v, n| v * 2 + usize::from(bit(at * 5 + n)))])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel_and_tell_their_owner() {
        let layout = Layout::new("/var/lib/boxship", "/run/boxship");
        let other = Layout::new("/var/lib/other", "/run/other");
        let shop: NetworkName = "shop".parse().unwrap();
        let name = bridge_name(&layout, &shop);
        assert_eq!(name.len(), 15);
        assert_eq!(name[..8], bridge_name(&layout, &"x".repeat(63).parse().unwrap())[..8]);
        assert_ne!(name[..8], bridge_name(&other, &shop)[..8]);
        assert_eq!(name[8..], bridge_name(&other, &shop)[8..]);
        assert!(veth_name(&layout, &"shop".parse().unwrap()).starts_with("bv-"));
    }

    #[test]
    fn base32_is_the_one_of_the_rfc() {
        assert_eq!(base32(b"foobar", 9), "mzxw6ytbo");
    }
}
