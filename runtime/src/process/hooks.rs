//! Hooks of a spec: programs that are told the container's state on their standard input, run one after the other.
//!
//! Called by the caller of a start for the host's side, by init for the container's. A hook gets the environment its
//! entry names and nothing else, and no descriptor but the standard ones.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use oci_spec::runtime::{Hook, Spec};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Doing as _, Error, Result};
use crate::spec::launch::Told;

/// Most of what a failing hook wrote that is repeated in the error.
const SAID_BYTES_MAX: u64 = 2048;

impl Told {
    /// The state document hooks and `state` show (OCI runtime, "State").
    #[must_use]
    pub fn state(&self, id: &str, status: &str, pid: Option<i32>) -> String {
        let mut state = serde_json::json!({
            "ociVersion": self.version,
            "id": id,
            "status": status,
            "bundle": self.bundle,
        });
        if let Some(pid) = pid {
            state["pid"] = pid.into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state.to_string()
    }
}

/// Whether a spec has hooks that the caller runs while init waits.
pub(super) fn has_creating(spec: &Spec) -> bool {
    let hooks = spec.hooks().as_ref();
    hooks.is_some_and(|hooks| hooks.prestart().iter().chain(hooks.create_runtime()).any(|list| !list.is_empty()))
}

/// Runs the hooks for the moment between mounting and entering, on the host's side: `prestart` first (OCI config,
/// "POSIX-platform Hooks"), which version 1.0, that knew no other, promises a container that is created.
///
/// # Errors
/// As [`run`].
pub fn run_creating(hooks: &oci_spec::runtime::Hooks, told: &Told, id: &str, pid: i32) -> Result<()> {
    let lists = [("prestart", "created", hooks.prestart()), ("createRuntime", "creating", hooks.create_runtime())];
    lists.into_iter().try_for_each(|(kind, status, list)| {
        run(kind, list.as_deref().unwrap_or_default(), &told.state(id, status, Some(pid)), None)
    })
}

/// Runs hooks in their order until one fails. One whose entry names no environment gets `env`, or none.
///
/// # Errors
/// `BadContainer` naming the hook and how it failed.
pub fn run(kind: &str, hooks: &[Hook], state: &str, env: Option<&[String]>) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(at, hook)| run_one(&format!("{kind} hook {at}"), hook, state, env))
}

/// Runs one hook to its end.
///
/// # Errors
/// As [`run`].
pub fn run_one(name: &str, hook: &Hook, state: &str, env: Option<&[String]>) -> Result<()> {
    let shown = hook.path().display();
    let bad = |why: String| Error::BadContainer(format!("{name} ({shown}) {why}"));
    if !hook.path().is_absolute() {
        return Err(bad("is named by a path that is not absolute".into()));
    }
    let mut command = Command::new(hook.path());
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let env = hook.env().as_deref().or(env).unwrap_or_default();
    command.envs(env.iter().filter_map(|line| line.split_once('=')));
    let mut args = hook.args().iter().flatten();
    if let Some(own_name) = args.next() {
        command.arg0(own_name);
    }
    let mut child = command.args(args).spawn().map_err(|error| bad(format!("cannot be run: {error}")))?;
    // A hook that does not read its input is in its rights.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(state.as_bytes()));
    let ended = wait(&child, hook.timeout()).doing(|| format!("wait for the {name}"))?;
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        return Err(bad(format!("did not end within {} s and was killed", hook.timeout().unwrap_or(0))));
    }
    let status = child.wait().doing(|| format!("wait for the {name}"))?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    let _ = child.stderr.take().map(|stderr| stderr.take(SAID_BYTES_MAX).read_to_string(&mut said));
    let said = said.trim();
    Err(bad(if said.is_empty() { format!("failed: {status}") } else { format!("failed: {status}: {said}") }))
}

/// Whether a child ends within its time, in seconds; without one, whenever it does.
fn wait(child: &Child, seconds: Option<i64>) -> std::io::Result<bool> {
    let Some(seconds) = seconds else { return Ok(true) };
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return Ok(true) };
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&time)))?;
    if ready == 0 {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    }
    Ok(ready > 0)
}
