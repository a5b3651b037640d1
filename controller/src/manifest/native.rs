//! The native dialect: `apiVersion: boxship/v1`, flat, the canonical spelling of the model. One file per kind.
//!
//! A document is checked against the schema of its kind as a whole; only one without errors is decoded and lowered.
//! `wire` is what is written, `text` the formats of its scalars. Nothing here reads a file.

mod app;
mod config;
pub(crate) mod dns;
mod image;
mod job;
mod members;
pub(crate) mod network;
pub(crate) mod pull;
pub(crate) mod restart;
mod template;
pub(crate) mod text;
pub(crate) mod tuning;
mod volume;
mod wire;

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::document::Document;
use super::interpolate::interpolate;
use super::shape::{self, Shape, Walk};
use super::tree::{Node, Path, Value};
use super::yaml;
use crate::model::object::SecretSpec;
use crate::model::{Diagnostic, Kind, Object, ObjectKey, ObjectSpec, Span, codes};

/// The version this reads.
pub(crate) const API_VERSION: &str = "boxship/v1";

/// What can be written in this dialect.
pub(crate) const KINDS: [Kind; 7] =
    [Kind::Image, Kind::App, Kind::Job, Kind::Volume, Kind::Network, Kind::Config, Kind::Secret];

/// Kinds of DESIGN §3 that are not built yet.
const LATER: [&str; 2] = ["Source", "Policy"];

/// What lowering needs besides the document.
pub(crate) struct Context<'a> {
    /// For `${VAR}`.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// The directory of the file, absolute: relative paths begin here.
    pub(crate) directory: &'a FilePath,
}

/// The kind as it is written.
pub(crate) fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "Image",
        Kind::App => "App",
        Kind::Job => "Job",
        Kind::Volume => "Volume",
        Kind::Config => "Config",
        Kind::Secret => "Secret",
        Kind::Service => "Service",
        Kind::Network => "Network",
    }
}

/// Whether a text is one of our kinds.
pub(crate) fn is_kind(text: &str) -> bool {
    KINDS.into_iter().any(|kind| title(kind) == text) || LATER.contains(&text)
}

/// The JSON Schema of a kind, as published.
#[must_use]
pub(crate) fn schema(kind: Kind) -> Json {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = match kind {
        Kind::Image => generator.into_root_schema_for::<wire::Image>(),
        Kind::App => generator.into_root_schema_for::<wire::App>(),
        Kind::Job => generator.into_root_schema_for::<wire::Job>(),
        Kind::Volume => generator.into_root_schema_for::<wire::Volume>(),
        Kind::Network => generator.into_root_schema_for::<network::Network>(),
        Kind::Secret => generator.into_root_schema_for::<wire::Secret>(),
        // Not a native kind: nothing asks for its schema.
        Kind::Config | Kind::Service => generator.into_root_schema_for::<wire::Config>(),
    };
    let mut schema = schema.to_value();
    let envelope = [("apiVersion", API_VERSION), ("kind", title(kind))];
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        let own = std::mem::take(properties);
        for (name, word) in envelope {
            properties.insert(name.to_owned(), serde_json::json!({ "type": "string", "const": word }));
        }
        properties.extend(own);
    }
    if let Some(required) = schema.get_mut("required").and_then(Json::as_array_mut) {
        required.splice(0..0, envelope.map(|(name, _)| Json::from(name)));
    }
    schema
}

/// The shape of each kind, compiled once.
fn shape_of(kind: Kind) -> &'static Shape {
    static SHAPES: LazyLock<BTreeMap<Kind, Shape>> =
        LazyLock::new(|| KINDS.into_iter().map(|kind| (kind, shape::compile(&schema(kind)))).collect());
    SHAPES.get(&kind).expect("SHAPES holds every native kind")
}

/// One document becomes one object, or errors.
pub(crate) fn lower(mut document: Document, context: &Context<'_>) -> (Option<Object>, Vec<Diagnostic>) {
    let mut out = Vec::new();
    for problem in std::mem::take(&mut document.problems) {
        out.push(super::document::diagnostic(problem, &document.file));
    }
    let kind = match kind_of(&document) {
        Ok(kind) => kind,
        Err(diagnostic) => {
            out.push(*diagnostic);
            return (None, out);
        }
    };
    let name = document.root.text("name").unwrap_or("").to_owned();
    let key = runtime::id::check_name(&name).ok().map(|()| ObjectKey {
        stack: document.stack.clone(),
        kind,
        name: name.clone(),
    });
    substitute(&mut document.root, kind, context, &document.file, &mut out);
    let object = if name.is_empty() { title(kind).to_owned() } else { format!("{} `{name}`", title(kind)) };
    let mut walk = Walk { file: &document.file, object: &object, out: Vec::new() };
    walk.check(&mut document.root, shape_of(kind), &Path::default());
    out.append(&mut walk.out);
    let lowered = match key.clone() {
        Some(key) if out.is_empty() => build(&document, &key, context, &mut out),
        _ => None,
    };
    for diagnostic in &mut out {
        diagnostic.object = key.clone();
    }
    let whole = !out.iter().any(Diagnostic::is_error);
    (lowered.filter(|_| whole), out)
}

