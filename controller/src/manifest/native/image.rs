//! `kind: Image`.

use super::wire;
use crate::model::object::ImageSpec;

/// One earlier digest is held unless the manifest says otherwise: enough to undo the last change without a network.
const KEEP_DEFAULT: u32 = 1;

pub(super) fn lower(image: wire::Image) -> ImageSpec {
    ImageSpec {
        reference: image.reference.0,
        follow_ms: image.follow.map(|follow| follow.ms),
        keep: image.keep.unwrap_or(KEEP_DEFAULT),
    }
}
