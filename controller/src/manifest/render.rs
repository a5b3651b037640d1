//! Diagnostics for people (source lines, carets) and for programs (JSON).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value as Json, json};

use crate::model::{Diagnostic, Loaded, Severity, Span};

/// Most problems printed in one go: after these nobody reads on.
const PRINTED_MAX: usize = 20;

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
    let shown = |span: &Span| sources.get(&span.file).map(|source| (look.path(&span.file), window(source, span)));
    let what = printable(&diagnostic.what);
    let title = level.primary_title(what.as_str()).id(diagnostic.code.as_str());
    let mut group = Group::with_title(title);
    let why = diagnostic.why.as_deref().map(printable);
    let mut remarks: Vec<String> = Vec::new();
    match diagnostic.span.as_ref().map(|span| (span, shown(span))) {
        Some((_, Some((path, window)))) => {
            let mark = AnnotationKind::Primary.span(window.range.clone()).label(why.as_deref());
            let snippet = Snippet::source(window.text).line_start(window.line).path(path).annotation(mark);
            group = group.element(snippet);
        }
        Some((span, None)) => {
            group = group.element(annotate_snippets::Origin::path(look.path(&span.file)));
            remarks.extend(why.clone());
        }
        None => remarks.extend(why.clone()),
    }
    for note in &diagnostic.notes {
        match note.span.as_ref().map(|span| (span, shown(span))) {
            Some((_, Some((path, window)))) => {
                let mark = AnnotationKind::Context.span(window.range.clone()).label(printable(&note.text));
                let snippet = Snippet::source(window.text).line_start(window.line).path(path).annotation(mark);
                group = group.element(snippet);
            }
            Some((span, None)) => remarks.push(format!("{} ({})", printable(&note.text), look.path(&span.file))),
            None => remarks.push(printable(&note.text)),
        }
    }
    let remarks = remarks.into_iter().map(|remark| Level::NOTE.message(remark));
    group = group.elements(remarks);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(printable(help)));
    }
    let renderer = if look.color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// Manifest text is not ours: escape sequences in it must not reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The lines a span is on and one before, and where in them it is, in bytes.
struct Window {
    text: String,
    line: usize,
    range: Range<usize>,
}

fn window(source: &str, span: &Span) -> Window {
    let line = usize::try_from(span.line).unwrap_or(1).max(1);
    let first = line.saturating_sub(1).max(1);
    let last = usize::try_from(span.end_line).unwrap_or(line).clamp(line, line + 3);
    let mut text = String::new();
    let mut range = 0..0;
    for (number, content) in (first..=last).zip(source.lines().skip(first - 1)) {
        let content: String = printable(content);
        let offset = |column: u32| {
            let chars = usize::try_from(column).unwrap_or(1).saturating_sub(1);
            content.char_indices().nth(chars).map_or(content.len(), |(at, _)| at)
        };
        if number == line {
            range = text.len() + offset(span.column)..text.len() + content.len();
        }
        if number == usize::try_from(span.end_line).unwrap_or(line) {
            range.end = text.len() + offset(span.end_column);
        }
        text.push_str(&content);
        text.push('\n');
    }
    range.end = range.end.clamp(range.start, text.len());
    Window { text, line: first, range }
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
