//! Tests of loading: the example of the design, goldens of diagnostics, typos, bytes at random, other people's files,
//! published schemas.

mod corpus;
pub(in crate::manifest) mod design;
mod goldens;
mod random;
mod schemas;
mod tables;
mod typos;

use serde_json::Value as Json;

use crate::model::ObjectSpec;

/// What an object says, without where it says so.
pub(super) fn without_places(spec: &ObjectSpec) -> Json {
    fn strip(value: Json) -> Json {
        match value {
            Json::Object(map) if map.contains_key("end_column") => Json::Null,
            Json::Object(map) => map.into_iter().map(|(key, value)| (key, strip(value))).collect(),
            Json::Array(items) => items.into_iter().map(strip).collect(),
            other => other,
        }
    }
    strip(serde_json::to_value(spec).expect("a spec is data"))
}
