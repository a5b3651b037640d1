//! Diagnostics for people (source lines, carets) and for programs (JSON).

use std::collections::BTreeMap;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value as Json, json};

use crate::model::{Diagnostic, Kind, Loaded, Severity, Span};

/// Most problems printed in one go: after these nobody reads on.
const PRINTED_MAX: usize = 20;
/// So many lines are shown whole; of more, those between the marks are folded.
const CONTEXT_MAX: usize = 6;

/// How to print.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// With ANSI colours.
    pub color: bool,
    /// Put before each file's path: the root as the user wrote it.
    pub prefix: String,
}

impl Look {
    /// Plain, with paths as a user who named this root sees them.
    #[must_use]
    pub fn plain(loaded: &Loaded) -> Self {
        Self { color: false, prefix: prefix_of(&loaded.root) }
    }

    fn path(&self, file: &str) -> String {
        format!("{}{file}", self.prefix)
    }
}

/// `./shop` and `web.yaml` in it are `shop/web.yaml`; a root that is a file is its directory.
pub(super) fn prefix_of(root: &str) -> String {
    let root = root.strip_prefix("./").unwrap_or(root).trim_end_matches('/');
    let is_file = root.ends_with(".yaml") || root.ends_with(".yml");
    let directory = if is_file { root.rsplit_once('/').map_or("", |(directory, _)| directory) } else { root };
    match directory {
        "" | "." if root.starts_with('/') => "/".to_owned(),
        "" | "." => String::new(),
        _ => format!("{directory}/"),
    }
}

/// One diagnostic as rustc would print it, without a line break at the end.
#[must_use]
pub fn render(diagnostic: &Diagnostic, sources: &BTreeMap<String, Arc<str>>, look: &Look) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let what = printable(&diagnostic.what);
    let title = level.primary_title(what.as_str()).id(diagnostic.code.as_str());
    let mut group = Group::with_title(title);
    let why = diagnostic.why.as_deref().map(printable);
    let mut remarks: Vec<String> = Vec::new();
    // Places by file: those of one file share a snippet, the primary one comes first.
    let mut places: Vec<(&str, Vec<Mark<'_>>)> = Vec::new();
    let primary = diagnostic.span.iter().map(|span| (AnnotationKind::Primary, span, why.clone()));
    let others = diagnostic.notes.iter().filter_map(|note| Some((note.span.as_ref()?, &note.text)));
    let others = others.map(|(span, text)| (AnnotationKind::Context, span, Some(printable(text))));
    for mark in primary.chain(others) {
        match places.iter_mut().find(|(file, _)| *file == mark.1.file) {
            Some((_, marks)) => marks.push(mark),
            None => places.push((&mark.1.file, vec![mark])),
        }
    }
    for (file, marks) in places {
        let path = look.path(file);
        match sources.get(file).filter(|source| !tells_secrets(diagnostic, source)) {
            Some(source) => group = group.element(snippet(source, path, marks)),
            None => {
                let line = marks.first().map_or(0, |(_, span, _)| span.line);
                let path = if sources.contains_key(file) { format!("{path}:{line}") } else { path };
                remarks.extend(marks.into_iter().filter_map(|(_, _, text)| text));
                group = group.element(annotate_snippets::Origin::path(path));
            }
        }
    }
    if diagnostic.span.is_none() {
        remarks.extend(why);
    }
    remarks.extend(diagnostic.notes.iter().filter(|note| note.span.is_none()).map(|note| printable(&note.text)));
    let remarks = remarks.into_iter().map(|remark| Level::NOTE.message(remark));
    group = group.elements(remarks);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(printable(help)));
    }
    let renderer = if look.color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// Whether the lines around a problem may hold a secret: what is told ends up in logs.
fn tells_secrets(diagnostic: &Diagnostic, source: &str) -> bool {
    let holds = |what: &str| source.lines().any(|line| line.trim() == what);
    match &diagnostic.object {
        Some(object) => object.kind == Kind::Secret,
        None => holds("kind: Secret") || (holds("secrets:") && source.contains("content:")),
    }
}

/// Manifest text is not ours: escape sequences in it must not reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A place, how it is marked, and what is said there.
type Mark<'a> = (AnnotationKind, &'a Span, Option<String>);

/// Lines around the marks of one file; what is far between is folded.
fn snippet<'a>(source: &str, path: String, marks: Vec<Mark<'_>>) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let line = |line: u32| usize::try_from(line).unwrap_or(1).max(1);
    let first = marks.iter().map(|(_, span, _)| line(span.line)).min().unwrap_or(1).saturating_sub(1).max(1);
    let last = marks.iter().map(|(_, span, _)| line(span.end_line).min(line(span.line) + 3)).max().unwrap_or(first);
    let lines: Vec<String> = source.lines().skip(first - 1).take(last + 1 - first).map(printable).collect();
    let mut starts = Vec::with_capacity(lines.len());
    let mut text = String::new();
    for content in &lines {
        starts.push(text.len());
        text.push_str(content);
        text.push('\n');
    }
    let offset = |number: u32, column: u32| {
        let index = line(number).saturating_sub(first).min(lines.len().saturating_sub(1));
        let (Some(start), Some(content)) = (starts.get(index), lines.get(index)) else { return 0 };
        let chars = usize::try_from(column).unwrap_or(1).saturating_sub(1);
        start + content.char_indices().nth(chars).map_or(content.len(), |(at, _)| at)
    };
    let annotations = marks.into_iter().map(|(kind, span, label)| {
        let start = offset(span.line, span.column);
        let end = offset(span.end_line, span.end_column).max(start);
        kind.span(start..end).label(label)
    });
    let annotations: Vec<_> = annotations.collect();
    Snippet::source(text).line_start(first).path(path).fold(lines.len() > CONTEXT_MAX).annotations(annotations)
}

/// All diagnostics of a load, then one line that sums up.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], sources: &BTreeMap<String, Arc<str>>, look: &Look) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(PRINTED_MAX) {
        out.push_str(&render(diagnostic, sources, look));
        out.push_str("\n\n");
    }
    if let Some(more) = diagnostics.len().checked_sub(PRINTED_MAX).filter(|more| *more > 0) {
        out.push_str(&format!("note: {more} more problems are not shown\n"));
    }
    out
}

/// One diagnostic for programs; paths as `look` shows them.
#[must_use]
pub fn to_json(diagnostic: &Diagnostic, look: &Look) -> Json {
    let place = |span: &Span| {
        json!({
            "file": look.path(&span.file),
            "line": span.line,
            "column": span.column,
            "endLine": span.end_line,
            "endColumn": span.end_column,
        })
    };
    let notes = diagnostic.notes.iter().map(|note| json!({ "text": note.text, "span": note.span.as_ref().map(place) }));
    json!({
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "what": diagnostic.what,
        "why": diagnostic.why,
        "help": diagnostic.help,
        "suggestion": diagnostic.suggestion,
        "span": diagnostic.span.as_ref().map(place),
        "notes": notes.collect::<Vec<_>>(),
        "object": diagnostic.object,
    })
}
