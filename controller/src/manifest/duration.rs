//! Durations as Go and Kubernetes write them, with days: `5s`, `1m30s`, `1.5h`, `30d`.

use super::format::{Bad, Format, wire_format};
use crate::model::codes;

/// A duration in milliseconds, at most 100 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duration {
    pub(crate) ms: u64,
}

const UNITS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3)];
const MS_MAX: f64 = 100.0 * 365.0 * 86_400e3;

wire_format!(Duration);

impl Format for Duration {
    const NAME: &'static str = "duration";
    const TYPES: &'static [&'static str] = &["string", "integer"];
    const ABOUT: &'static str = "A duration: 500ms, 5s, 1m30s, 2h, 30d";

    fn parse(text: &str) -> Result<Self, Bad> {
        let bad = |what: String| Bad::new(codes::DURATION, what);
        let form = format!("expected a duration such as 5s or 1m30s, found {text:?}");
        if text == "0" {
            return Ok(Self { ms: 0 });
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad(format!("a duration needs a unit, found {text}")).suggest(format!("{text}s")));
        }
        let mut rest = text;
        let mut total = 0.0;
        let mut last = f64::INFINITY;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number: f64 = rest[..digits].parse().map_err(|_| bad(form.clone()))?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]);
            let Some((_, factor)) = unit.filter(|(_, factor)| *factor < last) else {
                return Err(bad(form).help("units are ms, s, m, h and d, the largest first"));
            };
            (total, last, rest) = (total + number * factor, *factor, &rest[letters..]);
        }
        if last.is_infinite() {
            return Err(bad(form));
        }
        if total > MS_MAX {
            return Err(bad("a duration is at most 100 years".to_owned()));
        }
        // In range and not negative, so the cast is exact up to the fraction that is rounded away.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= total <= MS_MAX")]
        Ok(Self { ms: total.round() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, ms) in [("5s", 5_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000), ("0", 0), ("0s", 0)] {
            assert_eq!(Duration::parse(text), Ok(Duration { ms }), "{text}");
        }
        assert_eq!(Duration::parse("30d").map(|d| d.ms), Ok(30 * 86_400_000));
    }

    #[test]
    fn nonsense_is_refused_and_a_bare_number_gets_its_unit() {
        for bad in ["", "s", "5x", "5s1m", "5s5s", "-5s", "1..5s", "999999999d", " 5s", "5 s", "1e9s"] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Duration::parse("30").expect_err("no unit").suggestion.as_deref(), Some("30s"));
    }
}
