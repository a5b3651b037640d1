//! Schedules: five fields of cron (`minute hour day-of-month month day-of-week`) and when they come due.
//!
//! The wall clock and the time zone come in as arguments. As in Vixie cron: names (`jan`, `mon`), lists, ranges, steps,
//! `@daily` and the like; with both days restricted either one suffices. A time that a zone skips comes due when the gap
//! ends; one that happens twice comes due once, unless the hour is `*`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};

/// How far next and latest are looked for: a leap day comes at least every 8 years.
const DAYS_MAX: u32 = 366 * 8 + 2;

/// A parsed schedule: one bit for each value that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    every_hour: bool,
    every_day: bool,
    every_weekday: bool,
}

/// Text that is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CronError {
    /// What is wrong, for people.
    pub why: String,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// One of the five fields.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of month", min: 1, max: 31, names: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // 7 is Sunday too.
    Field { name: "day of week", min: 0, max: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let parts: [&str; 5] = parts.try_into().map_err(|parts: Vec<&str>| CronError {
            why: format!(
                "`{text}` has {} fields; minute, hour, day of month, month, day of week are expected",
                parts.len()
            ),
        })?;
        let mut bits = [0_u64; 5];
        for ((field, part), bits) in FIELDS.iter().zip(parts).zip(&mut bits) {
            *bits = field.parse(part)?;
        }
        let [minutes, hours, days, months, weekdays] = bits;
        let weekdays = (weekdays | (weekdays >> 7)) & 0x7f;
        let star = |part: &str| part.starts_with('*');
        let cron = Self {
            minutes,
            hours,
            days,
            months,
            weekdays,
            every_hour: star(parts[1]),
            every_day: star(parts[2]),
            every_weekday: star(parts[4]),
        };
        if cron.possible() { Ok(cron) } else { Err(CronError { why: format!("`{text}` names a day no year has") }) }
    }
}

impl Field {
    fn parse(&self, part: &str) -> Result<u64, CronError> {
        part.split(',').try_fold(0, |bits, item| Ok(bits | self.item(item)?))
    }

    fn item(&self, item: &str) -> Result<u64, CronError> {
        let refuse = |why: &str| CronError { why: format!("{}: `{item}` {why}", self.name) };
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            None if range == "*" => (self.min, self.max),
            None => {
                let value = self.value(range).ok_or_else(|| refuse(&self.expected()))?;
                (value, if step.is_some() { self.max } else { value })
            }
            Some((first, last)) => {
                let value = |text| self.value(text).ok_or_else(|| refuse(&self.expected()));
                (value(first)?, value(last)?)
            }
        };
        if first > last {
            return Err(refuse("begins after its end"));
        }
        let step = match step.map(str::parse::<u32>) {
            None => 1,
            Some(Ok(step @ 1..=59)) => step,
            Some(Ok(_) | Err(_)) => return Err(refuse("has a step that is not 1 to 59")),
        };
        Ok((first..=last).step_by(step as usize).fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u32> {
        if let Some(index) = self.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
            return u32::try_from(index).ok().map(|index| index + self.min);
        }
        let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let value: u32 = all_digits.then(|| text.parse().ok())??;
        (self.min..=self.max).contains(&value).then_some(value)
    }

    fn expected(&self) -> String {
        let names = if self.names.is_empty() { String::new() } else { format!(" or {}", self.names.join(" ")) };
        format!("is not {} to {}{names}", self.min, self.max)
    }
}

/// A zone by its IANA name, from the bundled data; `None` when there is none of that name.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    jiff::tz::TimeZoneDatabase::bundled().get(name).ok()
}

