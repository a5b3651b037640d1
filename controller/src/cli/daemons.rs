//! The daemons behind the hidden verbs: arguments handed on, errors printed once.

use std::ffi::OsString;
use std::process::ExitCode;

use runtime::error::chain;

use super::args::{ControllerArgs, KeeperArgs, Place, UnpackArgs};
use super::context::{absolute, print_error};
use crate::api::types::ApiError;
use crate::daemon::log_to_stderr;

pub(super) fn keeper(place: &Place, args: &KeeperArgs) -> ExitCode {
    run_keeper(place, args.manifests.as_deref())
}

pub(super) fn supervisor(place: &Place) -> ExitCode {
    log_to_stderr();
    done("supervisor", runtime::supervisor::run(place.layout().to_args()))
}

pub(super) fn switchboard(place: &Place) -> ExitCode {
    log_to_stderr();
    done("switchboard", runtime::switchboard::run(place.layout().to_args()))
}

/// `boxship controller` is the keeper in the foreground; the keeper starts the controller proper with `--kept`.
pub(super) fn controller(place: &Place, args: &ControllerArgs) -> ExitCode {
    if !args.kept {
        if let Err(failure) = super::require_root("run containers") {
            super::context::Context::at(place.clone()).print_failure(&failure);
            return ExitCode::from(failure.exit_code());
        }
        return run_keeper(place, args.manifests.as_deref());
    }
    let options = crate::daemon::Options {
        layout: place.layout(),
        manifests: args.manifests.as_deref().map(absolute),
        insecure_registries: place.insecure_registry.clone(),
        registry_cas: place.registry_ca.clone(),
        kept: args.kept,
    };
    match crate::daemon::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("controller", &error),
    }
}

pub(super) fn unpack(args: &UnpackArgs) -> ExitCode {
    runtime::image::unpack_child(&args.args)
}

fn run_keeper(place: &Place, manifests: Option<&std::path::Path>) -> ExitCode {
    log_to_stderr();
    let mut args = place.layout().to_args();
    args.extend(["--".into(), "--kept".into()]);
    args.extend(manifests.into_iter().flat_map(|dir| [OsString::from("--manifests"), absolute(dir).into()]));
    args.extend(place.registry_args());
    done("keeper", runtime::keeper::run(args))
}

fn done(who: &str, outcome: runtime::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(who, &error),
    }
}

fn failed(who: &str, error: &dyn std::error::Error) -> ExitCode {
    print_error(&ApiError {
        code: "BX0703".to_owned(),
        message: format!("{who}: {}", chain(error)),
        help: Some("boxship get   (says whether another one runs here)".to_owned()),
    });
    ExitCode::FAILURE
}
