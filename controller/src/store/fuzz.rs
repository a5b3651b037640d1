//! Fuzz target of the records on disk: see `crate::fuzz`. A disk may give any bytes; none may be taken for a record that
//! was not written.

use std::collections::BTreeMap;

use super::record::{decode, encode};

/// Any pairs, and a written record with one part replaced by the bytes: it is read as written or counted as unreadable.
pub(crate) fn records(bytes: &[u8]) {
    let pieces: Vec<&[u8]> = bytes.splitn(8, |b| *b == b'\n').collect();
    let pairs: BTreeMap<Vec<u8>, Vec<u8>> = pieces
        .chunks(2)
        .map(|pair| ([pair[0], &[0, 0, 0]].concat(), pair.last().copied().unwrap_or_default().to_vec()))
        .collect();
    let (model, unreadable) = decode(&pairs);
    assert_eq!(model.len() + unreadable, pairs.len());
    let json = "x".repeat(9_000);
    let mut written: BTreeMap<_, _> = encode("k", &json).into_iter().collect();
    if let Some(value) = written.values_mut().nth(bytes.len() % 2) {
        *value = bytes.to_vec();
    }
    let (model, unreadable) = decode(&written);
    assert!(model.get("k").map_or(unreadable == 1, |read| *read == json));
}
