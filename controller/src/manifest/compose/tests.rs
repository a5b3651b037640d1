//! Compose files to objects: what each honoured key does, what is said about the others, how files join, and that no
//! input does harm.

mod files;
mod keys;
mod said;

use std::collections::BTreeMap;

use crate::manifest::{LoadOptions, Look, load, render_all};
use crate::model::{Diagnostic, Loaded, Object, ObjectSpec};

/// A directory of files, loaded with these variables.
fn load_files(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Loaded {
    let root = tempfile::tempdir().expect("a temporary directory");
    let shop = root.path().join("shop");
    for (name, text) in files {
        let path = shop.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut loaded = load(root.path(), &LoadOptions { variables, ..LoadOptions::default() });
    // What differs from run to run.
    let prefix = format!("{}/", root.path().display());
    for object in &mut loaded.objects {
        if let Some(template) = template(&mut object.spec) {
            for mount in &mut template.mounts {
                if let crate::model::object::MountWhatSpec::Bind(path) = &mut mount.what {
                    *path = path.replace(&prefix, "");
                }
            }
        }
    }
    for diagnostic in &mut loaded.diagnostics {
        diagnostic.what = diagnostic.what.replace(&prefix, "");
    }
    loaded
}

fn load_text(text: &str) -> Loaded {
    load_files(&[("compose.yaml", text)], &[])
}

fn template(spec: &mut ObjectSpec) -> Option<&mut crate::model::object::TemplateSpec> {
    match spec {
        ObjectSpec::App(app) => Some(&mut app.template),
        ObjectSpec::Job(job) => Some(&mut job.template),
        ObjectSpec::Image(_)
        | ObjectSpec::Volume(_)
        | ObjectSpec::Config(_)
        | ObjectSpec::Secret(_)
        | ObjectSpec::Service(_)
        | ObjectSpec::Network(_) => None,
    }
}

/// `CODE line:column suggestion`.
fn line(diagnostic: &Diagnostic) -> String {
    let place = diagnostic.span.as_ref().map_or_else(String::new, |span| format!("{}:{}", span.line, span.column));
    let suggestion = diagnostic.suggestion.as_deref().unwrap_or("");
    let mark = if diagnostic.is_error() { "" } else { "w" };
    format!("{}{mark} {place} {suggestion}", diagnostic.code).trim_end().to_owned()
}

fn said(loaded: &Loaded) -> Vec<String> {
    loaded.diagnostics.iter().map(line).collect()
}

fn shown(loaded: &Loaded) -> String {
    render_all(&loaded.diagnostics, &loaded.sources, &Look::plain(loaded))
}

/// Objects without places, as JSON by key.
fn plain(objects: &[Object]) -> BTreeMap<String, serde_json::Value> {
    objects
        .iter()
        .map(|object| (object.key.to_string(), crate::manifest::tests::without_places(&object.spec)))
        .collect()
}

fn app<'a>(loaded: &'a Loaded, key: &str) -> &'a crate::model::object::AppSpec {
    let found = loaded.objects.iter().find(|object| object.key.to_string() == key);
    match found.map(|object| &object.spec) {
        Some(ObjectSpec::App(app)) => app,
        _ => panic!("no {key} in {:?}\n{}", plain(&loaded.objects).keys(), shown(loaded)),
    }
}
