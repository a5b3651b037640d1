//! A command line as words, as a shell splits it: quotes, backslashes, nothing else. Pure.

/// Splits; `None`: a quote is never closed.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => match letters.next()? {
                            '\n' => {}
                            other @ ('"' | '\\' | '$' | '`') => word.push(other),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => match letters.next()? {
                '\n' => {}
                other => word.get_or_insert_default().push(other),
            },
            '#' if word.is_none() => {
                // A comment, to the end of the line.
                for skipped in letters.by_ref() {
                    if skipped == '\n' {
                        break;
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("a  b\nc", &["a", "b", "c"][..]),
            ("sh -c 'echo \"x y\"'", &["sh", "-c", "echo \"x y\""]),
            ("a\"b c\"d '' e\\ f", &["ab cd", "", "e f"]),
            ("\"a\\\"b\\n\"", &["a\"b\\n"]),
            ("", &[]),
        ] {
            assert_eq!(
                split(text).as_deref(),
                Some(expected.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).as_deref(),
                "{text}"
            );
        }
        assert_eq!((split("'a"), split("\"a"), split("a\\")), (None, None, None));
    }
}
