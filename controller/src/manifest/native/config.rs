//! `kind: Config`, and the content of a `kind: Secret`.

use std::collections::BTreeMap;

use super::text::AnyScalar;
use super::{Lower, wire};
use crate::manifest::format::{Format as _, ShortOr};
use crate::manifest::tree::Path;
use crate::model::object::{ConfigSpec, FileContent};

pub(super) fn lower(lower: &mut Lower<'_>, config: wire::Config) -> ConfigSpec {
    ConfigSpec { data: contents(lower, config.data) }
}

/// Content by key, as a Config and a Secret have it.
pub(super) fn contents(
    lower: &mut Lower<'_>,
    wire: BTreeMap<String, ShortOr<AnyScalar, wire::FromFile>>,
) -> BTreeMap<String, FileContent> {
    let mut data = BTreeMap::new();
    for (key, content) in wire {
        let path = Path::default().key("data").key(&key);
        if let Err(bad) = super::text::FileName::parse(&key) {
            let place = lower.entry_span(&Path::default().key("data"), &key);
            let diagnostic = lower.error(bad.code, &path, bad.what).at(place);
            lower.push(diagnostic);
        }
        let span = lower.span(&path);
        let content = match content {
            ShortOr::Short(text) => FileContent { path: None, bytes: text.0.into_bytes().into(), span },
            ShortOr::Long(from) => {
                FileContent { path: Some(lower.absolute(&from.file.0)), bytes: Vec::new().into(), span }
            }
        };
        data.insert(key, content);
    }
    data
}
