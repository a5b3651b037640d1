//! `logs`: lines of all replicas of an object, or of every object, each with its replica's name.

use std::pin::Pin;
use std::process::ExitCode;
use std::task::Poll;

use hyper::Method;
use tokio::sync::mpsc;

use super::args::LogsArgs;
use super::context::{Context, Failure};
use super::format::DIM;
use super::hand;
use super::image::desk::Desk;
use crate::api::client::{ClientError, query};
use crate::api::server::{Following, one_container};
use crate::api::types::{LogLine, ObjectStatus};
use crate::model::{Kind, by_hand};

/// Lines read ahead of a slow terminal.
const LINES_MAX: usize = 256;

/// An object, and the one replica of it that was asked for.
type Chosen<'a> = (&'a ObjectStatus, Option<String>);
type Reading<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<ExitCode, Failure> {
    let status = match context.status().await {
        Err(Failure::Client(ClientError::NotRunning { .. })) if args.what.is_some() => {
            return of_one(context, args).await;
        }
        other => other?,
    };
    let chosen: Vec<Chosen<'_>> = match &args.what {
        Some(what) => match context.find(&status, what) {
            Ok(found) => vec![found],
            // perhaps one made by hand
            Err(failure) => {
                let desk = hand::open(context, "logs").await?;
                let known = hand::is_known(&desk, what).await?;
                drop(desk);
                return if known { of_one(context, args).await } else { Err(failure) };
            }
        },
        None => {
            let runs = status.objects.iter().filter(|object| matches!(object.key.kind, Kind::App | Kind::Job));
            runs.map(|object| (object, None)).collect()
        }
    };
    let has_members = |object: &ObjectStatus| object.replicas.iter().any(|replica| !replica.members.is_empty());
    let prefixed = chosen.len() > 1
        || chosen.iter().any(|(object, replica)| {
            (replica.is_none() && object.desired > 1) || (args.container.is_none() && has_members(object))
        });
    let read = async {
        if !args.follow {
            for (object, replica) in &chosen {
                lines(context, args, object, replica.as_deref(), prefixed).await?;
            }
            return Ok(());
        }
        let all = chosen.iter().map(|(object, replica)| -> Reading<'_> {
            Box::pin(lines(context, args, object, replica.as_deref(), prefixed))
        });
        all_of(all.collect()).await
    };
    tokio::select! {
        done = read => done?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// One container made by hand; followed, until it has ended.
async fn of_one(context: &Context, args: &LogsArgs) -> Result<ExitCode, Failure> {
    let name = args.what.clone().unwrap_or_default();
    let desk = hand::open(context, "logs").await?;
    let mut print = show(context, args, false);
    let read = async {
        let Desk::Here { linux, _alone: alone } = desk else {
            let mut path = format!("/v1/logs?container={}&follow={}", query(&name), args.follow);
            path.extend(args.tail.map(|tail| format!("&tail={tail}")));
            return Ok(context.client.lines(Method::GET, &path, print).await?);
        };
        let config = by_hand::find_container(&linux.container_configs()?, &name)?.clone();
        // others may work with the data root meanwhile: log files are only read
        drop(alone);
        let tail = args.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
        let how = Following { tail, follow: args.follow };
        let (send, mut lines) = mpsc::channel(LINES_MAX);
        tokio::task::spawn_blocking(move || one_container(&linux, &config, how, &send));
        while let Some(line) = lines.recv().await {
            print(line);
        }
        hand::close(context, hand::open(context, "logs").await?);
        Ok::<(), Failure>(())
    };
    tokio::select! {
        done = read => done?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for all of them at once; the first failure ends it.
async fn all_of(mut reading: Vec<Reading<'_>>) -> Result<(), Failure> {
    std::future::poll_fn(|task| {
        let mut failure = None;
        reading.retain_mut(|one| match one.as_mut().poll(task) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                failure = failure.take().or(outcome.err());
                false
            }
        });
        match failure {
            Some(failure) => Poll::Ready(Err(failure)),
            None if reading.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}

async fn lines(
    context: &Context,
    args: &LogsArgs,
    object: &ObjectStatus,
    replica: Option<&str>,
    prefixed: bool,
) -> Result<(), Failure> {
    let key = &object.key;
    let mut path = format!("/v1/logs?stack={}&kind={}&name={}&follow={}", key.stack, key.kind, key.name, args.follow);
    if let Some(replica) = replica {
        path.push_str(&format!("&replica={replica}"));
    }
    if let Some(container) = &args.container {
        path.push_str(&format!("&member={container}"));
    }
    if let Some(tail) = args.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    Ok(context.client.lines(Method::GET, &path, show(context, args, prefixed)).await?)
}

/// Prints a line.
fn show(context: &Context, args: &LogsArgs, prefixed: bool) -> impl FnMut(LogLine) -> bool {
    let (json, timestamps) = (context.json(), args.timestamps);
    move |line| {
        if json {
            anstream::println!("{}", serde_json::json!(line));
            return true;
        }
        let prefix = if prefixed { format!("{DIM}{:10} |{DIM:#} ", line.replica) } else { String::new() };
        let time = if timestamps { format!("{} ", line.time) } else { String::new() };
        anstream::println!("{prefix}{time}{}", line.line);
        true
    }
}
