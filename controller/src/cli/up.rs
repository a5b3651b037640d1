//! `up`: check, start the processes when none run, apply, and wait until ready or failed with the reason.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use runtime::clock::boot_ms;

use super::args::UpArgs;
use super::context::{Context, Failure, absolute};
use super::format::{BOLD, GREEN, secs};
use super::get::say_notices;
use super::progress::Reporter;
use crate::api::client::query;
use crate::api::types::{Applied, Notice, ObjectStatus, Phase, SourceRequest, Status};
use crate::model::ObjectKey;

/// How long one request for a newer status waits at the controller.
const POLL_MS: u64 = 2_000;

pub(super) async fn run(context: &Context, args: &UpArgs) -> Result<ExitCode, Failure> {
    let began = boot_ms();
    let request = SourceRequest {
        path: absolute(&args.path),
        default_stack: default_stack(&args.path),
        watch: args.watch,
        confirm_removal: args.confirm_removal,
    };
    // Before anything is started: a typo must not even make a directory.
    super::check::refuse_bad_manifests(&request, args.strict)?;
    super::ensure_running(context).await?;
    let applied: Applied = context.client.post(&sources_path(args), &request).await?;
    say_what_was_accepted(&applied);
    if applied.errors > 0 {
        return Err(Failure::Manifests(format!("{} problems; the running stack is untouched", applied.errors)));
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let reporter = Reporter::new(args.progress, context.json());
    let waited = wait(context, &applied, &reporter, began, args.timeout).await;
    reporter.finish();
    match waited? {
        Waited::Converged(status) => {
            say_notices(&told_later(&applied, &status));
            report(context, &applied, &status, began);
            Ok(ExitCode::SUCCESS)
        }
        Waited::Failed(status) => {
            say_notices(&told_later(&applied, &status));
            let failed = status.objects.iter().filter(|o| concerns(o, &applied) && o.phase == Phase::Failed);
            Err(failure(&failed.collect::<Vec<_>>()))
        }
        Waited::Interrupted => {
            anstream::eprintln!("stopped watching; what was started goes on. boxship get   ·   boxship down");
            Ok(ExitCode::from(130))
        }
    }
}

fn sources_path(args: &UpArgs) -> String {
    args.plan_hash.as_ref().map_or_else(|| "/v1/sources".to_owned(), |h| format!("/v1/sources?plan_hash={}", query(h)))
}

enum Waited {
    Converged(Status),
    Failed(Status),
    Interrupted,
}

async fn wait(
    context: &Context,
    applied: &Applied,
    reporter: &Reporter,
    began: u64,
    timeout: Option<Duration>,
) -> Result<Waited, Failure> {
    let mut version = 0;
    let deadline = timeout.map(|t| began + u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
    loop {
        let path = format!("/v1/status?after={version}&timeout_ms={POLL_MS}");
        let status: Status = tokio::select! {
            status = context.client.get(&path) => status?,
            _ = tokio::signal::ctrl_c() => return Ok(Waited::Interrupted),
        };
        version = status.version;
        reporter.show(&status, &applied.objects);
        if status.generation >= applied.generation {
            let ours: Vec<&ObjectStatus> = status.objects.iter().filter(|o| concerns(o, applied)).collect();
            let failed = ours.iter().any(|o| o.phase == Phase::Failed);
            let done = ours.iter().all(|o| is_settled(o));
            if done && !failed && status.converged_generation >= applied.generation {
                return Ok(Waited::Converged(status));
            }
            // One that failed does not hide the others: they are waited for.
            if done && failed {
                return Ok(Waited::Failed(status));
            }
        }
        if deadline.is_some_and(|d| boot_ms() >= d) {
            return Err(Failure::TimedOut(format!("not ready after {}", secs(timeout.unwrap_or_default()))));
        }
    }
}

fn concerns(object: &ObjectStatus, applied: &Applied) -> bool {
    applied.objects.contains(&object.key) || object.phase == Phase::Removing
}

fn is_settled(object: &ObjectStatus) -> bool {
    match object.phase {
        Phase::Ready | Phase::Completed | Phase::Failed | Phase::Held => true,
        Phase::Pending | Phase::Progressing | Phase::Removing => false,
    }
}

/// The stack of files directly in a directory is the directory's name.
pub(super) fn default_stack(path: &Path) -> String {
    let path = absolute(path);
    let path = path.canonicalize().unwrap_or(path);
    let dir = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
    let name = dir.and_then(Path::file_name).map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let label: String = label.trim_matches('-').chars().take(30).collect();
    let label = label.trim_matches('-').to_owned();
    if label.is_empty() { "default".to_owned() } else { label }
}

pub(super) fn say_what_was_accepted(applied: &Applied) {
    for text in &applied.diagnostics {
        anstream::eprintln!("{text}");
    }
    for file in &applied.not_manifests {
        anstream::eprintln!("note: {file} is not a manifest");
    }
    say_notices(&applied.notices);
}

fn report(context: &Context, applied: &Applied, status: &Status, began: u64) {
    if context.json() {
        context.print_json(status);
        return;
    }
    let took = secs(Duration::from_millis(boot_ms() - began));
    let ports: Vec<String> = status
        .objects
        .iter()
        .filter(|o| applied.objects.contains(&o.key))
        .flat_map(|o| o.ports.iter().map(|p| format!("  {p}  {}", short(&o.key))))
        .collect();
    let what = if applied.changed { "converged" } else { "converged, nothing to change" };
    anstream::println!("{GREEN}✔{GREEN:#} {BOLD}{what}{BOLD:#} in {took}: {} objects", applied.objects.len());
    for port in ports {
        anstream::println!("{port}");
    }
}

/// `app/web`.
pub(super) fn short(key: &ObjectKey) -> String {
    format!("{}/{}", key.kind, key.name)
}

/// Notices that were not there yet when the manifests were accepted.
fn told_later(applied: &Applied, status: &Status) -> Vec<Notice> {
    status.notices.iter().filter(|notice| !applied.notices.contains(notice)).cloned().collect()
}

/// What failed, each with the place that asks for it; code and help are those of the first cause that has its own.
fn failure(failed: &[&ObjectStatus]) -> Failure {
    let line = |o: &&ObjectStatus| {
        let problem = o.problem.as_ref();
        let place = problem.and_then(|p| Some(format!("\n      --> {}", p.place.as_ref()?))).unwrap_or_default();
        format!("{}: {}{place}", short(&o.key), o.message)
    };
    let lines: Vec<String> = failed.iter().map(line).collect();
    let first = failed.first().map_or("", |o| o.key.name.as_str());
    let problem = failed.iter().find_map(|o| o.problem.as_ref());
    let help = problem.and_then(|problem| problem.help.clone());
    let help = help.unwrap_or_else(|| format!("boxship why {first}   ·   boxship logs {first}"));
    let code = problem.map_or("BX0601", |problem| problem.code.as_str());
    Failure::new(code, format!("not ready: {}", lines.join("\n    ")), Some(&help))
}
