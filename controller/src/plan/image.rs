//! Images: pulled when something names them, asked for again when followed, held while anything may need them, and
//! removed a day after nothing did. What a container or an undo needs is never removed, whatever the stamps say.

use runtime::image::{Digest, ImageRef};
use runtime::runtime::ImageConfig;

use super::bug::Bug;
use super::pass::{Obstacle, Pass};
use super::template_hash::template_hash;
use super::{Action, Reason, StepId, WaitingOn};
use crate::model::{
    ContainerTemplate, ImageSource, Kind, ObjectKey, ObservedImage, PullPolicy, SourceRef, TemplateHash, needed_images,
};

/// How long an image may go unused before it is removed.
pub const UNUSED_MS: u64 = 24 * 3_600_000;

/// How long an answer of a registry is good enough for `pullPolicy: always`: as long as a new revision needs to be seen
/// after its pull.
const FRESH_MS: u64 = 60_000;

/// Declared images: present, and followed.
pub(super) fn plan_images(pass: &mut Pass<'_>) {
    for (key, image) in &pass.desired.images {
        let Some(found) = pass.observed.images.get(&image.reference) else {
            fetch(pass, image.pull, &image.reference, key, &image.source);
            continue;
        };
        if let Some(follow_ms) = image.follow_ms {
            follow(pass, &image.reference, found, follow_ms, key, &image.source);
        }
    }
}

/// Asks again when so long has passed since it was asked last.
fn follow(
    pass: &mut Pass<'_>,
    reference: &ImageRef,
    found: &ObservedImage,
    every_ms: u64,
    object: &ObjectKey,
    source: &SourceRef,
) {
    let due = match found.checked_boot_ms {
        0 => pass.now(),
        at if at > pass.now() => pass.now(),
        at => at.saturating_add(every_ms),
    };
    let action = Action::PullImage { reference: reference.clone(), refresh: true };
    if due > pass.now() {
        pass.wake(due);
    } else if object.kind != Kind::Image
        && let Some(Obstacle::Wait(WaitingOn::BackOff { until_boot_ms, .. })) = pass.obstacle_of(&action.subject())
    {
        // what runs keeps running: a registry that cannot be reached is no state of it, and the events tell it
        pass.wake(until_boot_ms);
    } else {
        pass.push(action, Some(object), Reason::FollowDue, Some(source), Vec::new());
    }
}

impl<'a> Pass<'a> {
    /// The image of a template, when those of all its members are present too; what is missing is pulled as its policy
    /// says. A tag is resolved once per revision: what a hand did to it on this host since then moves nothing.
    pub(super) fn images_of(
        &mut self,
        template: &'a ContainerTemplate,
        object: &'a ObjectKey,
    ) -> Option<(&'a Digest, &'a ImageConfig)> {
        let mut all_here = true;
        for one in template.all() {
            all_here &= self.image(one, object).is_some();
        }
        let found = self.observed.images.get(&template.image.reference).filter(|_| all_here)?;
        match self.locked(template, object, found) {
            Some(locked) if found.answered.as_ref() != Some(&found.digest) => Some(locked),
            Some(_) => Some((&found.digest, &found.config)),
            None if self.is_scheduled(object) || self.asked_first(template, object) => {
                Some((&found.digest, &found.config))
            }
            None => None,
        }
    }

    /// The image one container's reference leads to now; plans its pull and notes the wait when it is not present.
    pub(super) fn image(
        &mut self,
        template: &ContainerTemplate,
        object: &ObjectKey,
    ) -> Option<(&'a Digest, &'a ImageConfig)> {
        let ImageSource { reference, source } = &template.image;
        let Some(found) = self.observed.images.get(reference) else {
            fetch(self, template.pull, reference, object, source);
            return None;
        };
        if let PullPolicy::Every(every_ms) = template.pull {
            follow(self, reference, found, every_ms, object, source);
        }
        Some((&found.digest, &found.config))
    }

    /// Whether the images of a template's members are present.
    pub(super) fn has_member_images(&self, template: &ContainerTemplate) -> bool {
        template.all().skip(1).all(|member| self.observed.images.contains_key(&member.image.reference))
    }

    /// Whether every image that is always asked for was asked for just now; asks for the others.
    pub(super) fn asked_first(&mut self, template: &'a ContainerTemplate, object: &'a ObjectKey) -> bool {
        let mut is_fresh = true;
        for one in template.all().filter(|one| one.pull == PullPolicy::Always) {
            let ImageSource { reference, source } = &one.image;
            let found = self.observed.images.get(reference).filter(|found| found.answered.is_some());
            let age = found.and_then(|found| self.now().checked_sub(found.checked_boot_ms.max(1)));
            if reference.digest().is_none() && age.is_none_or(|age| age > FRESH_MS) {
                let action = Action::PullImage { reference: reference.clone(), refresh: true };
                self.push(action, Some(object), Reason::AlwaysAsked, Some(source), Vec::new());
                self.wait(object, WaitingOn::Image { reference: reference.clone() });
                is_fresh = false;
            }
        }
        is_fresh
    }

    /// Each run of it is a beginning.
    fn is_scheduled(&self, object: &ObjectKey) -> bool {
        self.desired.jobs.get(object).is_some_and(|job| job.schedule.is_some())
    }

    /// What this template was resolved to when its revision, or its run, began; without that memory its containers tell,
    /// as far as the digest is known to have had this tag.
    fn locked(
        &self,
        template: &ContainerTemplate,
        object: &ObjectKey,
        found: &'a ObservedImage,
    ) -> Option<(&'a Digest, &'a ImageConfig)> {
        let mut made: Vec<&TemplateHash> = Vec::new();
        let mut digests: Vec<&'a Digest> = Vec::new();
        if let Some(last) = self.observed.revisions.get(object).and_then(|revisions| revisions.last()) {
            made.push(&last.template_hash);
            digests.extend((last.template.image.reference == template.image.reference).then_some(&last.image));
        } else if !self.is_scheduled(object) {
            let owned = self.owned.get(object).into_iter().flatten();
            made.extend(owned.map(|(_, container)| &container.template_hash));
            made.extend(self.observed.jobs.get(object).map(|job| &job.template_hash));
            digests.extend(found.previous.iter().map(|previous| &previous.digest));
        }
        let is_made = |digest: &Digest| {
            let hash = template_hash(template, digest);
            made.iter().any(|known| **known == hash)
        };
        if made.is_empty() {
            return None;
        }
        if is_made(&found.digest) {
            return Some((&found.digest, &found.config));
        }
        let digest = digests.into_iter().find(|digest| is_made(digest))?;
        Some((digest, self.images.get(digest).copied()?))
    }
}

/// Makes an image present that is not, unless its policy forbids it.
fn fetch(pass: &mut Pass<'_>, policy: PullPolicy, reference: &ImageRef, object: &ObjectKey, source: &SourceRef) {
    match policy {
        PullPolicy::Missing | PullPolicy::Always | PullPolicy::Every(_) => pull(pass, reference, object, source),
        PullPolicy::Never => pass.wait(object, WaitingOn::AbsentImage { reference: reference.clone() }),
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
    let has_stamp = |image: &ObservedImage| {
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
