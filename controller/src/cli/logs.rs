//! `logs`: lines of all replicas of an object, each with its replica's name.

use std::process::ExitCode;

use super::args::LogsArgs;
use super::context::{Context, Failure};
use super::format::DIM;
use crate::api::types::LogLine;

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<ExitCode, Failure> {
    let status = context.status().await?;
    let (object, replica) = context.find(&status, &args.what)?;
    let key = &object.key;
    let mut path = format!("/v1/logs?stack={}&kind={}&name={}&follow={}", key.stack, key.kind, key.name, args.follow);
    if let Some(replica) = &replica {
        path.push_str(&format!("&replica={replica}"));
    }
    if let Some(tail) = args.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    let several = replica.is_none() && object.desired > 1;
    let json = context.json();
    let show = |line: LogLine| {
        if json {
            anstream::println!("{}", serde_json::json!(line));
            return true;
        }
        let prefix = if several { format!("{DIM}{:10} |{DIM:#} ", line.replica) } else { String::new() };
        let time = if args.timestamps { format!("{} ", line.time) } else { String::new() };
        anstream::println!("{prefix}{time}{}", line.line);
        true
    };
    tokio::select! {
        done = context.client.lines(hyper::Method::GET, &path, show) => done?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}
