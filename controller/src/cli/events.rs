//! `events`: what happened, oldest first.

use std::process::ExitCode;

use super::args::EventsArgs;
use super::context::{Context, Failure};
use super::format::{YELLOW, clock};
use super::up::short;
use crate::api::types::Event;
use crate::model::ObjectKey;

pub(super) async fn run(context: &Context, args: &EventsArgs) -> Result<ExitCode, Failure> {
    let only: Option<ObjectKey> = match &args.what {
        Some(what) => Some(context.find(&context.status().await?, what)?.0.key.clone()),
        None => None,
    };
    let mut after = 0;
    loop {
        let timeout_ms = if after == 0 { 0 } else { 30_000 };
        let path = format!("/v1/events?after={after}&timeout_ms={timeout_ms}");
        let events: Vec<Event> = tokio::select! {
            events = context.client.get(&path) => events?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        };
        after = events.last().map_or(after.max(1), |e| e.seq);
        for event in events.iter().filter(|e| only.is_none() || e.object == only) {
            print(context, event);
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn print(context: &Context, event: &Event) {
    if context.json() {
        anstream::println!("{}", serde_json::json!(event));
        return;
    }
    let object = event.object.as_ref().map(short).unwrap_or_default();
    let (mark, end) =
        if event.warning { (format!("{YELLOW}!"), format!("{YELLOW:#}")) } else { (" ".into(), "".into()) };
    anstream::println!("{} {mark}{:10}{end} {object:16} {}", clock(event.unix_ms), event.reason, event.message);
}
