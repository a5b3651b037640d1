//! What is made from the tables of keys: the page of what is supported, the schemas, `explain`; and that the tables hang
//! together.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value as Json;

use super::super::explain::{explain, fate};
use super::super::keys::{How, Tables};
use super::super::{LoadOptions, yaml};
use super::super::{check, compose, kubernetes, schemas};

const ALL: [&Tables; 2] = [&compose::keys::TABLES, &kubernetes::keys::TABLES];

const HEAD: &str = "# What is honoured of Compose and Kubernetes files\n\n\
    Made from the tables the parsers go by: `UPDATE_SUPPORT=1 cargo test -p controller --lib the_page_of_support`.\n\
    A key that is honoured does what its own documentation says. One that is not is a warning at its place (BX0142), with\n\
    what happens instead; `boxship check --strict` and `boxship up --strict` refuse it. A key that is in no table is an\n\
    error. `boxship explain services.ports` tells the same on the command line.\n";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for tables in ALL {
        let keys = || tables.all.iter().flat_map(|(_, section)| section.keys);
        let honoured = keys().filter(|key| matches!(key.how, How::Honoured)).count();
        let _ = write!(page, "\n## {}\n\n{honoured} of {} keys are honoured.\n", tables.dialect, keys().count());
        for (path, section) in tables.all {
            let name = if path.is_empty() { "the file" } else { path };
            let _ = write!(page, "\n### {name}\n\n| Key | Here |\n|---|---|\n");
            for key in section.keys {
                let _ = writeln!(page, "| `{}` | {} |", key.name, fate(&key.how));
            }
        }
    }
    page
}

#[test]
fn the_page_of_support_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/support.md");
    if std::env::var_os("UPDATE_SUPPORT").is_some() {
        std::fs::write(&path, page()).expect("write the page");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page(), "stale: UPDATE_SUPPORT=1 cargo test -p controller --lib the_page_of_support");
}

/// Every table is below a root, and every link leads to a table.
#[test]
fn tables_hang_together() {
    for tables in ALL {
        let roots: Vec<&str> = tables.all.iter().map(|(path, _)| *path).collect();
        let roots = match tables.dialect {
            "Compose" => vec![""],
            _ => roots.into_iter().filter(|path| kubernetes::kinds().any(|kind| kind == *path)).collect(),
        };
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> = roots;
        while let Some(path) = open.pop() {
            if !seen.insert(path) {
                continue;
            }
            let (_, section) = tables.at(path).expect("listed");
            open.extend(section.keys.iter().filter_map(|key| tables.below(path, key.name)).map(|(_, path, _)| path));
        }
        let lost: Vec<&str> = tables.all.iter().map(|(path, _)| *path).filter(|path| !seen.contains(path)).collect();
        assert_eq!(lost, [""; 0], "{}", tables.dialect);
        for (_, target) in tables.links {
            assert!(tables.all.iter().any(|(path, _)| path == target), "a link to {target}");
        }
    }
}

/// One letter left out, doubled, or swapped with its neighbour: the right key is named.
#[test]
fn slips_in_keys_are_understood() {
    let (mut right, mut all) = (0, 0);
    for (_, section) in ALL.iter().flat_map(|tables| tables.all) {
        for key in section.keys {
            let letters: Vec<char> = key.name.chars().collect();
            for i in 0..letters.len() {
                let mut slips = vec![letters.clone(), letters.clone()];
                slips[0].remove(i);
                slips[1].insert(i, letters[i]);
                if i + 1 < letters.len() {
                    let mut swapped = letters.clone();
                    swapped.swap(i, i + 1);
                    slips.push(swapped);
                }
                for slip in slips.into_iter().map(|slip| slip.into_iter().collect::<String>()) {
                    if section.keys.iter().any(|known| known.name == slip) || slip.is_empty() {
                        continue;
                    }
                    all += 1;
                    let known = section.keys.iter().map(|key| key.name);
                    right += usize::from(crate::text::nearest(&slip, known) == Some(key.name));
                }
            }
        }
    }
    assert!(right * 100 >= all * 95, "{right} of {all}");
}

/// As much of JSON Schema as ours need: paths of the keys that a document may not have.
fn refused(root: &Json, schema: &Json, value: &Json, path: &str, out: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.strip_prefix('#').expect("local")).expect("a definition");
        refused(root, target, value, path, out);
    }
    for branch in schema["allOf"].as_array().into_iter().flatten() {
        if branch["if"]["properties"]["kind"]["const"] == value["kind"] {
            refused(root, &branch["then"], value, path, out);
        }
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        refused(root, &schema["items"], item, &format!("{path}[{i}]"), out);
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (schema["properties"].get(key), &schema["additionalProperties"]) {
            (Some(schema), _) => refused(root, schema, item, &path, out),
            (None, Json::Bool(false)) if !key.starts_with("x-") => out.push(path),
            (None, schema) => refused(root, schema, item, &path, out),
        }
    }
}

