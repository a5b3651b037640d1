//! Fuzz targets of the front-ends: see `crate::fuzz`. What they assert holds for any text: nothing is said of a place that
//! is not there, what can be converted can be read again, a layout is final, escaping undoes itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::duration::Duration;
use super::format::Format as _;
use super::quantity::{Amount, Cpu, Memory};
use super::{LoadOptions, Look, convert, fmt, interpolate, load, render_all, to_json};
use crate::model::cron::{Cron, time_zone};

pub(crate) use super::compose::fuzz::{env_file, interpolation};

/// A directory of this process and thread; a fuzzer writes one file into it again and again.
fn directory() -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    std::env::temp_dir().join(format!("boxship-fuzz-{}-{number}", std::process::id())).join("shop")
}

/// Loads, prints, resolves and converts a directory with these files.
#[expect(clippy::expect_used, reason = "a target says by a panic what cannot be")]
fn manifests(files: &[(&str, &[u8])]) {
    let shop = directory();
    std::fs::create_dir_all(&shop).expect("a directory");
    for (name, bytes) in files {
        std::fs::write(shop.join(name), bytes).expect("a file");
    }
    let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("EMPTY".to_owned(), String::new())]);
    let options = LoadOptions { variables, root_stack: Some("shop".to_owned()), ..LoadOptions::default() };
    let loaded = load(&shop, &options);
    let look = Look::plain(&loaded);
    let _ = render_all(&loaded.diagnostics, &loaded.sources, &look);
    for diagnostic in &loaded.diagnostics {
        let _ = to_json(diagnostic, &look);
        let Some(span) = &diagnostic.span else { continue };
        // YAML 1.2 §5.4: a carriage return alone ends a line as well.
        let breaks = loaded.sources.get(&span.file).map(|text| text.matches(['\n', '\r']).count());
        assert!(breaks.is_none_or(|breaks| span.line as usize <= breaks + 2), "{diagnostic:?}");
    }
    let conversion = convert(&shop, &options);
    assert!(!conversion.lost.iter().any(|lost| lost.contains("cannot be read")), "{:?}", conversion.lost);
    let _ = std::fs::remove_dir_all(shop.parent().expect("it has one"));
}

pub(crate) fn native(bytes: &[u8]) {
    manifests(&[("a.yaml", bytes)]);
}

pub(crate) fn kubernetes(bytes: &[u8]) {
    manifests(&[("all.yaml", bytes)]);
}

/// What stands before the first NUL is the override file, what stands before the second the `.env`.
pub(crate) fn compose(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |b| *b == 0);
    let first = parts.next().unwrap_or_default();
    let files = ["compose.override.yaml", ".env"].into_iter().zip(parts);
    let files: Vec<(&str, &[u8])> = files.chain([("compose.yaml", first)]).collect();
    manifests(&files);
}

/// `fmt` is final: formatting twice is formatting once.
pub(crate) fn format(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(once) = fmt(text) else { return };
    assert_eq!(fmt(&once).as_deref(), Ok(once.as_str()), "{text:?}");
    let escaped = text.replace('$', "$$");
    assert_eq!(interpolate::interpolate(&escaped, &BTreeMap::new()).as_deref(), Ok(text));
}

/// Durations, quantities, schedules and names, one to a line.
pub(crate) fn grammars(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().take(64) {
        let _ = (Duration::parse(line).map(|d| d.ms), Memory::parse(line).map(|m| m.0), Cpu::parse(line).map(|c| c.0));
        if let Ok(amount) = Amount::parse(line) {
            let (down, up) = (amount.of(10, false), amount.of(10, true));
            assert!(down <= up, "{line:?}");
        }
        if let Ok(cron) = line.parse::<Cron>() {
            // Noon of a day in each half of a year with and without summer time.
            for at in [1_772_000_000_000, 1_784_000_000_000] {
                let zone = time_zone("Europe/Berlin").unwrap_or(jiff::tz::TimeZone::UTC);
                let next = cron.next_after(at, &zone);
                assert!(next.is_none_or(|next| next > at), "{line:?}");
                let day = 86_400_000;
                let latest = next.and_then(|next| cron.latest_until(next, day, &zone));
                assert_eq!(latest, next, "{line:?}");
            }
        }
        let _ = runtime::id::check_name(line);
        let _ = line.parse::<runtime::image::ImageRef>();
    }
}
