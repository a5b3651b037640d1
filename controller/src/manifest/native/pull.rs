//! The format of `pullPolicy`, which Compose's `pull_policy` shares: when a registry is asked for an image.

use crate::manifest::duration::Duration;
use crate::manifest::format::{Bad, Format, wire_format};
use crate::model::{PullPolicy, codes};

const DAY_MS: u64 = 86_400_000;

/// `missing`, `always`, `never`, `daily`, `weekly` or `every_DURATION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PullPolicyText(pub(crate) PullPolicy);

wire_format!(PullPolicyText);

impl Format for PullPolicyText {
    const NAME: &'static str = "pullPolicy";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "missing, always, never, daily, weekly or every_12h";
    fn parse(text: &str) -> Result<Self, Bad> {
        let policy = match text {
            "missing" | "ifNotPresent" | "IfNotPresent" | "if_not_present" => PullPolicy::Missing,
            "always" | "Always" => PullPolicy::Always,
            "never" | "Never" => PullPolicy::Never,
            "daily" => PullPolicy::Every(DAY_MS),
            "weekly" => PullPolicy::Every(7 * DAY_MS),
            other => {
                let Some(every) = other.strip_prefix("every_") else {
                    let bad = Bad::new(codes::VALUE, format!("expected {}, found {text:?}", Self::ABOUT));
                    let near = crate::text::nearest(text, ["always", "missing", "never", "daily", "weekly"]);
                    return Err(near.map_or(bad.clone(), |near| bad.suggest(near)));
                };
                match Duration::parse(every)?.ms {
                    0 => return Err(Bad::new(codes::DURATION, "`every_0s` would ask without end").suggest("every_1h")),
                    ms => PullPolicy::Every(ms),
                }
            }
        };
        Ok(Self(policy))
    }
}

/// How it is written; `None`: it is what is done anyway.
pub(crate) fn text(policy: PullPolicy) -> Option<String> {
    match policy {
        PullPolicy::Missing => None,
        PullPolicy::Always => Some("always".to_owned()),
        PullPolicy::Never => Some("never".to_owned()),
        PullPolicy::Every(ms) if ms.is_multiple_of(1_000) => Some(format!("every_{}s", ms / 1_000)),
        PullPolicy::Every(ms) => Some(format!("every_{ms}ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_the_same() {
        for policy in [PullPolicy::Always, PullPolicy::Never, PullPolicy::Every(90_000), PullPolicy::Every(7 * DAY_MS)]
        {
            assert_eq!(PullPolicyText::parse(&text(policy).unwrap()), Ok(PullPolicyText(policy)));
        }
        assert_eq!(text(PullPolicy::Missing), None);
        assert_eq!(PullPolicyText::parse("daily"), Ok(PullPolicyText(PullPolicy::Every(DAY_MS))));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "every_", "every_5", "every_0s", "sometimes", "build", "ALWAYS"] {
            assert!(PullPolicyText::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(PullPolicyText::parse("alway").expect_err("a typo").suggestion.as_deref(), Some("always"));
    }
}
