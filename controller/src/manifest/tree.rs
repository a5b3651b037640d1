//! A YAML document with the place of every key and value. Made by `yaml`, read by everything else in this room.

use std::fmt;

use crate::model::Span;

/// A stretch of one file; lines and columns count from 1, columns in characters, the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) end_line: u32,
    pub(crate) end_column: u32,
    /// Which of several files whose trees were joined; 0: the document's own.
    pub(crate) file: u16,
}

impl Extent {
    pub(crate) fn in_file(self, file: &str) -> Span {
        Span {
            file: file.to_owned(),
            line: self.line,
            column: self.column,
            end_line: self.end_line,
            end_column: self.end_column,
        }
    }

    /// The same, so many lines further down.
    pub(crate) fn below(self, lines: u32) -> Self {
        Self { line: self.line + lines, end_line: self.end_line + lines, ..self }
    }

    /// `count` characters from `offset` characters into it; for places inside a scalar of one line.
    pub(crate) fn part(self, offset: usize, count: usize) -> Self {
        let offset = u32::try_from(offset).unwrap_or(0);
        let column = self.column.saturating_add(offset);
        let end_column = column.saturating_add(u32::try_from(count).unwrap_or(1));
        Self { line: self.line, column, end_line: self.line, end_column, file: self.file }
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) extent: Extent,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// An alias or an unset variable: what it stands for is not known, and that was reported.
    Unknown,
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_extent: Extent,
    pub(crate) value: Node,
}

/// A scalar as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    /// Without quotes, escapes done.
    pub(crate) text: String,
    /// How it was written.
    pub(crate) style: Style,
    /// Taken as text whatever it looks like: the schema says so.
    pub(crate) as_text: bool,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
    Block,
}

/// What a scalar is by YAML 1.2's core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScalarType {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

impl Scalar {
    pub(crate) fn kind(&self) -> ScalarType {
        if self.as_text || self.style != Style::Plain {
            return ScalarType::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => ScalarType::Null,
            "true" | "True" | "TRUE" => ScalarType::Bool(true),
            "false" | "False" | "FALSE" => ScalarType::Bool(false),
            text => number(text),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.kind() == ScalarType::Null
    }
}

/// YAML 1.2 §10.3.2, without `.inf` and `.nan`, which no manifest means.
fn number(text: &str) -> ScalarType {
    let radix = |digits: &str, radix| i128::from_str_radix(digits, radix).map_or(ScalarType::Text, ScalarType::Int);
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.contains(|c: char| c.is_ascii_digit())
    {
        return ScalarType::Text;
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_or(ScalarType::Text, ScalarType::Int);
    }
    let is_float = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    if is_float { text.parse().map_or(ScalarType::Text, ScalarType::Float) } else { ScalarType::Text }
}

impl Node {
    /// Says of everything in it that it comes from this one of several files.
    pub(crate) fn set_file(&mut self, file: u16) {
        self.extent.file = file;
        match &mut self.value {
            Value::Scalar(_) | Value::Unknown => {}
            Value::List(items) => items.iter_mut().for_each(|item| item.set_file(file)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.key_extent.file = file;
                    entry.value.set_file(file);
                }
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Scalar(_) | Value::List(_) | Value::Unknown => None,
        }
    }

    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::List(_) | Value::Map(_) | Value::Unknown => None,
        }
    }

    /// The text of the scalar under `key`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        Some(self.get(key)?.value.scalar()?.text.as_str())
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// The entries of a mapping; of anything else none.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Scalar(_) | Value::List(_) | Value::Unknown => &[],
        }
    }

    /// The items of a list; of anything else itself.
    pub(crate) fn one_or_more(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Scalar(_) | Value::Map(_) | Value::Unknown => std::slice::from_ref(self),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.scalar().is_some_and(Scalar::is_null)
    }
}

/// `found …` in messages.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalar = match &self.value {
            Value::List(_) => return f.write_str("a list"),
            Value::Map(_) => return f.write_str("a mapping"),
            Value::Unknown => return f.write_str("something unknown"),
            Value::Scalar(scalar) => scalar,
        };
        let mut short: String = scalar.text.chars().take(40).collect();
        if short.len() < scalar.text.len() {
            short.push('…');
        }
        match scalar.kind() {
            ScalarType::Null => f.write_str("nothing"),
            ScalarType::Bool(_) => write!(f, "the boolean {short}"),
            ScalarType::Int(_) | ScalarType::Float(_) => write!(f, "the number {short}"),
            ScalarType::Text => write!(f, "{short:?}"),
        }
    }
}

/// Where something is below the root of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<Step>);

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// The extent of the value there, or of the nearest value above that exists.
    pub(crate) fn extent(&self, root: &Node) -> Extent {
        self.node(root).extent
    }

    /// The value there, or the nearest above that exists.
    pub(crate) fn node<'a>(&self, root: &'a Node) -> &'a Node {
        let mut node = root;
        for step in &self.0 {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Map(_)) => node.get(key).map(|entry| &entry.value),
                (Step::Index(index), Value::List(items)) => items.get(*index),
                (Step::Key(_) | Step::Index(_), _) => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