impl Cron {
    /// The first time after `unix_ms`, wall clock milliseconds; `None` when the calendar ends before.
    #[must_use]
    pub fn next_after(&self, unix_ms: u64, zone: &TimeZone) -> Option<u64> {
        let mut date = local_date(unix_ms, zone)?;
        for _ in 0..DAYS_MAX {
            let found = self.on(date, zone).into_iter().filter(|&at| at > unix_ms).min();
            if found.is_some() {
                return found;
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last time not after `unix_ms`, at most `within_ms` before it.
    #[must_use]
    pub fn latest_until(&self, unix_ms: u64, within_ms: u64, zone: &TimeZone) -> Option<u64> {
        let oldest = unix_ms.saturating_sub(within_ms);
        let first = local_date(oldest, zone)?.yesterday().ok()?;
        let mut date = local_date(unix_ms, zone)?.tomorrow().ok()?;
        for _ in 0..DAYS_MAX {
            if date < first {
                return None;
            }
            let found = self.on(date, zone).into_iter().filter(|&at| at <= unix_ms).max();
            if found.is_some() {
                return found.filter(|&at| at >= oldest);
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    /// All times of one day of the zone's calendar.
    fn on(&self, date: Date, zone: &TimeZone) -> Vec<u64> {
        let mut times = Vec::new();
        if !self.day_matches(date) {
            return times;
        }
        for hour in (0..24_i8).filter(|&h| has(self.hours, h)) {
            for minute in (0..60_i8).filter(|&m| has(self.minutes, m)) {
                let Ok(time) = Time::new(hour, minute, 0, 0) else { continue };
                self.push_instants(DateTime::from_parts(date, time), zone, &mut times);
            }
        }
        times
    }

    fn push_instants(&self, at: DateTime, zone: &TimeZone, times: &mut Vec<u64>) {
        let mut push = |stamp: Result<Timestamp, jiff::Error>| {
            if let Some(ms) = stamp.ok().and_then(|stamp| u64::try_from(stamp.as_millisecond()).ok()) {
                times.push(ms);
            }
        };
        let ambiguous = zone.to_ambiguous_timestamp(at);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => push(ambiguous.compatible()),
            AmbiguousOffset::Fold { before, after } => {
                push(before.to_timestamp(at));
                if self.every_hour {
                    push(after.to_timestamp(at));
                }
            }
        }
    }

    fn day_matches(&self, date: Date) -> bool {
        if !has(self.months, date.month()) {
            return false;
        }
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let day = has(self.days, date.day());
        // Vixie cron: two restrictions are alternatives, one alone is a restriction.
        if self.every_day || self.every_weekday { day && weekday } else { day || weekday }
    }

    /// Some year has a matching day.
    fn possible(&self) -> bool {
        if !self.every_day && !self.every_weekday {
            return true;
        }
        let days_of = |month: i8| -> i8 {
            match month {
                2 => 29,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            }
        };
        (1..=12).any(|month| has(self.months, month) && (1..=days_of(month)).any(|day| has(self.days, day)))
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

fn local_date(unix_ms: u64, zone: &TimeZone) -> Option<Date> {
    let stamp = Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    Some(zone.to_datetime(stamp).date())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: &str) -> u64 {
        let zoned = text.parse::<DateTime>().unwrap().to_zoned(time_zone(zone).unwrap()).unwrap();
        u64::try_from(zoned.timestamp().as_millisecond()).unwrap()
    }

    fn next(cron: &str, after: &str, zone: &str) -> String {
        let tz = time_zone(zone).unwrap();
        let cron: Cron = cron.parse().unwrap();
        let next = cron.next_after(at(after, zone), &tz).unwrap();
        tz.to_datetime(Timestamp::from_millisecond(next as i64).unwrap()).to_string()
    }

    #[test]
    fn next_times() {
        for (cron, after, want) in [
            ("15 3 * * *", "2026-11-21T03:15:00", "2026-11-22T03:15:00"),
            ("*/15 * * * *", "2026-11-21T03:14:59", "2026-11-21T03:15:00"),
            ("0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
            ("0 12 * * mon-fri", "2026-11-20T12:00:00", "2026-11-23T12:00:00"),
            ("0 12 13 * 5", "2026-11-14T00:00:00", "2026-11-20T12:00:00"),
            ("30 4 1,15 * *", "2026-11-15T05:00:00", "2026-12-01T04:30:00"),
            ("0 0 * * 7", "2026-11-21T10:00:00", "2026-11-22T00:00:00"),
            ("@monthly", "2026-11-21T10:00:00", "2026-12-01T00:00:00"),
        ] {
            assert_eq!(next(cron, after, "UTC"), want, "{cron} after {after}");
        }
    }

    #[test]
    fn daylight_saving_skips_nothing_and_repeats_only_what_asks_for_it() {
        // Berlin: 2026-03-29 02:00 -> 03:00, 2026-10-25 03:00 -> 02:00.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00", "Europe/Berlin"), "2026-03-29T03:30:00");
        let tz = time_zone("Europe/Berlin").unwrap();
        let count = |cron: &str| {
            let cron: Cron = cron.parse().unwrap();
            let (mut now, end) =
                (at("2026-10-25T00:59:59", "Europe/Berlin"), at("2026-10-25T04:00:00", "Europe/Berlin"));
            let mut count = 0;
            while let Some(next) = cron.next_after(now, &tz).filter(|&next| next < end) {
                (now, count) = (next, count + 1);
            }
            count
        };
        assert_eq!(count("30 2 * * *"), 1);
        assert_eq!(count("30 * * * *"), 4, "01:30, 02:30 twice, 03:30");
    }

    #[test]
    fn latest_is_bounded_and_agrees_with_next() {
        let cron: Cron = "15 3 * * *".parse().unwrap();
        let now = at("2026-11-21T04:00:00", "UTC");
        assert_eq!(cron.latest_until(now, 3_600_000, &TimeZone::UTC), Some(at("2026-11-21T03:15:00", "UTC")));
        assert_eq!(cron.latest_until(now, 60_000, &TimeZone::UTC), None);
        let due = cron.next_after(now, &TimeZone::UTC).unwrap();
        assert_eq!(cron.latest_until(due, 0, &TimeZone::UTC), Some(due));
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        for (bad, why) in [
            ("* * * *", "has 4 fields"),
            ("60 * * * *", "minute: `60` is not 0 to 59"),
            ("* * * foo *", "month: `foo` is not 1 to 12 or jan"),
            ("* * 31 2 *", "names a day no year has"),
            ("5-1 * * * *", "begins after its end"),
            ("*/0 * * * *", "step"),
            ("+5 * * * *", "is not"),
            (", * * * *", "is not"),
        ] {
            let error = bad.parse::<Cron>().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
