//! `exec`: a further program in a running container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::Process;

use super::create::{check_terminal, keep_places, own_stdio, reap, send_terminal, wait_readable, write_pid};
use super::record::Status;
use super::{Runtime, foreground, validate};
use crate::cgroup::Hierarchies;
use crate::error::{Doing as _, Error, Result};
use crate::process::{self, ExecConfig, ExecEvent, ExecTarget, SpawnOptions, Stdio, affinity};
use crate::spec::launch::Launch;
use crate::sys::privilege;

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
    /// A cgroup below the container's: `PATH`, or `CONTROLLER,…:PATH`.
    pub cgroup: Option<String>,
}

impl Runtime {
    /// Runs a program in a container: its exit code, or 0 when it was left alone.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the container does not run; `BadContainer`, `Unsupported`, `Io`.
    pub fn exec(&self, id: &str, options: &ExecOptions) -> Result<i32> {
        keep_places(options.preserve_fds)?;
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
        let mut launch = container.record.launch.clone();
        if let Some(wanted) = &options.cgroup {
            launch.cgroup = sub_cgroup(&launch, wanted)?;
        }
        let affinity = options.process.exec_cpu_affinity().as_ref();
        if let Some(cpus) = affinity.and_then(|affinity| affinity.initial().as_deref()) {
            // Handed down to the program, until its cgroup or its own setting says otherwise.
            keep_on(cpus)?;
        }
        let target = ExecTarget { pid: container.record.pid, pidfd: init.as_fd(), spec: &spec, launch: &launch };
        let stdio = if terminal { Stdio::Terminal } else { Stdio::Fds(own_stdio()?) };
        let spawn = SpawnOptions { stdio, rendezvous: None, preserved_fds: options.preserve_fds, alone: true };
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

/// The path of a cgroup below a container's, which must be there: it is joined, not made.
fn sub_cgroup(launch: &Launch, wanted: &str) -> Result<String> {
    let bad = |why: &str| Error::BadContainer(format!("--cgroup {wanted}: {why}"));
    let hierarchies = Hierarchies::of_launch(launch)?;
    let (controllers, path) = wanted.rsplit_once(':').map_or((None, wanted), |(names, path)| (Some(names), path));
    for name in controllers.into_iter().flat_map(|names| names.split(',')) {
        if !hierarchies.controllers.iter().any(|(known, _)| known == name) {
            return Err(bad(&format!("there is no cgroup v1 controller `{name}`")));
        }
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(bad("it leads out of the container's cgroup"));
    }
    if parts.is_empty() {
        return Ok(launch.cgroup.clone());
    }
    let name = format!("{}/{}", launch.cgroup, parts.join("/"));
    let roots = std::iter::once(&hierarchies.unified).chain(hierarchies.controllers.iter().map(|(_, root)| root));
    if let Some(missing) = roots.map(|root| root.join(&name)).find(|place| !place.is_dir()) {
        return Err(bad(&format!("{} does not exist", missing.display())));
    }
    match controllers {
        None => Ok(name),
        Some(_) => Err(Error::Unsupported(format!("--cgroup {wanted}: give the path alone, for all controllers"))),
    }
}

/// Keeps this process and its children on CPUs.
fn keep_on(cpus: &str) -> Result<()> {
    let bits = affinity::of(cpus)?;
    if bits.is_empty() {
        return Ok(());
    }
    privilege::set_affinity(&bits).doing(|| format!("run on the CPUs {cpus}"))
}

/// Everything comes from the spec.
fn as_the_spec_says(process: &Process) -> ExecConfig {
    let args = process.args().clone().unwrap_or_default();
    ExecConfig { args, env: BTreeMap::new(), working_dir: None, user: None, tty: false }
}
