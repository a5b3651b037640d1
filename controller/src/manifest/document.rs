//! One YAML document of one file, and which dialect it is written in.

use super::native;
use super::tree::{Entry, Node, Value};
use super::yaml::Problem;
use crate::model::Diagnostic;

/// A document with its place.
pub(crate) struct Document {
    /// Relative to the root.
    pub(crate) file: String,
    /// The stack its objects belong to.
    pub(crate) stack: String,
    pub(crate) root: Node,
    pub(crate) problems: Vec<Problem>,
}

/// Whose language it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Native,
    Kubernetes,
    Compose,
    Other,
}

/// Looks at the top-level keys, and for compose at the file's name.
pub(crate) fn classify(root: &Node, file: &str) -> Dialect {
    if !matches!(root.value, Value::Map(_)) {
        return Dialect::Other;
    }
    let ours = root.text("apiVersion").is_some_and(is_our_version);
    if ours || (root.get("apiVersion").is_none() && entry_with_our_version(root).is_some()) {
        return Dialect::Native;
    }
    if root.text("apiVersion").is_some() && root.text("kind").is_some() {
        return Dialect::Kubernetes;
    }
    let services = root.get("services").is_some_and(|entry| matches!(entry.value.value, Value::Map(_)));
    if services || is_compose_name(file) { Dialect::Compose } else { Dialect::Other }
}

fn is_our_version(text: &str) -> bool {
    text.starts_with("boxship/")
}

/// The entry that says `boxship/v1` under another key: a misspelt `apiVersion`.
pub(crate) fn entry_with_our_version(root: &Node) -> Option<&Entry> {
    let Value::Map(entries) = &root.value else { return None };
    entries.iter().find(|entry| entry.value.scalar().is_some_and(|scalar| is_our_version(&scalar.text)))
}

/// Whether text that cannot be parsed was probably meant for us.
pub(crate) fn looks_native(text: &str) -> bool {
    text.lines().any(|line| line.contains(native::API_VERSION) && !line.trim_start().starts_with('#'))
}

pub(crate) fn is_compose_name(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or("");
    let stem = stem.strip_prefix("docker-").unwrap_or(stem);
    stem == "compose" || stem.starts_with("compose.") || stem.starts_with("compose-")
}

/// A problem of the YAML pass, as a diagnostic.
pub(crate) fn diagnostic(problem: Problem, file: &str) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(problem.code, problem.what).at(problem.extent.in_file(file));
    diagnostic.why = problem.why;
    diagnostic.help = problem.help;
    match problem.also {
        Some((text, extent)) => diagnostic.also_at(text, extent.in_file(file)),
        None => diagnostic,
    }
}
