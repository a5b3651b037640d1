//! Files into and out of containers: starts the program that does it inside (see `archive`) and talks with it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::roots::Held;
use super::{LinuxRuntime, durable};
use crate::archive::{Copied, Copy, Kind, Order, Outcome, Root};
use crate::error::{Doing as _, Error, Result};
use crate::id::ContainerId;
use crate::runtime::ContainerConfig;
use crate::spec::launch::{Launch, LaunchSource, RootSource};

/// Most the program says when it is done, in bytes.
const OUTCOME_BYTES_MAX: u64 = 64 << 10;

impl LinuxRuntime {
    /// What is at a path inside a container, running or not; `None` when nothing is.
    ///
    /// # Errors
    /// `NotFound` for the container, `Io`.
    pub fn look_at(&self, id: &ContainerId, path: &Path, follow: bool) -> Result<Option<Kind>> {
        let copy = Copy::Look { path: path.to_owned(), follow };
        match self.start_copy(id, copy, Stdio::null(), Stdio::null())?.outcome()? {
            Outcome::Found(kind) => Ok(Some(kind)),
            Outcome::Missing(_) => Ok(None),
            Outcome::Failed(why) => Err(failed(id, why)),
            Outcome::Done(_) => Err(failed(id, "it did something else".into())),
        }
    }

    /// Writes a file or directory of a container to `out` as a tar, in which it is called `name`; see [`Copy::Out`].
    ///
    /// # Errors
    /// `NotFound` for the container or the path, `Io`, also of `out`.
    pub fn copy_out(&self, id: &ContainerId, copy: Copy, out: &mut dyn Write) -> Result<Copied> {
        let mut child = self.start_copy(id, copy, Stdio::null(), Stdio::piped())?;
        let mut archive = child.child.stdout.take().ok_or_else(|| failed(id, "it has no output".into()))?;
        let written = std::io::copy(&mut archive, out).and_then(|_| out.flush());
        drop(archive);
        let copied = child.copied(id);
        // who wrote to a pipe that nobody reads any more says less than why nobody does
        written.doing(|| "write the archive")?;
        copied
    }

    /// Unpacks a tar into a directory of a container; see [`Copy::In`].
    ///
    /// # Errors
    /// `NotFound` for the container or the directory, `Io`; entries before the bad one are there then.
    pub fn copy_in(&self, id: &ContainerId, copy: Copy, input: &mut dyn Read) -> Result<Copied> {
        let mut child = self.start_copy(id, copy, Stdio::piped(), Stdio::null())?;
        let mut archive = child.child.stdin.take().ok_or_else(|| failed(id, "it has no input".into()))?;
        let sent = std::io::copy(input, &mut archive);
        drop(archive);
        match (child.copied(id), sent) {
            // a program that stopped early says best what is wrong
            (Err(error), _) => Err(error),
            (Ok(copied), Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(copied),
            (Ok(_), Err(error)) => Err(Error::io("read the archive", error)),
            (Ok(copied), Ok(_)) => Ok(copied),
        }
    }

    fn start_copy(&self, id: &ContainerId, copy: Copy, stdin: Stdio, stdout: Stdio) -> Result<Running<'_>> {
        let config = self.containers.get(id)?;
        let (root, held) = self.root_of(&config)?;
        let order = Order { root, copy };
        let order = serde_json::to_string(&order).map_err(std::io::Error::from).doing(|| "say what to copy")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("copy").arg(order).env_clear().current_dir("/");
        let child = command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn();
        let child = child.doing(|| format!("start copying in container `{id}`"))?;
        Ok(Running { child, _root: held })
    }

    /// As its first process sees it, or put together from its layers when it does not run: then nothing starts it.
    fn root_of(&self, config: &ContainerConfig) -> Result<(Root, Option<Held<'_>>)> {
        if let Some(root) = self.running_root(config)? {
            return Ok((root, None));
        }
        let held = self.roots.hold(&config.id);
        // it may have been started meanwhile
        if let Some(root) = self.running_root(config)? {
            return Ok((root, None));
        }
        let launch = durable::read_file::<Launch>(&self.layout.container_dir(&config.id).join("launch.json"))?;
        let launch = match launch {
            Some(launch) => launch,
            // never started
            None => self.lower(config)?.0.launch,
        };
        let RootSource::Layers(layers) = launch.root else {
            return Err(Error::Unsupported(format!("container `{}` has no layers", config.id)));
        };
        let mut mounts = launch.mounts;
        mounts.retain(|mount| !matches!(mount.source, LaunchSource::File { .. }));
        Ok((Root::Layers { layers, ids: launch.ids, mounts }, Some(held)))
    }

    fn running_root(&self, config: &ContainerConfig) -> Result<Option<Root>> {
        let cgroup = format!("{}/{}", self.cgroup_parent, config.id);
        let first = self.processes(&config.id)?.into_iter().min_by_key(|process| process.inside_pid);
        Ok(first.map(|first| Root::Of { pid: first.pid, cgroup }))
    }
}

fn failed(id: &ContainerId, why: String) -> Error {
    Error::Conflict(format!("copying in container `{id}` failed: {why}"))
}

/// The program, killed and reaped when it goes out of scope.
struct Running<'a> {
    child: Child,
    /// Let go after the child, whose mount it is about, is gone.
    _root: Option<Held<'a>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running<'_> {
    fn copied(&mut self, id: &ContainerId) -> Result<Copied> {
        match self.outcome()? {
            Outcome::Done(copied) => Ok(copied),
            Outcome::Missing(path) => Err(Error::NotFound { what: "file", name: format!("{id}:{path}") }),
            Outcome::Failed(why) => Err(failed(id, why)),
            Outcome::Found(_) => Err(failed(id, "it only looked".into())),
        }
    }

    fn outcome(&mut self) -> Result<Outcome> {
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(OUTCOME_BYTES_MAX).read_to_end(&mut said).doing(|| "read what was copied")?;
        }
        let status = self.child.wait().doing(|| "wait for the copying program")?;
        serde_json::from_slice(&said)
            .map_err(|_| Error::Conflict(format!("the copying program died without a word ({status})")))
    }
}
