//! Signals by name, as manifests and images write them. Pure.

use crate::error::{Error, Result};

/// Names of the signals 1 to 31 without `SIG`, x86-64 and aarch64 order (`signal(7)`).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// First real-time signal a program may use with glibc; 32 and 33 are its own.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
///
/// # Errors
/// `BadContainer` naming the text.
pub(crate) fn signal_number(text: &str) -> Result<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = name
        .parse::<i32>()
        .ok()
        .or_else(|| NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok()))
        .or_else(|| real_time(name));
    match number {
        Some(number @ 1..=RT_MAX) => Ok(number),
        Some(_) | None => Err(Error::BadContainer(format!("`{text}` is not a signal"))),
    }
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse::<i32>().ok(),
        None => rest.is_empty().then_some(0),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => RT_MIN + offset(rest, '+')?,
        (None, Some(rest)) => RT_MAX - offset(rest, '-')?,
        (None, None) => return None,
    };
    (RT_MIN..=RT_MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_images_use() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            ("SIGQUIT", 3),
            ("SIGWINCH", 28),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIGFOO", "0", "65", "-9", "RTMIN+99", "RTMIN3"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }
}
