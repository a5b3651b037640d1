//! Reads the project's files and answers simple questions about Rust text: what is code and what is comment or
//! string, which lines belong to tests, where functions begin and end. A lexer of a page, not a parser: it is right for
//! formatted code, which the gate guarantees.

use std::path::{Path, PathBuf};

/// One file of the project.
pub(crate) struct Source {
    /// Path from the project's root, with `/`.
    pub(crate) path: String,
    /// As on disk.
    pub(crate) text: String,
    /// The same lines with comments and the content of literals blanked out.
    pub(crate) code: String,
    /// For each line: does it belong to a test?
    pub(crate) in_test: Vec<bool>,
}

/// A function's name, first line (from 1) and length in lines.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// The project's root directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the workspace").to_path_buf()
}

/// Every file of the project with one of these extensions, in order of path.
pub(crate) fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).expect("readable directory").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("file type");
            if kind.is_dir() {
                if name != "target" && name != ".git" {
                    todo.push(path);
                }
            } else if extensions.iter().any(|extension| name.ends_with(extension)) && kind.is_file() {
                let relative = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                if let Ok(text) = std::fs::read_to_string(&path) {
                    found.push((relative, text));
                }
            }
        }
    }
    found.sort();
    found
}

/// All Rust files.
pub(crate) fn sources() -> Vec<Source> {
    files(&[".rs"]).into_iter().map(|(path, text)| Source::new(path, text)).collect()
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        let whole = path.starts_with("tests/")
            || path.starts_with("benches/")
            || path.ends_with("/tests.rs")
            || path.contains("/tests/")
            || path.contains("/testing");
        let in_test = if whole { vec![true; code.lines().count()] } else { test_lines(&code) };
        Self { path, text, code, in_test }
    }

    /// Lines of code that are not in tests, numbered from 1.
    pub(crate) fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().filter(|(at, _)| !self.in_test[*at]).map(|(at, line)| (at + 1, line))
    }

    /// Functions with a body, in order.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for start in occurrences(&self.code, "fn") {
            let rest = self.code[start + 2..].trim_start();
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() {
                continue; // a function pointer type
            }
            let Some(open) = body_start(bytes, start) else { continue };
            let close = matching(bytes, open);
            let line = line_of(&self.code, start);
            found.push(Function { name, line, lines: line_of(&self.code, close) - line + 1 });
        }
        found
    }
}

/// Where a word stands in a text, as a whole word. The word may hold `::` and a trailing `!`.
pub(crate) fn occurrences(text: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .filter(|(at, _)| {
            let before = text[..*at].chars().next_back().is_none_or(|c| !part(c));
            let after = text[at + word.len()..].chars().next().is_none_or(|c| !part(c));
            before && (after || word.ends_with("::"))
        })
        .map(|(at, _)| at)
        .collect()
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The `{` of the body that begins after a `fn`, if it has one.
fn body_start(bytes: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, byte) in bytes[from..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(from + offset),
            b';' | b'}' if depth <= 0 => return None,
            _ => {}
        }
    }
    None
}

/// The `}` that closes the `{` at `open`; the end of the text when there is none.
pub(crate) fn matching(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in bytes[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    bytes.len() - 1
}

/// Which lines an item under `#[cfg(test)]` takes.
fn test_lines(code: &str) -> Vec<bool> {
    let mut lines = vec![false; code.lines().count()];
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let after = at + attribute.len();
        let end = match code[after..].find(['{', ';']) {
            Some(offset) if code.as_bytes()[after + offset] == b'{' => matching(code.as_bytes(), after + offset),
            Some(offset) => after + offset,
            None => after,
        };
        for line in &mut lines[line_of(code, at) - 1..line_of(code, end)] {
            *line = true;
        }
    }
    lines
}

/// Replaces comments and the content of string and character literals by spaces; keeps every line break.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end,
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("only whole literals are replaced")
}

/// If a comment or a literal begins at `at`: where it ends.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let in_word = at > 0 && part(&bytes[at - 1]);
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment_end(bytes, at));
    }
    if !in_word && (rest[0] == b'r' || rest.starts_with(b"br")) {
        let prefix = if rest[0] == b'b' { 2 } else { 1 };
        let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(prefix + hashes) == Some(&b'"') {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let body = at + prefix + hashes + 1;
            let found = bytes[body..].windows(close.len()).position(|window| window == close);
            return Some(found.map_or(bytes.len(), |offset| body + offset + close.len()));
        }
    }
    match rest[0] {
        b'"' => Some(quoted_end(bytes, at, b'"')),
        // a character literal, unless it is a lifetime: 'a' has its quote after one character, '\n' begins with \
        b'\'' if rest.get(1) == Some(&b'\\') => Some(quoted_end(bytes, at, b'\'')),
        b'\'' => {
            let character = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .unwrap_or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).unwrap_or(""));
            let len = character.chars().next()?.len_utf8();
            (rest.get(1 + len) == Some(&b'\'')).then_some(at + len + 2)
        }
        _ => None,
    }
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut index = at + 1;
    while index < bytes.len() {
        match bytes[index] {
            b'\\' => index += 2,
            byte if byte == quote => return index + 1,
            _ => index += 1,
        }
    }
    bytes.len()
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut index = at;
    while index < bytes.len() {
        if bytes[index..].starts_with(b"/*") {
            depth += 1;
            index += 2;
        } else if bytes[index..].starts_with(b"*/") {
            depth -= 1;
            index += 2;
            if depth == 0 {
                return index;
            }
        } else {
            index += 1;
        }
    }
    bytes.len()
}
