//! What a field means: of a native kind from its schema, of a Compose or Kubernetes file from the dialect's tables; and
//! what a code of a message means, from the page of codes. A path is written as in the file: `app.healthcheck.interval`,
//! `services.web.ports`, `Deployment.spec.template.spec.containers.image`. Pure.

use serde_json::{Value as Json, json};

use super::keys::{How, Section, Tables};
use super::{compose, kubernetes, native};

/// The page of codes.
const CODES: &str = include_str!("../../../docs/errors.md");

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What was found, as it is written: `services.*.ports[]`.
    pub name: String,
    /// What it means, in lines.
    pub about: Vec<String>,
    /// What is below it: name and meaning.
    pub parts: Vec<(String, String)>,
}

impl Explanation {
    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let parts: Vec<Json> = self.parts.iter().map(|(name, about)| json!({ "name": name, "about": about })).collect();
        json!({ "name": self.name, "about": self.about, "parts": parts })
    }
}

/// Why there is none: what, and the nearest word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// What is not known.
    pub what: String,
    /// What was probably meant.
    pub near: Option<String>,
}

/// Explains a code or the path of a field; without one, says what there is.
///
/// # Errors
/// It is not known; the nearest word, if there is one.
pub fn explain(what: &str) -> Result<Explanation, Unknown> {
    if what.len() > 2 && what[..2].eq_ignore_ascii_case("bx") && what[2..].bytes().all(|b| b.is_ascii_digit()) {
        return code(&what.to_ascii_uppercase());
    }
    let words: Vec<String> = what
        .split('.')
        .map(|word| word.trim_end_matches("[]").to_owned())
        .filter(|word| !word.is_empty() && word != "*")
        .collect();
    let Some((first, rest)) = words.split_first() else { return Ok(everything()) };
    let is_native = native::KINDS.into_iter().find(|kind| native::title(*kind).eq_ignore_ascii_case(first));
    let is_kubernetes = kubernetes::kinds().find(|kind| kind.eq_ignore_ascii_case(first));
    let enveloped = rest.first().is_some_and(|word| matches!(word.as_str(), "spec" | "metadata"));
    match (is_native, is_kubernetes) {
        (Some(kind), other) if other.is_none() || !enveloped => {
            in_schema(native::title(kind), &native::schema(kind), rest)
        }
        (_, Some(kind)) => in_tables(&kubernetes::keys::TABLES, kind, rest),
        (_, None) if first.eq_ignore_ascii_case("compose") => in_tables(&compose::keys::TABLES, "", rest),
        (_, None) if compose::keys::TOP.keys.iter().any(|key| key.name == *first) => {
            in_tables(&compose::keys::TABLES, "", &words)
        }
        (_, None) => {
            let kinds = native::KINDS.map(native::title);
            let known = kinds.into_iter().chain(kubernetes::kinds()).chain(["compose", "services"]);
            let near = crate::text::nearest(first, known).map(str::to_owned);
            Err(Unknown { what: format!("`{first}` is no kind, no key of a compose file and no code"), near })
        }
    }
}

fn everything() -> Explanation {
    let mut parts: Vec<(String, String)> = Vec::new();
    for kind in native::KINDS {
        let schema = native::schema(kind);
        parts.push((native::title(kind).to_owned(), description(&schema)));
    }
    parts.push(("compose".to_owned(), "the keys of compose files: services.restart, volumes.driver, …".to_owned()));
    let kinds: Vec<&str> = kubernetes::kinds().collect();
    parts.push(("Deployment.spec".to_owned(), format!("the keys of Kubernetes objects: {}", kinds.join(", "))));
    parts.push(("BX0142".to_owned(), "the codes of messages".to_owned()));
    let about = vec!["every field of every dialect, and every code of a message".to_owned()];
    Explanation { name: "boxship explain FIELD|CODE".to_owned(), about, parts }
}

/// A row of the page of codes.
fn code(code: &str) -> Result<Explanation, Unknown> {
    let mut section = "";
    let mut known = Vec::new();
    for line in CODES.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, means, rest @ ..] = cells.as_slice() else { continue };
        if *name == code {
            let mut about = vec![(*means).to_owned()];
            about.extend(rest.iter().filter(|todo| !todo.is_empty()).map(|todo| format!("what to do: {todo}")));
            return Ok(Explanation { name: format!("{code} ({section})"), about, parts: Vec::new() });
        }
        known.push(*name);
    }
    let near = crate::text::nearest(code, known).map(str::to_owned);
    Err(Unknown { what: format!("there is no code {code}"), near })
}

