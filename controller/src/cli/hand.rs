//! Containers made by hand: one function a verb. The controller does the work where one runs, else this process, which then
//! holds the data root for as long as each request takes and starts a supervisor for what is to live on.

mod options;
mod ps;
mod row;
mod run;

use std::process::ExitCode;

use runtime::image::ImageRef;
use runtime::runtime::ContainerState;

use super::args::{KillArgs, NamesArgs, RenameArgs, RestartArgs, RmArgs, StartArgs, StopArgs};
use super::context::{Context, Failure};
use super::image::desk::Desk;
use super::processes::{end_if_idle, ensure_supervisor};
use crate::api::client::query;
use crate::hand::{self, ContainerView, HandAnswer, HandRequest};

pub(super) use ps::ps;
pub(super) use run::{create, local, run};

/// Finds out who does it; where that is this process, a supervisor runs then.
pub(super) async fn open<'a>(context: &'a Context, verb: &str) -> Result<Desk<'a>, Failure> {
    let desk = Desk::open_as(context, &format!("boxship {verb}"), "run containers").await?;
    if let Desk::Here { linux, .. } = &desk {
        ensure_supervisor(context).await?;
        hand::tidy(linux)?;
    }
    Ok(desk)
}

/// Done: what nothing needs any more ends.
pub(super) fn close(context: &Context, desk: Desk<'_>) {
    if let Desk::Here { linux, .. } = &desk {
        end_if_idle(context, linux);
    }
}

pub(super) async fn ask(desk: &Desk<'_>, request: &HandRequest) -> Result<HandAnswer, Failure> {
    match desk {
        Desk::Controller(context) => Ok(context.client.post("/v1/containers", request).await?),
        Desk::Here { linux, .. } => Ok(hand::perform(linux, request)?),
    }
}

/// Every container.
pub(super) async fn views(desk: &Desk<'_>, sizes: bool) -> Result<Vec<ContainerView>, Failure> {
    match ask(desk, &HandRequest::List { sizes }).await? {
        HandAnswer::Listed(views) => Ok(views),
        other => Err(nonsense(&other)),
    }
}

/// Whether somebody is called so.
pub(super) async fn is_known(desk: &Desk<'_>, name: &str) -> Result<bool, Failure> {
    Ok(views(desk, false).await?.iter().any(|view| view.is_called(name)))
}

fn nonsense(answer: &HandAnswer) -> Failure {
    Failure::new("BX0902", format!("the controller answered something else: {answer:?}"), Some("boxship ps"))
}

/// Asks for one container after the other; each that is done is printed, a failure does not keep the others from it.
async fn each(
    context: &Context,
    verb: &str,
    names: &[String],
    request: impl Fn(String) -> HandRequest,
) -> Result<ExitCode, Failure> {
    let desk = open(context, verb).await?;
    let code = each_at(context, &desk, names, request).await;
    close(context, desk);
    Ok(code)
}

