//! `schemas/` is what the wire structs say; every field is described; the example of the design fits its schema.

use std::path::Path;

use serde_json::Value as Json;

use super::super::schemas;

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

#[test]
fn published_schemas_are_fresh() {
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    let mut stale = Vec::new();
    for (name, schema) in schemas() {
        let path = directory().join(&name);
        let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        if update {
            std::fs::create_dir_all(directory()).expect("the directory");
            std::fs::write(&path, &text).expect("write the schema");
        }
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            stale.push(name);
        }
    }
    assert_eq!(stale, [""; 0], "stale: UPDATE_SCHEMAS=1 cargo test -p controller --lib published_schemas");
}

#[test]
fn nothing_else_lies_in_schemas() {
    let known: Vec<String> = schemas().into_iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(directory()).expect("schemas/ exists") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(known.contains(&name) || name == "README.md", "{name} is not one of ours");
    }
}

#[test]
fn every_field_is_described_for_editors() {
    fn walk(schema: &Json, path: &str, bare: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let said = field.get("description").is_some() || field.get("const").is_some();
            if !said {
                bare.push(format!("{path}.{name}"));
            }
        }
        for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
            walk(definition, name, bare);
        }
    }
    let mut bare = Vec::new();
    for (name, schema) in schemas().iter().filter(|(name, _)| name != "boxship.json") {
        walk(schema, name, &mut bare);
    }
    assert_eq!(bare, [""; 0]);
}
