//! Sets and maps: made with their table, and changed element by element while it stays, so that a packet never meets a
//! table that is just being replaced and 500 changed elements cost a millisecond or two.
//!
//! Must not know what elements stand for.

use std::collections::BTreeMap;

use super::super::netlink::{CREATE, DUMP, Message, REQUEST, attribute, attributes};
use super::super::ruleset::{Element, Family, Ruleset, Set};
use super::{Batch, dump, family, holds, message, replace, unsupported};
use crate::{Error, Result};

const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
/// Elements in one message: an attribute has less than 64 KiB, an element less than 100 bytes.
const ELEMENTS_MAX: usize = 400;

/// Makes a table be exactly this, in one transaction. Where only elements differ, only these change. Elements that end by
/// themselves are told apart by their keys alone: one that is there keeps its time.
///
/// # Errors
/// `Unsupported` when the kernel has no nf_tables or the right (CAP_NET_ADMIN) is missing.
pub(in crate::network) fn update(ruleset: &Ruleset) -> Result<()> {
    if holds(ruleset)?
        && let Some(batch) = changes(ruleset)?
    {
        match batch.map_or(Ok(()), Batch::commit) {
            // An element that was to go has ended by itself meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => return other.map_err(|source| unsupported("change the firewall table", source)),
        }
    }
    match replace(std::slice::from_ref(ruleset)) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let what = "the kernel has no `numgen`, `nat` or `reject` of nf_tables: names lead to replicas";
            Err(Error::Unsupported(what.to_owned()))
        }
        other => other,
    }
}

/// What makes a loaded table hold these elements, if anything does; `None` when a set is missing.
fn changes(ruleset: &Ruleset) -> Result<Option<Option<Batch>>> {
    let mut batch = Batch::new();
    batch.family = family(ruleset.family);
    let mut added = Vec::new();
    let mut is_same = true;
    for set in ruleset.sets.iter().filter(|set| set.changes) {
        let Some(loaded) = loaded(ruleset.family, &ruleset.table, set)? else { return Ok(None) };
        let is_new =
            |(key, element): &(&Vec<u8>, &Element)| loaded.get(*key).is_none_or(|value| *value != element.value);
        let gone = loaded.iter().filter(|(key, value)| set.elements.get(*key).is_none_or(|e| e.value != **value));
        let gone: Vec<(&[u8], Element)> = gone.map(|(key, _)| (key.as_slice(), Element::default())).collect();
        let new: Vec<(&[u8], Element)> =
            set.elements.iter().filter(is_new).map(|(key, element)| (key.as_slice(), element.clone())).collect();
        is_same &= gone.is_empty() && new.is_empty();
        batch.elements(DELSETELEM, 0, &ruleset.table, &set.name, &gone);
        added.push((set, new));
    }
    for (set, new) in added {
        batch.elements(NEWSETELEM, CREATE, &ruleset.table, &set.name, &new);
    }
    Ok(Some((!is_same).then_some(batch)))
}

/// Whether the sets that change hold these elements; those that end by themselves do not count.
pub(in crate::network) fn are_loaded(ruleset: &Ruleset) -> Result<bool> {
    for set in ruleset.sets.iter().filter(|set| set.changes && !set.ends) {
        let is_same = |loaded: BTreeMap<Vec<u8>, Vec<u8>>| {
            let wanted = set.elements.iter().map(|(key, element)| (key, &element.value));
            wanted.eq(loaded.iter())
        };
        if !loaded(ruleset.family, &ruleset.table, set)?.is_some_and(is_same) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keys and values of a set as they are; `None` when there is no such set.
fn loaded(of: Family, table: &str, set: &Set) -> Result<Option<BTreeMap<Vec<u8>, Vec<u8>>>> {
    let mut found = BTreeMap::new();
    let mut request = message(GETSETELEM, REQUEST | DUMP, 1, family(of));
    request.string(1, table).string(2, &set.name);
    let bytes_of = |element: &[u8], kind| {
        attribute(element, kind).and_then(|data| attribute(data, 1)).map(<[u8]>::to_vec).unwrap_or_default()
    };
    let answer = dump(request, |_, attrs| {
        for (_, element) in attributes(attribute(attrs, 3).unwrap_or_default()) {
            found.insert(bytes_of(element, 1), bytes_of(element, 2));
        }
    });
    match answer {
        Ok(()) => Ok(Some(found)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unsupported("list elements of the firewall table", e)),
    }
}

impl Batch {
    /// A set with its elements. `id` tells it apart in this transaction.
    pub(super) fn set(&mut self, table: &str, id: u32, set: &Set) {
        const CONSTANT: u32 = 0x2;
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        let kind = |parts: &[super::super::ruleset::Type]| parts.iter().fold(0, |all, part| (all << 6) | part.number());
        let bytes = |parts: &[super::super::ruleset::Type]| u32::try_from(parts.len() * 4).unwrap_or(0);
        let is_map = !set.value.is_empty();
        let flags = [(!set.changes, CONSTANT), (is_map, MAP), (set.ends, TIMEOUT)];
        let flags = flags.iter().filter(|(is, _)| *is).fold(0, |all, (_, flag)| all | flag);
        self.push(NEWSET, CREATE, |m| {
            m.string(1, table).string(2, &set.name).be32(3, flags).be32(4, kind(set.key)).be32(5, bytes(set.key));
            if is_map {
                m.be32(6, kind(set.value)).be32(7, bytes(set.value));
            }
            if !set.changes {
                m.nested(9, |m| {
                    m.be32(1, u32::try_from(set.elements.len()).unwrap_or(u32::MAX));
                });
            }
            m.be32(10, id);
        });
        let elements: Vec<(&[u8], Element)> =
            set.elements.iter().map(|(key, element)| (key.as_slice(), element.clone())).collect();
        self.elements(NEWSETELEM, CREATE, table, &set.name, &elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, table: &str, set: &str, elements: &[(&[u8], Element)]) {
        for some in elements.chunks(ELEMENTS_MAX) {
            self.push(kind, flags, |m| {
                m.string(1, table).string(2, set);
                m.nested(3, |m| some.iter().for_each(|(key, element)| encode(m, key, element)));
            });
        }
    }
}

fn encode(m: &mut Message, key: &[u8], element: &Element) {
    m.nested(1, |m| {
        m.nested(1, |m| {
            m.attribute(1, key);
        });
        if !element.value.is_empty() {
            m.nested(2, |m| {
                m.attribute(1, &element.value);
            });
        }
        if let Some(ms) = element.ends_in_ms {
            m.attribute(4, &ms.to_be_bytes());
        }
    });
}
