//! The JSON Schemas that editors read: one per native kind, and one for compose files and one for Kubernetes objects with
//! what becomes of each key here. `schemas/` holds what this makes, and a test compares.

use serde_json::{Map, Value as Json, json};

use super::keys::{Section, Tables};
use super::{compose, explain, kubernetes, native};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// File name and content of every published schema: one per kind, `boxship.json` that picks by `kind`, and one for each
/// of the other dialects.
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
        "$schema": DRAFT,
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
    all.push(("compose.json".to_owned(), compose_schema()));
    all.push(("kubernetes.json".to_owned(), kubernetes_schema()));
    all
}

fn compose_schema() -> Json {
    json!({
        "$schema": DRAFT,
        "title": "compose file, as boxship reads it",
        "type": "object",
        "$ref": reference(""),
        "$defs": definitions(&compose::keys::TABLES),
    })
}

fn kubernetes_schema() -> Json {
    let branches: Vec<Json> = kubernetes::kinds()
        .map(|kind| {
            json!({
                "if": { "properties": { "kind": { "const": kind } }, "required": ["kind"] },
                "then": { "$ref": reference(kind) },
            })
        })
        .collect();
    json!({
        "$schema": DRAFT,
        "title": "Kubernetes object, as boxship reads it",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "allOf": branches,
        "$defs": definitions(&kubernetes::keys::TABLES),
    })
}

/// The name of a path's definition: what stands for any name or index is left out.
fn definition(path: &str) -> String {
    if path.is_empty() { "file".to_owned() } else { path.replace(".*", "").replace("[]", "") }
}

fn reference(path: &str) -> String {
    format!("#/$defs/{}", definition(path))
}

fn definitions(tables: &'static Tables) -> Map<String, Json> {
    tables.all.iter().map(|(path, section)| (definition(path), mapping(tables, path, section))).collect()
}

/// Only keys are told: a schema says nothing of what is no mapping, so short forms pass as they are.
fn mapping(tables: &'static Tables, path: &str, section: &Section) -> Json {
    let properties = section.keys.iter().map(|key| {
        let mut schema = json!({ "description": explain::fate(&key.how) });
        if let Some((how, listed, _)) = tables.below(path, key.name) {
            let target = json!({ "$ref": reference(listed) });
            match how {
                "[]" => schema["items"] = target,
                ".*" => schema["additionalProperties"] = target,
                _ => schema["$ref"] = Json::from(reference(listed)),
            }
        }
        (key.name.to_owned(), schema)
    });
    json!({
        "properties": properties.collect::<Map<String, Json>>(),
        "patternProperties": { "^x-": {} },
        "additionalProperties": false,
    })
}
