//! The JSON Schemas that editors read, one per kind; `schemas/` holds what this makes, and a test compares.

use serde_json::{Value as Json, json};

use super::native;

/// File name and content of every published schema: one per kind, and `boxship.json` that picks by `kind`.
#[must_use]
pub fn schemas() -> Vec<(String, Json)> {
    let mut all: Vec<(String, Json)> =
        native::KINDS.iter().map(|kind| (format!("{kind}.json"), native::schema(*kind))).collect();
    let branches = native::KINDS.map(|kind| {
        json!({
            "if": { "properties": { "kind": { "const": native::title(kind) } }, "required": ["kind"] },
            "then": { "$ref": format!("{kind}.json") },
        })
    });
    let any = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "boxship manifest",
        "type": "object",
        "required": ["apiVersion", "kind", "name"],
        "properties": {
            "apiVersion": { "const": native::API_VERSION },
            "kind": { "enum": native::KINDS.map(native::title) },
        },
        "allOf": branches,
    });
    all.push(("boxship.json".to_owned(), any));
    all
}
