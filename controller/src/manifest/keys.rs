//! Tables of the keys of a foreign dialect, and the reader that goes by them: which keys there are, which are honoured,
//! and what it means that one is not. Unknown keys are errors with the word that was probably meant; a key that is not
//! honoured is a warning with its effect, once for each place. Shared by the front-ends; knows no dialect.

use std::collections::{BTreeMap, BTreeSet};

use super::format::{Bad, Format};
use super::tree::{Entry, Extent, Node, ScalarType, Value};
use crate::model::{Diagnostic, ObjectKey, Span, codes};

/// The keys of one mapping.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its name in messages: `service`, `healthcheck`.
    pub(crate) name: &'static str,
    /// All keys the dialect has there.
    pub(crate) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) how: How,
}

/// What becomes of a key.
#[derive(Debug)]
pub(crate) enum How {
    /// It does what the dialect says.
    Honoured,
    /// It does not. The values in `silent` ask for what happens anyway.
    Not { effect: &'static str, silent: &'static [&'static str] },
    /// In part; what is not is told by the lowering.
    Partly { what: &'static str },
}

/// A key that is honoured in part.
pub(crate) const fn partly(name: &'static str, what: &'static str) -> Key {
    Key { name, how: How::Partly { what } }
}

/// All tables of a dialect.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Its name.
    pub(crate) dialect: &'static str,
    /// Each with where its mapping is found: `services.*.ports[]`.
    pub(crate) all: &'static [(&'static str, &'static Section)],
    /// Ends of paths that have the table of another path.
    pub(crate) links: &'static [(&'static str, &'static str)],
}

impl Tables {
    /// The table of a mapping, with the path it is listed under.
    pub(crate) fn at(&self, path: &str) -> Option<(&'static str, &'static Section)> {
        let listed = |path: &str| self.all.iter().find(|(listed, _)| *listed == path).copied();
        let linked = || self.links.iter().find(|(end, _)| path.ends_with(end)).map(|(_, target)| *target);
        listed(path).or_else(|| listed(linked()?))
    }

    /// What is below a key of a mapping: itself a mapping, or one in a list, or one under any name.
    pub(crate) fn below(&self, path: &str, key: &str) -> Option<(&'static str, &'static str, &'static Section)> {
        let dot = if path.is_empty() { "" } else { "." };
        ["", "[]", ".*"].into_iter().find_map(|how| {
            let (path, section) = self.at(&format!("{path}{dot}{key}{how}"))?;
            Some((how, path, section))
        })
    }
}

/// A key that is honoured.
pub(crate) const fn yes(name: &'static str) -> Key {
    Key { name, how: How::Honoured }
}

/// A key that is not honoured, and what follows.
pub(crate) const fn no(name: &'static str, effect: &'static str) -> Key {
    Key { name, how: How::Not { effect, silent: &[] } }
}

/// A key that is not honoured unless its value asks for what happens anyway.
pub(crate) const fn unless(name: &'static str, silent: &'static [&'static str], effect: &'static str) -> Key {
    Key { name, how: How::Not { effect, silent } }
}

/// The entries of a mapping that are honoured and have a value.
#[derive(Debug, Default)]
pub(crate) struct Entries<'n>(BTreeMap<&'n str, &'n Entry>);

impl<'n> Entries<'n> {
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.0.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.0.get(key).copied()
    }
}

/// Reads trees whose values come from several files, and gathers what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Names of the files, by [`Extent::file`].
    pub(crate) files: Vec<String>,
    /// The object that is being read.
    pub(crate) object: Option<ObjectKey>,
    pub(crate) out: Vec<Diagnostic>,
    /// What was said: an anchor used twice is one place.
    said: BTreeSet<(Span, String)>,
    errors: usize,
}

impl Reader {
    /// Of one file.
    pub(crate) fn of(file: &str) -> Self {
        Self { files: vec![file.to_owned()], ..Self::default() }
    }

    pub(crate) fn span(&self, extent: Extent) -> Span {
        extent.in_file(self.files.get(usize::from(extent.file)).map_or("", String::as_str))
    }

    /// How many errors there were so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.is_error());
        let place = diagnostic.span.clone().unwrap_or_else(|| Span::file(""));
        if self.said.insert((place, diagnostic.what.clone())) {
            let object = diagnostic.object.clone().or_else(|| self.object.clone());
            self.out.push(Diagnostic { object, ..diagnostic });
        }
    }

    pub(crate) fn error(&mut self, code: &str, extent: Extent, what: impl Into<String>) {
        let span = self.span(extent);
        self.push(Diagnostic::error(code, what).at(span));
    }

    pub(crate) fn warn(&mut self, code: &str, extent: Extent, what: impl Into<String>) {
        let span = self.span(extent);
        self.push(Diagnostic::warning(code, what).at(span));
    }

    /// Says that something is not honoured, and what follows.
    pub(crate) fn not_honoured(&mut self, extent: Extent, what: &str, effect: &str) {
        self.warn(codes::NOT_HONOURED, extent, format!("{what} is not honoured: {effect}"));
    }

