//! One slip in the name of any field of any kind: BX0104 at the right place, and nearly always the right suggestion.

use std::collections::BTreeSet;

use super::super::native::schema;
use super::super::{LoadOptions, load};
use crate::model::{Diagnostic, Kind};

/// Every field of every kind in a manifest that has it, with what stands before the field's name.
const HOSTS: [(Kind, &str, &str); 11] = [
    (Kind::Image, "", "ref: a\n"),
    (Kind::App, "", ""),
    (Kind::Job, "", ""),
    (Kind::Volume, "", ""),
    (Kind::Config, "", ""),
    (Kind::App, "Mount", "mounts:\n- "),
    (Kind::App, "Resources", "resources:\n  "),
    (Kind::App, "Healthcheck", "healthcheck:\n  "),
    (Kind::App, "Strategy", "strategy:\n  "),
    (Kind::App, "Security", "security:\n  "),
    (Kind::App, "Port", "ports:\n- "),
];

fn fields(kind: Kind, definition: &str) -> Vec<String> {
    let schema = schema(kind);
    let object = if definition.is_empty() { &schema } else { &schema["$defs"][definition] };
    let properties = object["properties"].as_object().unwrap_or_else(|| panic!("{definition} in {kind}"));
    properties.keys().cloned().collect()
}

/// A letter left out, doubled, or swapped with the next.
fn slips(word: &str) -> BTreeSet<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut slips = BTreeSet::new();
    for i in 0..letters.len() {
        let mut without = letters.clone();
        without.remove(i);
        slips.insert(without.iter().collect::<String>());
        let mut doubled = letters.clone();
        doubled.insert(i, letters[i]);
        slips.insert(doubled.iter().collect());
        if i + 1 < letters.len() {
            let mut swapped = letters.clone();
            swapped.swap(i, i + 1);
            slips.insert(swapped.iter().collect());
        }
    }
    slips.remove(word);
    slips.remove("");
    slips
}

#[test]
fn a_slip_is_placed_and_understood() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("a.yaml");
    let (mut cases, mut right) = (0u32, 0u32);
    let mut missed = Vec::new();
    for (kind, definition, before) in HOSTS {
        let known = fields(kind, definition);
        for field in known.iter().filter(|field| !["apiVersion", "kind"].contains(&field.as_str())) {
            for slip in slips(field).into_iter().filter(|slip| !known.contains(slip)) {
                let kind_name = super::super::native::title(kind);
                let prefix = if definition.is_empty() { before } else { "" };
                let host = if definition.is_empty() { "" } else { before };
                let head = format!("apiVersion: boxship/v1\nkind: {kind_name}\n{prefix}");
                let named = if field == "name" { String::new() } else { "name: x\n".to_owned() };
                let text = format!("{head}{named}{host}{slip}: 1\n");
                std::fs::write(&path, &text).expect("a file");
                let loaded = load(&path, &LoadOptions::default());
                let at = text.rfind(&format!("{slip}: 1")).expect("it is in there");
                let line = text[..at].matches('\n').count() + 1;
                let column = text[..at].rsplit('\n').next().map_or(0, str::len) + 1;
                let here = |d: &&Diagnostic| {
                    let place = d.span.as_ref().map(|span| (span.line as usize, span.column as usize));
                    d.code == "BX0104" && place == Some((line, column))
                };
                let found = loaded.diagnostics.iter().find(here);
                let found = found.unwrap_or_else(|| panic!("{text}\n{:#?}", loaded.diagnostics));
                assert!(loaded.objects.is_empty(), "{text}");
                cases += 1;
                if found.suggestion.as_deref() == Some(field.as_str()) {
                    right += 1;
                } else {
                    missed.push(format!("{slip} -> {:?}, meant {field}", found.suggestion));
                }
            }
        }
    }
    assert!(cases > 1_000, "only {cases} cases");
    assert!(f64::from(right) >= 0.95 * f64::from(cases), "{right} of {cases} right; missed: {missed:#?}");
}

#[test]
fn a_slip_in_the_envelope_is_understood() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("a.yaml");
    for (field, value) in [("apiVersion", "boxship/v1"), ("kind", "Volume")] {
        for slip in slips(field) {
            let other = if field == "kind" { "apiVersion: boxship/v1" } else { "kind: Volume" };
            std::fs::write(&path, format!("name: x\n{slip}: {value}\n{other}\n")).expect("a file");
            let loaded = load(&path, &LoadOptions::default());
            let [diagnostic] = loaded.diagnostics.as_slice() else { panic!("{slip}: {:#?}", loaded.diagnostics) };
            assert_eq!((diagnostic.code.as_str(), diagnostic.suggestion.as_deref()), ("BX0104", Some(field)), "{slip}");
            assert_eq!(diagnostic.span.as_ref().map(|span| (span.line, span.column)), Some((2, 1)));
        }
    }
}
