//! `delete`: remove an object that no followed manifest declares.

use std::process::ExitCode;

use super::args::DeleteArgs;
use super::context::{Context, Failure};
use super::up::{say_what_was_accepted, short};
use crate::api::types::Applied;

pub(super) async fn run(context: &Context, args: &DeleteArgs) -> Result<ExitCode, Failure> {
    let status = context.status().await?;
    let key = context.find(&status, &args.what)?.0.key.clone();
    let applied: Applied = context.client.delete(&format!("/v1/objects/{key}")).await?;
    say_what_was_accepted(&applied);
    anstream::println!("deleted {}", short(&key));
    Ok(ExitCode::SUCCESS)
}
