//! One layout: what moves, what stays, and that meaning and comments always stay.

use proptest::prelude::*;

use super::{NotFormatted, fmt};
use crate::manifest::tests::design::EXAMPLE;

/// In, out.
const CASES: &[(&str, &str)] = &[
    ("a:   1\r\nb :  2  \r\n", "a: 1\nb :  2\n"),
    ("a:\n    b: 1\n    c:\n        d: 2\n", "a:\n  b: 1\n  c:\n    d: 2\n"),
    ("a:\n  - 1\n  -   b: 2\n      c: 3\n", "a:\n- 1\n- b: 2\n  c: 3\n"),
    ("a:\n    - - 1\n      - 2\n    -\n        b: 3\n", "a:\n- - 1\n  - 2\n-\n  b: 3\n"),
    ("\n\na: 1\n\n\n\nb: 2\n\n", "a: 1\n\nb: 2\n"),
    // Comments go with what they are about.
    (
        "a:\n    # of b\n    b: 1\n    # after b\n# of c\nc:\n    - 1 # one\n    # of two\n    - 2\n",
        "a:\n  # of b\n  b: 1\n  # after b\n# of c\nc:\n- 1 # one\n# of two\n- 2\n",
    ),
    // Block texts are two deep, lines in them keep what they have more, and what looks like a comment in them.
    (
        "a:\n    b: |\n        one\n          two  \n\n\n        # three\n    c: 1\n",
        "a:\n  b: |\n    one\n      two  \n\n\n    # three\n  c: 1\n",
    ),
    ("a: >-\n  x\n   y\nb: 1\n", "a: >-\n  x\n   y\nb: 1\n"),
    // Texts and flow collections of several lines move as a whole.
    ("a:\n    b: \"one\n      two\"\n    c: [1,\n        2]\n", "a:\n  b: \"one\n    two\"\n  c: [1,\n      2]\n"),
    ("x-a: &a\n    b: 1\nc:\n    -   <<: *a\n        d: 2\n", "x-a: &a\n  b: 1\nc:\n- <<: *a\n  d: 2\n"),
    ("---\na: 1\n---\n\nb:\n   - c\n", "---\na: 1\n---\n\nb:\n- c\n"),
    ("# only a comment\n", "# only a comment\n"),
    ("", ""),
];

#[test]
fn one_layout() {
    for (text, expected) in CASES {
        assert_eq!(fmt(text).as_deref(), Ok(*expected), "{text}");
        assert_eq!(fmt(expected).as_deref(), Ok(*expected), "again: {text}");
    }
}

#[test]
fn what_is_not_yaml_says_where() {
    assert!(matches!(fmt("a: 1\nb: ]\n"), Err(NotFormatted::Broken { line: 2, column: 4, .. })), "{:?}", fmt("b: ]"));
}

/// The words in their order: nothing is lost, comments neither.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn the_files_of_other_people_keep_their_meaning() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files = 0;
    for entry in walk(&corpus) {
        let text = std::fs::read_to_string(&entry).expect("a file");
        let formatted = match fmt(&text) {
            Ok(formatted) => formatted,
            Err(NotFormatted::Broken { .. }) if entry.ends_with("broken/not-yaml.yaml") => continue,
            Err(why) => panic!("{}: {why:?}", entry.display()),
        };
        assert_eq!(words(&text), words(&formatted), "{}", entry.display());
        assert_eq!(fmt(&formatted).as_deref(), Ok(formatted.as_str()), "{}", entry.display());
        files += 1;
    }
    assert!(files > 5, "only {files} examples");
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done to a manifest: it is laid out once and for all, or left alone. `fmt` itself compares the values.
    #[test]
    fn laid_out_once_and_for_all(at in 0..EXAMPLE.len(), cut in 0..6usize, splice in "[ \\n:#a\\-\"|>&\\[\\]{},]{0,6}") {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, splice.into_bytes());
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        if let Ok(formatted) = fmt(&text) {
            prop_assert_eq!(words(&text), words(&formatted));
            prop_assert_eq!(fmt(&formatted), Ok(formatted));
        }
    }
}
