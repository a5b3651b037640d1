//! What the pages promise, checked against the tree: links, functions a walk names, error codes.

use std::path::Path;

use crate::source::{Source, files, line_of, root};

/// Relative links of all pages that lead nowhere.
pub(crate) fn broken_links() -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in files(&[".md"]) {
        let dir = Path::new(&path).parent().unwrap_or(Path::new(""));
        for (at, target) in links(&text) {
            let target = target.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !root().join(dir).join(target).exists() {
                complaints.push(format!("{path}:{}: link to `{target}`, which does not exist", line_of(&text, at)));
            }
        }
    }
    complaints
}

/// A link whose text is code and names a function, as [`plan::plan`](../controller/src/plan.rs), promises that the
/// file holds `fn plan` (or a type or constant of that name).
pub(crate) fn missing_functions(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in files(&[".md"]) {
        for (at, target) in links(&text) {
            let target = target.split('#').next().unwrap_or("");
            let Some(name) = text[..at].rsplit_once("[`").and_then(|(_, name)| name.strip_suffix("`](")) else {
                continue;
            };
            let full = root().join(Path::new(&path).parent().unwrap_or(Path::new(""))).join(target);
            let Some(source) =
                sources.iter().find(|s| full.canonicalize().ok() == root().join(&s.path).canonicalize().ok())
            else {
                continue;
            };
            let item = name.rsplit("::").next().unwrap_or(name).trim_end_matches("()");
            let file = Path::new(target).file_stem().is_some_and(|stem| stem == item);
            if file || item.ends_with(".rs") || item.ends_with('/') {
                continue;
            }
            let kinds = ["fn", "struct", "enum", "trait", "const", "type", "mod"];
            let defined = kinds.iter().any(|kind| {
                let needle = format!("{kind} {item}");
                !crate::source::occurrences(&source.code, &needle).is_empty()
            });
            let variant = source.code.lines().any(|line| {
                line.trim_start().strip_prefix(item).is_some_and(|rest| rest.starts_with([',', ' ', '(', '{']))
            });
            if !defined && !variant {
                complaints.push(format!("{path}:{}: `{name}` is not in {}", line_of(&text, at), source.path));
            }
        }
    }
    complaints
}

/// Link targets of a page with the offset of the target.
fn links(text: &str) -> Vec<(usize, &str)> {
    text.match_indices("](")
        .filter_map(|(at, _)| {
            let from = at + 2;
            let len = text[from..].find([')', '\n'])?;
            Some((from, &text[from..from + len]))
        })
        .collect()
}

/// The stable codes a text names, `BX` and four digits.
pub(crate) fn codes(text: &str) -> Vec<String> {
    text.match_indices("BX")
        .filter_map(|(at, _)| text.get(at..at + 6))
        .filter(|code| code[2..].bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

/// A row of docs/security.md.
pub(crate) struct Attack {
    pub(crate) number: usize,
    /// What stands in backquotes and has the form of a test's name.
    pub(crate) tests: Vec<String>,
    answer: String,
}

impl Attack {
    pub(crate) fn says(&self, words: &str) -> bool {
        self.answer.contains(words)
    }
}

pub(crate) fn attacks(page: &str) -> Vec<Attack> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.splitn(3, " | ");
        let number = cells.next()?.parse().ok()?;
        let answer = cells.nth(1)?.to_owned();
        let is_name = |word: &&str| {
            word.contains('_')
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        let words = answer.split('`').skip(1).step_by(2);
        // `route_localnet` is a setting of the kernel.
        let tests = words.filter(is_name).filter(|word| *word != "route_localnet").map(str::to_owned).collect();
        Some(Attack { number, tests, answer })
    });
    rows.collect()
}
