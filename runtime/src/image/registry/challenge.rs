//! `WWW-Authenticate` (RFC 9110 §11.6.1): a list of challenges, each a scheme with parameters. Bounded, never fails:
//! what cannot be read is left out.

use std::collections::BTreeMap;

/// Longest header looked at, in bytes.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// Most challenges and most parameters taken.
const ITEMS_MAX: usize = 32;

/// One way to log in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Challenge {
    /// In lower case.
    pub(super) scheme: String,
    /// By name in lower case.
    pub(super) params: BTreeMap<String, String>,
}

/// Reads one header value.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    if header.len() > HEADER_BYTES_MAX {
        return found;
    }
    let mut rest = header;
    for _ in 0..ITEMS_MAX {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            // not a list any more: go on behind the next comma, if there is one
            let Some((_, next)) = rest.split_once(',') else { break };
            rest = next;
            continue;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, next) = quoted_or_token(value.trim_start_matches([' ', '\t']));
                challenge.params.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = next;
            }
            (None, _) => {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), params: BTreeMap::new() });
                rest = after;
            }
            (Some(value), None) => rest = value,
        }
    }
    found
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn quoted_or_token(text: &str) -> (String, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &inner[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c if c.is_control() => {}
            c => value.push(c),
        }
    }
    (value, "")
}

/// A fuzz target: bounds hold and names are in lower case, whatever a registry sends.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let found = parse(&String::from_utf8_lossy(bytes));
    assert!(found.len() <= ITEMS_MAX, "{found:?}");
    let is_lower = |text: &str| !text.chars().any(|c| c.is_ascii_uppercase());
    assert!(found.iter().all(|one| is_lower(&one.scheme) && one.params.keys().all(|name| is_lower(name))), "{found:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn registries_challenges_are_read() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="a:b,c", Basic realm=x"#;
        let found = parse(header);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].params["realm"], "https://auth.example/token");
        assert_eq!(found[0].params["scope"], "a:b,c");
        assert_eq!(found[1].scheme, "basic");
        assert_eq!(found[1].params["realm"], "x");
    }

    #[test]
    fn strange_ones_are_survived() {
        assert_eq!(parse(r#"Basic realm="a \"b\" c""#)[0].params["realm"], r#"a "b" c"#);
        assert_eq!(parse("Negotiate abc==, Basic")[1].scheme, "basic");
        assert!(parse("").is_empty());
        assert!(parse(&"x ".repeat(9_000)).is_empty());
        assert_eq!(parse("Bearer realm=\"unterminated").len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_within_bounds(text in ".{0,400}") {
            prop_assert!(parse(&text).len() <= ITEMS_MAX);
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[ -~]{0,60}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{quoted}\", service=s");
            let found = parse(&header);
            prop_assert_eq!(&found[0].params["realm"], &value);
            prop_assert_eq!(&found[0].params["service"], "s");
        }
    }
}
