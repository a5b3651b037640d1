//! Names of what a plan makes: containers, networks, volumes. Pure functions of the object, so that a step can name a
//! thing that does not exist yet, making it again is the same thing, and an orphan explains itself.
//!
//! Every name is a DNS label of at most 63 bytes. A part that had to be cut or cleaned gets a hash of the exact text.

use std::fmt::Write as _;

use runtime::id::{ContainerId, NAME_BYTES_MAX, NetworkName, VolumeName};
use sha2::{Digest as _, Sha256};

use crate::model::{DEFAULT_NETWORK, NetworkRange, ObjectKey, ReplicaKey, TemplateHash, by_hand};

/// `shop-web-1-3f09ab`: replica, and a hash over the exact replica, template and attempt.
#[must_use]
pub fn container_id(replica: &ReplicaKey, template: &TemplateHash, attempt: u32) -> ContainerId {
    let hash = hex(&[&replica_text(replica), &template.0, &attempt.to_string()], 6);
    let readable = format!("{}-{replica}", replica.workload.stack);
    format!("{}-{hash}", label(&readable, NAME_BYTES_MAX - 7)).parse().expect("label() returns a DNS label")
}

/// `shop-web-1-3f09ab-proxy-77aa01`: a container of a pod, with a hash over the exact pod, name and attempt.
#[must_use]
pub fn member_id(holder: &ContainerId, name: &str, attempt: u32) -> ContainerId {
    let hash = hex(&[holder.as_str(), name, &attempt.to_string()], 6);
    let readable = format!("{holder}-{name}");
    format!("{}-{hash}", label(&readable, NAME_BYTES_MAX - 7)).parse().expect("label() returns a DNS label")
}

/// A volume that goes with a pod or container: `shop-web-1-3f09ab-cache-8c21d0e4`.
#[must_use]
pub(super) fn scratch_volume_name(pod: &ContainerId, name: &str) -> VolumeName {
    let hash = hex(&[pod.as_str(), name], 8);
    let readable = format!("{pod}-{name}");
    format!("{}-{hash}", label(&readable, NAME_BYTES_MAX - 9)).parse().expect("label() returns a DNS label")
}

/// The default network of a stack: the stack's own name, unless that is the network of containers made by hand.
#[must_use]
pub fn network_name(stack: &str) -> NetworkName {
    if stack == by_hand::NETWORK {
        return format!("{stack}-{}", hex(&[stack], 6)).parse().expect("two DNS labels and `-` between them");
    }
    label(stack, NAME_BYTES_MAX).parse().expect("label() returns a DNS label")
}

/// A network that an App or Job names: the stack's own, or `shop-back-1f03ab`. Another range is another network, so that
/// its containers move to it one by one.
#[must_use]
pub fn network_of(key: &ObjectKey, range: Option<&NetworkRange>) -> NetworkName {
    if key.name == DEFAULT_NETWORK && range.is_none() {
        return network_name(&key.stack);
    }
    let place = range.map(|range| format!("{} {}", range.subnet, range.gateway)).unwrap_or_default();
    let readable = label(&format!("{}-{}", key.stack, key.name), NAME_BYTES_MAX - 7);
    format!("{readable}-{}", hex(&[&key.to_string(), &place], 6)).parse().expect("label() returns a DNS label")
}

/// A declared volume: `shop-uploads`, with a hash behind it where stack or name contain the `-` that joins them.
#[must_use]
pub fn volume_name(key: &ObjectKey) -> VolumeName {
    let readable = format!("{}-{}", key.stack, key.name);
    let name = if key.stack.contains('-') || key.name.contains('-') {
        format!("{}-{}", label(&readable, NAME_BYTES_MAX - 7), hex(&[&key.to_string()], 6))
    } else {
        label(&readable, NAME_BYTES_MAX)
    };
    name.parse().expect("label() returns a DNS label")
}

/// The volume of one replica for one `VOLUME` path of its image: `shop-web-1-8c21d0e4`.
#[must_use]
pub fn anonymous_volume_name(replica: &ReplicaKey, path: &str) -> VolumeName {
    let hash = hex(&[&replica_text(replica), path], 8);
    let readable = format!("{}-{replica}", replica.workload.stack);
    format!("{}-{hash}", label(&readable, NAME_BYTES_MAX - 9)).parse().expect("label() returns a DNS label")
}

/// A DNS label of at most `bytes_max` bytes that reads like `text`; equal to it when `text` is one, else with a hash.
#[must_use]
pub(super) fn label(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max && runtime::id::check_name(text).is_ok() {
        return text.to_owned();
    }
    let clean: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(bytes_max.saturating_sub(7))
        .collect();
    let clean = clean.trim_matches('-');
    let hash = hex(&[text], 6);
    if clean.is_empty() { format!("x{hash}") } else { format!("{clean}-{hash}") }
}

fn replica_text(replica: &ReplicaKey) -> String {
    format!("{}#{}", replica.workload, replica.ordinal)
}

/// The first `digits` hex digits of a SHA-256 over length-prefixed parts.
pub(super) fn hex(parts: &[&str], digits: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Kind;

    fn replica(stack: &str, name: &str, ordinal: u32) -> ReplicaKey {
        let workload = ObjectKey { stack: stack.to_owned(), kind: Kind::App, name: name.to_owned() };
        ReplicaKey { workload, ordinal }
    }

    #[test]
    fn names_read_like_what_they_name() {
        let hash = TemplateHash("v1-0011223344556677".to_owned());
        let id = container_id(&replica("shop", "web", 1), &hash, 0).to_string();
        assert!(id.starts_with("shop-web-1-") && id.len() == 17, "{id}");
        assert_eq!(network_name("shop").as_str(), "shop");
        let joined = |s: &str, n: &str| {
            volume_name(&ObjectKey { stack: s.into(), kind: Kind::Volume, name: n.into() }).to_string()
        };
        assert_eq!(joined("shop", "uploads"), "shop-uploads");
        assert_ne!(joined("a-b", "c"), joined("a", "b-c"));
    }

    proptest! {
        #[test]
        fn every_text_becomes_a_bounded_label(text in ".{0,200}", max in 16_usize..=63) {
            let name = label(&text, max);
            prop_assert!(name.len() <= max);
            prop_assert!(runtime::id::check_name(&name).is_ok(), "{}", name);
        }

        #[test]
        fn attempts_and_templates_have_ids_of_their_own(stack in "[a-z]{1,63}", name in "[a-z]{1,63}", n in 1_u32..2000, a in 0_u32..50) {
            let hash = |text: &str| TemplateHash(text.to_owned());
            let one = container_id(&replica(&stack, &name, n), &hash("v1-a"), a);
            prop_assert_ne!(&one, &container_id(&replica(&stack, &name, n), &hash("v1-a"), a + 1));
            prop_assert_ne!(&one, &container_id(&replica(&stack, &name, n), &hash("v1-b"), a));
        }
    }
}
