//! The shape of a five-field cron line: enough to refuse what can never run. What it means is `plan`'s.

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &MONTHS),
    ("day of week", 0, 7, &DAYS),
];

/// Says which field is wrong, and why.
pub(super) fn check(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("it has {} fields instead of 5", fields.len()));
    }
    for (field, (name, min, max, words)) in fields.iter().zip(FIELDS) {
        for item in field.split(',') {
            check_item(item, min, max, words).map_err(|why| format!("{name} {item:?} {why}"))?;
        }
    }
    Ok(())
}

fn check_item(item: &str, min: u32, max: u32, words: &[&str]) -> Result<(), String> {
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step
        && !matches!(step.parse::<u32>(), Ok(1..=59))
    {
        return Err("has a step that is not 1 to 59".to_owned());
    }
    if range == "*" {
        return Ok(());
    }
    let value = |text: &str| {
        let word = words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let number = match word.and_then(|at| u32::try_from(at).ok()) {
            Some(at) => Some(at + min),
            None => text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit())),
        };
        number.filter(|n| (min..=max).contains(n)).ok_or_else(|| format!("is not within {min} to {max}"))
    };
    match range.split_once('-') {
        Some((from, to)) if value(from)? > value(to)? => Err("is a range that runs backwards".to_owned()),
        Some(_) => Ok(()),
        None if step.is_some() => Err("has a step without a range".to_owned()),
        None => value(range).map(drop),
    }
}
