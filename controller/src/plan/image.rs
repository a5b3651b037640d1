//! Images: pulled when something names them, asked for again when followed, held while anything may need them, and
//! removed a day after nothing did. What a container or an undo needs is never removed, whatever the stamps say.

use runtime::image::{Digest, ImageRef};
use runtime::runtime::ImageConfig;

use super::bug::Bug;
use super::pass::Pass;
use super::{Action, Reason, StepId, WaitingOn};
use crate::model::{ContainerTemplate, ObjectKey, SourceRef, needed_images};

/// How long an image may go unused before it is removed.
pub const UNUSED_MS: u64 = 24 * 3_600_000;

/// Declared images: present, and followed.
pub(super) fn plan_images(pass: &mut Pass<'_>) {
    for (key, image) in &pass.desired.images {
        let Some(found) = pass.observed.images.get(&image.reference) else {
            pull(pass, &image.reference, key, &image.source);
            continue;
        };
        let Some(follow_ms) = image.follow_ms else { continue };
        let due = match found.checked_boot_ms {
            0 => pass.now(),
            at if at > pass.now() => pass.now(),
            at => at.saturating_add(follow_ms),
        };
        if due <= pass.now() {
            let action = Action::PullImage { reference: image.reference.clone(), refresh: true };
            pass.push(action, Some(key), Reason::FollowDue, Some(&image.source), Vec::new());
        } else {
            pass.wake(due);
        }
    }
}

impl<'a> Pass<'a> {
    /// The image an object runs; plans its pull and notes the wait when it is not present.
    pub(super) fn image(
        &mut self,
        reference: &'a ImageRef,
        object: &'a ObjectKey,
        source: &'a SourceRef,
    ) -> Option<(&'a Digest, &'a ImageConfig)> {
        if let Some(found) = self.observed.images.get(reference) {
            return Some((&found.digest, &found.config));
        }
        pull(self, reference, object, source);
        None
    }
}

impl<'a> Pass<'a> {
    /// The image of a template, when those of all its members are present too; what is missing is pulled.
    pub(super) fn images_of(
        &mut self,
        template: &'a ContainerTemplate,
        object: &'a ObjectKey,
    ) -> Option<(&'a Digest, &'a ImageConfig)> {
        let mut found = self.image(&template.image.reference, object, &template.image.source);
        for member in template.all().skip(1) {
            found = self.image(&member.image.reference, object, &member.image.source).and(found);
        }
        found
    }

    /// Whether the images of a template's members are present.
    pub(super) fn has_member_images(&self, template: &ContainerTemplate) -> bool {
        template.all().skip(1).all(|member| self.observed.images.contains_key(&member.image.reference))
    }
}

fn pull(pass: &mut Pass<'_>, reference: &ImageRef, object: &ObjectKey, source: &SourceRef) {
    let action = Action::PullImage { reference: reference.clone(), refresh: false };
    pass.push(action, Some(object), Reason::Missing, Some(source), Vec::new());
    pass.wait(object, WaitingOn::Image { reference: reference.clone() });
}

/// Removes what nothing has needed for a day. While anything is held, nothing is removed: what it needs is not known.
pub(super) fn remove_images(pass: &mut Pass<'_>) {
    if !pass.desired.holds.is_empty() {
        return;
    }
    let observed = pass.observed;
    let has_stamp = |image: &crate::model::ObservedImage| {
        image.unused_since_boot_ms.is_some() || image.previous.iter().any(|p| p.unused_since_boot_ms.is_some())
    };
    let careless = pass.has_bug(Bug::NeededImageCollected);
    if !observed.images.values().any(has_stamp) && !careless {
        return;
    }
    let users = observed.containers.values().flat_map(|container| container.images());
    let (references, mut digests) = needed_images(pass.desired, &observed.images, users, &observed.revisions);
    if careless {
        digests.clear();
    }
    for (reference, image) in &observed.images {
        let mut after = Vec::new();
        for previous in image.previous.iter().filter(|previous| !digests.contains(&previous.digest)) {
            let since = if careless { Some(0) } else { previous.unused_since_boot_ms };
            after.extend(remove_when_due(pass, reference.at(previous.digest.clone()), since, Vec::new()));
        }
        // The reference goes last: earlier digests are known by it.
        let is_last = after.len() == image.previous.len();
        if is_last && !references.contains(reference) && !digests.contains(&image.digest) {
            let since = if careless { Some(0) } else { image.unused_since_boot_ms };
            remove_when_due(pass, reference.clone(), since, after);
        }
    }
}

fn remove_when_due(
    pass: &mut Pass<'_>,
    reference: ImageRef,
    unused_since_boot_ms: Option<u64>,
    after: Vec<StepId>,
) -> Option<StepId> {
    let due = unused_since_boot_ms?.saturating_add(UNUSED_MS);
    if due <= pass.now() || pass.has_bug(Bug::NeededImageCollected) {
        return pass.push(Action::RemoveImage { reference }, None, Reason::Unused, None, after);
    }
    pass.wake(due);
    None
}
