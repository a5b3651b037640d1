//! Arguments of the verbs by which people direct one object: `rollout`, `hold`, `release`, `scale`.

use std::time::Duration;

use clap::{Args, Subcommand};

/// Arguments of `rollout`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  boxship rollout status web --timeout 2m      wait for it; exit 1 when it failed\n  \
    boxship rollout history web\n  boxship rollout undo web                     back to the last revision that was ready\n  \
    boxship rollout undo web --to 6\n  boxship rollout pause web                    go no further; what serves goes on"
)]
pub struct RolloutArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: RolloutVerb,
}

/// The verbs of `rollout`.
#[derive(Debug, Subcommand)]
pub enum RolloutVerb {
    /// Tell how far it is, until it is ready (exit 0) or failed (exit 1)
    Status(RolloutStatusArgs),
    /// List the revisions and how they went
    History(AppArgs),
    /// Run an earlier revision until the manifest makes another
    Undo(UndoArgs),
    /// Try the newest revision again, and wait for no back-off
    Retry(AppArgs),
    /// Take the roll-out no further; what serves goes on
    Pause(AppArgs),
    /// Go on with a paused roll-out
    Resume(AppArgs),
}

/// One App.
#[derive(Debug, Args)]
pub struct AppArgs {
    /// `web`, `app/web`, `shop/web`
    pub app: String,
}

/// Arguments of `rollout status`.
#[derive(Debug, Args)]
pub struct RolloutStatusArgs {
    /// `web`, `app/web`, `shop/web`
    pub app: String,
    /// Do not wait
    #[arg(long)]
    pub once: bool,
    /// Give up waiting after this long (90s, 2m); exit 124
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::format::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Arguments of `rollout undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// `web`, `app/web`, `shop/web`
    pub app: String,
    /// Back to this revision; the last one before that was ready when left out
    #[arg(long, value_name = "REVISION")]
    pub to: Option<u32>,
}

/// Arguments of `hold`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  boxship hold app/web --why \"disk is being replaced, ask Dana\"\n\n\
    Nothing is started, stopped or replaced for it, whatever its manifest says, until `boxship release app/web`.\n\
    What is scaled or undone while it is held is kept as that says.")]
pub struct HoldArgs {
    /// An App or a Job: `web`, `app/web`, `shop/web`
    pub what: String,
    /// For those who wonder later
    #[arg(long, value_name = "TEXT")]
    pub why: String,
}

/// Arguments of `release`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  boxship release app/web")]
pub struct ReleaseArgs {
    /// What is held
    pub what: String,
}

/// Arguments of `scale`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  boxship scale web 5\n\nIt counts until `boxship up` reads the manifests again. \
    What a followed directory declares is held first.")]
pub struct ScaleArgs {
    /// `web`, `app/web`, `shop/web`
    pub app: String,
    /// How many
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub replicas: u32,
}
