//! Names and ids of containers made by hand.

use std::io::Read as _;

use runtime::id::ContainerId;
use runtime::{Error, Result};

/// Characters of an id, and of the part of it that is shown.
const ID_BYTES: usize = 20;
pub(super) const SHORT_CHARS: usize = 12;
/// Longest name.
const NAME_BYTES_MAX: usize = 63;

const ADJECTIVES: [&str; 48] = [
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "cosy", "crisp", "curious", "daring",
    "eager", "early", "elegant", "fair", "fond", "frank", "gentle", "glad", "golden", "happy", "hardy", "honest",
    "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "mild", "modest", "neat", "nimble", "patient",
    "proud", "quick", "quiet", "sharp", "silent", "sincere", "steady", "sturdy", "sunny", "tidy", "vivid", "wise",
];
/// People whose work ships, counts or computes.
const NOUNS: [&str; 48] = [
    "archimedes",
    "ardinghelli",
    "babbage",
    "bell",
    "boole",
    "brahe",
    "cartwright",
    "cavendish",
    "clarke",
    "cook",
    "curie",
    "dijkstra",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "franklin",
    "galileo",
    "gauss",
    "germain",
    "goodall",
    "hamilton",
    "harrison",
    "hopper",
    "hypatia",
    "jemison",
    "kepler",
    "knuth",
    "lamarr",
    "leibniz",
    "lovelace",
    "magellan",
    "maxwell",
    "mclean",
    "mendel",
    "mercator",
    "mirzakhani",
    "newton",
    "noether",
    "pascal",
    "plimsoll",
    "ptolemy",
    "ride",
    "ritchie",
    "shannon",
    "torvalds",
    "turing",
    "wozniak",
];

/// Random bytes of the kernel.
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::io("read /dev/urandom", error))?;
    Ok(bytes)
}

/// A new id: forty digits, of which nobody else has the first twelve.
pub(super) fn new_id(is_taken: impl Fn(&str) -> bool) -> Result<ContainerId> {
    loop {
        let id: String = random::<ID_BYTES>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        if !is_taken(&id[..SHORT_CHARS]) {
            return id.parse().map_err(|error| Error::BadContainer(format!("{error}")));
        }
    }
}

/// A name nobody has: `brave_euler`, with a number behind it once most are taken.
pub(super) fn new_name(is_taken: impl Fn(&str) -> bool) -> Result<String> {
    for attempt in 0_u32.. {
        let [a, b] = random::<2>()?;
        let (adjective, noun) = (ADJECTIVES[usize::from(a) % ADJECTIVES.len()], NOUNS[usize::from(b) % NOUNS.len()]);
        let name = match attempt / 16 {
            0 => format!("{adjective}_{noun}"),
            more => format!("{adjective}_{noun}{more}"),
        };
        if !is_taken(&name) {
            return Ok(name);
        }
    }
    Err(Error::Conflict("every name is taken".to_owned()))
}

/// Refuses what cannot be the name of a container.
pub(super) fn check(name: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::Unsupported(format!("`{name}` cannot be a container's name: {why}")));
    let is_first = |c: char| c.is_ascii_alphanumeric();
    if name.len() < 2 || name.len() > NAME_BYTES_MAX {
        return refuse("it has fewer than 2 or more than 63 characters");
    }
    if !name.starts_with(is_first) {
        return refuse("it begins with something else than a letter or digit");
    }
    if !name.chars().all(|c| is_first(c) || matches!(c, '_' | '.' | '-')) {
        return refuse("only letters, digits, `_`, `.` and `-` are allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_nobody_elses() {
        let first = new_name(|_| false).unwrap();
        assert!(check(&first).is_ok() && first.contains('_'), "{first}");
        let all_taken = |name: &str| !name.ends_with(char::is_numeric);
        assert!(new_name(all_taken).unwrap().ends_with('1'));
        let id = new_id(|_| false).unwrap();
        assert_eq!(id.as_str().len(), 40);
        for bad in ["", "a", "-a", "a b", "a/b", &"x".repeat(64)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
