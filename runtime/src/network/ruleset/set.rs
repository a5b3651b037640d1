//! Sets and maps of a table: what rules look up, as values. Pure.
//!
//! Keys and values are the bytes the kernel compares, each part filled up to four. Must not know what they stand for.

use std::collections::BTreeMap;
use std::fmt;

/// A set, or a map when its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name in the table.
    pub name: String,
    /// The parts of a key.
    pub key: &'static [Type],
    /// The parts of a value; none: a set.
    pub value: &'static [Type],
    /// Whether elements are added and taken away while it is loaded, so that these are compared and not only rules.
    pub changes: bool,
    /// Elements end by themselves.
    pub ends: bool,
    /// By key.
    pub elements: BTreeMap<Vec<u8>, Element>,
}

/// What belongs to a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Empty in a set.
    pub value: Vec<u8>,
    /// After this it is gone, in milliseconds from when it is loaded.
    pub ends_in_ms: Option<u64>,
}

/// `nft`'s name of what a part is. To the kernel all are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Four bytes.
    Address,
    /// A transport's number, or any one byte: the only type of `nft` that is one byte long.
    Protocol,
    /// Two bytes.
    Port,
    /// Four bytes in host order.
    Number,
}

impl Type {
    /// Its number in `nft` (`enum datatypes`).
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Address => 7,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Number => 19,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Address => "ipv4_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Number => "mark",
        }
    }
}

impl Set {
    /// All pairs of equal bytes: the kernel compares bytes of a packet with each other only through a set.
    #[must_use]
    pub fn same_bytes() -> Self {
        let pair = |byte: u8| (vec![byte, 0, 0, 0, byte, 0, 0, 0], Element::default());
        let elements = (0..=u8::MAX).map(pair).collect();
        let key = &[Type::Protocol, Type::Protocol];
        Self { name: SAME.to_owned(), key, value: &[], changes: false, ends: false, elements }
    }
}

/// The name of [`Set::same_bytes`].
pub const SAME: &str = "same";

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |types: &[Type]| types.iter().map(|part| part.name()).collect::<Vec<_>>().join(" . ");
        let kind = if self.value.is_empty() { "set" } else { "map" };
        write!(f, "{kind} {} {{ type {}", self.name, names(self.key))?;
        if !self.value.is_empty() {
            write!(f, " : {}", names(self.value))?;
        }
        let ends = if self.ends { "flags timeout; " } else { "" };
        write!(f, "; {ends}{} elements }}", self.elements.len())
    }
}
