//! `volumes` of a pod, and what a container mounts of them.

use std::collections::BTreeMap;

use super::{Lower, keys};
use crate::manifest::format::Format as _;
use crate::manifest::keys::{Entries, engine_socket, object_name};
use crate::manifest::native::text::ContainerPath;
use crate::manifest::quantity::Memory;
use crate::manifest::tree::Node;
use crate::model::object::{MountSpec, MountWhatSpec};
use crate::model::{Diagnostic, OnChange, codes};

/// Kubernetes' default.
const FILE_MODE: u32 = 0o644;

/// What a volume of a pod shows.
pub(super) enum Source {
    /// One thing.
    What(MountWhatSpec, bool),
    /// Files of Configs and Secrets.
    Files(Vec<Files>),
}

/// Keys of one Config or Secret as files.
pub(super) struct Files {
    name: String,
    is_secret: bool,
    /// Key, path below the volume, mode; none: all keys.
    items: Option<Vec<(String, String, Option<u32>)>>,
    mode: u32,
}

impl Files {
    fn shown(&self, key: Option<String>) -> MountWhatSpec {
        let name = self.name.clone();
        match self.is_secret {
            // As there: root's, whoever the container runs as.
            true => MountWhatSpec::Secret { name, key, owner: Some([0, 0]) },
            false => MountWhatSpec::Config { name, key },
        }
    }
}

/// Volumes of a pod by name. `claims` are those a StatefulSet makes for each replica.
pub(super) fn sources(lower: &mut Lower, node: Option<&Node>) -> BTreeMap<String, Source> {
    let mut sources = BTreeMap::new();
    let Some(node) = node else { return sources };
    for item in lower.reader.list("volumes", node) {
        let found = lower.reader.keys(item, &keys::VOLUME);
        let Some(name) = found.get("name").and_then(|node| lower.reader.text("name", node)) else {
            lower.reader.error(codes::MISSING_FIELD, item.extent, "a volume needs a key `name`");
            continue;
        };
        if let Some(source) = source(lower, &found) {
            sources.insert(name, source);
        }
    }
    sources
}

fn source(lower: &mut Lower, found: &Entries<'_>) -> Option<Source> {
    if let Some(node) = found.get("emptyDir") {
        let empty = lower.reader.keys(node, &keys::EMPTY_DIR);
        let size = empty.get("sizeLimit").map(|node| (super::pod::amount::<Memory>(lower, "sizeLimit", node), node));
        let medium = empty.get("medium").and_then(|node| lower.reader.text("medium", node)).unwrap_or_default();
        if medium == "Memory" {
            let size_bytes = size.and_then(|(size, _)| size).map(|size| size.0);
            return Some(Source::What(MountWhatSpec::Tmpfs { size_bytes }, false));
        }
        if let Some((_, node)) = size {
            lower.reader.not_honoured(node.extent, "`sizeLimit` of emptyDir", "volumes on disk have no bound");
        }
        return Some(Source::What(MountWhatSpec::Anonymous, false));
    }
    if let Some(node) = found.get("hostPath") {
        let host = lower.reader.keys(node, &keys::HOST_PATH);
        let Some(path) = host.get("path").map(|node| (lower.reader.text("path", node), node)) else {
            lower.reader.error(codes::MISSING_FIELD, node.extent, "`hostPath` needs a key `path`");
            return None;
        };
        let (Some(text), node) = path else { return None };
        if !text.starts_with('/') {
            lower.reader.error(codes::MOUNT, node.extent, format!("a host path begins with `/`, found {text:?}"));
        }
        let path = crate::manifest::find::normal(std::path::Path::new(&text));
        if let Some((what, effect)) = engine_socket(&path) {
            lower.reader.not_honoured(node.extent, &what, effect);
        }
        return Some(Source::What(MountWhatSpec::Bind(path.to_string_lossy().into_owned()), false));
    }
    if let Some(node) = found.get("persistentVolumeClaim") {
        let claim = lower.reader.keys(node, &keys::CLAIM_VOLUME);
        let read_only = claim.get("readOnly").is_some_and(|node| lower.reader.flag("readOnly", node));
        let Some(name) = claim.get("claimName").and_then(|node| lower.reader.text("claimName", node)) else {
            lower.reader.error(codes::MISSING_FIELD, node.extent, "a claim needs a key `claimName`");
            return None;
        };
        return Some(Source::What(MountWhatSpec::Volume(object_name(&name)), read_only));
    }
    for (key, is_secret) in [("configMap", false), ("secret", true)] {
        if let Some(node) = found.get(key) {
            return files(lower, node, is_secret, FILE_MODE).map(|files| Source::Files(vec![files]));
        }
    }
    if let Some(node) = found.get("projected") {
        let projected = lower.reader.keys(node, &keys::PROJECTED);
        let mode = projected.get("defaultMode").and_then(|node| mode(lower, node)).unwrap_or(FILE_MODE);
        let mut all = Vec::new();
        if let Some(sources) = projected.get("sources") {
            for item in lower.reader.list("sources", sources) {
                let found = lower.reader.keys(item, &keys::PROJECTED_SOURCE);
                for (key, is_secret) in [("configMap", false), ("secret", true)] {
                    all.extend(found.get(key).and_then(|node| files(lower, node, is_secret, mode)));
                }
            }
        }
        return Some(Source::Files(all));
    }
    Some(Source::What(MountWhatSpec::Anonymous, false))
}

