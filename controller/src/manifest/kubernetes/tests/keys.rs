//! Each key that the tables call honoured does something: without it, or with another value, the model or what is said
//! is another one.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::{load_files, without_places};
use crate::manifest::keys::How;
use crate::manifest::kubernetes::keys::TABLES;
use crate::model::resolve;

/// Keys that are there to be checked: seen with a value that does not fit.
const CHECKED: &[&str] = &["selector", "matchLabels", "matchExpressions", "serviceName"];

/// Keys that say which table it is.
const CHOOSING: &[&str] = &["apiVersion", "kind"];

/// Objects that have every honoured key between them.
const OBJECTS: &str = include_str!("objects.json");

/// What comes of it, without places.
fn effect(document: &Json) -> Json {
    let loaded = load_files(&[("a.yaml", &document.to_string())]);
    let said: BTreeSet<(String, String)> =
        loaded.diagnostics.iter().map(|d| (d.code.clone(), d.what.clone())).collect();
    let specs: Vec<Json> = loaded.objects.iter().map(|o| json!([o.key.to_string(), without_places(&o.spec)])).collect();
    let (desired, problems) = resolve(loaded.objects);
    let problems: Vec<String> = problems.into_iter().map(|d| d.what).collect();
    json!([said, specs, desired.workloads.len(), problems])
}

/// Every key of every mapping of a document: its table, its name, and where it is.
fn keys(value: &Json, path: &str, pointer: &str, out: &mut Vec<(&'static str, String, String)>) {
    let Some((listed, _)) = TABLES.at(path) else { return };
    for (key, below) in value.as_object().into_iter().flatten() {
        let pointer = format!("{pointer}/{key}");
        out.push((listed, key.clone(), pointer.clone()));
        let Some((how, _, _)) = TABLES.below(listed, key) else { continue };
        let path = format!("{listed}.{key}{how}");
        match below.as_array() {
            Some(items) => {
                for (i, item) in items.iter().enumerate() {
                    keys(item, &path, &format!("{pointer}/{i}"), out);
                }
            }
            None => keys(below, &path, &pointer, out),
        }
    }
}

fn changed(document: &Json, pointer: &str, value: Option<Json>) -> Json {
    let mut document = document.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let map = document.pointer_mut(parent).and_then(Json::as_object_mut).expect("a mapping");
    match value {
        Some(value) => drop(map.insert(key.to_owned(), value)),
        None => drop(map.remove(key)),
    }
    document
}

#[test]
fn every_honoured_key_does_something() {
    let mut seen: BTreeSet<(&str, String)> = BTreeSet::new();
    let mut inert: BTreeSet<(&str, String)> = BTreeSet::new();
    let objects: Vec<Json> = serde_json::from_str(OBJECTS).expect("JSON");
    for document in objects {
        let before = effect(&document);
        let mut found = Vec::new();
        match document["items"].as_array() {
            Some(items) => items.iter().enumerate().for_each(|(i, item)| {
                keys(item, item["kind"].as_str().unwrap_or(""), &format!("/items/{i}"), &mut found);
            }),
            None => keys(&document, document["kind"].as_str().unwrap_or(""), "", &mut found),
        }
        for (table, key, pointer) in found {
            let other = if key == "selector" { json!({"matchLabels": {"app": "other"}}) } else { json!([["no"]]) };
            let checked = CHECKED.contains(&key.as_str()).then_some(other);
            if effect(&changed(&document, &pointer, checked)) == before {
                inert.insert((table, key));
            } else {
                seen.insert((table, key));
            }
        }
    }
    let mut failed = Vec::new();
    for (table, section) in TABLES.all {
        let honoured = section.keys.iter().filter(|key| matches!(key.how, How::Honoured));
        for key in honoured.filter(|key| !CHOOSING.contains(&key.name)) {
            let name = (*table, key.name.to_owned());
            if !seen.contains(&name) {
                failed.push(format!(
                    "`{table}` `{}`: {}",
                    key.name,
                    if inert.contains(&name) { "changes nothing" } else { "no example" }
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
