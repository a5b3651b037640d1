//! Quantities in Kubernetes' units: memory `256Mi`, cpu `500m` or `0.5`; and amounts of replicas, `1` or `25%`.

use super::format::{Bad, Format, wire_format};
use crate::model::codes;

/// Bytes, more than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) u64);

/// Bytes of swap, or [`u64::MAX`] for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swap(pub(crate) u64);

/// Thousandths of a core, more than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu(pub(crate) u32);

/// A number of replicas, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// So many.
    Count(u32),
    /// Per hundred.
    Percent(u32),
}

wire_format!(Memory, Swap, Cpu, Amount);

const SUFFIXES: [(&str, u128); 9] = [
    ("", 1),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];
/// 1 EiB: more than any host, and far from overflow in what computes with it.
const BYTES_MAX: u128 = 1 << 60;
const MILLIS_MAX: u128 = 1_000_000;

impl Format for Memory {
    const NAME: &'static str = "memory";
    const TYPES: &'static [&'static str] = &["string", "integer"];
    const ABOUT: &'static str = "Bytes with a unit: 256Mi, 1.5Gi, 500M";

    fn parse(text: &str) -> Result<Self, Bad> {
        let bad = |what: String| Bad::new(codes::QUANTITY, what);
        let (number, suffix) = split(text);
        let Some((digits, scale)) = decimal(number) else {
            return Err(bad(format!("expected an amount of memory such as 256Mi, found {text:?}")));
        };
        let Some((_, factor)) = SUFFIXES.iter().find(|(name, _)| *name == suffix) else {
            return Err(unknown_suffix(number, suffix));
        };
        let bytes = digits.checked_mul(*factor).map(|bytes| bytes / scale).filter(|bytes| *bytes <= BYTES_MAX);
        match bytes.and_then(|bytes| u64::try_from(bytes).ok()) {
            Some(0) => Err(bad(format!("it must be more than 0, found {text:?}"))),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(bad(format!("{text} is more than any host has"))),
        }
    }
}

impl Format for Swap {
    const NAME: &'static str = "swap";
    const TYPES: &'static [&'static str] = &["string", "integer"];
    const ABOUT: &'static str = "Bytes of swap: 512Mi, 1G; or unlimited";

    fn parse(text: &str) -> Result<Self, Bad> {
        if text == "unlimited" { Ok(Self(u64::MAX)) } else { Memory::parse(text).map(|memory| Self(memory.0)) }
    }
}

fn unknown_suffix(number: &str, suffix: &str) -> Bad {
    if suffix == "m" {
        let what = format!("`{number}m` would be {number} thousandths of a byte, as in Kubernetes");
        return Bad::new(codes::QUANTITY, what).suggest(format!("{number}Mi"));
    }
    let near = match suffix.to_ascii_lowercase().as_str() {
        "k" | "kb" | "ki" | "kib" => Some("Ki"),
        "m" | "mb" | "mi" | "mib" => Some("Mi"),
        "g" | "gb" | "gi" | "gib" => Some("Gi"),
        "t" | "tb" | "ti" | "tib" => Some("Ti"),
        "b" => Some(""),
        _ => None,
    };
    let bad = Bad::new(codes::QUANTITY, format!("`{suffix}` is not a unit of memory"))
        .help("units are Ki, Mi, Gi, Ti (powers of 1024) and k, M, G, T (powers of 1000)");
    match near {
        Some(near) => bad.suggest(format!("{number}{near}")),
        None => bad,
    }
}

impl Format for Cpu {
    const NAME: &'static str = "cpu";
    const TYPES: &'static [&'static str] = &["string", "number"];
    const ABOUT: &'static str = "Cores: 0.5, 2, or thousandths of one: 500m";

    fn parse(text: &str) -> Result<Self, Bad> {
        let bad = |what: String| Bad::new(codes::QUANTITY, what);
        let form = || bad(format!("expected cores such as 0.5 or 500m, found {text:?}"));
        let (number, suffix) = split(text);
        let (digits, scale) = decimal(number).ok_or_else(form)?;
        let factor = match suffix {
            "" => 1_000,
            "m" => 1,
            _ => return Err(form()),
        };
        let millis = digits.saturating_mul(factor) / scale;
        match u32::try_from(millis) {
            Ok(0) => Err(bad(format!("it must be at least 1m, found {text:?}"))),
            Ok(value) if millis <= MILLIS_MAX => Ok(Self(value)),
            _ => Err(bad(format!("{text} is more than any host has"))),
        }
    }
}

impl Format for Amount {
    const NAME: &'static str = "amount";
    const TYPES: &'static [&'static str] = &["string", "integer"];
    const ABOUT: &'static str = "A number of replicas, or a share of them: 1, 25%";

    fn parse(text: &str) -> Result<Self, Bad> {
        let bad = || {
            Bad::new(codes::QUANTITY, format!("expected a number of replicas or a share such as 25%, found {text:?}"))
        };
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= 1_000).ok_or_else(bad);
        match text.strip_suffix('%') {
            Some(percent) => {
                Ok(Self::Percent(number(percent).and_then(|n| if n <= 100 { Ok(n) } else { Err(bad()) })?))
            }
            None => Ok(Self::Count(number(text)?)),
        }
    }
}

impl Amount {
    /// Of so many replicas; a share is rounded up or down.
    pub(crate) fn of(self, replicas: u32, up: bool) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) if up => (replicas * percent).div_ceil(100),
            Self::Percent(percent) => replicas * percent / 100,
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// `1.50` is (150, 100). At most 18 digits, so that nothing overflows.
fn decimal(text: &str) -> Option<(u128, u128)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let dangling = text.contains('.') && fraction.is_empty();
    if whole.is_empty() || dangling || fraction.contains('.') || whole.len() + fraction.len() > 18 {
        return None;
    }
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some((digits, 10u128.pow(u32::try_from(fraction.len()).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory() {
        for (text, bytes) in
            [("256Mi", 256 << 20), ("1.5Gi", 3 << 29), ("500M", 500_000_000), ("4096", 4096), ("1k", 1000)]
        {
            assert_eq!(Memory::parse(text), Ok(Memory(bytes)), "{text}");
        }
        for (text, suggestion) in [
            ("256m", Some("256Mi")),
            ("256MB", Some("256Mi")),
            ("1g", Some("1Gi")),
            ("0", None),
            ("", None),
            ("Mi", None),
            ("-1Mi", None),
            ("1.Mi", None),
            ("99999999999999999Ti", None),
        ] {
            let bad = Memory::parse(text).expect_err(text);
            assert_eq!(bad.suggestion.as_deref(), suggestion, "{text}");
        }
    }

    #[test]
    fn cpu_and_amounts() {
        for (text, millis) in [("500m", 500), ("0.5", 500), ("2", 2_000), ("1.25", 1_250), ("1m", 1)] {
            assert_eq!(Cpu::parse(text), Ok(Cpu(millis)), "{text}");
        }
        for bad in ["", "0", "0.0001", "1 core", "50%", "m", "1e3", "9999999999999"] {
            assert!(Cpu::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Amount::parse("25%").map(|a| (a.of(3, true), a.of(3, false))), Ok((1, 0)));
        for bad in ["", "-1", "101%", "x", "1.5", "%"] {
            assert!(Amount::parse(bad).is_err(), "{bad}");
        }
    }
}
