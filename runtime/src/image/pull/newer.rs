//! Tags that go back: whoever asks by himself takes only what was made later than what is here. A registry, or who sits in
//! front of it, could otherwise serve an old image with known holes under the followed name. By hand anything can be taken.

use super::{Chosen, Store, config};
use crate::error::{Error, Result};
use crate::image::{Digest, ImageRef};

/// Both as their configs say they were made: RFC 3339 (OCI image-spec, config, "created").
struct Made<'a> {
    here: &'a str,
    offered: &'a str,
}

impl Store {
    /// Refuses an image that was made before the one its name stands for here. What does not say when it was made, or says
    /// the epoch as reproducible builds do, cannot be compared and comes.
    ///
    /// # Errors
    /// `Registry` `BX0309` with both times; nothing was changed.
    pub(super) fn refuse_older(&self, reference: &ImageRef, chosen: &Chosen, config_bytes: &[u8]) -> Result<()> {
        let Ok(here) = self.resolve(reference) else { return Ok(()) };
        if here.digest == chosen.entry.digest {
            return Ok(());
        }
        let offered = config::parse(config_bytes)?.created;
        let (Some(here), Some(offered)) = (self.created(&here.digest), offered) else { return Ok(()) };
        if !is_before(&Made { here: &here, offered: &offered }) {
            return Ok(());
        }
        let message = format!(
            "`{}` went back: the registry serves an image made {offered}, the one here was made {here} and stays",
            reference.familiar()
        );
        Err(Error::Registry { code: "BX0309", message, retry: false })
    }

    fn created(&self, digest: &Digest) -> Option<String> {
        self.record(digest).ok()?.created.clone()
    }
}

fn is_before(made: &Made<'_>) -> bool {
    match (nanos(made.offered), nanos(made.here)) {
        (Some(offered), Some(here)) => offered > 0 && here > 0 && offered < here,
        _ => false,
    }
}

/// RFC 3339 as nanoseconds since the epoch; `None` where it is something else.
fn nanos(text: &str) -> Option<i128> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let mark = |at: usize, of: &[u8]| text.as_bytes().get(at).is_some_and(|byte| of.contains(byte));
    let marks = mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !marks || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    let fraction: i128 = format!("{:0<9}", fraction.get(..fraction.len().min(9))?).parse().ok()?;
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - zone.len();
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // days since the epoch in the proleptic Gregorian calendar, years counted from March
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 1
            - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute - offset) * 60 + second;
    Some(i128::from(seconds) * 1_000_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_compared_wherever_they_were_written() {
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("2000-02-29T12:34:56.000000001Z"), Some(951_827_696_000_000_001));
        assert_eq!(nanos("2000-02-29T14:34:56.5+02:00"), Some(951_827_696_500_000_000));
        assert_eq!(nanos("1969-12-31T23:59:59-00:00"), Some(-1_000_000_000));
        for bad in [
            "",
            "yesterday",
            "2000-13-01T00:00:00Z",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00:00+2",
            "+000-01-01T00:00:00Z",
        ] {
            assert_eq!(nanos(bad), None, "{bad}");
        }
        let before = |offered: &str, here: &str| is_before(&Made { here, offered });
        assert!(before("2026-01-01T00:30:00+01:00", "2026-01-01T00:00:00Z"));
        assert!(!before("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"));
        assert!(!before("1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), "made reproducibly: it says nothing");
    }

    proptest! {
        #[test]
        fn no_time_is_too_odd(text in "\\PC*") {
            nanos(&text);
        }

        #[test]
        fn what_we_write_is_read(seconds in 0..250_000_000_000_u64, nano in 0..1_000_000_000_u64) {
            let all = (seconds % 9_000_000_000) * 1_000_000_000 + nano;
            prop_assert_eq!(nanos(&crate::supervisor::rfc3339_nano(all)), Some(i128::from(all)));
        }
    }
}
