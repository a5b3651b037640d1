//! CRI log records: `<RFC 3339 with nanoseconds> <stream> <F|P> <line>`. Pure.
//!
//! `P` is a part of a line, `F` its end or a whole one (Kubernetes CRI, `kubelet-cri-logging`).

use std::io::Write as _;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

impl StreamName {
    pub(crate) const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Bytes of a record's time.
pub(crate) const TIME_BYTES: usize = 30;

/// Appends one record per line of `block` to `out`, all with one `time` (RFC 3339, [`TIME_BYTES`] long). A piece without a
/// newline at the end is a part, or, `at_end` of the stream, a whole line.
pub(crate) fn records(out: &mut Vec<u8>, time: &[u8], stream: StreamName, block: &[u8], at_end: bool) {
    let mut head = time.to_vec();
    head.push(b' ');
    head.extend_from_slice(stream.as_str().as_bytes());
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        let (line, whole) = line.strip_suffix(b"\n").map_or((line, at_end), |line| (line, true));
        out.extend_from_slice(&head);
        out.extend_from_slice(if whole { b" F " } else { b" P " });
        out.extend_from_slice(line);
        out.push(b'\n');
    }
}

/// `2026-11-21T08:09:10.000000001Z`, always nine digits, so that records sort as text.
pub(crate) fn rfc3339_nano(unix_ns: u64) -> String {
    let (secs, nanos) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let (days, second) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil_from_days(days);
    let mut text = Vec::with_capacity(30);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
        .expect("writing to memory does not fail");
    String::from_utf8(text).expect("digits are UTF-8")
}

/// Gregorian date of a day since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}
