//! `check`: every problem of every manifest in one run. Needs no controller and no root.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::args::CheckArgs;
use super::context::{Context, Failure};
use crate::api::types::SourceRequest;
use crate::manifest::{LoadOptions, Report, check};

pub(super) fn run(context: &Context, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let report = check(&args.paths, &LoadOptions::from_environment());
    let report = if args.strict { report.strict() } else { report };
    if context.json() {
        context.print_json(&report.to_json());
    } else if report.errors() > 0 {
        anstream::eprint!("{}", rendered(&report));
    } else {
        anstream::print!("{}", rendered(&report));
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// Stops `up` before anything is started or made when a manifest has an error; `strict`: or a warning.
///
/// # Errors
/// `Manifests`, after the problems were printed.
pub(super) fn refuse_bad_manifests(request: &SourceRequest, strict: bool) -> Result<(), Failure> {
    let options = LoadOptions { root_stack: Some(request.default_stack.clone()), ..LoadOptions::from_environment() };
    let report = check(std::slice::from_ref(&request.path), &options);
    let report = if strict { report.strict() } else { report };
    if report.errors() == 0 {
        return Ok(());
    }
    anstream::eprint!("{}", rendered(&report));
    Err(Failure::Manifests("nothing was changed; what runs is untouched".to_owned()))
}

fn rendered(report: &Report) -> String {
    report.render(std::io::stderr().is_terminal())
}
