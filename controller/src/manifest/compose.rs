//! The Compose dialect: the files of one project become Apps, Jobs and Volumes of one stack.
//!
//! `project` makes one tree of the files (override, include, extends, variables), `keys` says which keys there are and
//! what becomes of each, `service` lowers one service. Compose's own rules hold: published on every address unless one
//! is written, an unset variable warns and is empty, a finished service is left unless `restart` says otherwise.

mod dotenv;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod interpolate;
pub(crate) mod keys;
mod merge;
mod mounts;
mod networks;
mod ports;
mod project;
mod rollout;
mod service;
mod sharing;
mod tuning;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use project::Project;

use super::keys::{Entries, object_name};
use super::tree::{Entry, Extent, Node};
use crate::model::object::{ObjectSpec, VolumeSpec};
use crate::model::{Diagnostic, Kind, Object, ObjectKey, Span, VolumeAccess, codes};

/// One project to lower.
pub(crate) struct Input<'a> {
    /// The compose file and its override: name relative to the root, text.
    pub(crate) files: &'a [(&'a str, &'a str)],
    /// Their directory, absolute.
    pub(crate) directory: &'a Path,
    /// The stack, unless the file names one.
    pub(crate) stack: &'a str,
    /// The environment, which wins over `.env`.
    pub(crate) variables: &'a BTreeMap<String, String>,
}

/// What a project says.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) objects: Vec<Object>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Files that were read, or would be if they were there.
    pub(crate) file_refs: BTreeSet<String>,
    /// Texts of files besides those of the input, for carets.
    pub(crate) sources: BTreeMap<String, Arc<str>>,
}

/// Lowers one project. Never fails: what is wrong is in the result, and what is whole beside it.
pub(crate) fn lower(input: &Input<'_>) -> Output {
    let mut project = Project::new(input);
    let objects = match project.tree() {
        Some(tree) => objects(&mut project, &tree),
        None => Vec::new(),
    };
    Output { objects, diagnostics: project.reader.out, file_refs: project.file_refs, sources: project.sources }
}

/// What the lowering of each service needs to know of the others.
struct Context<'n> {
    stack: String,
    /// Services that run, by their names in the file.
    active: BTreeMap<&'n str, &'n Entry>,
    /// Those that are there and do not run: their profile was not asked for.
    inactive: BTreeSet<&'n str>,
    /// Services that others wait for until they have completed: Jobs.
    jobs: BTreeSet<&'n str>,
    /// Services in another one's network, with that one.
    hosts: BTreeMap<&'n str, &'n str>,
    /// Further names that other services give a service with `links`.
    aliases: BTreeMap<String, BTreeSet<String>>,
    volumes: &'n [Entry],
    secrets: &'n [Entry],
    configs: &'n [Entry],
    networks: &'n [Entry],
}

impl Context<'_> {
    fn kind_of(&self, service: &str) -> Kind {
        if self.jobs.contains(service) { Kind::Job } else { Kind::App }
    }
}

fn objects(project: &mut Project<'_>, tree: &Node) -> Vec<Object> {
    let top = project.reader.keys(tree, &keys::TOP);
    let Some(stack) = stack(project, &top) else { return Vec::new() };
    let mut section = |key| match top.get(key) {
        Some(node) => project.reader.map(key, node),
        None => &[],
    };
    let (services, volumes, networks) = (section("services"), section("volumes"), section("networks"));
    let (secrets, configs) = (section("secrets"), section("configs"));
    let mut context = Context {
        stack,
        active: BTreeMap::new(),
        inactive: BTreeSet::new(),
        jobs: BTreeSet::new(),
        hosts: BTreeMap::new(),
        aliases: BTreeMap::new(),
        volumes,
        secrets,
        configs,
        networks,
    };
    let profiles = project.variables.get("COMPOSE_PROFILES").cloned().unwrap_or_default();
    let profiles: BTreeSet<&str> = profiles.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for entry in services {
        let wanted = entry.value.get("profiles").map(|entry| project.reader.texts("profiles", &entry.value));
        let wanted = wanted.unwrap_or_default();
        let active = wanted.is_empty() || wanted.iter().any(|name| profiles.contains(name.as_str()));
        if active || profiles.contains("*") {
            context.active.insert(&entry.key, entry);
        } else {
            context.inactive.insert(&entry.key);
        }
    }
    service::note_relations(&mut context);
    sharing::note(&mut context);
    let mut objects: Vec<Object> = volumes.iter().filter_map(|entry| volume(project, &context, entry)).collect();
    objects.extend(secrets.iter().filter_map(|entry| mounts::secret(project, &context, entry)));
    objects.extend(networks.iter().filter_map(|entry| networks::lower(project, &context, entry)));
    for (name, entry) in &context.active {
        objects.extend(service::lower(project, &context, name, entry));
    }
    project.reader.object = None;
    mounts::check_unused(project, &context);
    sharing::join(project, &context, objects)
}

