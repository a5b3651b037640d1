//! Fuzz targets of what Compose reads letter by letter: see `crate::fuzz`.

use std::collections::BTreeMap;

use super::dotenv;
use super::interpolate::interpolate;

fn variables() -> BTreeMap<String, String> {
    [("A", "1"), ("EMPTY", ""), ("DOLLAR", "${A}")].into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Places lie inside the text, doubled dollars come back single, and what a variable holds is not replaced in turn.
pub(crate) fn interpolation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let letters = text.chars().count();
    match interpolate(text, &variables()) {
        Ok(done) => {
            for (name, offset, len) in &done.unset {
                assert!(!name.is_empty() && offset + len <= letters, "{text:?}: {name} at {offset}+{len}");
            }
        }
        Err(bad) => assert!(bad.offset + bad.len <= letters, "{text:?}: {bad:?}"),
    }
    let escaped = interpolate(&text.replace('$', "$$"), &variables());
    assert_eq!(escaped.map(|done| done.text).as_deref(), Ok(text));
}

/// A problem has a line that is there, and a name is never empty.
pub(crate) fn env_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match dotenv::read(text, &variables()) {
        Ok(settings) => assert!(settings.iter().all(|(name, _)| !name.is_empty()), "{text:?}: {settings:?}"),
        Err((line, why)) => assert!(line as usize <= text.lines().count(), "{text:?}: {line}: {why}"),
    }
}
