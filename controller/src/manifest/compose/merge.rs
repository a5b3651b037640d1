//! Joining two versions of a mapping: an override file over its base, a service over what it extends. Mappings join key
//! by key, lists are put one after the other, single values are replaced; what may be written as a list or as a mapping
//! is made a mapping first. Pure.

use crate::manifest::tree::{Entry, Node, Scalar, Style, Value};

/// Keys whose value is replaced as a whole.
const REPLACED: [&str; 4] = ["command", "entrypoint", "test", "profiles"];
/// Keys that are lists of `NAME=value`, `NAME: value` or `NAME`, or mappings.
const PAIRS: [&str; 5] = ["environment", "labels", "annotations", "sysctls", "args"];
/// Keys that are lists of names, or mappings.
const NAMES: [&str; 2] = ["depends_on", "networks"];

/// `over` on top of `base`. `key` is where they are.
pub(super) fn merge(base: Node, over: Node, key: &str) -> Node {
    if REPLACED.contains(&key) {
        return over;
    }
    let (base, over) = (as_map(base, key), as_map(over, key));
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => Value::Map(merge_entries(base, over)),
        (Value::List(base), Value::List(over)) => Value::List(append(base, over, key)),
        (Value::List(base), scalar @ Value::Scalar(_)) if matches!(key, "env_file" | "tmpfs" | "dns") => {
            Value::List(append(base, vec![Node { extent: over.extent, value: scalar }], key))
        }
        (base, Value::Unknown) => base,
        (base, Value::Scalar(scalar)) if scalar.is_null() => base,
        (_, over) => over,
    };
    Node { extent: over.extent, value }
}

/// Entries of one mapping over those of another.
pub(super) fn merge_entries(mut base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    for entry in over {
        match base.iter_mut().find(|known| known.key == entry.key) {
            Some(known) => {
                let nothing = Node { extent: entry.value.extent, value: Value::Unknown };
                let before = std::mem::replace(&mut known.value, nothing);
                known.value = merge(before, entry.value, &entry.key);
                known.key_extent = entry.key_extent;
            }
            None => base.push(entry),
        }
    }
    base
}

/// A mount at the same place, and an entry written the same, take the place of the first one.
fn append(base: Vec<Node>, over: Vec<Node>, key: &str) -> Vec<Node> {
    let identity = |node: &Node| match key {
        "volumes" => target(node),
        _ => node.scalar().map(|scalar| scalar.text.clone()),
    };
    let mut all = base;
    for node in over {
        let same = identity(&node).and_then(|id| all.iter().position(|known| identity(known).as_ref() == Some(&id)));
        match same {
            Some(at) => all[at] = node,
            None => all.push(node),
        }
    }
    all
}

fn target(node: &Node) -> Option<String> {
    match node.scalar() {
        Some(scalar) => {
            let mut parts = scalar.text.split(':');
            let first = parts.next()?;
            Some(parts.next().unwrap_or(first).to_owned())
        }
        None => node.text("target").map(str::to_owned),
    }
}

/// The mapping that a list of pairs or names stands for; anything else as it is.
pub(super) fn as_map(node: Node, key: &str) -> Node {
    let pairs = PAIRS.contains(&key);
    if !pairs && !NAMES.contains(&key) {
        return node;
    }
    let is_plain = |items: &[Node]| items.iter().all(|item| item.scalar().is_some() || item.value == Value::Unknown);
    let value = match node.value {
        Value::List(items) if is_plain(&items) => {
            Value::Map(items.into_iter().fold(Vec::new(), |entries, item| merge_entries(entries, pair(item, pairs))))
        }
        other => other,
    };
    Node { extent: node.extent, value }
}

fn pair(item: Node, pairs: bool) -> Vec<Entry> {
    let Value::Scalar(scalar) = item.value else { return Vec::new() };
    let quote = usize::from(scalar.style == Style::Quoted);
    let (name, value, style) = match scalar.text.split_once('=').filter(|_| pairs) {
        Some((name, value)) => (name.to_owned(), value.to_owned(), Style::Quoted),
        None => (scalar.text, String::new(), Style::Plain),
    };
    let in_place = item.extent.line == item.extent.end_line && scalar.style != Style::Block;
    let part = |offset: usize, len: usize| if in_place { item.extent.part(offset, len.max(1)) } else { item.extent };
    let key_extent = part(quote, name.chars().count());
    let extent = if style == Style::Plain { key_extent } else { part(quote + name.chars().count() + 1, value.len()) };
    let value = Node { extent, value: Value::Scalar(Scalar { text: value, style, as_text: false }) };
    vec![Entry { key: name, key_extent, value }]
}
