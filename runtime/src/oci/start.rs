//! `start`: the waiting init runs its program.

use std::os::fd::AsFd as _;

use super::Runtime;
use super::create::wait_readable;
use super::record::{Container, Status};
use crate::error::{Error, Result};
use crate::process::{Channel, InitEvent, hooks};

impl Runtime {
    /// Starts a created container. Returns warnings: `poststart` hooks that failed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` in any other state than created; `BadContainer` when its program cannot be executed: it
    /// is stopped then.
    pub fn start(&self, id: &str) -> Result<Vec<String>> {
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

/// Says the word and hears what became of it; then the `poststart` hooks, of which none can undo it.
pub(super) fn run_program(container: &Container, channel: &mut Channel) -> Result<Vec<String>> {
    channel.start()?;
    loop {
        wait_readable(channel.as_fd())?;
        match channel.receive()? {
            None => {}
            Some(InitEvent::Started) => break,
            Some(InitEvent::Failed { error }) => return Err(error),
            Some(InitEvent::Mounted | InitEvent::Created { .. }) => {
                return Err(Error::Unsupported("init was ready twice; this is a bug".into()));
            }
        }
    }
    let list = container.spec().hooks().as_ref().and_then(|hooks| hooks.poststart().as_deref()).unwrap_or_default();
    Ok(lenient(container, "poststart", "running", list))
}

/// Runs hooks whose failure changes nothing; returns the failures.
pub(super) fn lenient(
    container: &Container,
    kind: &str,
    status: &str,
    list: &[oci_spec::runtime::Hook],
) -> Vec<String> {
    let Some(told) = &container.record.launch.told else { return Vec::new() };
    let pid = (status == "running").then_some(container.record.pid);
    let state = told.state(&container.id, status, pid);
    let run = |(at, hook)| hooks::run_one(&format!("{kind} hook {at}"), hook, &state).err();
    list.iter().enumerate().filter_map(run).map(|error| crate::error::chain(&error)).collect()
}
