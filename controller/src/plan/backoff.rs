//! How long to wait before something that failed is tried again. Boot time only: a step of the wall clock moves nothing.
//!
//! Containers: the first restart after at least 10 s of being ready is immediate; otherwise 1 s, doubling with each
//! failure in a row, at most 5 min. Ten minutes of being ready end the row. Actions: 1 s, doubling, at most 5 min.

use crate::model::{ExitRecord, Failure};

/// The first delay.
pub const DELAY_MS_MIN: u64 = 1_000;
/// The longest delay.
pub const DELAY_MS_MAX: u64 = 5 * 60_000;
/// A container that was ready this long had started well: its first end is no sign of a loop.
pub const STARTED_WELL_MS: u64 = 10_000;
/// A container that was ready this long owes nothing to the failures before.
pub const FORGIVEN_MS: u64 = 10 * 60_000;

/// 1 s for the first failure, doubling, at most 5 min; 0 for none.
#[must_use]
pub fn delay_ms(failures: u32) -> u64 {
    match failures {
        0 => 0,
        n => DELAY_MS_MIN.saturating_mul(1_u64.checked_shl(n - 1).unwrap_or(u64::MAX)).min(DELAY_MS_MAX),
    }
}

/// When a failed action may be tried again, boot time. A failure "in the future" is from before a reboot: now.
#[must_use]
pub fn retry_at(failure: &Failure, now_boot_ms: u64) -> u64 {
    if failure.last_boot_ms > now_boot_ms { now_boot_ms } else { failure.last_boot_ms + delay_ms(failure.attempts) }
}

/// The failures in a row that end a slot's history, and when its next container may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    /// In a row.
    pub failures: u32,
    /// Boot time.
    pub until_boot_ms: u64,
}

/// Reads the ends of one slot's containers, oldest first. What we stopped ourselves and what ended in an earlier boot
/// does not count.
#[must_use]
pub fn streak(exits: &[ExitRecord], now_boot_ms: u64) -> Streak {
    let mut failures = 0_u32;
    let mut newest: Option<&ExitRecord> = None;
    let counted = |exit: &&ExitRecord| !exit.asked && (1..=now_boot_ms).contains(&exit.finished_boot_ms);
    for exit in exits.iter().rev().filter(counted) {
        failures += 1;
        newest = newest.or(Some(exit));
        if exit.ready_for_ms >= FORGIVEN_MS {
            break;
        }
    }
    let Some(newest) = newest else { return Streak { failures: 0, until_boot_ms: 0 } };
    let delay = match failures {
        1 if newest.ready_for_ms >= STARTED_WELL_MS => 0,
        1 => delay_ms(1),
        n => delay_ms(n - 1),
    };
    Streak { failures, until_boot_ms: newest.finished_boot_ms + delay }
}

#[cfg(test)]
mod tests {
    use runtime::runtime::ExitStatus;

    use super::*;
    use crate::model::TemplateHash;

    fn exit(finished_boot_ms: u64, ready_for_ms: u64) -> ExitRecord {
        ExitRecord {
            attempt: 0,
            template_hash: TemplateHash("v1-0".to_owned()),
            exit: ExitStatus::Code(1),
            finished_boot_ms,
            finished_unix_ms: 0,
            ready_for_ms,
            asked: false,
            unhealthy: false,
        }
    }

    #[test]
    fn the_first_restart_after_a_good_start_is_immediate() {
        assert_eq!(streak(&[exit(50_000, 10_000)], 60_000), Streak { failures: 1, until_boot_ms: 50_000 });
        assert_eq!(streak(&[exit(50_000, 9_999)], 60_000), Streak { failures: 1, until_boot_ms: 51_000 });
    }

    #[test]
    fn delays_double_to_five_minutes_and_ten_good_minutes_forgive() {
        let row: Vec<_> = (0..12).map(|i| exit(1_000 + i, 20_000)).collect();
        assert_eq!(streak(&row[..2], 9_000).until_boot_ms - 1_001, 1_000);
        assert_eq!(streak(&row[..4], 9_000).until_boot_ms - 1_003, 4_000);
        assert_eq!(streak(&row, 9_000).until_boot_ms - 1_011, DELAY_MS_MAX);
        let mut forgiven = row;
        forgiven.push(exit(900_000, FORGIVEN_MS));
        assert_eq!(streak(&forgiven, 900_000), Streak { failures: 1, until_boot_ms: 900_000 });
    }

    #[test]
    fn what_was_asked_for_or_came_before_the_reboot_does_not_count() {
        let asked = ExitRecord { asked: true, ..exit(5_000, 0) };
        assert_eq!(streak(&[exit(0, 0), asked, exit(70_000, 0)], 60_000).failures, 0);
    }
}
