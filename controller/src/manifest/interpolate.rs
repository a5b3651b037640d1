//! `${VAR}` in values: `${VAR}`, `${VAR:-default}`, `${VAR-default}`, `${VAR:?message}`, `${VAR?message}`,
//! `${VAR:+other}`, `${VAR+other}`; `$$` is one dollar sign. An unset variable is an error. A `$` before anything else
//! stays as it is. Done on values of the tree, so that a variable's content can never change the structure.

use std::collections::BTreeMap;

/// What is wrong with one `${…}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadVariable {
    /// Characters from the beginning of the text.
    pub(crate) offset: usize,
    /// Characters long.
    pub(crate) len: usize,
    /// The name, if it has one.
    pub(crate) name: String,
    /// What is wrong.
    pub(crate) what: String,
    /// Whether it is one that is not set.
    pub(crate) unset: bool,
}

/// Replaces all variables, or says what is wrong with each that cannot be.
///
/// # Errors
/// Every bad one, in order.
pub(crate) fn interpolate(text: &str, variables: &BTreeMap<String, String>) -> Result<String, Vec<BadVariable>> {
    let mut out = String::with_capacity(text.len());
    let mut bad = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let offset = text[..text.len() - rest.len() + at].chars().count();
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some(end) = closing(inner) else {
                let what = "`${` is never closed; write `$${` for the characters themselves".to_owned();
                let len = rest[at..].chars().count();
                bad.push(BadVariable { offset, len, name: String::new(), what, unset: false });
                break;
            };
            match expand(&inner[..end], variables) {
                Ok(value) => out.push_str(&value),
                Err((name, what, unset)) => {
                    let len = inner[..end].chars().count() + 3;
                    bad.push(BadVariable { offset, len, name, what, unset });
                }
            }
            rest = &inner[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    if bad.is_empty() { Ok(out) } else { Err(bad) }
}

/// The byte index of the brace that closes, nested ones skipped.
fn closing(inner: &str) -> Option<usize> {
    let mut depth = 0u32;
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(i),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn expand(inner: &str, variables: &BTreeMap<String, String>) -> Result<String, (String, String, bool)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = inner.find(|c| !is_word(c)).unwrap_or(inner.len());
    let (name, operation) = inner.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        let what = format!("`${{{inner}}}` is not a variable; write `$${{{inner}}}` for the characters themselves");
        return Err((name.to_owned(), what, false));
    }
    let set = variables.get(name);
    let filled = set.filter(|value| !value.is_empty());
    let unset = |message: &str| {
        let what = format!("variable `{name}` is not set");
        let what = if message.is_empty() { what } else { format!("{what}: {message}") };
        (name.to_owned(), what, true)
    };
    let or_else = |value: Option<&String>, default: &str| value.map_or_else(|| default.to_owned(), Clone::clone);
    match operation {
        "" => set.cloned().ok_or_else(|| unset("")),
        _ => {
            let operators = [":-", "-", ":?", "?", ":+", "+"];
            let found = operators.iter().find_map(|op| Some((*op, operation.strip_prefix(op)?)));
            match found {
                Some((":-", default)) => Ok(or_else(filled, default)),
                Some(("-", default)) => Ok(or_else(set, default)),
                Some((":?", message)) => filled.cloned().ok_or_else(|| unset(message)),
                Some(("?", message)) => set.cloned().ok_or_else(|| unset(message)),
                Some((":+", other)) => Ok(filled.map_or_else(String::new, |_| other.to_owned())),
                Some(("+", other)) => Ok(set.map_or_else(String::new, |_| other.to_owned())),
                _ => {
                    let what = format!("`${{{inner}}}`: only `:-`, `-`, `:?`, `?`, `:+` and `+` may follow the name");
                    Err((name.to_owned(), what, false))
                }
            }
        }
    }
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
            ("x${A}y", "x1y"),
            ("$${A} $$ $HOME $", "${A} $ $HOME $"),
            ("${B:-d}${EMPTY:-e}${EMPTY-e}", "de"),
            ("${A:+set}${B:+set}", "set"),
            ("${B:-{x}}", "{x}"),
        ] {
            assert_eq!(interpolate(text, &variables()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_unset_one_is_reported_with_its_place() {
        let bad = interpolate("é${B} ${C:?say it} ${A}", &variables()).expect_err("two are unset");
        let places: Vec<(usize, usize, bool)> = bad.iter().map(|b| (b.offset, b.len, b.unset)).collect();
        assert_eq!(places, [(1, 4, true), (6, 12, true)]);
        assert_eq!(bad[1].what, "variable `C` is not set: say it");
    }

    #[test]
    fn malformed_ones_are_not_passed_through() {
        for text in ["${", "${}", "${1}", "${A!}", "a${B"] {
            assert!(interpolate(text, &variables()).is_err(), "{text}");
        }
    }
}
