//! How one record lies in the database: `version u8 | parts u16 | crc32 u32 | JSON`, cut into parts that stay under
//! sled's limit for values without a durable path (7 KiB; larger leaves go to blob files that sled never syncs).
//!
//! Contract: these bytes outlive this program. A new layout gets a new version number; old ones stay readable.

use std::collections::BTreeMap;

use super::Model;

/// Version of the layout below.
const VERSION: u8 = 1;

/// Bytes of JSON in one part. A leaf of sled holds up to 16 records, so 16 × this stays under 128 KiB.
const PART_BYTES_MAX: usize = 6 * 1024;

/// Header of the first part: version, parts, crc.
const HEADER_BYTES: usize = 7;

/// The key of part `part` of a record. Keys hold no NUL, so records cannot run into each other.
fn part_key(key: &str, part: u16) -> Vec<u8> {
    let mut bytes = key.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes
}

/// How many parts a record of this text has.
pub(super) fn parts(json: &str) -> u16 {
    u16::try_from(json.len().div_ceil(PART_BYTES_MAX).max(1)).unwrap_or(u16::MAX)
}

/// The database's pairs for one record.
pub(super) fn encode(key: &str, json: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let count = parts(json);
    let mut chunks = json.as_bytes().chunks(PART_BYTES_MAX);
    (0..count)
        .map(|part| {
            let mut value = vec![VERSION];
            if part == 0 {
                value.extend_from_slice(&count.to_be_bytes());
                value.extend_from_slice(&crc32fast::hash(json.as_bytes()).to_be_bytes());
            }
            value.extend_from_slice(chunks.next().unwrap_or_default());
            (part_key(key, part), value)
        })
        .collect()
}

/// The database's keys of parts `from..to` of a record, for removal.
pub(super) fn part_keys(key: &str, from: u16, to: u16) -> impl Iterator<Item = Vec<u8>> {
    (from..to).map(move |part| part_key(key, part))
}

/// The records in a database, and how many were unreadable and left out.
pub(super) fn decode(pairs: &BTreeMap<Vec<u8>, Vec<u8>>) -> (Model, usize) {
    let mut model = Model::new();
    let mut unreadable = 0;
    for key in pairs.keys() {
        let Some(name) = key.strip_suffix(&[0, 0, 0]) else { continue };
        match std::str::from_utf8(name).ok().and_then(|name| Some((name, decode_one(pairs, name)?))) {
            Some((name, json)) => {
                model.insert(name.to_owned(), json);
            }
            None => unreadable += 1,
        }
    }
    (model, unreadable)
}

fn decode_one(pairs: &BTreeMap<Vec<u8>, Vec<u8>>, key: &str) -> Option<String> {
    let first = pairs.get(&part_key(key, 0))?;
    let (header, head) = first.split_at_checked(HEADER_BYTES)?;
    let count = u16::from_be_bytes([header[1], header[2]]);
    let crc = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    if header[0] != VERSION || count == 0 {
        return None;
    }
    let mut bytes = head.to_vec();
    for part in 1..count {
        let (version, rest) = pairs.get(&part_key(key, part))?.split_first()?;
        if *version != VERSION {
            return None;
        }
        bytes.extend_from_slice(rest);
    }
    (crc32fast::hash(&bytes) == crc).then(|| String::from_utf8(bytes).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_size_come_back_and_damage_is_seen() {
        for size in [0, 1, PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 50_000] {
            let text = "x".repeat(size);
            let mut pairs: BTreeMap<_, _> = encode("a/b", &text).into_iter().collect();
            assert!(pairs.values().all(|value| value.len() < 7 * 1024));
            assert_eq!(decode(&pairs), (Model::from([("a/b".to_owned(), text)]), 0), "{size}");
            if let Some(value) = pairs.values_mut().last() {
                *value.last_mut().unwrap() ^= 1;
            }
            assert_eq!(decode(&pairs), (Model::new(), 1), "{size}");
        }
    }

    #[test]
    fn the_layout_is_what_earlier_versions_wrote() {
        assert_eq!(
            encode("k", "{}"),
            vec![(b"k\0\0\0".to_vec(), vec![1, 0, 1, 0xa3, 0xa6, 0xbf, 0x43, b'{', b'}'])],
            "{:x}",
            crc32fast::hash(b"{}")
        );
    }
}
