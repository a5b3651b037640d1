//! The walk of a tree against the schema of its kind: every unknown field, wrong type, bad value and missing field of
//! an object in one go, each at its own place, with the word that was probably meant.
//!
//! The shape is compiled from the same JSON Schema that is published in `schemas/`, so the two cannot disagree.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::advice;
use super::format::{self, Bad};
use super::tree::{Entry, Extent, Node, Path, ScalarType, Value};
use crate::model::{Diagnostic, codes};

/// What a value must look like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// A scalar with a format; its source text counts.
    Format(String),
    /// Text; if there are words, one of them.
    Text(Vec<String>),
    Int {
        min: i128,
        max: i128,
    },
    Bool,
    List(Box<Shape>),
    Object(BTreeMap<String, Field>),
    Map(Box<Shape>),
    /// By what is written: a scalar or a mapping.
    Either {
        scalar: Box<Shape>,
        map: Box<Shape>,
    },
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) shape: Shape,
    pub(crate) required: bool,
}

/// Compiles a JSON Schema as schemars makes them from our wire structs.
///
/// Panics on a schema that uses what we never write: a bug that any test finds.
pub(crate) fn compile(schema: &Json) -> Shape {
    compile_in(schema, schema)
}

fn compile_in(schema: &Json, root: &Json) -> Shape {
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return compile_in(target.expect("schemars writes local references that exist"), root);
    }
    if let Some(name) = schema.get("x-format").and_then(Json::as_str) {
        return Shape::Format(name.to_owned());
    }
    if let Some(word) = schema.get("const").and_then(Json::as_str) {
        return Shape::Text(vec![word.to_owned()]);
    }
    let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array);
    if let Some(alternatives) = alternatives {
        let shapes = alternatives.iter().filter(|s| s.get("type").and_then(Json::as_str) != Some("null"));
        return shapes.map(|schema| compile_in(schema, root)).reduce(either).expect("an alternative besides null");
    }
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return Shape::Text(words.iter().filter_map(Json::as_str).map(str::to_owned).collect());
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Json::String(one)) => vec![one.as_str()],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    };
    match types.as_slice() {
        ["string"] => Shape::Text(Vec::new()),
        ["boolean"] => Shape::Bool,
        ["integer"] => int(schema),
        ["array"] => Shape::List(Box::new(compile_in(&schema["items"], root))),
        ["object"] => match schema.get("properties").and_then(Json::as_object) {
            Some(properties) => {
                let required = |name: &str| {
                    let list = schema.get("required").and_then(Json::as_array);
                    list.is_some_and(|list| list.iter().any(|word| word == name))
                };
                let fields = properties.iter().map(|(name, schema)| {
                    let field = Field { shape: compile_in(schema, root), required: required(name) };
                    (name.clone(), field)
                });
                Shape::Object(fields.collect())
            }
            None => Shape::Map(Box::new(compile_in(&schema["additionalProperties"], root))),
        },
        other => panic!("a schema we never write: {other:?} in {schema}"),
    }
}

fn int(schema: &Json) -> Shape {
    let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
    // Bounds in our schemas are small whole numbers; the cast is exact.
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers far below 2^53")]
    let whole = |value: f64| value as i128;
    let max = match schema.get("format").and_then(Json::as_str) {
        Some("uint16") => i128::from(u16::MAX),
        _ => i128::from(u32::MAX),
    };
    Shape::Int { min: bound("minimum").map_or(0, whole), max: bound("maximum").map_or(max, whole) }
}

fn either(a: Shape, b: Shape) -> Shape {
    match (a, b) {
        (Shape::Text(mut words), Shape::Text(more)) => {
            words.extend(more);
            Shape::Text(words)
        }
        (scalar, map @ (Shape::Object(_) | Shape::Map(_))) => {
            Shape::Either { scalar: Box::new(scalar), map: Box::new(map) }
        }
        (a, b) => panic!("alternatives we never write: {a:?} and {b:?}"),
    }
}

/// Where a walk stands.
pub(crate) struct Walk<'a> {
    pub(crate) file: &'a str,
    /// `App `web``, for messages about the top level.
    pub(crate) object: &'a str,
    pub(crate) out: Vec<Diagnostic>,
}

