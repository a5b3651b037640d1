//! `exec`: a further program in a running container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::Process;

use super::create::{check_preserved, check_terminal, own_stdio, reap, send_terminal, wait_readable, write_pid};
use super::record::Status;
use super::{Runtime, foreground, validate};
use crate::error::{Error, Result};
use crate::process::{self, ExecConfig, ExecEvent, ExecTarget, SpawnOptions, Stdio};

/// How a further program is run.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The program, as a spec writes it.
    pub process: Process,
    /// Return as soon as it runs.
    pub detach: bool,
    /// Where its host pid is written.
    pub pid_file: Option<PathBuf>,
    /// A unix socket that is given its terminal's master.
    pub console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on it inherits.
    pub preserve_fds: u32,
    /// Also in a paused container, where it waits for the end of the pause.
    pub ignore_paused: bool,
}

impl Runtime {
    /// Runs a program in a container: its exit code, or 0 when it was left alone.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the container does not run; `BadContainer`, `Unsupported`, `Io`.
    pub fn exec(&self, id: &str, options: &ExecOptions) -> Result<i32> {
        check_preserved(options.preserve_fds)?;
        validate::check_process(&options.process)?;
        let terminal = options.process.terminal().unwrap_or(false);
        if options.detach || options.console_socket.is_some() {
            check_terminal(terminal, options.console_socket.is_some())?;
        }
        let container = self.container(id)?;
        match container.status() {
            Status::Created | Status::Running => {}
            Status::Paused if options.ignore_paused => {}
            status @ (Status::Creating | Status::Paused | Status::Stopped) => {
                return Err(container.cannot("entered", status));
            }
        }
        let mut spec = container.spec().clone();
        spec.set_process(Some(options.process.clone()));
        let init = container.open_init()?;
        let target = ExecTarget {
            pid: container.record.pid,
            pidfd: init.as_fd(),
            spec: &spec,
            launch: &container.record.launch,
        };
        let stdio = if terminal { Stdio::Terminal } else { Stdio::Fds(own_stdio()?) };
        let spawn = SpawnOptions { stdio, rendezvous: None, preserved_fds: options.preserve_fds };
        let mut spawned = process::exec(&target, &as_the_spec_says(&options.process), spawn)?;
        let mut program: Option<(OwnedFd, Option<OwnedFd>)> = None;
        let outcome = loop {
            wait_readable(spawned.channel.as_fd())?;
            match spawned.channel.receive()? {
                None => {}
                Some(ExecEvent::Created { pid, pidfd, terminal }) => {
                    if let Some(file) = &options.pid_file {
                        write_pid(file, pid)?;
                    }
                    program = Some((pidfd, terminal));
                }
                Some(ExecEvent::Started) => break Ok(()),
                Some(ExecEvent::Failed { error }) => break Err(error),
            }
        };
        reap(&spawned.stage.pidfd)?;
        outcome?;
        let (pidfd, master) =
            program.ok_or_else(|| Error::Unsupported("a program ran that nobody announced; this is a bug".into()))?;
        if let (Some(socket), Some(master)) = (&options.console_socket, &master) {
            send_terminal(socket, master.as_fd())?;
        }
        if options.detach {
            return Ok(0);
        }
        let master = if options.console_socket.is_some() { None } else { master };
        foreground::follow(&pidfd, master.as_ref())
    }
}

/// Everything comes from the spec.
fn as_the_spec_says(process: &Process) -> ExecConfig {
    let args = process.args().clone().unwrap_or_default();
    ExecConfig { args, env: BTreeMap::new(), working_dir: None, user: None, tty: false }
}
