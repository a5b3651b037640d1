//! `plan`: what would change, why, what it costs and what is noticed of it. Read-only by construction: it asks, the
//! controller answers, or, where none runs, this process looks at what one would find.

mod alone;
mod change;

use std::process::ExitCode;
use std::time::Duration;

use runtime::clock::boot_ms;

use super::args::PlanArgs;
use super::context::{Context, Failure, absolute};
use super::format::{BOLD, GREEN, RED, YELLOW};
use super::up::{default_stack, short};
use crate::api::client::{ClientError, query};
use crate::api::types::{PlanView, SourceRequest};
use crate::plan::{Action, Reason, Step};
use crate::status::waiting_text;

/// How long somebody else may hold the data root before a plan without a controller gives up, in milliseconds.
const START_MS_MAX: u64 = 15_000;
/// How often is looked again: a lock wakes nobody who also waits for a socket.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// `plan --detailed-exitcode` with changes (terraform's).
const EXIT_CHANGES: u8 = 2;

pub(super) async fn run(context: &Context, args: &PlanArgs) -> Result<ExitCode, Failure> {
    let request = args.path.as_ref().map(|path| SourceRequest {
        path: absolute(path),
        default_stack: default_stack(path),
        watch: false,
        confirm_removal: args.confirm_removal,
    });
    let view = view(context, request).await?;
    for text in &view.diagnostics {
        anstream::eprintln!("{text}");
    }
    if context.json() {
        context.print_json(&view);
    } else {
        print(&view, args);
    }
    if view.errors > 0 {
        return Err(Failure::Manifests(format!("{} problems. Nothing was changed", view.errors)));
    }
    let changes = args.detailed_exitcode && !view.plan.steps.is_empty();
    Ok(if changes { ExitCode::from(EXIT_CHANGES) } else { ExitCode::SUCCESS })
}

/// The controller's plan, or one made here.
async fn view(context: &Context, request: Option<SourceRequest>) -> Result<PlanView, Failure> {
    let deadline = boot_ms() + START_MS_MAX;
    loop {
        let path = request.as_ref().map_or_else(|| "/v1/plan".to_owned(), question);
        match context.client.get(&path).await {
            Err(ClientError::NotRunning { .. }) => {}
            other => return Ok(other?),
        }
        match alone::view(context, request.clone()).await? {
            Ok(view) => return Ok(view),
            // A controller that starts has the data root before it has a socket.
            Err(_) if boot_ms() < deadline => tokio::time::sleep(TRY_EVERY).await,
            Err(holder) => {
                let message = format!("{} is in use by {holder}", context.layout.data_root.display());
                return Err(Failure::new("BX0904", message, Some("boxship get")));
            }
        }
    }
}

fn question(request: &SourceRequest) -> String {
    let SourceRequest { path, default_stack, confirm_removal, .. } = request;
    let asked = query(&path.to_string_lossy());
    format!("/v1/plan?path={asked}&default_stack={default_stack}&confirm_removal={confirm_removal}")
}

fn print(view: &PlanView, args: &PlanArgs) {
    for change in &view.changes {
        anstream::println!("{}", change::text(change, &view.pulls));
    }
    if args.steps {
        for (number, step) in view.plan.steps.iter().enumerate() {
            anstream::println!("{}", line(number, step));
        }
    }
    for (object, why) in &view.held {
        anstream::println!("  {YELLOW}= held{YELLOW:#}     {}: {why}", short(object));
    }
    for waiting in &view.plan.waiting {
        let object = waiting.object.as_ref().map_or_else(|| "the host".to_owned(), short);
        anstream::println!("  {YELLOW}! waits{YELLOW:#}    {object}: {}", waiting_text(&waiting.on));
    }
    anstream::println!("{BOLD}Plan:{BOLD:#} {}. Nothing was changed.", change::summary(view));
    if let Some(path) = args.path.as_ref().filter(|_| view.errors == 0 && !view.changes.is_empty()) {
        let confirm = if args.confirm_removal { " --confirm-removal" } else { "" };
        if view.hash.is_empty() {
            anstream::println!(
                "There is no key for secrets yet, so no plan hash:  boxship up {}{confirm}",
                path.display()
            );
        } else {
            anstream::println!("To do exactly this:  boxship up {}{confirm} --plan-hash {}", path.display(), view.hash);
        }
    }
}

fn line(number: usize, step: &Step) -> String {
    let (colour, sign, verb) = verb(&step.action);
    let source = step.source.as_ref().map(|s| format!("  {s}")).unwrap_or_default();
    let after = if step.after.is_empty() {
        String::new()
    } else {
        format!("  after {}", step.after.iter().map(|n| format!("#{}", n + 1)).collect::<Vec<_>>().join(" "))
    };
    format!(
        "  #{:<3} {colour}{sign} {verb:8}{colour:#} {:18} {:32} {}{source}{after}",
        number + 1,
        step.object.as_ref().map(short).unwrap_or_default(),
        step.action.subject(),
        because(&step.reason)
    )
}

fn verb(action: &Action) -> (anstyle::Style, &'static str, &'static str) {
    match action {
        Action::PullImage { .. } => (GREEN, "+", "pull"),
        Action::CreateNetwork { .. } | Action::CreateVolume { .. } | Action::CreateContainer { .. } => {
            (GREEN, "+", "create")
        }
        Action::StartContainer { .. } => (GREEN, "+", "start"),
        Action::StopContainer { .. } => (RED, "-", "stop"),
        Action::RemoveImage { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveVolume { .. }
        | Action::RemoveContainer { .. } => (RED, "-", "delete"),
        Action::UpdateResources { .. } => (YELLOW, "~", "change"),
        Action::PublishEndpoints { .. } => (YELLOW, "~", "publish"),
        Action::RecordRevision { .. } | Action::RecordJob { .. } => (YELLOW, "~", "record"),
    }
}

/// The reason in words.
fn because(reason: &Reason) -> String {
    match reason {
        Reason::TemplateChanged { fields } => format!("changed: {}", fields.join(", ")),
        Reason::Undo { to } => format!("back to rev {to}"),
        other => words(&format!("{other:?}")),
    }
}

/// `LimitsChanged` → `limits changed`.
fn words(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars().take_while(|c| c.is_alphanumeric()) {
        if c.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}
