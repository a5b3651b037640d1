//! `kind: Image`.

use super::{Lower, wire};
use crate::manifest::tree::Path;
use crate::model::object::ImageSpec;

/// One earlier digest is held unless the manifest says otherwise: enough to undo the last change without a network.
const KEEP_DEFAULT: u32 = 1;

pub(super) fn lower(lower: &Lower<'_>, image: wire::Image) -> ImageSpec {
    ImageSpec {
        reference: image.reference.0,
        span: Some(lower.span(&Path::default().key("ref"))),
        follow_ms: image.follow.map(|follow| follow.ms),
        keep: image.keep.unwrap_or(KEEP_DEFAULT),
    }
}
