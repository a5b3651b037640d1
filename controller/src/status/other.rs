//! Where images, volumes and networks are.

use super::Page;
use crate::api::types::Phase;
use crate::model::{DesiredImage, DesiredNetwork, ObjectKey};
use crate::plan::network_of;

pub(super) fn image(page: Page<'_>, key: &ObjectKey, image: &DesiredImage) -> (Phase, String) {
    let Some(held) = page.view.seen.state.images.get(&image.reference) else {
        let known = page.back_off(key).or_else(|| page.obstacle(key));
        return known.unwrap_or_else(|| page.pulling(&image.reference));
    };
    let digest: String = held.digest.to_string().chars().take("sha256:".len() + 12).collect();
    let kept = match held.previous.len().min(image.keep as usize) {
        0 => String::new(),
        kept => format!(" and {kept} earlier"),
    };
    (Phase::Ready, format!("Held {digest}{kept}"))
}

pub(super) fn volume(page: Page<'_>, key: &ObjectKey) -> (Phase, String) {
    let there = page.view.seen.state.volumes.iter().find(|(_, v)| v.owner == *key && v.anonymous_of.is_none());
    let Some((name, _)) = there else {
        let known = page.back_off(key);
        return known.unwrap_or_else(|| (Phase::Ready, "made when it is first used".to_owned()));
    };
    let containers = page.view.seen.state.containers.values();
    let users = containers.filter(|container| container.volumes.iter().any(|volume| volume.name == *name)).count();
    let used = if users == 0 { "unused".to_owned() } else { format!("used by {users}") };
    let declared = page.view.desired.volumes.contains_key(key);
    (Phase::Ready, if declared { used } else { format!("{used}, kept: no manifest names it") })
}

/// Whether a network is there as it should be, and whether it is wanted.
pub(super) fn network_counts(page: Page<'_>, key: &ObjectKey) -> (u32, u32) {
    let Some(network) = page.view.desired.networks.get(key) else { return (0, 0) };
    let found = page.view.seen.state.networks.get(&network_of(key, network.range.as_ref()));
    (u32::from(found.is_some_and(|found| found.intact)), u32::from(found.is_some()))
}

pub(super) fn network(page: Page<'_>, key: &ObjectKey, network: &DesiredNetwork) -> (Phase, String) {
    let state = &page.view.seen.state;
    let name = network_of(key, network.range.as_ref());
    let Some(found) = state.networks.get(&name) else {
        return (Phase::Ready, "made when it is first used".to_owned());
    };
    let config = &found.config;
    let subnet = runtime::network::ipam::Subnet::containing(config.gateway, config.prefix_len);
    let users = state.containers.values().filter(|c| c.addresses().any(|(on, _)| *on == name)).count();
    let closed = if config.internal { ", internal" } else { "" };
    (Phase::Ready, format!("{subnet}{closed}, used by {users}"))
}
