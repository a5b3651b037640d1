//! The daemons behind the hidden verbs: arguments handed on, errors printed once.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use runtime::error::chain;
use runtime::layout::Layout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::args::{ControllerArgs, KeeperArgs, Place, UnpackArgs};
use super::context::{absolute, print_error};
use crate::api::types::ApiError;
use crate::daemon::log_to_stderr;

pub(super) fn keeper(place: &Place, args: &KeeperArgs) -> ExitCode {
    // how often layers are looked at again comes through the environment, if at all
    run_keeper(place, controller_args(place, args.manifests.as_deref(), None), args.with.as_deref())
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
        return foreground(place, controller_args(place, args.manifests.as_deref(), Some(args.scrub_every)));
    }
    let options = crate::daemon::Options {
        layout: place.layout(),
        manifests: args.manifests.as_deref().map(absolute),
        images: place.store_options(),
        secret_key: place.secret_key_file(),
        scrub_every: args.scrub_every,
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

pub(super) fn copy(args: &UnpackArgs) -> ExitCode {
    runtime::archive::copy_child(&args.args)
}

/// What the keeper is to start the controller with.
fn controller_args(place: &Place, manifests: Option<&Path>, scrub_every: Option<Duration>) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["--kept".into()];
    let every = scrub_every.map(|every| OsString::from(format!("{}s", every.as_secs())));
    args.extend(every.into_iter().flat_map(|every| ["--scrub-every".into(), every]));
    args.extend(manifests.into_iter().flat_map(|dir| [OsString::from("--manifests"), absolute(dir).into()]));
    args.extend(place.registry_args());
    args
}

fn run_keeper(place: &Place, handed: Vec<OsString>, with: Option<&str>) -> ExitCode {
    log_to_stderr();
    let mut args = place.layout().to_args();
    args.extend(with.into_iter().flat_map(|with| [OsString::from("--with"), with.into()]));
    args.push("--".into());
    args.extend(handed);
    done("keeper", runtime::keeper::run(args))
}

/// Is the keeper; or where one runs already for containers made by hand, lets that one start the controller, and stays with it.
fn foreground(place: &Place, handed: Vec<OsString>) -> ExitCode {
    let layout = place.layout();
    match runtime::keeper::hand_controller(&layout, &handed) {
        Ok(None) => run_keeper(place, handed, None),
        Ok(Some(pid)) => {
            log_to_stderr();
            tracing::info!(keeper = pid, "containers made by hand run here: their keeper starts the controller");
            done("controller", stay_with(&layout, pid))
        }
        Err(error) => failed("controller", &error),
    }
}

/// Ends when the keeper does; passes on a wish that it should.
fn stay_with(layout: &Layout, keeper: i32) -> runtime::Result<()> {
    let doing = |doing: &'static str| move |error: Errno| runtime::Error::io(doing, error);
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block().map_err(doing("block signals"))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&mask, flags).map_err(doing("make a signal descriptor"))?;
    let pid = rustix::process::Pid::from_raw(keeper);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(pidfd) = pidfd else { return Ok(()) };
    let mut is_ready = false;
    loop {
        let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let _ = poll(&mut fds, if is_ready { None } else { Some(&wait) });
        if fds[0].revents().contains(PollFlags::IN) {
            return Ok(());
        }
        if let Ok(Some(_)) = signals.read_signal() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), Signal::SIGTERM);
        }
        if !is_ready && std::os::unix::net::UnixStream::connect(layout.socket("controller")).is_ok() {
            is_ready = true;
            crate::daemon::notify_ready();
        }
    }
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
