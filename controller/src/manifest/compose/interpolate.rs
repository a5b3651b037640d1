//! `${…}` as Compose has it: `$NAME`, `${NAME}` and the six operators, whose words are replaced in turn; `$$` is a
//! dollar sign. A variable that is not set is empty, and told. Done on values of the tree, so that the content of a
//! variable can never change the structure.

use std::collections::BTreeMap;

/// Deepest nesting of `${A:-${B:-…}}`.
const DEPTH_MAX: usize = 16;
/// Longest result, in bytes: a variable that is named again and again must not fill the memory.
const RESULT_BYTES_MAX: usize = 1 << 20;

/// What is wrong with one `${…}`, in characters from the beginning of the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadVariable {
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) what: String,
}

/// A text with its variables replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Interpolated {
    pub(super) text: String,
    /// Names that are not set, with offset and length in characters.
    pub(super) unset: Vec<(String, usize, usize)>,
}

/// Replaces all variables.
///
/// # Errors
/// The first one that cannot be: malformed, or required and not set.
pub(super) fn interpolate(text: &str, variables: &BTreeMap<String, String>) -> Result<Interpolated, BadVariable> {
    let mut out = Interpolated::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        let offset = text[..text.len() - rest.len() + at].chars().count();
        let after = &rest[at + 1..];
        let bad = |len: usize, what: String| BadVariable { offset, len, what };
        if let Some(next) = after.strip_prefix('$') {
            out.text.push('$');
            rest = next;
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some(end) = closing(inner) else {
                let what = "`${` is never closed; write `$${` for the characters themselves".to_owned();
                return Err(bad(rest[at..].chars().count(), what));
            };
            let len = inner[..end].chars().count() + 3;
            let mut unset = Vec::new();
            let value = expand(&inner[..end], variables, &mut unset, 0).map_err(|what| bad(len, what))?;
            out.unset.extend(unset.into_iter().map(|name| (name, offset, len)));
            out.text.push_str(&value);
            rest = &inner[end + 1..];
        } else {
            let end = name_len(after);
            if end == 0 {
                let what = "a single `$` is the beginning of a variable; write `$$` for the character itself";
                return Err(bad(1, what.to_owned()));
            }
            let name = &after[..end];
            match variables.get(name) {
                Some(value) => out.text.push_str(value),
                None => out.unset.push((name.to_owned(), offset, end + 1)),
            }
            rest = &after[end..];
        }
        if out.text.len() > RESULT_BYTES_MAX {
            return Err(bad(1, "with its variables replaced it is longer than 1 MiB".to_owned()));
        }
    }
    out.text.push_str(rest);
    Ok(out)
}

/// The length of the name at the beginning; 0: there is none.
fn name_len(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The byte index of the brace that closes, those of inner variables skipped.
fn closing(inner: &str) -> Option<usize> {
    let mut depth = 0u32;
    let mut before = ' ';
    for (i, c) in inner.char_indices() {
        match c {
            '{' if before == '$' => depth += 1,
            '}' if depth == 0 => return Some(i),
            '}' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

fn expand(
    inner: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    if depth > DEPTH_MAX {
        return Err(format!("variables nested deeper than {DEPTH_MAX}"));
    }
    let (name, operation) = inner.split_at(name_len(inner));
    if name.is_empty() {
        return Err(format!("`${{{inner}}}` is not a variable; write `$${{{inner}}}` for the characters themselves"));
    }
    let set = variables.get(name);
    let filled = set.filter(|value| !value.is_empty());
    let mut word = |text: &str| words(text, variables, unset, depth + 1);
    let required = |value: Option<&String>, message: String| {
        let what = if message.is_empty() { String::new() } else { format!(": {message}") };
        value.cloned().ok_or_else(|| format!("variable `{name}` is required and not set{what}"))
    };
    if operation.is_empty() {
        if set.is_none() {
            unset.push(name.to_owned());
        }
        return Ok(set.cloned().unwrap_or_default());
    }
    let operators = [":-", "-", ":?", "?", ":+", "+"];
    match operators.iter().find_map(|op| Some((*op, operation.strip_prefix(op)?))) {
        Some((":-", text)) => filled.map_or_else(|| word(text), |value| Ok(value.clone())),
        Some(("-", text)) => set.map_or_else(|| word(text), |value| Ok(value.clone())),
        Some((":?", text)) => word(text).and_then(|message| required(filled, message)),
        Some(("?", text)) => word(text).and_then(|message| required(set, message)),
        Some((":+", text)) => filled.map_or_else(|| Ok(String::new()), |_| word(text)),
        Some(("+", text)) => set.map_or_else(|| Ok(String::new()), |_| word(text)),
        _ => Err(format!("`${{{inner}}}`: only `:-`, `-`, `:?`, `?`, `:+` and `+` may follow the name")),
    }
}

/// The word after an operator, with the variables in it replaced.
fn words(
    text: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing(inner).ok_or("`${` is never closed")?;
            out.push_str(&expand(&inner[..end], variables, unset, depth)?);
            rest = &inner[end + 1..];
        } else {
            let end = name_len(after);
            match variables.get(&after[..end]) {
                Some(value) => out.push_str(value),
                None if end == 0 => out.push('$'),
                None => unset.push(after[..end].to_owned()),
            }
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("A", "1"), ("EMPTY", "")].into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn forms() {
        for (text, expected) in [
            ("x${A}y$A.", "x1y1."),
            ("$${A} $$", "${A} $"),
            ("${B:-d}${EMPTY:-e}${EMPTY-e}", "de"),
            ("${A:+set}${B:+set}${EMPTY+set}", "setset"),
            ("${B:-${C:-${A}}}", "1"),
            ("${B:-a{b}c", "a{bc"),
            ("${A:?must}", "1"),
            ("${B-$A}", "1"),
        ] {
            assert_eq!(interpolate(text, &variables()).map(|done| done.text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_set_is_empty_and_told_with_its_place() {
        let done = interpolate("é${B}-$C${B:-}", &variables()).expect("nothing is malformed");
        assert_eq!(done.text, "é-");
        assert_eq!(done.unset, [("B".to_owned(), 1, 4), ("C".to_owned(), 6, 2)]);
    }

    #[test]
    fn malformed_and_required_ones_are_errors() {
        for text in ["${", "${}", "${1}", "${A!}", "a${B", "$", "a$ b", "$1", "${B:?}", "${B?say it}", "${EMPTY:?x}"] {
            assert!(interpolate(text, &variables()).is_err(), "{text}");
        }
        let bomb = "${A:-".repeat(40) + &"}".repeat(40);
        assert!(interpolate(&bomb.replace('A', "B"), &variables()).is_err());
    }
}
