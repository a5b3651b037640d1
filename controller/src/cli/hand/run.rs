//! `run` and `create`. In the foreground the terminal or the standard files are the container's, signals are passed on, and
//! the exit code is the program's; 125 is our own failure, 126 and 127 a program that cannot be run or is not there.

use std::process::ExitCode;

use tokio::io::DuplexStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use runtime::runtime::ContainerState;

use super::{ask, close, nonsense, open, options, views};
use crate::api::images::ImageRequest;
use crate::api::server::{Begun, begin_attach, carry};
use crate::api::types::AttachRequest;
use crate::cli::args::{CreateArgs, Pull, RunArgs};
use crate::cli::context::{Context, Failure};
use crate::cli::exec::converse_until;
use crate::cli::image::desk::Desk;
use crate::cli::terminal::window_size;
use crate::hand::{self, HandAnswer, HandRequest, Restart, RunSpec};

/// Bytes on their way between this process and a container it is attached to by itself.
const DUPLEX_BYTES: usize = 256 << 10;

type MakeKind = fn() -> SignalKind;

/// Signals a container gets from whoever stands in front of it.
const PASSED_ON: [(&str, MakeKind); 6] = [
    ("INT", SignalKind::interrupt),
    ("TERM", SignalKind::terminate),
    ("HUP", SignalKind::hangup),
    ("QUIT", SignalKind::quit),
    ("USR1", SignalKind::user_defined1),
    ("USR2", SignalKind::user_defined2),
];

pub(in crate::cli) async fn create(context: &Context, args: &CreateArgs) -> Result<ExitCode, Failure> {
    let spec = options::spec(&args.make)?;
    let desk = open(context, "create").await?;
    let made = make(&desk, &spec, args.make.pull).await;
    close(context, desk);
    anstream::println!("{}", made?.0);
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) async fn run(context: &Context, args: &RunArgs) -> Result<ExitCode, Failure> {
    run_or_fail(context, args).await.map_err(|failure| match failure {
        Failure::Program(..) => failure,
        other => {
            let error = other.as_api_error();
            Failure::Program(hand::launch_code(&error.message), error)
        }
    })
}

async fn run_or_fail(context: &Context, args: &RunArgs) -> Result<ExitCode, Failure> {
    let spec = options::spec(&args.make)?;
    let keys = detach_keys(&args.detach_keys)?;
    let desk = open(context, "run").await?;
    let made = make(&desk, &spec, args.make.pull).await;
    let (id, name) = match made {
        Ok(made) => made,
        Err(failure) => {
            close(context, desk);
            return Err(failure);
        }
    };
    if let Desk::Here { .. } = &desk {
        say_what_nobody_does(args, &spec);
    }
    if args.detach {
        let started = ask(&desk, &HandRequest::Start(id.clone())).await;
        let started = undo_unless(&desk, started, spec.auto_remove, &id).await;
        close(context, desk);
        started?;
        anstream::println!("{id}");
        return Ok(ExitCode::SUCCESS);
    }
    let front = Front { id, name, tty: spec.tty, stdin: spec.stdin, auto_remove: spec.auto_remove, keys };
    in_front(context, desk, &front).await
}

/// What stands before this terminal.
struct Front {
    id: String,
    name: String,
    tty: bool,
    stdin: bool,
    auto_remove: bool,
    /// What leaves a terminal.
    keys: Vec<u8>,
}

/// Keys as they are typed.
pub(super) fn detach_keys(text: &str) -> Result<Vec<u8>, Failure> {
    crate::cli::attach::keys(text).map_err(Failure::Usage)
}

/// Starts one that is there, with this process in front of it.
pub(super) async fn start_in_front(
    context: &Context,
    name: &str,
    stdin: bool,
    keys: Vec<u8>,
) -> Result<ExitCode, Failure> {
    let desk = open(context, "start").await?;
    let found = views(&desk, false).await.map(|views| views.into_iter().find(|view| view.is_called(name)));
    let front = match found {
        Ok(Some(view)) if view.state == ContainerState::Running => {
            Err(Failure::new("BX0900", format!("container `{name}` runs already"), Some("boxship exec NAME COMMAND")))
        }
        Ok(Some(view)) => {
            let (tty, auto_remove) = (view.tty, view.auto_remove);
            Ok(Front { id: view.id, name: view.name, tty, stdin, auto_remove, keys })
        }
        Ok(None) => Err(Failure::new("BX0903", format!("container `{name}` does not exist"), Some("boxship ps -a"))),
        Err(failure) => Err(failure),
    };
    match front {
        Ok(front) => in_front(context, desk, &front).await,
        Err(failure) => {
            close(context, desk);
            Err(failure)
        }
    }
}

/// One that cannot be started and was to go after its end goes now.
async fn undo_unless<T>(
    desk: &Desk<'_>,
    started: Result<T, Failure>,
    auto_remove: bool,
    id: &str,
) -> Result<T, Failure> {
    if started.is_err() && auto_remove {
        let _ = ask(desk, &HandRequest::Remove { name: id.to_owned(), force: true }).await;
    }
    started
}

