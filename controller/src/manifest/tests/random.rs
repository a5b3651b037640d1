//! Any bytes give diagnostics, never a panic; one reading of a file by two parsers; errors never look like absences.

use proptest::prelude::*;
use serde_yaml::Value as Yaml;

use super::super::tree::{Node, ScalarType, Value};
use super::super::{LoadOptions, Look, load, render_all, to_json, yaml};
use super::design::EXAMPLE;
use crate::model::{FileKind, Loaded, resolve};

fn load_bytes(bytes: &[u8]) -> Loaded {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(root.path().join("a.yaml"), bytes).expect("a file");
    std::fs::write(root.path().join("app.toml"), "x").expect("a file");
    let loaded = load(root.path(), &LoadOptions::default());
    let look = Look::plain(&loaded);
    let _ = render_all(&loaded.diagnostics, &loaded.sources, &look);
    for diagnostic in &loaded.diagnostics {
        let _ = to_json(diagnostic, &look);
    }
    let _ = resolve(loaded.objects.clone());
    loaded
}

/// The example with a stretch replaced: what a slip of an editor makes.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let splice = prop_oneof![
        "[ \\n\\t:{}\\[\\],\"'|>&*!%@#$-]{0,6}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..4),
        Just(b"${X}".to_vec()),
        Just(b"\n---\n".to_vec()),
    ];
    (0..EXAMPLE.len(), 0..12usize, splice).prop_map(|(at, cut, splice)| {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, splice);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        load_bytes(&bytes);
    }

    #[test]
    fn any_yaml_like_text(text in "([a-c]{0,2}[:,\\[\\]{}&*!|>'\"#%@`? \\n\\t-]{0,3}){0,40}") {
        load_bytes(text.as_bytes());
    }

    #[test]
    fn a_mangled_manifest(bytes in mangled()) {
        let loaded = load_bytes(&bytes);
        // Whatever was done to it: an object that is not there any more was commented out, or something is said.
        let commented = bytes.contains(&b'#');
        let said = !loaded.diagnostics.is_empty();
        prop_assert!(loaded.objects.len() >= 7 || said || commented, "{}", String::from_utf8_lossy(&bytes));
        // And an error always shows in the file, so that `accept` keeps what it defined.
        prop_assert_eq!(loaded.has_errors(), loaded.files["a.yaml"] == FileKind::Broken);
    }

    /// Where both parsers read a text, they read the same. serde_yaml is never given text by us; this pins what our
    /// tree means.
    #[test]
    fn two_parsers_one_reading(bytes in mangled()) {
        let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
        let ours = yaml::parse(text);
        if !ours.fatal.is_empty() || ours.documents.iter().any(|d| !d.problems.is_empty()) {
            return Ok(());
        }
        let theirs: Result<Vec<Yaml>, _> = serde_yaml::Deserializer::from_str(text)
            .map(<Yaml as serde::Deserialize>::deserialize)
            .take(yaml::DOCUMENTS_MAX)
            .collect();
        let Ok(theirs) = theirs else { return Ok(()) };
        let theirs: Vec<&Yaml> = theirs.iter().filter(|value| !value.is_null()).collect();
        prop_assert_eq!(ours.documents.len(), theirs.len());
        for (ours, theirs) in ours.documents.iter().zip(theirs) {
            prop_assert!(same(&ours.root, theirs), "{:?}\n{:?}", ours.root, theirs);
        }
    }
}

fn same(ours: &Node, theirs: &Yaml) -> bool {
    match (&ours.value, theirs) {
        (Value::List(ours), Yaml::Sequence(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b))
        }
        (Value::Map(ours), Yaml::Mapping(theirs)) => {
            // A key that looks like a number is its text for us, `1.20` as well.
            let same_key = |ours: &str, theirs: &Yaml| theirs.is_number() || plain(theirs) == ours;
            let pairs = || ours.iter().zip(theirs);
            ours.len() == theirs.len()
                && pairs().all(|(entry, (key, value))| same_key(&entry.key, key) && same(&entry.value, value))
        }
        (Value::Scalar(scalar), theirs) => match (scalar.kind(), theirs) {
            (ScalarType::Null, Yaml::Null) => true,
            (ScalarType::Bool(a), Yaml::Bool(b)) => a == *b,
            (ScalarType::Int(a), Yaml::Number(b)) => {
                b.as_i64().map(i128::from) == Some(a) || b.as_f64() == Some(a as f64)
            }
            (ScalarType::Float(a), Yaml::Number(b)) => b.as_f64() == Some(a),
            // Numbers with signs, dots and letters are typed a little differently; the text is what counts for us.
            (ScalarType::Text, Yaml::Number(_)) | (ScalarType::Int(_) | ScalarType::Float(_), Yaml::String(_)) => true,
            (ScalarType::Text, Yaml::String(b)) => scalar.text == *b,
            (ScalarType::Text, Yaml::Bool(_) | Yaml::Null) => false,
            _ => false,
        },
        (Value::Unknown | Value::List(_) | Value::Map(_), _) => false,
    }
}

fn plain(key: &Yaml) -> String {
    match key {
        Yaml::String(text) => text.clone(),
        Yaml::Bool(value) => value.to_string(),
        Yaml::Number(number) => number.to_string(),
        Yaml::Null => String::new(),
        Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_) => "?".to_owned(),
    }
}

#[test]
fn bounds_hold() {
    let deep = format!("apiVersion: boxship/v1\na: {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let many = "---\na: 1\n".repeat(6_000);
    let large = format!("apiVersion: boxship/v1\nname: {}\n", "x".repeat(1 << 20));
    for (text, code) in [(deep, "BX0109"), (many, "BX0109"), (large, "BX0109")] {
        let loaded = load_bytes(text.as_bytes());
        assert_eq!(loaded.diagnostics.last().map(|d| d.code.as_str()), Some(code), "{:?}", loaded.diagnostics);
        assert_eq!(loaded.files["a.yaml"], FileKind::Broken);
    }
}

#[test]
fn line_ends_and_byte_order_marks_of_other_systems() {
    let crlf = format!("\u{feff}{}", EXAMPLE.replace('\n', "\r\n"));
    let loaded = load_bytes(crlf.as_bytes());
    assert_eq!((loaded.diagnostics.as_slice(), loaded.objects.len()), (&[][..], 7));
}

#[test]
fn problems_are_bounded() {
    let text = format!("apiVersion: boxship/v1\nkind: App\nname: x\nimage: a\nargs: [{}]\n", "1,".repeat(5_000));
    let loaded = load_bytes(text.as_bytes());
    assert_eq!((loaded.diagnostics.len(), loaded.files["a.yaml"]), (1_000, FileKind::Broken));
}
