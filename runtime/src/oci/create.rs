//! `create`: from a bundle to an init that waits for its start. The caller may end then.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};

use super::record::{Container, Record};
use super::{Runtime, bundle};
use crate::clock;
use crate::error::{Doing as _, Error, Result};
use crate::process::{self, Channel, InitEvent, SpawnOptions, Spawned, Stdio, hooks};
use crate::supervisor::identity::{self, start_time};
use crate::sys::{clone, fdpass};

/// How a container is created.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Directory of `config.json`.
    pub bundle: PathBuf,
    /// Where init's host pid is written.
    pub pid_file: Option<PathBuf>,
    /// A unix socket that is given the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
}

/// A container whose init is a child of this process.
pub(super) struct Created {
    pub(super) container: Container,
    /// Where the word to start is given; `None` when its program runs already.
    pub(super) channel: Option<Channel>,
    pub(super) pidfd: OwnedFd,
    pub(super) terminal: Option<OwnedFd>,
    /// For the log.
    pub(super) warnings: Vec<String>,
}

impl Runtime {
    /// Creates a container; its init goes on waiting when this process ends. Returns what was left out of its
    /// configuration.
    ///
    /// # Errors
    /// `Conflict` when there is one of this id; `BadContainer`, `Unsupported`, `Io`. Nothing is left behind then.
    pub fn create(&self, id: &str, options: &CreateOptions) -> Result<Vec<String>> {
        keep_places(options.preserve_fds)?;
        let bundle = bundle::read(&options.bundle, id)?;
        check_terminal(wants_terminal(&bundle), options.console_socket.is_some())?;
        let created = self.make(id, bundle, options, true)?;
        Ok(created.warnings)
    }

    /// Makes a container; `leaves` when somebody else will start it.
    pub(super) fn make(
        &self,
        id: &str,
        bundle: bundle::Bundle,
        options: &CreateOptions,
        leaves: bool,
    ) -> Result<Created> {
        let directory = self.reserve(id)?;
        let record = Record {
            pid: 0,
            start_time: 0,
            created_unix_ms: clock::unix_ms(),
            ready: false,
            spec: bundle.spec,
            launch: bundle.launch,
            root_mount: None,
        };
        let container = Container { id: id.to_owned(), directory, record };
        let made = spawn(container.clone(), options, leaves);
        if made.is_err() {
            let _ = container.cgroup().and_then(|cgroup| super::manage::remove_cgroup(&cgroup));
            let _ = container.forget();
        }
        made.map(|created| Created { warnings: bundle.warnings, ..created })
    }
}

fn spawn(mut container: Container, options: &CreateOptions, leaves: bool) -> Result<Created> {
    let lock = container.lock()?;
    let terminal = container.spec().process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
    let stdio = if terminal { Stdio::Terminal } else { Stdio::Fds(own_stdio()?) };
    let rendezvous = if leaves { Some(container.listen()?) } else { None };
    let options_of_init = SpawnOptions { stdio, rendezvous, preserved_fds: options.preserve_fds, alone: true };
    let record = &container.record;
    if !leaves
        && options.pid_file.is_none()
        && process::can_spawn_at_once(&record.spec, &record.launch, &options_of_init)
    {
        return spawn_at_once(container, &lock, &options_of_init);
    }
    let Spawned { pid, pidfd, mut channel, stage } = process::spawn(&record.spec, &record.launch, options_of_init)?;
    (container.record.pid, container.record.start_time) = (pid, start_time(pid).unwrap_or_default());
    let outcome = follow(&mut container, &mut channel);
    let helper = stage.map_or(Ok(()), |stage| reap(&stage.pidfd));
    let finished = outcome.and_then(|terminal| {
        helper?;
        finish(&mut container, options, terminal.as_ref())?;
        Ok(terminal)
    });
    match finished {
        Ok(terminal) => Ok(Created { container, channel: Some(channel), pidfd, terminal, warnings: Vec::new() }),
        Err(error) => {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            reap(&pidfd)?;
            Err(error)
        }
    }
}

/// Where nobody has a word to say between creation and start, the program runs when this returns. Its record is written
/// by init, right before: were this process killed meanwhile, the container is known all the same.
fn spawn_at_once(container: Container, directory: &File, options: &SpawnOptions) -> Result<Created> {
    let mut known = container.clone();
    let mut at = |moment| match moment {
        process::Moment::Cloned => {
            let (pid, start_time) = identity::own().ok_or_else(|| {
                Error::io("learn the own process number", std::io::Error::from(std::io::ErrorKind::InvalidData))
            })?;
            (known.record.pid, known.record.start_time, known.record.ready) = (pid, start_time, true);
            Ok(())
        }
        process::Moment::Ready => known.save_at(directory.as_fd()),
    };
    let witness = process::Witness { keep: directory.as_fd(), at: &mut at };
    let Spawned { pidfd, .. } =
        process::spawn_at_once(&container.record.spec, &container.record.launch, options, witness)?;
    Ok(Created { container: known, channel: None, pidfd, terminal: None, warnings: Vec::new() })
}