/// What only a controller does.
fn say_what_nobody_does(args: &RunArgs, spec: &RunSpec) {
    if spec.restart != Restart::No {
        anstream::eprintln!("note: no controller runs: --restart acts once one does (boxship up, boxship controller)");
    }
    if args.detach && spec.auto_remove {
        anstream::eprintln!("note: no controller runs: it is removed by the next command after its end");
    }
}

/// Writes the container down, with the image fetched where that is wanted; its id and name.
async fn make(desk: &Desk<'_>, spec: &RunSpec, pull: Pull) -> Result<(String, String), Failure> {
    if pull == Pull::Always {
        desk.ask(&ImageRequest::Pull(spec.image.clone())).await?;
    }
    let request = HandRequest::Create(Box::new(spec.clone()));
    let answer = match ask(desk, &request).await {
        Err(failure) if pull == Pull::Missing && is_missing_image(&failure) => {
            anstream::eprintln!("image `{}` is not here: pulling it", spec.image);
            desk.ask(&ImageRequest::Pull(spec.image.clone())).await?;
            ask(desk, &request).await?
        }
        other => other?,
    };
    match answer {
        HandAnswer::Created { id, name, warnings } => {
            warnings.iter().for_each(|warning| anstream::eprintln!("note: {warning}"));
            Ok((id, name))
        }
        other => Err(nonsense(&other)),
    }
}

fn is_missing_image(failure: &Failure) -> bool {
    let error = failure.as_api_error();
    error.code == "BX0903" && error.message.starts_with("image `") && error.message.ends_with("does not exist")
}

/// Runs it with this process in front of it.
async fn in_front(context: &Context, desk: Desk<'_>, front: &Front) -> Result<ExitCode, Failure> {
    let Front { id, tty, stdin, auto_remove, .. } = front;
    // what is piped in may hold any bytes: only what is typed is looked through
    let keys = || if *tty { front.keys.clone() } else { Vec::new() };
    let size = tty.then(window_size);
    let request = AttachRequest { name: id.clone(), start: true, stdin: *stdin || *tty, tty: size };
    let signals = listen()?;
    let here = match &desk {
        Desk::Controller(_) => None,
        Desk::Here { linux, .. } => Some(begin_attach(linux, &request).map_err(Failure::from)),
    };
    let outcome = match here {
        None => {
            let stream = context.client.upgrade("/v1/containers/attach", "boxship-attach", &request).await;
            let stream = undo_unless(&desk, stream.map_err(Failure::from), *auto_remove, id).await?;
            drop(desk);
            meanwhile(context, id, signals, converse_until(stream, *tty, *stdin, keys())).await
        }
        Some(begun) => {
            let begun = match undo_unless(&desk, begun, *auto_remove, id).await {
                Ok(begun) => begun,
                Err(failure) => {
                    close(context, desk);
                    return Err(failure);
                }
            };
            // others may work with the data root while it runs
            drop(desk);
            let outcome = meanwhile(context, id, signals, converse_until(local(begun), *tty, *stdin, keys())).await;
            close(context, open(context, "run").await?);
            outcome
        }
    };
    if matches!(outcome, Err(Failure::Client(_))) {
        anstream::eprintln!("note: the container may go on: boxship ps   ·   boxship logs -f {}", front.name);
    }
    outcome
}

/// A conversation with a program of this process's own supervisor, in the frames the controller speaks.
pub(in crate::cli) fn local(begun: Begun) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
    let (from, to) = tokio::io::split(theirs);
    tokio::spawn(carry(begun, from, to));
    ours
}

/// Signals as they come, by name.
fn listen() -> Result<mpsc::Receiver<&'static str>, Failure> {
    let (heard, signals) = mpsc::channel(16);
    for (name, kind) in PASSED_ON {
        let failed = |error| Failure::new("BX0701", format!("listen for SIG{name}: {error}"), None);
        let mut stream: Signal = signal(kind()).map_err(failed)?;
        let heard = heard.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && heard.send(name).await.is_ok() {} });
    }
    Ok(signals)
}

/// Passes signals on until the conversation is over. Whoever asks twice to end is not made to wait for a program that does
/// not hear.
async fn meanwhile(
    context: &Context,
    id: &str,
    mut signals: mpsc::Receiver<&'static str>,
    conversation: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let mut conversation = std::pin::pin!(conversation);
    let mut asked = 0;
    loop {
        let signal = tokio::select! {
            outcome = &mut conversation => return outcome,
            Some(signal) = signals.recv() => signal,
        };
        let ends = matches!(signal, "INT" | "TERM");
        asked += u32::from(ends);
        let name = id.to_owned();
        let request = if ends && asked > 1 {
            HandRequest::Stop { name, grace_ms: None }
        } else {
            HandRequest::Kill { name, signal: signal.to_owned() }
        };
        let desk = Desk::open_as(context, "boxship run", "run containers").await;
        if let Ok(desk) = desk {
            // one that has just ended needs no signal
            let _ = ask(&desk, &request).await;
        }
    }
}