fn kind_of(document: &Document) -> Result<Kind, Box<Diagnostic>> {
    let root = &document.root;
    let at = |extent: super::tree::Extent| extent.in_file(&document.file);
    let Some(version) = root.get("apiVersion") else {
        // Classified as ours by a misspelt key with our value, or by its kind.
        let Some(entry) = super::document::entry_with_our_version(root) else {
            let what = "this object needs a field `apiVersion`";
            let diagnostic = Diagnostic::error(codes::MISSING_FIELD, what).at(at(root.extent));
            return Err(diagnostic.help(format!("apiVersion: {API_VERSION}")).into());
        };
        let what = format!("unknown field `{}`", entry.key);
        let diagnostic = Diagnostic::error(codes::UNKNOWN_FIELD, what).at(at(entry.key_extent));
        return Err(Box::new(diagnostic.suggest(Some("apiVersion".to_owned()))));
    };
    if root.text("apiVersion") != Some(API_VERSION) {
        let what = format!("unknown `apiVersion` {}", version.value);
        let diagnostic = Diagnostic::error(codes::API_VERSION, what).at(at(version.value.extent));
        return Err(Box::new(diagnostic.suggest(Some(API_VERSION.to_owned()))));
    }
    let Some(entry) = root.get("kind") else {
        let Value::Map(entries) = &root.value else { unreachable!("a native document is a mapping") };
        let keys = entries.iter().map(|entry| entry.key.as_str()).filter(|key| *key != "name");
        return Err(Box::new(match crate::text::nearest("kind", keys) {
            Some(near) => {
                let extent = root.get(near).map_or(root.extent, |entry| entry.key_extent);
                let diagnostic = Diagnostic::error(codes::UNKNOWN_FIELD, format!("unknown field `{near}`"));
                diagnostic.at(at(extent)).suggest(Some("kind".to_owned()))
            }
            None => Diagnostic::error(codes::MISSING_FIELD, "this object needs a field `kind`")
                .at(at(version.value.extent))
                .help(format!("kinds are {}", KINDS.map(title).join(", "))),
        }));
    };
    let text = root.text("kind").unwrap_or("");
    if let Some(kind) = KINDS.into_iter().find(|kind| title(*kind) == text) {
        return Ok(kind);
    }
    let place = at(entry.value.extent);
    if LATER.contains(&text) {
        return Err(Diagnostic::error(codes::NOT_YET, format!("kind `{text}` is not supported yet")).at(place).into());
    }
    let near = crate::text::nearest(text, KINDS.map(title)).map(str::to_owned);
    let near = near.or_else(|| foreign_kind(text).map(str::to_owned));
    let diagnostic = Diagnostic::error(codes::KIND, format!("unknown kind {}", entry.value)).at(place).suggest(near);
    Err(diagnostic.note(format!("kinds are {}", KINDS.map(title).join(", "))).into())
}

/// What other tools call it.
fn foreign_kind(text: &str) -> Option<&'static str> {
    match text {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Pod" | "Service" => Some("App"),
        "CronJob" => Some("Job"),
        "ConfigMap" => Some("Config"),
        "PersistentVolumeClaim" | "PersistentVolume" => Some("Volume"),
        _ => None,
    }
}