/// What becomes of a key, in words.
pub(super) fn fate(how: &How) -> String {
    match how {
        How::Honoured => "honoured".to_owned(),
        How::Partly { what } => format!("in part: {what}"),
        How::Not { effect: "", .. } => "accepted: it says what happens anyway".to_owned(),
        How::Not { effect, silent: [] } => format!("not honoured: {effect}"),
        How::Not { effect, silent } => {
            let silent: Vec<&str> = silent.iter().map(|word| if word.is_empty() { "\"\"" } else { *word }).collect();
            format!("not honoured ({} is what happens anyway): {effect}", silent.join(", "))
        }
    }
}

fn in_tables(tables: &'static Tables, root: &'static str, words: &[String]) -> Result<Explanation, Unknown> {
    let Some((_, mut section)) = tables.at(root) else {
        return Err(Unknown { what: format!("{} has no table `{root}`", tables.dialect), near: None });
    };
    let (mut path, mut shown) = (root, root.to_owned());
    let mut about: Option<String> = None;
    let mut below: Option<&'static Section> = Some(section);
    // After a mapping of names, a word may be such a name.
    let mut named = false;
    for (i, word) in words.iter().enumerate() {
        if below.is_none() {
            let what = format!("nothing more is told of what is below `{shown}`");
            return Err(Unknown { what, near: None });
        }
        let Some(key) = section.keys.iter().find(|key| key.name == *word) else {
            if std::mem::take(&mut named) && i + 1 < words.len() {
                continue;
            }
            let near = crate::text::nearest(word, section.keys.iter().map(|key| key.name)).map(str::to_owned);
            return Err(Unknown { what: format!("unknown key `{word}` in {}", section.name), near });
        };
        about = Some(fate(&key.how));
        let dot = if shown.is_empty() { "" } else { "." };
        shown = format!("{shown}{dot}{word}");
        match tables.below(path, word) {
            Some((how, listed, next)) => {
                shown.push_str(how);
                (path, section, below, named) = (listed, next, Some(next), how == ".*");
            }
            None => below = None,
        }
    }
    let parts = below.into_iter().flat_map(|section| section.keys);
    let parts = parts.map(|key| (key.name.to_owned(), fate(&key.how))).collect();
    let name = if shown.is_empty() { "a compose file".to_owned() } else { shown };
    let mut lines = vec![format!("of {}", tables.dialect)];
    lines.extend(about);
    Ok(Explanation { name, about: lines, parts })
}

fn description(schema: &Json) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ")
}

fn in_schema(kind: &str, root: &Json, words: &[String]) -> Result<Explanation, Unknown> {
    let mut schema = root;
    let mut shown = kind.to_owned();
    let mut about = description(root);
    for word in words {
        let parts = properties(root, schema);
        let Some(next) = parts.and_then(|parts| parts.get(word)) else {
            let known = parts.into_iter().flat_map(|parts| parts.keys());
            let near = crate::text::nearest(word, known.map(String::as_str)).map(str::to_owned);
            return Err(Unknown { what: format!("unknown field `{word}` in `{shown}`"), near });
        };
        schema = next;
        about = description(next);
        shown = format!("{shown}.{word}");
    }
    let parts = properties(root, schema).into_iter().flatten();
    let parts = parts.map(|(name, schema)| {
        let about = match schema["const"].as_str() {
            Some(word) => format!("always {word}"),
            None => description(schema),
        };
        (name.clone(), about)
    });
    let mut lines = vec![about];
    lines.extend(words_of(root, schema));
    Ok(Explanation { name: shown, about: lines, parts: parts.collect() })
}

/// The fields of a schema, or of what its list, mapping or long form holds.
fn properties<'s>(root: &'s Json, schema: &'s Json) -> Option<&'s serde_json::Map<String, Json>> {
    if let Some(own) = schema["properties"].as_object() {
        return Some(own);
    }
    if let Some(target) = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.strip_prefix('#')?)) {
        return properties(root, target);
    }
    let choices = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()).into_iter().flatten();
    let below = ["items", "additionalProperties"].into_iter().filter_map(|key| schema.get(key));
    choices.chain(below).find_map(|schema| properties(root, schema))
}

/// The words a value is one of.
fn words_of(root: &Json, schema: &Json) -> Option<String> {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
        return Some(format!("one of {}", words.join(", ")));
    }
    if let Some(target) = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.strip_prefix('#')?)) {
        return words_of(root, target);
    }
    let choices = schema["anyOf"].as_array().into_iter().flatten();
    choices.into_iter().find_map(|schema| words_of(root, schema))
}