/// Hears init until it waits; runs the hooks of the host's side on the way. Returns the terminal's master.
fn follow(container: &mut Container, channel: &mut Channel) -> Result<Option<OwnedFd>> {
    if container.spec().hooks().is_some() {
        // They may ask for its state.
        container.save()?;
    }
    loop {
        wait_readable(channel.as_fd())?;
        match channel.receive()? {
            None => {}
            Some(InitEvent::Mounted) => {
                let record = &container.record;
                if let (Some(told), Some(list)) = (&record.launch.told, record.spec.hooks()) {
                    hooks::run_creating(list, told, &container.id, record.pid)?;
                }
                channel.proceed()?;
            }
            Some(InitEvent::Created { terminal, .. }) => return Ok(terminal),
            Some(InitEvent::Failed { error }) => return Err(error),
            Some(InitEvent::Started) => {
                return Err(Error::Unsupported("the program ran before its start; this is a bug".into()));
            }
        }
    }
}

/// What has to be outside before the container counts as created.
fn finish(container: &mut Container, options: &CreateOptions, terminal: Option<&OwnedFd>) -> Result<()> {
    if let (Some(socket), Some(terminal)) = (&options.console_socket, terminal) {
        send_terminal(socket, terminal.as_fd())?;
    }
    if let Some(file) = &options.pid_file {
        write_pid(file, container.record.pid)?;
    }
    container.record.ready = true;
    container.note_root_mount();
    container.save()
}

fn wants_terminal(bundle: &bundle::Bundle) -> bool {
    bundle.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false)
}

/// A terminal without anybody to give it to would be lost with this process.
pub(super) fn check_terminal(terminal: bool, socket: bool) -> Result<()> {
    match (terminal, socket) {
        (true, false) => Err(Error::BadContainer(
            "the process wants a terminal, and there is no --console-socket to send it to".into(),
        )),
        (false, true) => {
            Err(Error::BadContainer("--console-socket is given, and the process wants no terminal".into()))
        }
        _ => Ok(()),
    }
}

/// The descriptors a program is to inherit are told from ours before anything else is opened: what is not open among
/// them stays taken until the exec, so that nothing of ours can end up there.
pub(super) fn keep_places(count: u32) -> Result<()> {
    if count > 0 {
        let null = File::open("/dev/null").doing(|| "open /dev/null")?;
        // Two of them where the lowest free number is among those that are kept.
        clone::fill_descriptors(3_u32.saturating_add(count), null.as_fd());
    }
    Ok(())
}

/// Copies of this process's own standard files.
pub(super) fn own_stdio() -> Result<[OwnedFd; 3]> {
    let doing = || "copy the standard files";
    let copy = |fd: BorrowedFd<'_>| match rustix::io::fcntl_dupfd_cloexec(fd, 3) {
        // Closed by whoever called us.
        Err(rustix::io::Errno::BADF) => File::open("/dev/null").map(OwnedFd::from),
        other => other.map_err(Into::into),
    };
    Ok([
        copy(std::io::stdin().as_fd()).doing(doing)?,
        copy(std::io::stdout().as_fd()).doing(doing)?,
        copy(std::io::stderr().as_fd()).doing(doing)?,
    ])
}

/// Hands a terminal's master to who listens on a unix socket, with its name as the message, as runc does.
pub(super) fn send_terminal(path: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let doing = || format!("send the terminal to {}", path.display());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).doing(doing)?;
    // A socket's path may have 107 bytes; engines use deeper ones.
    let directory = File::open(path.parent().unwrap_or(Path::new("/"))).doing(doing)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let short = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let address =
        SocketAddrUnix::new(if path.as_os_str().len() < 108 { path.to_string_lossy().into_owned() } else { short });
    rustix::net::connect(&socket, &address.doing(doing)?).doing(doing)?;
    fdpass::send(&socket, b"/dev/ptmx", &[master]).doing(doing)
}

/// Writes a pid so that a reader never sees half of it.
pub(super) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let doing = || format!("write the pid to {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    std::fs::write(&temporary, pid.to_string()).doing(doing)?;
    std::fs::rename(&temporary, path).doing(doing)
}

/// Waits until there is something to read.
pub(super) fn wait_readable(fd: BorrowedFd<'_>) -> Result<()> {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None));
    ready.map(drop).doing(|| "wait for a container to start")
}

/// Waits for a child to end.
pub(super) fn reap(pidfd: &OwnedFd) -> Result<()> {
    let wait = || rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    rustix::io::retry_on_intr(wait).map(drop).doing(|| "wait for a child of the start")
}
