//! The format of a name in a stack's DNS. Wider than the name of an object: other dialects have names with `_` and dots.

use crate::manifest::format::{Bad, Format, wire_format};
use crate::model::codes;

/// Labels with dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DnsName(pub(crate) String);

wire_format!(DnsName);

impl Format for DnsName {
    const NAME: &'static str = "dnsName";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "A name in DNS: letters, digits, -, _ and dots, at most 253 characters";
    fn parse(text: &str) -> Result<Self, Bad> {
        let is_label = |label: &str| {
            let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            (1..=63).contains(&label.len()) && label.chars().all(letters)
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            return Ok(Self(text.to_owned()));
        }
        Err(Bad::new(codes::NAME, format!("{text:?} is not a name in DNS: letters, digits, `-`, `_` and dots")))
    }
}
