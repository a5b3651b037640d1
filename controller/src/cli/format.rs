//! Numbers for people: ages, sizes, durations; and the few colours.

use std::time::Duration;

use anstyle::{AnsiColor, Style};

/// Errors.
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
/// Good ends.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
/// Things to look at.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Verbs and heads.
pub(crate) const BOLD: Style = Style::new().bold();
/// What matters less.
pub(crate) const DIM: Style = Style::new().dimmed();

/// `3s`, `4m`, `2h`, `9d`: how long ago `then` was; `-` when it never was.
#[must_use]
pub(crate) fn age(now_unix_ms: u64, then_unix_ms: u64) -> String {
    if then_unix_ms == 0 {
        return "-".to_owned();
    }
    let secs = now_unix_ms.saturating_sub(then_unix_ms) / 1_000;
    match secs {
        0..120 => format!("{secs}s"),
        120..7_200 => format!("{}m", secs / 60),
        7_200..172_800 => format!("{}h", secs / 3_600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// `71.2Mi`: bytes in powers of 1024.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", "Ki", "Mi", "Gi"] {
        if value < 1_024.0 {
            return if unit.is_empty() { format!("{count}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1_024.0;
    }
    format!("{value:.1}Ti")
}

/// `0.21 s`.
#[must_use]
pub(crate) fn secs(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.2} s", duration.as_secs_f64())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// `05:14:02`, UTC.
#[must_use]
pub(crate) fn clock(unix_ms: u64) -> String {
    let day_secs = unix_ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", day_secs / 3_600, day_secs / 60 % 60, day_secs % 60)
}

/// `90s`, `2m`, `1m30s`, `500ms`, `90` (seconds).
///
/// # Errors
/// A sentence for clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration like 90s, 2m or 1m30s");
    if let Ok(secs) = text.parse::<u64>() {
        return Ok(Duration::from_secs(secs));
    }
    let mut total_ms: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..unit_len] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        rest = &rest[unit_len..];
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
    }
    if text.is_empty() { Err(bad()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// `20Gi`, `500Mi`, `4096`.
///
/// # Errors
/// A sentence for clap.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a size like 500Mi or 20Gi");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let shift = match &text[digits..] {
        "" | "B" => 0,
        "Ki" | "KiB" => 10,
        "Mi" | "MiB" => 20,
        "Gi" | "GiB" => 30,
        "Ti" | "TiB" => 40,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!((parse_bytes("20Gi"), parse_bytes("4096")), (Ok(20 << 30), Ok(4096)));
        for bad in ["", "Gi", "1G", "-1", "99999999999Ti"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        for bad in ["", "m", "1x", "-1s", "1m30", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_ages_fit_a_column() {
        assert_eq!(bytes(1_536), "1.5Ki");
        assert_eq!(bytes(12), "12B");
        assert_eq!(age(10_000_000, 0), "-");
        assert_eq!(age(10_000_000, 9_000_000), "16m");
    }
}