async fn each_at(
    context: &Context,
    desk: &Desk<'_>,
    names: &[String],
    request: impl Fn(String) -> HandRequest,
) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match ask(desk, &request(name.clone())).await {
            Ok(_) => anstream::println!("{name}"),
            Err(failure) => {
                context.print_failure(&failure);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

pub(super) async fn start(context: &Context, args: &StartArgs) -> Result<ExitCode, Failure> {
    if args.attach {
        let [name] = args.containers.as_slice() else {
            return Err(Failure::Usage("one terminal is in front of one container: name one with --attach".to_owned()));
        };
        return run::start_in_front(context, name, args.interactive, run::detach_keys(&args.detach_keys)?).await;
    }
    each(context, "start", &args.containers, HandRequest::Start).await
}

fn millis(time: Option<std::time::Duration>) -> Option<u64> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

pub(super) async fn stop(context: &Context, args: &StopArgs) -> Result<ExitCode, Failure> {
    let grace_ms = millis(args.time);
    let stop = |name| HandRequest::Stop { name, grace_ms };
    let Some(image) = &args.image else { return each(context, "stop", &args.containers, stop).await };
    let desk = open(context, "stop").await?;
    let mut names = args.containers.clone();
    for view in views(&desk, false).await?.iter().filter(|view| view.state == ContainerState::Running) {
        match &view.object {
            _ if !is_from(view, image) => {}
            None => names.push(view.name.clone()),
            Some(object) => anstream::eprintln!("note: {} belongs to {object} and is left alone", view.name),
        }
    }
    if names.is_empty() {
        anstream::eprintln!("note: no container made by hand from `{image}` runs");
    }
    let code = each_at(context, &desk, &names, stop).await;
    close(context, desk);
    Ok(code)
}

/// Whether a container was made from an image, by whatever spelling of its name or beginning of its id.
pub(super) fn is_from(view: &ContainerView, image: &str) -> bool {
    let same = |a: &str, b: &str| match (a.parse::<ImageRef>(), b.parse::<ImageRef>()) {
        (Ok(a), Ok(b)) => a == b || (!image.contains(':') && a.familiar_repository() == b.familiar_repository()),
        _ => a == b,
    };
    let digits = view.image_id.strip_prefix("sha256:").unwrap_or(&view.image_id);
    let asked = image.strip_prefix("sha256:").unwrap_or(image);
    same(&view.image, image) || (asked.len() >= 4 && digits.starts_with(asked))
}

pub(super) async fn restart(context: &Context, args: &RestartArgs) -> Result<ExitCode, Failure> {
    let grace_ms = millis(args.time);
    each(context, "restart", &args.containers, |name| HandRequest::Restart { name, grace_ms }).await
}

pub(super) async fn kill(context: &Context, args: &KillArgs) -> Result<ExitCode, Failure> {
    each(context, "kill", &args.containers, |name| HandRequest::Kill { name, signal: args.signal.clone() }).await
}

pub(super) async fn rm(context: &Context, args: &RmArgs) -> Result<ExitCode, Failure> {
    each(context, "rm", &args.containers, |name| HandRequest::Remove { name, force: args.force }).await
}

pub(super) async fn pause(context: &Context, args: &NamesArgs, frozen: bool) -> Result<ExitCode, Failure> {
    each(context, "pause", &args.containers, |name| HandRequest::Pause { name, frozen }).await
}

pub(super) async fn rename(context: &Context, args: &RenameArgs) -> Result<ExitCode, Failure> {
    let desk = open(context, "rename").await?;
    let request = HandRequest::Rename { name: args.container.clone(), new: args.new.clone() };
    let answer = ask(&desk, &request).await;
    close(context, desk);
    answer.map(|_| ExitCode::SUCCESS)
}

/// Prints how each ended, as a shell would tell it.
pub(super) async fn wait(context: &Context, args: &NamesArgs) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for name in &args.containers {
        match wait_one(context, name).await {
            Ok(ended) => anstream::println!("{ended}"),
            Err(failure) => {
                context.print_failure(&failure);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

async fn wait_one(context: &Context, name: &str) -> Result<u8, Failure> {
    let desk = open(context, "wait").await?;
    let waiter = match &desk {
        Desk::Controller(_) => None,
        Desk::Here { linux, .. } => Some(hand::waiter(linux, name)?),
    };
    let Some(waiter) = waiter else {
        let path = format!("/v1/containers/wait?container={}", query(name));
        return match context.client.get(&path).await? {
            HandAnswer::Ended(Some(code)) => Ok(code),
            other => Err(nonsense(&other)),
        };
    };
    // others may work with the data root meanwhile
    drop(desk);
    let waited = tokio::task::spawn_blocking(move || waiter.wait()).await;
    let code = waited.map_err(|panic| Failure::new("BX0900", format!("the wait broke: {panic}"), None))??;
    close(context, open(context, "wait").await?);
    Ok(code)
}
