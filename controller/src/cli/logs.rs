//! `logs`: lines of all replicas of an object, or of every object, each with its replica's name.

use std::pin::Pin;
use std::process::ExitCode;
use std::task::Poll;

use super::args::LogsArgs;
use super::context::{Context, Failure};
use super::format::DIM;
use crate::api::types::{LogLine, ObjectStatus};
use crate::model::Kind;

/// An object, and the one replica of it that was asked for.
type Chosen<'a> = (&'a ObjectStatus, Option<String>);
type Reading<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<ExitCode, Failure> {
    let status = context.status().await?;
    let chosen: Vec<Chosen<'_>> = match &args.what {
        Some(what) => vec![context.find(&status, what)?],
        None => {
            let runs = status.objects.iter().filter(|object| matches!(object.key.kind, Kind::App | Kind::Job));
            runs.map(|object| (object, None)).collect()
        }
    };
    let prefixed = chosen.len() > 1 || chosen.iter().any(|(object, replica)| replica.is_none() && object.desired > 1);
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
    if let Some(tail) = args.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    let json = context.json();
    let show = |line: LogLine| {
        if json {
            anstream::println!("{}", serde_json::json!(line));
            return true;
        }
        let prefix = if prefixed { format!("{DIM}{:10} |{DIM:#} ", line.replica) } else { String::new() };
        let time = if args.timestamps { format!("{} ", line.time) } else { String::new() };
        anstream::println!("{prefix}{time}{}", line.line);
        true
    };
    Ok(context.client.lines(hyper::Method::GET, &path, show).await?)
}
