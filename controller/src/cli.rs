//! The command line: arguments, one file a verb, and exit codes. A client of the controller's socket; the daemons of
//! the same binary are hidden verbs that start without a line of what is here.
//!
//! stdout is data, stderr is progress and messages. Exit codes: 0 done, 1 failed, 2 `plan --detailed-exitcode` with
//! changes, 64 bad command line, 65 invalid manifest, 69 controller unreachable, 124 `--timeout` reached, and for
//! `exec` the program's own (128 + signal).

pub(crate) mod args;
mod attach;
mod check;
mod context;
mod convert;
mod copy;
mod daemons;
mod delete;
mod describe;
mod down;
mod events;
mod exec;
mod explain;
mod fmt;
pub(crate) mod format;
mod get;
mod hand;
mod image;
mod logs;
mod look;
mod oci;
mod plan;
mod processes;
mod progress;
mod prune;
mod rollout;
mod table;
mod terminal;
mod up;
mod volume;

use std::process::ExitCode;

use clap::Parser as _;

pub use args::Cli;
use args::Verb;
pub use context::{Context, Failure};
pub(crate) use processes::{ensure_running, require_root, shut_down};

/// Bad command line (sysexits.h `EX_USAGE`); clap's own 2 would read as "changes pending".
const EXIT_USAGE: u8 = 64;

/// Parses the process's arguments and runs the verb.
#[must_use]
pub fn main() -> ExitCode {
    // An engine starts it several times for each container: straight there, past the parser of everything else.
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == "oci") {
        return oci::main(&arguments[1..]);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            // A closed pipe while printing help is no reason for another error.
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    match cli.verb {
        Verb::Keeper(ref args) => daemons::keeper(&cli.place, args),
        Verb::Supervisor => daemons::supervisor(&cli.place),
        Verb::Switchboard => daemons::switchboard(&cli.place),
        Verb::Controller(ref args) => daemons::controller(&cli.place, args),
        Verb::Unpack(ref args) => daemons::unpack(args),
        Verb::Copy(ref args) => daemons::copy(args),
        Verb::DemoGuest(ref args) => crate::demo::guest(args),
        Verb::Oci(ref args) => oci::main(&args.args),
        _ => client(cli),
    }
}

/// Runs a verb that talks to a controller, on a runtime of one thread: it only waits.
fn client(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("error[BX0701]: start the event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let context = Context::new(&cli);
    let outcome = runtime.block_on(dispatch(&context, cli.verb));
    // A blocking read of stdin must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            context.print_failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(context: &Context, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Demo(args) => crate::demo::run(context, &args).await,
        Verb::Up(args) => up::run(context, &args).await,
        Verb::Down(args) => down::run(context, &args).await,
        Verb::Plan(args) => plan::run(context, &args).await,
        Verb::Check(args) => check::run(context, &args),
        Verb::Convert(args) => convert::run(context, &args),
        Verb::Fmt(args) => fmt::run(context, &args),
        Verb::Explain(args) => explain::run(context, &args),
        Verb::Get(args) => get::run(context, &args).await,
        Verb::Run(args) => hand::run(context, &args).await,
        Verb::Create(args) => hand::create(context, &args).await,
        Verb::Start(args) => hand::start(context, &args).await,
        Verb::Stop(args) => hand::stop(context, &args).await,
        Verb::Restart(args) => hand::restart(context, &args).await,
        Verb::Kill(args) => hand::kill(context, &args).await,
        Verb::Rm(args) => hand::rm(context, &args).await,
        Verb::Ps(args) => hand::ps(context, &args).await,
        Verb::Wait(args) => hand::wait(context, &args).await,
        Verb::Rename(args) => hand::rename(context, &args).await,
        Verb::Pause(args) => hand::pause(context, &args, true).await,
        Verb::Unpause(args) => hand::pause(context, &args, false).await,
        Verb::Describe(args) => describe::run(context, &args).await,
        Verb::Why(args) => describe::why(context, &args).await,
        Verb::Logs(args) => logs::run(context, &args).await,
        Verb::Exec(args) => exec::run(context, &args).await,
        Verb::Events(args) => events::run(context, &args).await,
        Verb::Rollout(args) => rollout::run(context, &args.verb).await,
        Verb::Scale(args) => rollout::scale(context, &args).await,
        Verb::Hold(args) => rollout::hold(context, &args).await,
        Verb::Release(args) => rollout::release(context, &args).await,
        Verb::Delete(args) => delete::run(context, &args).await,
        Verb::Prune(args) => prune::run(context, &args).await,
        Verb::Volume(args) => volume::run(context, &args.verb),
        Verb::Image(args) => image::run(context, &args.verb).await,
        Verb::Attach(args) => attach::run(context, &args).await,
        Verb::Cp(args) => copy::run(context, &args).await,
        Verb::Inspect(args) => look::inspect(context, &args).await,
        Verb::Top(args) => look::top(context, &args).await,
        Verb::Stats(args) => look::stats(context, &args).await,
        Verb::Commit(args) => image::run(context, &args::ImageVerb::Commit(args)).await,
        Verb::Diff(args) => image::diff_container(context, &args).await,
        Verb::Keeper(_)
        | Verb::Supervisor
        | Verb::Switchboard
        | Verb::Controller(_)
        | Verb::Unpack(_)
        | Verb::Copy(_)
        | Verb::Oci(_)
        | Verb::DemoGuest(_) => unreachable!("main() runs the daemons before the client starts"),
    }
}
