//! What a host is to hold of images, and when a registry is asked for one.

use runtime::image::ImageRef;
use serde::{Deserialize, Serialize};

use crate::model::SourceRef;

/// An `Image` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredImage {
    /// Where it is written.
    pub source: SourceRef,
    /// What to hold.
    pub reference: ImageRef,
    /// Ask the registry again this often; `None`: the first answer is locked.
    pub follow_ms: Option<u64>,
    /// Earlier digests held for an offline undo.
    pub keep: u32,
    /// Whether it may be fetched at all.
    #[serde(default, skip_serializing_if = "PullPolicy::is_default")]
    pub pull: PullPolicy,
}

/// When a registry is asked for an image. A tag is resolved once per revision: none of these replaces what runs when a
/// container is made again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PullPolicy {
    /// When it is not here.
    #[default]
    Missing,
    /// Also when a revision begins, or a scheduled run; without an answer it does not begin.
    Always,
    /// Also when it was not asked for so long, in milliseconds; the tag is followed.
    Every(u64),
    /// Never: it has to be here.
    Never,
}

impl PullPolicy {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::Missing
    }
}
