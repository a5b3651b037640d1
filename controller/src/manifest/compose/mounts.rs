//! `volumes`, `tmpfs`, `secrets` and `configs` of a service.

use std::collections::BTreeSet;
use std::path::Path;

use super::project::Project;
use super::{Context, keys, rollout};
use crate::manifest::format::Format;
use crate::manifest::keys::{Entries, engine_socket, object_name};
use crate::manifest::native::text::{ContainerPath, FileMode};
use crate::manifest::tree::{Entry, Extent, Node, Value};
use crate::model::object::{FileContent, MountSpec, MountWhatSpec, SecretSpec};
use crate::model::{Diagnostic, Kind, Object, ObjectSpec, OnChange, codes};

/// The key under which the Secret of a compose file has its value.
const SECRET_KEY: &str = "value";

/// Docker's own.
const SECRET_MODE: u32 = 0o444;

/// One mount before its place is checked.
struct Draft {
    target: String,
    what: MountWhatSpec,
    read_only: bool,
    extent: Extent,
}

pub(super) fn lower(project: &mut Project<'_>, context: &Context<'_>, service: &Entries<'_>) -> Vec<MountSpec> {
    let mut drafts = Vec::new();
    if let Some(node) = service.get("volumes") {
        for item in project.reader.list("volumes", node) {
            drafts.extend(if item.is_map() {
                long(project, context, item)
            } else {
                project.reader.text("volumes", item).and_then(|text| short(project, context, &text, item.extent))
            });
        }
    }
    if let Some(node) = service.get("tmpfs") {
        for item in node.one_or_more() {
            let Some(text) = project.reader.text("tmpfs", item) else { continue };
            drafts.push(tmpfs(project, &text, item));
        }
    }
    let mut mounts: Vec<MountSpec> = Vec::new();
    for draft in drafts {
        let span = project.reader.span(draft.extent);
        match ContainerPath::parse(&draft.target) {
            Ok(path) => mounts.push(MountSpec {
                path: path.0,
                what: draft.what,
                read_only: draft.read_only,
                on_change: OnChange::None,
                mode: 0o644,
                span,
            }),
            Err(bad) => project.reader.bad("volumes", bad, draft.extent),
        }
    }
    for (key, list, directory) in [("secrets", context.secrets, "/run/secrets/"), ("configs", context.configs, "/")] {
        if let Some(node) = service.get(key) {
            for item in project.reader.list(key, node) {
                mounts.extend(content(project, key, list, directory, item));
            }
        }
    }
    // What is mounted later at the same place wins, as in Compose.
    let mut kept: Vec<MountSpec> = Vec::new();
    for mount in mounts {
        kept.retain(|known| known.path != mount.path);
        kept.push(mount);
    }
    kept
}

/// `[SOURCE:]TARGET[:MODES]`.
fn short(project: &mut Project<'_>, context: &Context<'_>, text: &str, extent: Extent) -> Option<Draft> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, modes) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, modes] => (Some(*source), *target, *modes),
        _ => {
            let what = format!("expected SOURCE:TARGET[:MODE], found {text:?}");
            project.reader.error(codes::MOUNT, extent, what);
            return None;
        }
    };
    let mut read_only = false;
    for mode in modes.split(',').filter(|mode| !mode.is_empty()) {
        match mode {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "private" | "rprivate" => {}
            "nocopy" => project.reader.not_honoured(extent, "`nocopy`", "an empty volume is filled from the image"),
            other => project.reader.not_honoured(extent, &format!("the mount mode `{other}`"), "it is not known here"),
        }
    }
    let what = match source {
        None => MountWhatSpec::Anonymous,
        Some(source) if source.starts_with(['.', '/', '~']) => bind(project, source, extent, true)?,
        Some(source) => named(project, context, source, extent)?,
    };
    Some(Draft { target: target.to_owned(), what, read_only, extent })
}

