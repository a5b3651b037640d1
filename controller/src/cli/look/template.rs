//! The few words of Go's templates that people use with `inspect --format`. Pure.

use serde_json::Value;

/// What is understood, for messages.
const KNOWN: &str = "{{.A.B}}, {{json .A}}, {{len .A}} and {{index .A \"key\"}}";

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Piece {
    Text(String),
    /// `.A.B`: names on the way down.
    Field(Vec<String>),
    Json(Vec<String>),
    Len(Vec<String>),
    Index(Vec<String>, String),
}

/// Reads a template.
///
/// # Errors
/// A sentence naming the piece that is not understood.
pub(in crate::cli) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, left) = after.split_once("}}").ok_or_else(|| format!("`{text}` has a {{{{ without its }}}}"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(unescaped(before)));
        }
        pieces.push(
            piece(inside.trim()).ok_or_else(|| format!("`{{{{{inside}}}}}` is not understood: there are {KNOWN}"))?,
        );
        rest = left;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(unescaped(rest)));
    }
    Ok(pieces)
}

/// `\\t` and `\\n` as in Docker's formats.
fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn piece(inside: &str) -> Option<Piece> {
    if inside.starts_with('.') {
        return Some(Piece::Field(path(inside)?));
    }
    let (word, rest) = inside.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    Some(match word {
        "json" => Piece::Json(path(rest)?),
        "len" => Piece::Len(path(rest)?),
        "index" => {
            let (of, key) = rest.split_once(char::is_whitespace)?;
            let key = key.trim();
            let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
            let key = quoted.or_else(|| key.bytes().all(|byte| byte.is_ascii_digit()).then_some(key))?;
            Piece::Index(path(of)?, key.to_owned())
        }
        _ => return None,
    })
}

/// `.` is everything.
fn path(text: &str) -> Option<Vec<String>> {
    let names = text.strip_prefix('.')?;
    if names.is_empty() {
        return Some(Vec::new());
    }
    let names: Vec<String> = names.split('.').map(str::to_owned).collect();
    let is_name =
        |name: &String| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    names.iter().all(is_name).then_some(names)
}

/// Fills a template in.
///
/// # Errors
/// A sentence naming what is not there, with what is.
pub(in crate::cli) fn fill(pieces: &[Piece], value: &Value) -> Result<String, String> {
    let mut line = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => line.push_str(text),
            Piece::Field(path) => line.push_str(&shown(find(value, path)?)),
            Piece::Json(path) => line.push_str(&find(value, path)?.to_string()),
            Piece::Len(path) => {
                let found = find(value, path)?;
                let len = match found {
                    Value::Array(list) => list.len(),
                    Value::Object(map) => map.len(),
                    Value::String(text) => text.len(),
                    Value::Null => 0,
                    Value::Bool(_) | Value::Number(_) => return Err(format!("`.{}` has no length", path.join("."))),
                };
                line.push_str(&len.to_string());
            }
            Piece::Index(path, key) => {
                let found = find(value, path)?;
                let at = key.parse::<usize>().ok().and_then(|at| found.get(at));
                // Go gives the empty value for a key a map does not have
                line.push_str(&at.or_else(|| found.get(key)).map(shown).unwrap_or_default());
            }
        }
    }
    Ok(line)
}

fn find<'v>(value: &'v Value, path: &[String]) -> Result<&'v Value, String> {
    let mut here = value;
    for (depth, name) in path.iter().enumerate() {
        here = here.get(name).ok_or_else(|| {
            let known: Vec<&str> =
                here.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
            let nearest = crate::text::nearest(name, known.iter().copied());
            let hint = nearest.map_or_else(|| known.join(", "), |name| format!("`{name}`"));
            format!("there is no `.{}`; `.{}` has {hint}", path[..=depth].join("."), path[..depth].join("."))
        })?;
    }
    Ok(here)
}

/// As Go prints values: text bare, lists and maps in brackets.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str) -> Result<String, String> {
        let value = json!({"State": {"Status": "running", "Pid": 7, "Exit": null}, "Env": ["A=1", "B=2"],
            "Labels": {"a.b": "c", "d": "e"}});
        fill(&parse(template)?, &value)
    }

    #[test]
    fn fields_json_len_and_index_are_understood() {
        for (template, line) in [
            ("{{.State.Status}}", "running"),
            ("{{ .State.Pid }} {{.State.Exit}}", "7 <no value>"),
            ("{{json .Env}}", r#"["A=1","B=2"]"#),
            ("{{.Env}} {{.Labels}}", "[A=1 B=2] map[a.b:c d:e]"),
            (r#"{{index .Labels "a.b"}}|{{index .Env 1}}|{{index .Labels "no"}}"#, "c|B=2|"),
            (r"{{len .Env}}\tx", "2\tx"),
            ("plain", "plain"),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(line), "{template}");
        }
    }

    #[test]
    fn what_is_not_there_or_not_understood_is_said_with_what_is() {
        let said = filled("{{.State.Statsu}}").unwrap_err();
        assert!(said.contains("`.State.Statsu`") && said.contains("`Status`"), "{said}");
        for bad in
            ["{{.State", "{{range .Env}}", "{{}}", "{{json}}", "{{.A..B}}", "{{if .A}}x{{end}}", "{{index .Env}}"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
