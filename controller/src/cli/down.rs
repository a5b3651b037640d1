//! `down`: remove what was put in force, wait until it is gone, end the processes when nothing is left to do.

use std::process::ExitCode;
use std::time::Duration;

use runtime::clock::boot_ms;

use super::args::DownArgs;
use super::context::{Context, Failure, absolute};
use super::format::{BOLD, GREEN, secs};
use crate::api::client::{ClientError, query};
use crate::api::types::{Applied, Status};

pub(super) async fn run(context: &Context, args: &DownArgs) -> Result<ExitCode, Failure> {
    let began = boot_ms();
    let path = args.path.as_ref().map(|p| format!("?path={}", query(&absolute(p).to_string_lossy())));
    let asked = context.client.delete::<Applied>(&format!("/v1/sources{}", path.unwrap_or_default())).await;
    if let Err(ClientError::NotRunning { .. }) = asked {
        anstream::println!("nothing runs here: no controller on {}", context.layout.data_root.display());
        return Ok(ExitCode::SUCCESS);
    }
    let applied = asked?;
    let deadline = args.timeout.map(|t| began + u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
    let mut version = 0;
    let status = loop {
        let status: Status = context.client.get(&format!("/v1/status?after={version}&timeout_ms=1000")).await?;
        version = status.version;
        if status.generation >= applied.generation && status.converged_generation >= applied.generation {
            break status;
        }
        if deadline.is_some_and(|d| boot_ms() >= d) {
            return Err(Failure::TimedOut("not all is gone yet; it goes on".to_owned()));
        }
    };
    if status.sources.is_empty() {
        super::shut_down(context).await?;
    }
    let took = secs(Duration::from_millis(boot_ms() - began));
    anstream::println!("{GREEN}✔{GREEN:#} {BOLD}down{BOLD:#} in {took}; named volumes and images are kept");
    Ok(ExitCode::SUCCESS)
}
