//! `kind: Image`.

use super::{Lower, wire};
use crate::manifest::tree::Path;
use crate::model::object::ImageSpec;
use crate::model::{PullPolicy, codes};

/// One earlier digest is held unless the manifest says otherwise: enough to undo the last change without a network.
const KEEP_DEFAULT: u32 = 1;

pub(super) fn lower(lower: &mut Lower<'_>, image: wire::Image) -> ImageSpec {
    let policy = image.pull_policy.map_or(PullPolicy::Missing, |policy| policy.0);
    let said = |what: &str| format!("`pullPolicy` {what}");
    let (pull, every_ms, wrong) = match (policy, image.follow) {
        (PullPolicy::Missing, _) => (PullPolicy::Missing, None, None),
        (PullPolicy::Never, None) => (PullPolicy::Never, None, None),
        (PullPolicy::Every(ms), None) => (PullPolicy::Missing, Some(ms), None),
        (PullPolicy::Always, _) => (PullPolicy::Missing, None, Some(said("of an Image cannot be `always`"))),
        (PullPolicy::Never | PullPolicy::Every(_), Some(_)) => {
            (PullPolicy::Missing, None, Some(said("and `follow` exclude each other")))
        }
    };
    if let Some(what) = wrong {
        let diagnostic = lower.error(codes::CONFLICT, &Path::default().key("pullPolicy"), what);
        lower.push(diagnostic.help("`follow: 1h` alone asks its registry once an hour"));
    }
    ImageSpec {
        pull,
        reference: image.reference.0,
        span: Some(lower.span(&Path::default().key("ref"))),
        follow_ms: image.follow.map(|follow| follow.ms).or(every_ms),
        keep: image.keep.unwrap_or(KEEP_DEFAULT),
    }
}