    pub(crate) fn wrong(&mut self, what: &str, expected: &str, node: &Node) {
        if node.value != Value::Unknown {
            self.error(codes::WRONG_TYPE, node.extent, format!("`{what}`: expected {expected}, found {node}"));
        }
    }

    pub(crate) fn bad(&mut self, what: &str, bad: Bad, extent: Extent) {
        let Bad { code, what: why, help, suggestion } = bad;
        let diagnostic = Diagnostic::error(code, format!("`{what}`: {why}")).at(self.span(extent)).suggest(suggestion);
        self.push(Diagnostic { help, ..diagnostic });
    }

    /// Checks a mapping against its table.
    pub(crate) fn keys<'n>(&mut self, node: &'n Node, section: &Section) -> Entries<'n> {
        let mut found = Entries::default();
        let Value::Map(entries) = &node.value else {
            if !node.is_null() {
                self.wrong(section.name, "a mapping", node);
            }
            return found;
        };
        for entry in entries {
            match section.keys.iter().find(|key| key.name == entry.key) {
                None if entry.key.starts_with("x-") => {}
                None => self.unknown(entry, section),
                Some(_) if entry.value.is_null() => {}
                Some(Key { how: How::Honoured | How::Partly { .. }, .. }) => {
                    found.0.insert(&entry.key, entry);
                }
                Some(Key { how: How::Not { effect, silent }, .. }) => {
                    if !asks_for_nothing(&entry.value, silent) {
                        let what = format!("`{}` of {}", entry.key, section.name);
                        self.not_honoured(entry.key_extent, &what, effect);
                    }
                }
            }
        }
        found
    }

    fn unknown(&mut self, entry: &Entry, section: &Section) {
        let known = section.keys.iter().map(|key| key.name);
        let near = crate::text::nearest(&entry.key, known).map(str::to_owned);
        let what = format!("unknown key `{}` in {}", entry.key, section.name);
        let diagnostic = Diagnostic::error(codes::UNKNOWN_FIELD, what).at(self.span(entry.key_extent));
        self.push(diagnostic.suggest(near));
    }

    /// A scalar's text, whatever YAML makes of it.
    pub(crate) fn text(&mut self, what: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(scalar) if !scalar.text.contains('\0') => Some(scalar.text.clone()),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) | Value::Unknown => {
                self.wrong(what, "a text", node);
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, what: &str, node: &Node) -> bool {
        let text = node.scalar().map(|scalar| scalar.text.to_ascii_lowercase());
        match text.as_deref() {
            Some("true" | "yes" | "on" | "y" | "1") => true,
            Some("false" | "no" | "off" | "n" | "0") => false,
            _ => {
                self.wrong(what, "true or false", node);
                false
            }
        }
    }

    pub(crate) fn number(&mut self, what: &str, node: &Node, max: u32) -> Option<u32> {
        let number = node.scalar().and_then(|scalar| scalar.text.parse::<u32>().ok()).filter(|n| *n <= max);
        if number.is_none() {
            self.wrong(what, &format!("a whole number up to {max}"), node);
        }
        number
    }

    pub(crate) fn format<T: Format>(&mut self, what: &str, node: &Node) -> Option<T> {
        let text = self.text(what, node)?;
        match T::parse(&text) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.bad(what, bad, node.extent);
                None
            }
        }
    }

    pub(crate) fn list<'n>(&mut self, what: &str, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Scalar(_) | Value::Map(_) | Value::Unknown => {
                self.wrong(what, "a list", node);
                &[]
            }
        }
    }

    pub(crate) fn texts(&mut self, what: &str, node: &Node) -> Vec<String> {
        self.list(what, node).iter().filter_map(|item| self.text(what, item)).collect()
    }

    pub(crate) fn map<'n>(&mut self, what: &str, node: &'n Node) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Scalar(_) if node.is_null() => &[],
            Value::Scalar(_) | Value::List(_) | Value::Unknown => {
                self.wrong(what, "a mapping", node);
                &[]
            }
        }
    }
}

fn asks_for_nothing(node: &Node, silent: &[&str]) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.kind() == ScalarType::Null || silent.contains(&scalar.text.as_str()),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Unknown => true,
    }
}

/// Whether a host path is the socket of a container engine, and what is to be told of it then.
pub(crate) fn engine_socket(path: &std::path::Path) -> Option<(String, &'static str)> {
    let engines = ["docker.sock", "podman.sock", "containerd.sock", "crio.sock"];
    let is_one = engines.iter().any(|name| path.ends_with(name));
    let effect = "no daemon of that engine runs these containers, so it does not show them";
    is_one.then(|| (format!("{} as a way to the engine", path.display()), effect))
}

/// Whether a request may have this header: nothing in it can end it, or say how long the body is.
pub(crate) fn is_header(name: &str, value: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let ours = ["connection", "content-length", "transfer-encoding"];
    !name.is_empty()
        && name.chars().all(is_token)
        && !ours.iter().any(|own| name.eq_ignore_ascii_case(own))
        && !value.chars().any(char::is_control)
}

/// A name as an object can have it: other characters become `-`.
pub(crate) fn object_name(text: &str) -> String {
    let name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(63).collect();
    name.trim_matches('-').to_owned()
}
