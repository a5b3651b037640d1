//! `start`: the waiting init runs its program.

use std::os::fd::AsFd as _;

use super::Runtime;
use super::create::wait_readable;
use super::record::{Container, Status};
use crate::error::{Error, Result};
use crate::process::{Channel, InitEvent, hooks};

impl Runtime {
    /// Starts a created container.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in any other state than created; `BadContainer` when its program cannot be executed or a
    /// hook fails: it is stopped then.
    pub fn start(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _lock = container.lock()?;
        match self.container(id)?.status() {
            Status::Created => {}
            status @ (Status::Creating | Status::Running | Status::Paused | Status::Stopped) => {
                return Err(container.cannot("started", status));
            }
        }
        let mut channel = Channel::resume(container.connect()?);
        run_program(&container, &mut channel)
    }
}

/// Says the word and hears what became of it; then the `poststart` hooks. One of them that fails ends the container (OCI
/// runtime, "Lifecycle", step 9).
///
/// Where a `startContainer` hook of the spec may be what failed, `poststart` hooks run all the same: other runtimes'
/// `start` does not wait for the former, and engines count on the latter to end what `createRuntime` began.
pub(super) fn run_program(container: &Container, channel: &mut Channel) -> Result<()> {
    channel.start()?;
    let outcome = hear(channel);
    let Some(list) = container.spec().hooks() else { return outcome };
    let hooked = list.start_container().as_ref().is_some_and(|list| !list.is_empty());
    if outcome.is_err() && !hooked {
        return outcome;
    }
    let poststart = list.poststart().as_deref().unwrap_or_default();
    let Some(told) = container.record.launch.told.as_ref().filter(|_| !poststart.is_empty()) else { return outcome };
    let state = told.state(&container.id, "running", Some(container.record.pid));
    let ran = hooks::run("poststart", poststart, &state, None);
    if ran.is_err()
        && let Ok(init) = container.open_init()
    {
        let _ = rustix::process::pidfd_send_signal(&init, rustix::process::Signal::KILL);
    }
    outcome.and(ran)
}

fn hear(channel: &mut Channel) -> Result<()> {
    loop {
        wait_readable(channel.as_fd())?;
        match channel.receive()? {
            None => {}
            Some(InitEvent::Started) => return Ok(()),
            Some(InitEvent::Failed { error }) => return Err(error),
            Some(InitEvent::Mounted | InitEvent::Created { .. }) => {
                return Err(Error::Unsupported("init was ready twice; this is a bug".into()));
            }
        }
    }
}

/// Runs the `poststop` hooks, whose failure changes nothing; returns the failures.
pub(super) fn poststop(container: &Container) -> Vec<String> {
    let list = container.spec().hooks().as_ref().and_then(|hooks| hooks.poststop().as_deref()).unwrap_or_default();
    let Some(told) = container.record.launch.told.as_ref().filter(|_| !list.is_empty()) else { return Vec::new() };
    let state = told.state(&container.id, "stopped", None);
    let run = |(at, hook)| hooks::run_one(&format!("poststop hook {at}"), hook, &state, None).err();
    list.iter().enumerate().filter_map(run).map(|error| crate::error::chain(&error)).collect()
}
