//! Starting the processes of a data root when none run, and ending them.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use runtime::clock::boot_ms;
use runtime::layout::make_private_dir;
use runtime::runtime::ContainerInfo;
use runtime::{LinuxRuntime, Runtime as _};

use super::context::{Context, Failure};
use crate::api::client::ClientError;
use crate::api::types::Status;

/// How long the processes may take to answer: opening a large state database is the longest part.
const START_MS_MAX: u64 = 15_000;
/// Before a start that came to nothing is tried again, in milliseconds.
const START_AGAIN_MS: u64 = 1_000;
/// How often a socket is tried that is not there yet: there is nothing to wait on before it exists.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// Makes sure that a controller answers; returns whether this call started it.
///
/// # Errors
/// `BX0702` without root; `BX0703` when it does not answer in time, with the end of its log.
pub(crate) async fn ensure_running(context: &Context) -> Result<bool, Failure> {
    match context.status().await {
        Ok(_) => return Ok(false),
        Err(Failure::Client(ClientError::NotRunning { .. })) => {}
        Err(other) => return Err(other),
    }
    require_root("start containers")?;
    let deadline = boot_ms() + START_MS_MAX;
    let mut next_start = 0;
    while boot_ms() < deadline {
        // a keeper that is just ending takes nothing on
        if boot_ms() >= next_start {
            start(context)?;
            next_start = boot_ms() + START_MS_MAX / 5;
        }
        if context.client.get::<Status>("/v1/status").await.is_ok() {
            return Ok(true);
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    let log = context.layout.run_dir.join("boxship.log");
    Err(Failure::new(
        "BX0703",
        format!("the controller did not answer within {} s{}", START_MS_MAX / 1_000, last_lines(&log)),
        Some(&format!("less {}", log.display())),
    ))
}

/// Refuses early and clearly without root.
///
/// # Errors
/// `BX0702`.
pub(crate) fn require_root(purpose: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let message = format!(
        "boxship needs root to {purpose} (namespaces, overlay mounts, cgroups); this is uid {}",
        rustix::process::geteuid().as_raw()
    );
    Err(Failure::new("BX0702", message, Some("sudo boxship …")))
}

/// Makes sure that a supervisor and a switchboard answer, with or without a controller. The caller holds the data root.
///
/// # Errors
/// `BX0703` when they do not answer in time, with the end of their log.
pub(crate) async fn ensure_supervisor(context: &Context) -> Result<(), Failure> {
    let supervisor = runtime::supervisor::client::SupervisorClient::new(&context.layout);
    let deadline = boot_ms() + START_MS_MAX;
    let mut next_start = 0;
    while supervisor.ping().is_err() {
        let now = boot_ms();
        if now >= deadline {
            let log = context.layout.run_dir.join("boxship.log");
            let message =
                format!("the supervisor did not answer within {} s{}", START_MS_MAX / 1_000, last_lines(&log));
            return Err(Failure::new("BX0703", message, Some(&format!("less {}", log.display()))));
        }
        // one that is just ending, or being started by somebody else, may be in the way of the first
        if now >= next_start {
            spawn_keeper(context, &["--with".into(), "supervisor,switchboard".into()])?;
            next_start = now + START_AGAIN_MS;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    Ok(())
}

/// Ends supervisor and switchboard where no controller runs and nothing needs them. The caller holds the data root.
pub(crate) fn end_if_idle(context: &Context, linux: &LinuxRuntime) {
    let is_live = |info: &ContainerInfo| info.pid.is_some();
    if linux.list_containers().is_ok_and(|all| !all.iter().any(is_live)) {
        // at worst they stay, which costs some memory
        let _ = runtime::keeper::end_alone(&context.layout);
    }
}

fn start(context: &Context) -> Result<(), Failure> {
    let mut args: Vec<OsString> = vec!["--kept".into()];
    args.extend(context.place.registry_args());
    match runtime::keeper::hand_controller(&context.layout, &args)? {
        Some(_) => Ok(()),
        None => spawn_keeper(context, &[]),
    }
}

fn spawn_keeper(context: &Context, more: &[OsString]) -> Result<(), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new("BX0703", format!("{what}: {error}"), Some("boxship check"))
    };
    make_private_dir(&context.layout.run_dir).map_err(|e| failed("make the run directory", &e))?;
    make_private_dir(&context.layout.data_root).map_err(|e| failed("make the data root", &e))?;
    let log_path = context.layout.run_dir.join("boxship.log");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|e| failed(&format!("open {}", log_path.display()), &e))?;
    let log_too = log.try_clone().map_err(|e| failed("copy a descriptor", &e))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("boxship").arg("keeper").args(context.layout.to_args()).args(context.place.registry_args()).args(more);
    command.stdin(Stdio::null()).stdout(log).stderr(log_too).current_dir("/");
    // A process group of its own: ctrl-c in this terminal must not reach the containers.
    command.process_group(0);
    command.spawn().map_err(|e| failed("start the keeper", &e))?;
    Ok(())
}

/// Ends the processes, but for those that containers made by hand need; containers that still run go on without a
/// controller. Returns when the keeper is gone or has let go of the controller.
///
/// # Errors
/// When the controller refuses.
pub(crate) async fn shut_down(context: &Context) -> Result<(), Failure> {
    let _: serde_json::Value = context.client.post("/v1/shutdown", &serde_json::json!({})).await?;
    let deadline = boot_ms() + START_MS_MAX;
    while boot_ms() < deadline {
        // One that containers made by hand need stays, without a controller.
        if runtime::keeper::alone(&context.layout)?.is_some() {
            return Ok(());
        }
        // The keeper's lock ends with it.
        if runtime::keeper::lock(&context.layout.run_dir.join("keeper.lock"), "keeper").is_ok() {
            return Ok(());
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    Err(Failure::new("BX0704", "the keeper is still there after being told to end", Some("boxship get")))
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    if lines.is_empty() {
        return String::new();
    }
    let tail: Vec<&str> = lines.into_iter().rev().collect();
    format!("; its last words:\n    {}", tail.join("\n    "))
}