fn long(project: &mut Project<'_>, context: &Context<'_>, item: &Node) -> Option<Draft> {
    let found = project.reader.keys(item, &keys::VOLUME_MOUNT);
    let read_only = found.get("read_only").is_some_and(|node| project.reader.flag("read_only", node));
    let mut text = |key| found.get(key).and_then(|node| project.reader.text(key, node));
    let (kind, source, target) = (text("type"), text("source"), text("target"));
    let Some(target) = target else {
        project.reader.error(codes::MISSING_FIELD, item.extent, "a volume needs a key `target`");
        return None;
    };
    let bind_options = found.get("bind").map(|node| project.reader.keys(node, &keys::BIND));
    if let Some(node) = found.get("volume") {
        project.reader.keys(node, &keys::VOLUME_OPTIONS);
    }
    let tmpfs_options = found.get("tmpfs").map(|node| project.reader.keys(node, &keys::TMPFS));
    let source_extent = found.get("source").map_or(item.extent, |node| node.extent);
    let what = match (kind.as_deref(), source) {
        (Some("bind"), Some(source)) => {
            let made = bind_options.and_then(|options| options.get("create_host_path"));
            let made = made.is_some_and(|node| project.reader.flag("create_host_path", node));
            bind(project, &source, source_extent, made)?
        }
        (Some("volume"), Some(source)) => named(project, context, &source, source_extent)?,
        (Some("volume"), None) => MountWhatSpec::Anonymous,
        (Some("tmpfs"), _) => {
            let size = tmpfs_options.and_then(|options| options.get("size"));
            MountWhatSpec::Tmpfs { size_bytes: size.and_then(|node| rollout::bytes(project, "size", node)) }
        }
        (Some("bind"), None) => {
            project.reader.error(codes::MISSING_FIELD, item.extent, "a bind mount needs a key `source`");
            return None;
        }
        (Some(other @ ("npipe" | "cluster" | "image")), _) => {
            let what = format!("the volume type `{other}`");
            project.reader.not_honoured(item.extent, &what, "nothing is mounted there");
            return None;
        }
        (Some(other), _) => {
            let what = format!("{other:?} is not a type of volume: bind, volume or tmpfs");
            project.reader.error(codes::VALUE, item.extent, what);
            return None;
        }
        (None, _) => {
            project.reader.error(codes::MISSING_FIELD, item.extent, "a volume needs a key `type`");
            return None;
        }
    };
    Some(Draft { target, what, read_only, extent: item.extent })
}

fn bind(project: &mut Project<'_>, source: &str, extent: Extent, made: bool) -> Option<MountWhatSpec> {
    if source.contains('\0') {
        project.reader.error(codes::MOUNT, extent, "a path has no NUL character");
        return None;
    }
    let path = project.path(source, extent);
    if let Some((what, effect)) = engine_socket(&path) {
        project.reader.not_honoured(extent, &what, effect);
    } else if made && !path.exists() {
        let what = format!("making {}", path.display());
        project.reader.not_honoured(extent, &what, "it does not exist, and has to before the container starts");
    }
    Some(MountWhatSpec::Bind(path.to_string_lossy().into_owned()))
}

fn named(project: &mut Project<'_>, context: &Context<'_>, source: &str, extent: Extent) -> Option<MountWhatSpec> {
    if context.volumes.iter().any(|entry| entry.key == source) {
        return Some(MountWhatSpec::Volume(object_name(source)));
    }
    let near = crate::text::nearest(source, context.volumes.iter().map(|entry| entry.key.as_str())).map(str::to_owned);
    let what = format!("volume `{source}` is not declared under `volumes`");
    let diagnostic = Diagnostic::error(codes::DANGLING, what).at(project.reader.span(extent)).suggest(near);
    project.reader.push(diagnostic.help(format!("add it at the top level, or write ./{source} for a directory")));
    None
}

fn tmpfs(project: &mut Project<'_>, text: &str, item: &Node) -> Draft {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut size_bytes = None;
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => {
                let mut node = item.clone();
                if let Value::Scalar(scalar) = &mut node.value {
                    size.clone_into(&mut scalar.text);
                }
                size_bytes = rollout::bytes(project, "size", &node);
            }
            None if option == "ro" => read_only = true,
            None if matches!(option, "rw" | "nosuid" | "nodev") => {}
            _ => {
                let what = format!("the tmpfs option `{option}`");
                project.reader.not_honoured(item.extent, &what, "its mode is 1777, and it is nosuid and nodev");
            }
        }
    }
    Draft { target: target.to_owned(), what: MountWhatSpec::Tmpfs { size_bytes }, read_only, extent: item.extent }
}

/// A secret or config of a service: a name, or a mapping.
fn content(
    project: &mut Project<'_>,
    section: &str,
    list: &[Entry],
    directory: &str,
    item: &Node,
) -> Option<MountSpec> {
    let (source, target, mode) = if item.is_map() {
        let found = project.reader.keys(item, &keys::CONTENT_MOUNT);
        let mut text = |key| found.get(key).and_then(|node| project.reader.text(key, node));
        let (source, target) = (text("source"), text("target"));
        let mode = found.get("mode").and_then(|node| project.reader.format::<FileMode>("mode", node));
        (source, target, mode.map(|mode| mode.0))
    } else {
        (project.reader.text(section, item), None, None)
    };
    let Some(source) = source else {
        if item.is_map() {
            project.reader.error(codes::MISSING_FIELD, item.extent, format!("one of `{section}` needs a key `source`"));
        }
        return None;
    };
    let Some(entry) = list.iter().find(|entry| entry.key == source) else {
        let near = crate::text::nearest(&source, list.iter().map(|entry| entry.key.as_str())).map(str::to_owned);
        let what = format!("`{source}` is not declared under `{section}`");
        let diagnostic = Diagnostic::error(codes::DANGLING, what).at(project.reader.span(item.extent));
        project.reader.push(diagnostic.suggest(near));
        return None;
    };
    let target = target.unwrap_or_else(|| source.clone());
    let target = if target.starts_with('/') { target } else { format!("{directory}{target}") };
    let path = match ContainerPath::parse(&target) {
        Ok(path) => path.0,
        Err(bad) => {
            project.reader.bad(section, bad, item.extent);
            return None;
        }
    };
    let is_secret = section == "secrets";
    let (what, read_only) = source_of(project, entry, is_secret, mode.is_some(), item.extent)?;
    let span = project.reader.span(item.extent);
    let is_copy = matches!(what, MountWhatSpec::File(_) | MountWhatSpec::Secret { .. });
    let on_change = if is_copy { OnChange::Roll } else { OnChange::None };
    Some(MountSpec { path, what, read_only, on_change, mode: mode.unwrap_or(SECRET_MODE), span })
}

