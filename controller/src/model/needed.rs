//! Which images must stay. Asked by the planner, which removes none of them, and by whoever observes, who notes since when
//! the others are unused. Pure.

use std::collections::{BTreeMap, BTreeSet};

use runtime::image::{Digest, ImageRef};

use super::{DesiredState, ObjectKey, ObservedImage, Revision, RevisionResult, Template};

/// Good revisions an undo may go back to, the one that serves among them.
const GOOD_MAX: u32 = 2;

/// What must stay: references that objects name, and digests that containers (`users`), declared history or an undo need.
#[must_use]
pub fn needed_images<'a>(
    desired: &'a DesiredState,
    images: &'a BTreeMap<ImageRef, ObservedImage>,
    users: impl Iterator<Item = &'a Digest>,
    revisions: &'a BTreeMap<ObjectKey, Vec<Revision>>,
) -> (BTreeSet<&'a ImageRef>, BTreeSet<&'a Digest>) {
    let mut references: BTreeSet<_> = desired.images.values().map(|image| &image.reference).collect();
    let templates = desired.workloads.values().map(|app| &app.template);
    let templates = templates.chain(desired.jobs.values().map(|job| &job.template));
    references.extend(templates.flat_map(Template::all).map(|template| &template.image.reference));
    let mut digests: BTreeSet<_> = users.collect();
    for (_, revisions) in revisions.iter().filter(|(key, _)| desired.workloads.contains_key(*key)) {
        let mut good = 0;
        for revision in revisions.iter().rev() {
            if good == GOOD_MAX {
                break;
            }
            digests.insert(&revision.image);
            references.extend(revision.template.all().skip(1).map(|member| &member.image.reference));
            good += u32::from(revision.result == RevisionResult::Ready);
        }
    }
    for image in desired.images.values() {
        let keep = usize::try_from(image.keep).unwrap_or(usize::MAX);
        let previous = images.get(&image.reference).map_or(&[][..], |found| &found.previous);
        digests.extend(previous.iter().take(keep).map(|previous| &previous.digest));
    }
    (references, digests)
}
