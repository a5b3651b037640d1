//! Which property of a JSON text a place in it belongs to, for errors that name a column only. Pure.

/// One step from the root of a document.
enum Step {
    Key(String),
    Item(usize),
}

/// The property in which a parser stopped that had read `read` bytes of a valid text: `linux.resources.cpu`, `mounts[2]`;
/// the whole document is `config.json`.
#[must_use]
pub(super) fn path_at(text: &[u8], read: usize) -> String {
    let mut steps: Vec<Step> = Vec::new();
    let mut wants_key = false;
    let mut at = 0;
    while at < read.min(text.len()) {
        match text[at] {
            b'{' => {
                steps.push(Step::Key(String::new()));
                wants_key = true;
            }
            b'[' => steps.push(Step::Item(0)),
            b'}' | b']' => {
                steps.pop();
                wants_key = false;
            }
            b',' => match steps.last_mut() {
                Some(Step::Item(item)) => *item += 1,
                Some(Step::Key(_)) => wants_key = true,
                None => {}
            },
            b'"' => {
                let end = at + string_bytes(&text[at..]);
                if let (true, Some(Step::Key(key))) = (wants_key, steps.last_mut()) {
                    *key = serde_json::from_slice(&text[at..end]).unwrap_or_default();
                    wants_key = false;
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    shown(&steps)
}

/// Bytes of the string that begins here, with its quotes.
fn string_bytes(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    text.len().min(at + 1)
}

fn shown(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Item(item) => path.push_str(&format!("[{item}]")),
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => path.push_str(&format!(".{key}")),
        }
    }
    if path.is_empty() { "config.json".to_owned() } else { path }
}

#[cfg(test)]
mod tests {
    use super::path_at;

    #[test]
    fn places_are_named() {
        let text = br#"{"a":{"b":[1,{"c\"{":true},"x"]},"d":null}"#;
        let at = |part: &str| {
            let text = std::str::from_utf8(text).unwrap();
            path_at(text.as_bytes(), text.find(part).unwrap() + part.len())
        };
        assert_eq!(at("[1"), "a.b[0]");
        assert_eq!(at("tru"), "a.b[1].c\"{");
        assert_eq!(at("\"x\""), "a.b[2]");
        assert_eq!(at("null"), "d");
        assert_eq!(at("]"), "a.b");
        assert_eq!(path_at(text, 0), "config.json");
        assert_eq!(path_at(text, 1_000), "config.json");
    }
}
