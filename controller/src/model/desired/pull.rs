//! When a registry is asked for an image.

use serde::{Deserialize, Serialize};

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