/// A top-level secret whose value is written in the project or in a variable. One from a file is no object: it is shown in
/// place.
pub(super) fn secret(project: &mut Project<'_>, context: &Context<'_>, entry: &Entry) -> Option<Object> {
    let content = entry.value.get("content").and_then(|entry| entry.value.scalar()).map(|scalar| scalar.text.clone());
    let variable = entry.value.get("environment").and_then(|entry| entry.value.scalar()).map(|scalar| &scalar.text);
    let value = content.or_else(|| project.variables.get(variable?).cloned())?;
    let key = super::key(project, context, Kind::Secret, entry)?;
    let span = super::place(project, entry.key_extent);
    let content = FileContent { path: None, bytes: value.into_bytes().into(), span: span.clone() };
    let data = [(SECRET_KEY.to_owned(), content)].into();
    Some(Object { key, span, spec: ObjectSpec::Secret(SecretSpec { data, binary: BTreeSet::new() }) })
}

/// What a top-level secret or config stands for. A secret's file is shown in place, as Compose does, so that no copy of
/// it lies elsewhere; a config's file is copied, so that a change of it takes effect.
fn source_of(
    project: &mut Project<'_>,
    entry: &Entry,
    is_secret: bool,
    has_mode: bool,
    at: Extent,
) -> Option<(MountWhatSpec, bool)> {
    let found = project.reader.keys(&entry.value, &keys::CONTENT);
    let span = project.reader.span(entry.key_extent);
    let inline = |text: String| match is_secret {
        true => {
            let (name, key) = (object_name(&entry.key), Some(SECRET_KEY.to_owned()));
            MountWhatSpec::Secret { name, key, owner: Some([0, 0]) }
        }
        false => MountWhatSpec::File(FileContent { path: None, bytes: text.into_bytes().into(), span: span.clone() }),
    };
    if let Some(node) = found.get("content") {
        return Some((inline(project.reader.text("content", node)?), true));
    }
    if let Some(node) = found.get("environment") {
        let name = project.reader.text("environment", node)?;
        let Some(value) = project.variables.get(&name).cloned() else {
            project.reader.error(codes::VARIABLE, node.extent, format!("variable `{name}` is not set"));
            return None;
        };
        return Some((inline(value), true));
    }
    if let Some(node) = found.get("file") {
        let text = project.reader.text("file", node)?;
        let path = project.path(&text, node.extent);
        if is_secret {
            if has_mode {
                project.reader.not_honoured(at, "`mode` of a secret from a file", "it has the file's own mode");
            }
            return Some((MountWhatSpec::Bind(path.to_string_lossy().into_owned()), true));
        }
        if Path::is_dir(&path) {
            return Some((MountWhatSpec::Bind(path.to_string_lossy().into_owned()), true));
        }
        let span = project.reader.span(node.extent);
        let path = Some(path.to_string_lossy().into_owned());
        return Some((MountWhatSpec::File(FileContent { path, bytes: Vec::new().into(), span }), true));
    }
    if found.get("external").is_some_and(|node| project.reader.flag("external", node)) {
        let what = format!("`{}` from elsewhere", entry.key);
        let effect = "there is no store of secrets and configs here; nothing is mounted, write `file`";
        project.reader.not_honoured(entry.key_extent, &what, effect);
        return None;
    }
    let what = format!("`{}` needs one of file, environment, content", entry.key);
    project.reader.error(codes::MISSING_FIELD, entry.key_extent, what);
    None
}

/// Keys of secrets and configs that no service uses are checked all the same.
pub(super) fn check_unused(project: &mut Project<'_>, context: &Context<'_>) {
    for entry in context.secrets.iter().chain(context.configs) {
        project.reader.keys(&entry.value, &keys::CONTENT);
    }
}
