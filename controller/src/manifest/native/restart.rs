//! The format of `restart`: what the end of an App's program leads to.

use crate::manifest::format::{Bad, Format, wire_format};
use crate::model::{Restart, codes};

/// `always`, `on-failure`, `on-failure:MAX` or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartPolicy(pub(crate) Restart);

wire_format!(RestartPolicy);

impl Format for RestartPolicy {
    const NAME: &'static str = "restart";
    const TYPES: &'static [&'static str] = &["string"];
    const ABOUT: &'static str = "always, on-failure, on-failure:MAX or never";
    fn parse(text: &str) -> Result<Self, Bad> {
        let max = text.strip_prefix("on-failure:").and_then(|max| max.parse::<u32>().ok()).filter(|max| *max > 0);
        match (text, max) {
            ("always", _) => Ok(Self(Restart::Always)),
            ("never", _) => Ok(Self(Restart::Never)),
            ("on-failure", _) => Ok(Self(Restart::OnFailure { retries_max: None })),
            (_, Some(_)) => Ok(Self(Restart::OnFailure { retries_max: max })),
            (_, None) => {
                let bad = Bad::new(codes::VALUE, format!("expected {}, found {text:?}", Self::ABOUT));
                let near = match text {
                    "no" | "No" | "false" => Some("never"),
                    "unless-stopped" => Some("always"),
                    other => crate::text::nearest(other, ["always", "on-failure", "never"]),
                };
                Err(match near {
                    Some(near) => bad.suggest(near),
                    None => bad,
                })
            }
        }
    }
}
