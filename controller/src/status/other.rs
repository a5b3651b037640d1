//! Where images and volumes are.

use super::Page;
use crate::api::types::Phase;
use crate::model::{DesiredImage, ObjectKey};

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