fn files(lower: &mut Lower, node: &Node, is_secret: bool, default_mode: u32) -> Option<Files> {
    let found = lower.reader.keys(node, &keys::CONTENT);
    let name = match (is_secret, found.get("secretName")) {
        (true, Some(name)) => Some(name),
        (false, Some(name)) => {
            lower.reader.error(codes::UNKNOWN_FIELD, name.extent, "`secretName` of a `configMap`: write `name`");
            None
        }
        (_, None) => found.get("name"),
    };
    let Some(name) = name.and_then(|node| lower.reader.text("name", node)) else {
        lower.reader.error(codes::MISSING_FIELD, node.extent, "this volume needs the name of what it shows");
        return None;
    };
    let mode = found.get("defaultMode").and_then(|node| mode(lower, node)).unwrap_or(default_mode);
    let items = found.get("items").map(|node| {
        let mut items = Vec::new();
        for item in lower.reader.list("items", node) {
            let found = lower.reader.keys(item, &keys::ITEM);
            let key = found.get("key").and_then(|node| lower.reader.text("key", node));
            let path = found.get("path").and_then(|node| lower.reader.text("path", node));
            let own = found.get("mode").and_then(|node| self::mode(lower, node));
            match (key, path) {
                (Some(key), Some(path)) => items.push((key, path, own)),
                _ => lower.reader.error(codes::MISSING_FIELD, item.extent, "an item needs `key` and `path`"),
            }
        }
        items
    });
    Some(Files { name, is_secret, items, mode })
}

/// Octal with a zero in front, as Kubernetes' own YAML reader takes it; else decimal.
fn mode(lower: &mut Lower, node: &Node) -> Option<u32> {
    let text = lower.reader.text("mode", node)?;
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    let mode = digits.map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 8).ok());
    let mode = mode.filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        let what = format!("expected permission bits such as 0644 or 420, found {text:?}");
        lower.reader.error(codes::VALUE, node.extent, what);
    }
    mode
}

/// What a container mounts.
pub(super) fn mounts(lower: &mut Lower, node: Option<&Node>, sources: &BTreeMap<String, Source>) -> Vec<MountSpec> {
    let mut mounts = Vec::new();
    let Some(node) = node else { return mounts };
    for item in lower.reader.list("volumeMounts", node) {
        let found = lower.reader.keys(item, &keys::VOLUME_MOUNT);
        let read_only = found.get("readOnly").is_some_and(|node| lower.reader.flag("readOnly", node));
        let name = found.get("name").map(|node| (lower.reader.text("name", node), node.extent));
        let path = found.get("mountPath").map(|node| (lower.reader.text("mountPath", node), node.extent));
        let sub_path = found.get("subPath").map(|node| (lower.reader.text("subPath", node).unwrap_or_default(), node));
        let (Some((Some(name), name_extent)), Some((Some(path), path_extent))) = (name, path) else {
            lower.reader.error(codes::MISSING_FIELD, item.extent, "a mount needs `name` and `mountPath`");
            continue;
        };
        let Some(source) = sources.get(&name) else {
            let near = crate::text::nearest(&name, sources.keys().map(String::as_str)).map(str::to_owned);
            let what = format!("volume `{name}` is not among the pod's `volumes`");
            let diagnostic = Diagnostic::error(codes::DANGLING, what).at(lower.reader.span(name_extent));
            lower.reader.push(diagnostic.suggest(near));
            continue;
        };
        let path = match ContainerPath::parse(&if path.starts_with('/') { path } else { format!("/{path}") }) {
            Ok(path) => path.0,
            Err(bad) => {
                lower.reader.bad("mountPath", bad, path_extent);
                continue;
            }
        };
        let span = lower.reader.span(name_extent);
        let one = |path: String, what: MountWhatSpec, read_only: bool, mode: u32| {
            let is_content = matches!(what, MountWhatSpec::Config { .. } | MountWhatSpec::Secret { .. });
            let on_change = if is_content { OnChange::Roll } else { OnChange::None };
            MountSpec { path, what, read_only, on_change, mode, span: span.clone() }
        };
        match source {
            Source::What(what, always_read_only) => {
                if let Some((_, node)) = sub_path.filter(|(text, _)| !text.is_empty()) {
                    lower.reader.not_honoured(node.extent, "`subPath`", "the whole volume is mounted there");
                }
                mounts.push(one(path, what.clone(), read_only || *always_read_only, FILE_MODE));
            }
            Source::Files(all) => {
                let sub_path = sub_path.map(|(text, _)| text).filter(|text| !text.is_empty());
                for files in all {
                    mounts.extend(
                        content(files, &path, sub_path.as_deref())
                            .map(|(path, key, mode)| one(path, files.shown(key), true, mode)),
                    );
                }
            }
        }
    }
    mounts
}

/// Path, key and mode of each file; a `subPath` is one of them, mounted at the place itself.
fn content<'f>(
    files: &'f Files,
    at: &'f str,
    sub_path: Option<&'f str>,
) -> Box<dyn Iterator<Item = (String, Option<String>, u32)> + 'f> {
    let trimmed = |path: &str| path.trim_matches('/').to_owned();
    match (&files.items, sub_path) {
        (None, None) => Box::new(std::iter::once((at.to_owned(), None, files.mode))),
        (None, Some(key)) => Box::new(std::iter::once((at.to_owned(), Some(trimmed(key)), files.mode))),
        (Some(items), sub_path) => Box::new(items.iter().filter_map(move |(key, path, mode)| {
            let mode = mode.unwrap_or(files.mode);
            match sub_path {
                Some(wanted) if trimmed(wanted) == trimmed(path) => Some((at.to_owned(), Some(key.clone()), mode)),
                Some(_) => None,
                None => Some((format!("{}/{}", at.trim_end_matches('/'), trimmed(path)), Some(key.clone()), mode)),
            }
        })),
    }
}