/// The schemas refuse what the parsers refuse, and nothing that they take.
#[test]
fn schemas_of_the_dialects_know_the_same_keys() {
    let cases: [(&str, &str, &[&str]); 4] = [
        ("compose.json", include_str!("../../../../examples/compose/compose.yaml"), &[]),
        ("kubernetes.json", include_str!("../../../../examples/kubernetes/guestbook.yaml"), &[]),
        (
            "compose.json",
            "services: {a: {image: i, imagee: j, x-y: 1, ports: [80, {target: 80, tarjet: 1}], deploy: {resources: {limits: {cpu: 1}}}}}\nconfigs: {c: {fil: x}}\n",
            &[
                ".configs.c.fil",
                ".services.a.deploy.resources.limits.cpu",
                ".services.a.imagee",
                ".services.a.ports[1].tarjet",
            ],
        ),
        (
            "kubernetes.json",
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replica: 1, template: {spec: {containers: [{name: c, image: i, startupProbe: {httpGet: {prt: 1}}}]}}}}\n",
            &[".spec.replica", ".spec.template.spec.containers[0].startupProbe.httpGet.prt"],
        ),
    ];
    for (name, text, expected) in cases {
        let schema = schemas().into_iter().find(|(file, _)| file == name).expect("published").1;
        let mut found = Vec::new();
        for document in yaml::parse(text).documents {
            refused(&schema, &schema, &json_of(&document.root), "", &mut found);
        }
        found.sort();
        assert_eq!(found, expected, "{name}: {text}");
    }
}

fn json_of(node: &super::super::tree::Node) -> Json {
    use super::super::tree::Value;
    match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.value))).collect(),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Scalar(scalar) => Json::from(scalar.text.clone()),
        Value::Unknown => Json::Null,
    }
}

#[test]
fn fields_and_codes_are_explained() {
    let name = |what: &str| explain(what).map(|found| found.name).map_err(|unknown| unknown.near);
    let near = |word: &str| Err(Some(word.to_owned()));
    assert_eq!(name("app.healthcheck.http"), Ok("App.healthcheck.http".to_owned()));
    assert_eq!(name("App.ports.publish"), Ok("App.ports.publish".to_owned()));
    assert_eq!(name("job.schedule"), Ok("Job.schedule".to_owned()));
    assert_eq!(name("services.web.ports.target"), Ok("services.*.ports[].target".to_owned()));
    assert_eq!(name("compose.services.restart"), Ok("services.*.restart".to_owned()));
    assert_eq!(
        name("deployment.spec.template.spec.containers.image"),
        Ok("Deployment.spec.template.spec.containers[].image".to_owned())
    );
    assert_eq!(name("Job.spec.backoffLimit"), Ok("Job.spec.backoffLimit".to_owned()));
    assert_eq!(name("app.helthcheck"), near("healthcheck"));
    assert_eq!(name("services.web.prots"), near("ports"));
    assert_eq!(name("deploiment"), near("Deployment"));
    assert!(name("BX00").is_err());
    let labels = explain("services.annotations").expect("a key");
    assert_eq!(labels.about, ["of Compose", "not honoured: nothing here reads it"]);
    let code = explain("bx0104").expect("a code");
    assert!(code.name == "BX0104 (Manifests)" && code.about[0] == "a field that does not exist", "{code:?}");
    // every path that the list names, and every kind and key that is listed below one
    for (part, _) in explain("").expect("the list").parts {
        let found = explain(&part).unwrap_or_else(|unknown| panic!("{part}: {unknown:?}"));
        assert!(!found.about.is_empty());
        for (key, _) in &found.parts {
            let dotted = if part == "compose" { key.clone() } else { format!("{part}.{key}") };
            assert!(explain(&dotted).is_ok(), "{dotted}");
        }
    }
}

/// A key that is not honoured is a warning, and with `--strict` an error.
#[test]
fn strict_refuses_what_is_not_honoured() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("compose.yaml");
    std::fs::write(&path, "services: {a: {image: i, labels: [x=y]}}\n").expect("write");
    let report = || check(std::slice::from_ref(&path), &LoadOptions::default());
    assert_eq!((report().errors(), report().exit_code()), (0, 0));
    assert_eq!((report().strict().errors(), report().strict().exit_code()), (1, super::super::EXIT_INVALID));
    assert_eq!(report().strict().to_json()["errors"], 1);
}
