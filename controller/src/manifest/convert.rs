//! Manifests of any dialect written in the native one. What is written is read again and compared with what it came
//! from, so that whatever native manifests cannot say is found, and none of it is guessed. Pure but for the load.

mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;

use super::check::{Report, check};
use super::{File, LoadOptions};
use crate::model::{DesiredState, Diagnostic, Loaded, resolve_with};

/// What came of it.
#[derive(Debug, Default)]
pub struct Conversion {
    /// What was said of the originals: what is not honoured there is not in the result either.
    pub report: Report,
    /// A native manifest for each stack; empty when the originals have errors.
    pub files: BTreeMap<String, String>,
    /// What the originals say and the result does not.
    pub lost: Vec<String>,
}

/// Converts a directory or a file.
#[must_use]
pub fn convert(path: &Path, options: &LoadOptions) -> Conversion {
    let report = check(&[path.to_owned()], options);
    if report.errors() > 0 {
        return Conversion { report, ..Conversion::default() };
    }
    let objects: Vec<_> = report.roots.iter().flat_map(|loaded| loaded.objects.clone()).collect();
    let desired = resolve_with(&objects, &DesiredState::default(), &BTreeSet::new()).desired;
    let files = write::files(&desired);
    let lost = match read_again(&files) {
        Ok(again) => differences(&desired, &again),
        Err(error) => vec![format!("the result cannot be read: {error}")],
    };
    Conversion { report, files, lost }
}

fn read_again(files: &BTreeMap<String, String>) -> Result<DesiredState, String> {
    let options = LoadOptions::default();
    let mut loaded = Loaded::default();
    for (stack, text) in files {
        let name = format!("{stack}/boxship.yaml");
        let file = File { name: &name, directory: Path::new("/"), stack: stack.clone(), options: &options };
        file.load(&Ok(text.clone().into_bytes()), &mut loaded);
    }
    let resolution = resolve_with(&loaded.objects, &DesiredState::default(), &BTreeSet::new());
    let mut problems = loaded.diagnostics.into_iter().chain(resolution.diagnostics);
    match problems.find(Diagnostic::is_error) {
        Some(error) => Err(error.what),
        None => Ok(resolution.desired),
    }
}

/// What differs, by object and field.
fn differences(there: &DesiredState, here: &DesiredState) -> Vec<String> {
    let mut out = Vec::new();
    let json = |state: &DesiredState| serde_json::to_value(state).map(without_places).unwrap_or_default();
    let (there, here) = (json(there), json(here));
    for section in ["images", "workloads", "jobs", "volumes", "networks"] {
        for (key, value) in there[section].as_object().into_iter().flatten() {
            match here[section].get(key) {
                None => out.push(format!("{key}: it is not there")),
                Some(other) => difference(key, "", value, other, &mut out),
            }
        }
    }
    out
}

fn difference(key: &str, path: &str, there: &Json, here: &Json, out: &mut Vec<String>) {
    match (there, here) {
        _ if there == here => {}
        (Json::Object(a), Json::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let dot = if path.is_empty() { "" } else { "." };
                let nothing = Json::Null;
                let (a, b) = (a.get(name).unwrap_or(&nothing), b.get(name).unwrap_or(&nothing));
                difference(key, &format!("{path}{dot}{name}"), a, b, out);
            }
        }
        _ => out.push(format!("{key}: `{path}` was {there} and becomes {here}")),
    }
}

/// Without lines and columns, which are other ones.
fn without_places(value: Json) -> Json {
    match value {
        Json::Object(map) if map.contains_key("column") => Json::Null,
        Json::Object(map) => map.into_iter().map(|(key, value)| (key, without_places(value))).collect(),
        Json::Array(items) => items.into_iter().map(without_places).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
