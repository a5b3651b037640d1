//! The one place that polls: waits for a state with a deadline, never for a time.

use std::time::{Duration, Instant};

use crate::Result;

/// Between two looks.
const STEP: Duration = Duration::from_millis(5);

/// Looks again and again until `look` returns a value; returns it with the time it took.
///
/// # Errors
/// A sentence with `what`, the limit and the last reason.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<(T, Duration)> {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok((value, begin.elapsed())),
            Err(why) if begin.elapsed() > limit => {
                return Err(format!("{what}: not within {:.1} s: {why}", limit.as_secs_f32()));
            }
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

/// Lets time pass in which something must *not* happen; `check` is asked all the while.
///
/// # Errors
/// The first error of `check`.
pub(crate) fn holds_for(time: Duration, mut check: impl FnMut() -> Result) -> Result {
    let begin = Instant::now();
    while begin.elapsed() < time {
        check()?;
        std::thread::sleep(STEP * 4);
    }
    Ok(())
}