/// Replaces `${…}` in every value; the content of a Config or Secret is content and stays.
fn substitute(root: &mut Node, kind: Kind, context: &Context<'_>, file: &str, out: &mut Vec<Diagnostic>) {
    let is_content = matches!(kind, Kind::Config | Kind::Secret);
    match &mut root.value {
        Value::Map(entries) => {
            for entry in entries.iter_mut().filter(|entry| !is_content || entry.key != "data") {
                substitute(&mut entry.value, kind, context, file, out);
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| substitute(item, kind, context, file, out)),
        Value::Unknown => {}
        Value::Scalar(scalar) if !scalar.text.contains('$') => {}
        Value::Scalar(scalar) => match interpolate(&scalar.text, context.variables) {
            Ok(text) => scalar.text = text,
            Err(bad) => {
                let quote = usize::from(scalar.style == super::tree::Style::Quoted);
                let one_line = root.extent.line == root.extent.end_line && !scalar.text.contains('\n');
                let in_place = one_line && scalar.style != super::tree::Style::Block;
                // Whatever format it should have had: that it is not set is the one thing to say.
                root.value = Value::Unknown;
                for bad in bad {
                    let place = if in_place { root.extent.part(bad.offset + quote, bad.len) } else { root.extent };
                    let diagnostic = Diagnostic::error(codes::VARIABLE, bad.what).at(place.in_file(file));
                    out.push(if bad.unset {
                        let name = bad.name;
                        diagnostic.help(format!("set it in the environment, or give a default: ${{{name}:-}}"))
                    } else {
                        diagnostic
                    });
                }
            }
        },
    }
}

/// Decodes and lowers what the walk found whole.
fn build(document: &Document, key: &ObjectKey, context: &Context<'_>, out: &mut Vec<Diagnostic>) -> Option<Object> {
    let mut root = document.root.clone();
    if let Value::Map(entries) = &mut root.value {
        entries.retain(|entry| entry.key != "apiVersion" && entry.key != "kind");
    }
    let mut lower = Lower { root: &document.root, file: &document.file, key, context, out, within: None };
    let spec = match key.kind {
        Kind::Image => {
            let image = lower.decode(&root)?;
            ObjectSpec::Image(image::lower(&mut lower, image))
        }
        Kind::Volume => ObjectSpec::Volume(volume::lower(&lower.decode(&root)?)),
        Kind::Network => {
            let network = lower.decode(&root)?;
            ObjectSpec::Network(network::lower(&mut lower, &network)?)
        }
        Kind::Config | Kind::Service => {
            let config = lower.decode(&root)?;
            ObjectSpec::Config(config::lower(&mut lower, config))
        }
        Kind::Secret => {
            let secret: wire::Secret = lower.decode(&root)?;
            let data = config::contents(&mut lower, secret.data);
            ObjectSpec::Secret(SecretSpec { data, binary: std::collections::BTreeSet::new() })
        }
        Kind::App => {
            let app = lower.decode(&root)?;
            ObjectSpec::App(Box::new(app::lower(&mut lower, app)?))
        }
        Kind::Job => {
            let job = lower.decode(&root)?;
            ObjectSpec::Job(Box::new(job::lower(&mut lower, job)?))
        }
    };
    let span = lower.span(&Path::default().key("name"));
    Some(Object { key: key.clone(), span, spec })
}

/// The lowering of one object: its tree for places, and what is wrong.
pub(super) struct Lower<'a> {
    root: &'a Node,
    file: &'a str,
    key: &'a ObjectKey,
    context: &'a Context<'a>,
    out: &'a mut Vec<Diagnostic>,
    /// The place in the document when it is a part of it.
    within: Option<String>,
}

impl Lower<'_> {
    pub(super) fn span(&self, path: &Path) -> Span {
        path.extent(self.root).in_file(self.file)
    }

    /// From the beginning of the last key to the end of its value.
    pub(super) fn entry_span(&self, parent: &Path, key: &str) -> Span {
        let value = self.span(&parent.key(key));
        match parent.node(self.root).get(key).map(|entry| entry.key_extent) {
            Some(extent) if value.end_line == extent.line => Span { column: extent.column, line: extent.line, ..value },
            Some(extent) => extent.in_file(self.file),
            None => value,
        }
    }

    pub(super) fn error(&self, code: &str, path: &Path, what: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, what).at(self.span(path)).of(self.key)
    }

    /// Lowers what is at a place as if it were the whole document.
    pub(super) fn within<T>(&mut self, path: &Path, lower: impl FnOnce(&mut Lower<'_>) -> T) -> T {
        let (root, file, key, context) = (path.node(self.root), self.file, self.key, self.context);
        lower(&mut Lower { root, file, key, context, out: &mut *self.out, within: Some(path.to_string()) })
    }

    /// What is lowered, for messages: `App `web`` or `initContainers[0]`.
    pub(super) fn what(&self) -> String {
        self.within.clone().unwrap_or_else(|| format!("{} `{}`", title(self.key.kind), self.key.name))
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.out.push(diagnostic);
    }

    /// `./a/../b` below the manifest's directory, as an absolute path without `.` and `..`.
    pub(super) fn absolute(&self, path: &str) -> String {
        super::find::normal(&self.context.directory.join(path)).to_string_lossy().into_owned()
    }

    /// A backstop: what the walk lets pass and serde refuses is still an error at its place.
    fn decode<T: serde::de::DeserializeOwned>(&mut self, root: &Node) -> Option<T> {
        match yaml::decode(root) {
            Ok(value) => Some(value),
            Err((path, why)) => {
                let diagnostic = self.error(codes::WRONG_TYPE, &path, format!("`{path}`: {why}"));
                self.push(diagnostic);
                None
            }
        }
    }
}
