//! `rollout`, `hold`, `release`, `scale`: one object directed by hand, and how far its roll-out is.

use std::process::ExitCode;
use std::time::Duration;

use runtime::clock::{boot_ms, unix_ms};

use super::args::{HoldArgs, ReleaseArgs, RolloutStatusArgs, RolloutVerb, ScaleArgs};
use super::context::{Context, Failure};
use super::format::{BOLD, GREEN, RED, YELLOW, age, secs};
use super::table::Table;
use super::up::short;
use crate::api::types::{Description, ObjectStatus, Order, Ordered, Phase, Status};
use crate::model::Kind;

/// Longest wait of one question.
const POLL_MS: u64 = 1_000;

pub(super) async fn run(context: &Context, verb: &RolloutVerb) -> Result<ExitCode, Failure> {
    match verb {
        RolloutVerb::Status(args) => status(context, args).await,
        RolloutVerb::History(args) => history(context, &args.app).await,
        RolloutVerb::Undo(args) => order(context, &args.app, &Order::Undo { to: args.to }).await,
        RolloutVerb::Retry(args) => order(context, &args.app, &Order::Retry).await,
        RolloutVerb::Pause(args) => order(context, &args.app, &Order::Pause).await,
        RolloutVerb::Resume(args) => order(context, &args.app, &Order::Resume).await,
    }
}

pub(super) async fn hold(context: &Context, args: &HoldArgs) -> Result<ExitCode, Failure> {
    if args.why.trim().is_empty() {
        return Err(Failure::Usage("--why is empty: say it for those who wonder later".to_owned()));
    }
    order(context, &args.what, &Order::Hold { why: args.why.clone() }).await
}

pub(super) async fn release(context: &Context, args: &ReleaseArgs) -> Result<ExitCode, Failure> {
    order(context, &args.what, &Order::Release).await
}

pub(super) async fn scale(context: &Context, args: &ScaleArgs) -> Result<ExitCode, Failure> {
    order(context, &args.app, &Order::Scale { replicas: args.replicas }).await
}

async fn order(context: &Context, what: &str, order: &Order) -> Result<ExitCode, Failure> {
    let status = context.status().await?;
    let key = &context.find(&status, what)?.0.key;
    let ordered: Ordered = context.client.post(&format!("/v1/objects/{key}/order"), order).await?;
    if context.json() {
        context.print_json(&ordered);
    } else {
        anstream::println!("{}", ordered.said);
        if key.kind == Kind::App {
            anstream::eprintln!("see: boxship rollout status {}", key.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(context: &Context, args: &RolloutStatusArgs) -> Result<ExitCode, Failure> {
    let began = boot_ms();
    let (mut version, mut shown) = (0, String::new());
    loop {
        let path = format!("/v1/status?after={version}&timeout_ms={POLL_MS}");
        let page: Status = tokio::select! {
            page = context.client.get(&path) => page?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        };
        version = page.version;
        let object = context.find(&page, &args.app)?.0;
        if object.key.kind != Kind::App {
            return Err(Failure::Usage(format!("{} is no App", short(&object.key))));
        }
        let line = line(object);
        if context.json() {
            if args.once || is_over(object.phase) {
                context.print_json(object);
            }
        } else if line != shown {
            anstream::println!("{line}");
            shown = line;
        }
        match object.phase {
            Phase::Failed if !args.once => {
                let help = format!("boxship why {0}   ·   boxship rollout history {0}", object.key.name);
                let message = format!("{}: {}", short(&object.key), object.message);
                return Err(Failure::new("BX0601", message, Some(&help)));
            }
            phase if args.once || is_over(phase) => return Ok(ExitCode::SUCCESS),
            Phase::Pending
            | Phase::Progressing
            | Phase::Removing
            | Phase::Ready
            | Phase::Completed
            | Phase::Held
            | Phase::Failed => {}
        }
        let waited = Duration::from_millis(boot_ms().saturating_sub(began));
        if let Some(limit) = args.timeout.filter(|limit| waited >= *limit) {
            return Err(Failure::TimedOut(format!("not ready after {}; it goes on", secs(limit))));
        }
    }
}

fn is_over(phase: Phase) -> bool {
    match phase {
        Phase::Ready | Phase::Completed | Phase::Failed | Phase::Held => true,
        Phase::Pending | Phase::Progressing | Phase::Removing => false,
    }
}

/// `web  rev 7: 2/3 updated · 3 ready   Rolling rev 7 2/3`.
fn line(object: &ObjectStatus) -> String {
    let colour = match object.phase {
        Phase::Ready | Phase::Completed => GREEN,
        Phase::Failed => RED,
        Phase::Pending | Phase::Progressing | Phase::Held | Phase::Removing => YELLOW,
    };
    let updated = object.replicas.iter().filter(|r| r.ready && r.revision.is_some() && r.revision == object.revision);
    let rev = object.revision.map_or_else(String::new, |number| format!("  rev {number}:"));
    format!(
        "{BOLD}{}{BOLD:#}{rev} {}/{} updated · {} ready   {colour}{}{colour:#}",
        object.key.name,
        updated.count(),
        object.desired,
        object.ready,
        object.message
    )
}

async fn history(context: &Context, what: &str) -> Result<ExitCode, Failure> {
    let status = context.status().await?;
    let key = &context.find(&status, what)?.0.key;
    let described: Description = context.client.get(&format!("/v1/objects/{key}")).await?;
    if context.json() {
        context.print_json(&described.revisions);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["REV", "WHEN", "IMAGE", "CHANGE", "RESULT"]);
    let now = unix_ms();
    for revision in described.revisions.iter().rev() {
        let paused = if revision.paused { ", paused" } else { "" };
        let first = if revision.changed.is_empty() { "first" } else { "" };
        table.row([
            revision.number.to_string(),
            format!("{} ago", age(now, revision.created_unix_ms)),
            revision.image.to_string(),
            format!("{first}{}", revision.changed.join(", ")),
            format!("{}{paused}", revision.result),
        ]);
    }
    anstream::println!("{}", table.render());
    Ok(ExitCode::SUCCESS)
}