/// The stack: `name`, else `COMPOSE_PROJECT_NAME`, else what the directory gives.
fn stack(project: &mut Project<'_>, top: &Entries<'_>) -> Option<String> {
    let (written, extent) = match top.get("name") {
        Some(node) => (project.reader.text("name", node)?, Some(node.extent)),
        None => (project.variables.get("COMPOSE_PROJECT_NAME").cloned().unwrap_or_default(), None),
    };
    if written.is_empty() {
        return match runtime::id::check_name(project.input.stack) {
            Ok(()) => Some(project.input.stack.to_owned()),
            Err(error) => {
                let what = format!("directory `{}` cannot be a stack: {}", project.input.stack, error.why);
                let file = project.input.files.first().map_or("", |(name, _)| name);
                let diagnostic = Diagnostic::error(codes::STACK, what).at(Span::file(file));
                project.reader.push(diagnostic.help("write `name: NAME` at the top of the file"));
                None
            }
        };
    }
    let is_project = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name = object_name(&written);
    if written.chars().all(is_project) && !name.is_empty() {
        return Some(name);
    }
    let extent = extent.unwrap_or(Extent { line: 1, column: 1, end_line: 1, end_column: 1, file: 0 });
    let what = format!("{written:?} is not the name of a project: a-z, 0-9, `-` and `_`");
    let diagnostic = Diagnostic::error(codes::NAME, what).at(project.reader.span(extent));
    project.reader.push(diagnostic.suggest(Some(name).filter(|name| !name.is_empty())));
    None
}

fn volume(project: &mut Project<'_>, context: &Context<'_>, entry: &Entry) -> Option<Object> {
    let key = key(project, context, Kind::Volume, entry)?;
    let before = project.reader.errors();
    project.reader.keys(&entry.value, &keys::VOLUME);
    let whole = project.reader.errors() == before;
    let spec = ObjectSpec::Volume(VolumeSpec { access: VolumeAccess::Any });
    whole.then(|| Object { key, span: place(project, entry.key_extent), spec })
}

/// The key of an object, which is then the one that is read.
fn key(project: &mut Project<'_>, context: &Context<'_>, kind: Kind, entry: &Entry) -> Option<ObjectKey> {
    let name = object_name(&entry.key);
    // As compose-spec's schema: what else is in it would be in names of DNS.
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if runtime::id::check_name(&name).is_err() || !entry.key.chars().all(is_letter) {
        project.reader.object = None;
        let what = format!("{:?} is not a name: letters, digits, `-`, `_` and `.`", entry.key);
        project.reader.error(codes::NAME, entry.key_extent, what);
        return None;
    }
    let key = ObjectKey { stack: context.stack.clone(), kind, name };
    project.reader.object = Some(key.clone());
    Some(key)
}

/// Where an object is written. It has to be in a file of the project's directory, since what a broken file defined is
/// kept by the file's name: what comes from elsewhere counts as written at the beginning of the compose file.
fn place(project: &Project<'_>, extent: Extent) -> Span {
    let own = project.input.files.len();
    let file = if usize::from(extent.file) < own { project.reader.files.get(usize::from(extent.file)) } else { None };
    match (file, project.input.files.first()) {
        (Some(name), _) => extent.in_file(name),
        (None, Some((name, _))) => Span::file(*name),
        (None, None) => Span::file(""),
    }
}

/// A mapping's value under a key, for what is looked at before it is checked.
fn peek<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    node.get(key).map(|entry| &entry.value)
}

#[cfg(test)]
mod tests;
