//! `.env` and `env_file`: `NAME=value` lines with comments, quotes, escapes and variables. Pure.

use std::collections::BTreeMap;

use super::interpolate::interpolate;

/// What a file sets, in its order; `None`: a name without `=`, which stands for the environment's value.
pub(super) type Settings = Vec<(String, Option<String>)>;

/// Reads a text. `variables` are what `${…}` in it may name, besides what stands above it.
///
/// # Errors
/// Line (from 1) and what is wrong with it.
pub(super) fn read(text: &str, variables: &BTreeMap<String, String>) -> Result<Settings, (u32, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut known = variables.clone();
    let mut settings = Settings::new();
    let mut lines = (1u32..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            settings.push((name_of(line, number)?, None));
            continue;
        };
        let name = name_of(name, number)?;
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut content = value[1..].to_owned();
                while end_of_quote(&content, quote).is_none() {
                    let Some((_, more)) = lines.next() else {
                        return Err((number, format!("the quote after `{name}=` is never closed")));
                    };
                    content.push('\n');
                    content.push_str(more);
                }
                let end = end_of_quote(&content, quote).unwrap_or(content.len());
                let content = &content[..end];
                if quote == '"' { replaced(&unescaped(content), &known, number)? } else { content.to_owned() }
            }
            _ => {
                let end = value.find(" #").unwrap_or(value.len());
                replaced(value[..end].trim_end(), &known, number)?
            }
        };
        // The environment wins over what is written above, as it does over the whole file.
        known.entry(name.clone()).or_insert_with(|| value.clone());
        settings.push((name, Some(value)));
    }
    Ok(settings)
}

fn name_of(text: &str, line: u32) -> Result<String, (u32, String)> {
    let name = text.trim();
    if name.is_empty() || name.contains(char::is_whitespace) || name.contains('\0') {
        return Err((line, format!("{name:?} is not the name of a variable")));
    }
    Ok(name.to_owned())
}

fn replaced(text: &str, known: &BTreeMap<String, String>, line: u32) -> Result<String, (u32, String)> {
    interpolate(text, known).map(|done| done.text).map_err(|bad| (line, bad.what))
}

fn end_of_quote(content: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in content.char_indices() {
        match c {
            '\\' if quote == '"' => escaped = !escaped,
            _ if c == quote && !escaped => return Some(i),
            _ => escaped = false,
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match (c, c == '\\') {
            (_, false) => out.push(c),
            (_, true) => match letters.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('$') => out.push_str("$$"),
                Some(other @ ('"' | '\\')) => out.push(other),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let text =
            "# c\nA=1\nexport B = two words # comment\nC='${A} #'\nD=\"x\\n${A}\\$\"\nE\nF=\nG=\"a\nb\"\nH=${A}#1\n";
        let read = read(text, &BTreeMap::new()).expect("all lines are good");
        let shown: Vec<String> = read.iter().map(|(k, v)| format!("{k}={}", v.as_deref().unwrap_or("<env>"))).collect();
        assert_eq!(shown, ["A=1", "B=two words", "C=${A} #", "D=x\n1$", "E=<env>", "F=", "G=a\nb", "H=1#1"]);
    }

    #[test]
    fn what_is_wrong_has_a_line() {
        for (text, line) in [("A=1\n=2\n", 2), ("A b=1\n", 1), ("A=\"x\n\n", 1), ("A=${", 1)] {
            assert_eq!(read(text, &BTreeMap::new()).map_err(|(line, _)| line), Err(line), "{text:?}");
        }
    }
}