impl Walk<'_> {
    fn push(&mut self, diagnostic: Diagnostic, extent: Extent) {
        self.out.push(diagnostic.at(extent.in_file(self.file)));
    }

    fn wrong(&mut self, path: &Path, expected: &str, node: &Node) {
        let what = format!("`{path}`: expected {expected}, found {node}");
        self.push(Diagnostic::error(codes::WRONG_TYPE, what), node.extent);
    }

    /// Checks one value and marks the scalars that are to be taken as text.
    pub(crate) fn check(&mut self, node: &mut Node, shape: &Shape, path: &Path) {
        if node.value == Value::Unknown {
            return;
        }
        match shape {
            Shape::Format(name) => self.check_format(node, name, path),
            Shape::Text(words) => self.check_text(node, words, path),
            Shape::Int { min, max } => self.check_int(node, *min, *max, path),
            Shape::Bool => {
                let kind = node.scalar().map(super::tree::Scalar::kind);
                if !matches!(kind, Some(ScalarType::Bool(_))) {
                    self.wrong(path, "true or false", node);
                }
            }
            Shape::List(item) => match &mut node.value {
                Value::List(items) => {
                    for (i, node) in items.iter_mut().enumerate() {
                        self.check(node, item, &path.index(i));
                    }
                }
                Value::Scalar(_) | Value::Map(_) | Value::Unknown => self.wrong(path, "a list", node),
            },
            Shape::Object(fields) => self.check_object(node, fields, path),
            Shape::Map(value) => match &mut node.value {
                Value::Map(entries) => {
                    for entry in entries {
                        let path = path.key(&entry.key);
                        if entry.value.is_null() {
                            let what = format!("`{path}` has no value");
                            let diagnostic =
                                Diagnostic::error(codes::WRONG_TYPE, what).help("write \"\" for an empty one");
                            self.push(diagnostic, entry.key_extent);
                        } else {
                            self.check(&mut entry.value, value, &path);
                        }
                    }
                }
                Value::Scalar(_) | Value::List(_) | Value::Unknown => self.wrong(path, "a mapping", node),
            },
            Shape::Either { scalar, map } => match node.value {
                Value::Map(_) => self.check(node, map, path),
                Value::Scalar(_) => self.check(node, scalar, path),
                Value::List(_) | Value::Unknown => self.wrong(path, "a single value or a mapping", node),
            },
        }
    }

    fn check_format(&mut self, node: &mut Node, name: &str, path: &Path) {
        let check = format::check(name).expect("every format in a schema is in the table");
        let result = match &mut node.value {
            Value::Scalar(scalar) if !scalar.is_null() => {
                scalar.as_text = true;
                check(&scalar.text)
            }
            Value::Scalar(_) | Value::List(_) | Value::Map(_) | Value::Unknown => {
                return self.wrong(path, "a single value", node);
            }
        };
        if let Err(bad) = result {
            self.bad(path, bad, node.extent);
        }
    }

    pub(crate) fn bad(&mut self, path: &Path, bad: Bad, extent: Extent) {
        let Bad { code, what, help, suggestion } = bad;
        let mut diagnostic = Diagnostic::error(code, format!("`{path}`: {what}")).suggest(suggestion);
        diagnostic.help = help;
        self.push(diagnostic, extent);
    }

    fn check_text(&mut self, node: &mut Node, words: &[String], path: &Path) {
        let extent = node.extent;
        let text = match &node.value {
            Value::Scalar(scalar) if scalar.kind() == ScalarType::Text => scalar.text.clone(),
            Value::Scalar(scalar) if words.is_empty() && !scalar.is_null() => {
                let what = format!("`{path}`: expected a text, found {node}");
                let quoted = format!("\"{}\"", scalar.text);
                let diagnostic = Diagnostic::error(codes::WRONG_TYPE, what).why(format!("write {quoted}"));
                return self.push(Diagnostic { suggestion: Some(quoted), ..diagnostic }, extent);
            }
            Value::Scalar(_) | Value::List(_) | Value::Map(_) | Value::Unknown => {
                let expected = if words.is_empty() { "a text".to_owned() } else { one_of(words) };
                return self.wrong(path, &expected, node);
            }
        };
        if let Err(bad) = format::no_nul(&text) {
            return self.bad(path, bad, extent);
        }
        if !words.is_empty() && !words.contains(&text) {
            let near = crate::text::nearest(&text, words.iter().map(String::as_str)).map(str::to_owned);
            let what = format!("`{path}`: expected {}, found {node}", one_of(words));
            self.push(Diagnostic::error(codes::WRONG_TYPE, what).suggest(near), extent);
        }
    }

    fn check_int(&mut self, node: &Node, min: i128, max: i128, path: &Path) {
        let port = (min, max) == (1, 65_535);
        let expected = match (min, max) {
            _ if port => "a port 1-65535".to_owned(),
            (0, max) if max == i128::from(u32::MAX) => "a whole number".to_owned(),
            (min, max) if max == i128::from(u32::MAX) => format!("a whole number from {min}"),
            _ => format!("a whole number from {min} to {max}"),
        };
        match node.scalar().map(super::tree::Scalar::kind) {
            Some(ScalarType::Int(value)) if (min..=max).contains(&value) => {}
            _ => self.wrong(path, &expected, node),
        }
    }

    fn check_object(&mut self, node: &mut Node, fields: &BTreeMap<String, Field>, path: &Path) {
        let extent = node.extent;
        let Value::Map(entries) = &mut node.value else {
            let names: Vec<&str> = fields.keys().map(String::as_str).take(4).collect();
            let expected = format!("a mapping with {} …", names.join(", "));
            return self.wrong(path, &expected, node);
        };
        let mut meant: Vec<String> = Vec::new();
        for entry in entries.iter_mut() {
            match fields.get(&entry.key) {
                // A field without a value is one that is not there.
                Some(_) if entry.value.is_null() => {}
                Some(field) => self.check(&mut entry.value, &field.shape, &path.key(&entry.key)),
                None => {
                    let present = |name: &str| fields.contains_key(name);
                    meant.extend(self.unknown(entry, fields, path).filter(|name| present(name)));
                }
            }
        }
        for (name, _) in fields.iter().filter(|(_, field)| field.required) {
            let entry = entries.iter().find(|entry| entry.key == *name);
            if entry.is_some_and(|entry| !entry.value.is_null()) || meant.contains(name) {
                continue;
            }
            let owner = if path.0.is_empty() { self.object.to_owned() } else { format!("`{path}`") };
            let what = match entry {
                Some(_) => format!("`{}` of {owner} has no value", path.key(name)),
                None => format!("{owner} needs a field `{name}`"),
            };
            self.push(Diagnostic::error(codes::MISSING_FIELD, what), entry.map_or(extent, |entry| entry.key_extent));
        }
    }

    /// Reports a field that does not exist; returns what was probably meant.
    fn unknown(
        &mut self,
        entry: &Entry,
        fields: &BTreeMap<String, Field>,
        path: &Path,
    ) -> impl Iterator<Item = String> + use<> {
        let owner = if path.0.is_empty() { self.object.to_owned() } else { format!("`{path}`") };
        let key = &entry.key;
        if key == "<<" {
            // A merge key was refused as such.
            return None.into_iter();
        }
        if key == "command" && path.0.is_empty() {
            self.push(advice::command(), entry.key_extent);
            return None.into_iter();
        }
        let what = format!("unknown field `{key}` in {owner}");
        let diagnostic = Diagnostic::error(codes::UNKNOWN_FIELD, what);
        let known = || fields.keys().map(String::as_str);
        let near = crate::text::nearest(key, known()).map(str::to_owned);
        let advice = advice::field(key);
        let diagnostic = match (advice, near.clone()) {
            (Some(advice), near) if near.is_none() || advice::is_certain(key) => diagnostic.why(advice),
            (_, Some(near)) => diagnostic.suggest(Some(near)),
            (_, None) => {
                let names: Vec<&str> = known().collect();
                diagnostic.note(format!("its fields are: {}", names.join(", ")))
            }
        };
        self.push(diagnostic, entry.key_extent);
        near.into_iter()
    }
}

fn one_of(words: &[String]) -> String {
    match words {
        [one] => format!("`{one}`"),
        _ => {
            let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            format!("one of {}", quoted.join(", "))
        }
    }
}
