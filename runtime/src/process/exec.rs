//! A further program in a running container. The caller clones *joiner* into the container's v2 cgroup; joiner enters
//! the v1 cgroups and all namespaces, then clones the program as its own sibling, so that the caller is its parent.
//!
//! The program's process is not dumpable until its exec, so that nobody inside can trace it while it has our memory.

use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::LinuxNamespaceType as Type;
use rustix::fs::{Mode, OFlags};

use super::handshake::{Report, encode};
use super::program::{self, Privileges, Program};
use super::pty::{self, Terminal};
use super::{
    ExecChannel, ExecConfig, ExecTarget, SpawnOptions, SpawnedExec, StageChild, Stdio, affinity, namespaces, parent,
    stage,
};
use crate::cgroup::{self, Cgroup, Hierarchies};
use crate::error::{Doing as _, Error, Result};
use crate::sys::{clone, fdpass, mount, privilege};

/// See [`super::exec`].
pub(super) fn spawn(target: &ExecTarget<'_>, config: &ExecConfig, options: &SpawnOptions) -> Result<SpawnedExec> {
    parent::check_single_threaded()?;
    let doing = || format!("execute a program in container {}", target.launch.id);
    let directory = Cgroup::new(Hierarchies::of_launch(target.launch)?, &target.launch.cgroup).create_unified()?;
    let (ours, reports) = fdpass::pair().doing(doing)?;
    // SAFETY: single threaded by the check above; run_child never returns.
    match unsafe { clone::clone3(0, Some(directory.as_fd())) }.doing(doing)? {
        clone::Cloned::Child => parent::run_child(|| join(target, config, options, reports.as_fd()), reports.as_fd()),
        clone::Cloned::Parent { pid, pidfd } => {
            Ok(SpawnedExec { stage: StageChild { pid, pidfd }, channel: ExecChannel::new(ours) })
        }
    }
}

fn join(target: &ExecTarget<'_>, config: &ExecConfig, options: &SpawnOptions, report: BorrowedFd<'_>) -> Result<()> {
    let doing = || format!("join container {}", target.launch.id);
    if let Stdio::Fds([stdin, stdout, stderr]) = &options.stdio {
        clone::set_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).doing(doing)?;
        program::share_pipes();
    }
    // SAFETY: whatever else is open belongs to the caller's copy of the state, which this child never touches.
    unsafe { clone::close_others(3 + options.preserved_fds, &[report, target.pidfd]) }.doing(doing)?;
    clone::reset_signals().doing(doing)?;
    if let Some(process) = target.spec.process() {
        stage::limit_resources(rustix::process::getpid().as_raw_nonzero().get(), process, target.launch)?;
    }
    cgroup::enter(&Cgroup::new(Hierarchies::of_launch(target.launch)?, &target.launch.cgroup).doors()?)?;
    let privileges = Privileges::of(target.spec)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).doing(doing)?;
    enter_namespaces(target)?;
    // A terminal belongs to whoever opens it, and the host's root is nobody inside.
    if namespaces::has(target.spec, Type::User) {
        privilege::become_user(0, 0, &[]).doing(|| "become root of the container")?;
    }
    let terminal = if matches!(options.stdio, Stdio::Terminal) { Some(pty::open()?) } else { None };
    let (go, wait) = fdpass::pair().doing(doing)?;
    // SAFETY: this child has one thread; run_child never returns.
    match unsafe { clone::clone3(clone::CLONE_PARENT, None) }.doing(doing)? {
        clone::Cloned::Child => {
            drop(go);
            let preserved = options.preserved_fds;
            parent::run_child(|| become_program(target, config, privileges, terminal, preserved, &wait), report)
        }
        clone::Cloned::Parent { pid, pidfd } => {
            let message = encode(&Report::Joined { pid, terminal: terminal.is_some() });
            let fds: Vec<BorrowedFd<'_>> =
                std::iter::once(pidfd.as_fd()).chain(terminal.iter().map(|terminal| terminal.master.as_fd())).collect();
            fdpass::send(report, &message, &fds).doing(doing)?;
            fdpass::send(go, b"go", &[]).doing(doing)
        }
    }
}

/// All that are not the caller's. Without a mount namespace of its own, the container's root is only its processes'.
fn enter_namespaces(target: &ExecTarget<'_>) -> Result<()> {
    let doing = || format!("join container {}", target.launch.id);
    let own_mounts = namespaces::has(target.spec, Type::Mount);
    let root = if own_mounts {
        None
    } else {
        let path = format!("/proc/{}/root", target.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Some(rustix::fs::open(path, flags, Mode::empty()).doing(doing)?)
    };
    let flags = namespaces::all_flags(target.spec);
    if flags != 0 {
        clone::setns(target.pidfd, flags).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => Error::Conflict(format!("container {} does not run", target.launch.id)),
            _ => Error::io(doing(), error),
        })?;
    }
    match root {
        Some(root) => mount::change_root(root).doing(doing),
        None => Ok(()),
    }
}

fn become_program(
    target: &ExecTarget<'_>,
    config: &ExecConfig,
    mut privileges: Privileges,
    terminal: Option<Terminal>,
    preserved_fds: u32,
    wait: &impl AsFd,
) -> Result<()> {
    // The caller must know this process before it can end.
    if fdpass::receive(wait, true).doing(|| "wait for the joiner")?.is_none() {
        clone::exit_now(127);
    }
    let process =
        target.spec.process().as_ref().ok_or_else(|| Error::BadContainer("the spec has no process".into()))?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.doing(|| "open /")?;
    let directory = config.working_dir.as_ref().map_or_else(|| process.cwd().clone(), Into::into);
    program::enter_directory(root.as_fd(), &directory)?;
    let user = privileges.look_up_user(root.as_fd(), target.launch, config.user.as_deref(), process)?.clone();
    let mut env = program::merge_env(process.env().as_deref().unwrap_or_default(), config.env.iter());
    if config.tty && !env.iter().any(|line| line.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    let program = Program::find(&config.args, env, &user.home)?;
    rustix::process::setsid().doing(|| "make a session")?;
    if let Some(terminal) = &terminal {
        terminal.resize(process)?;
        terminal.take(user.uid)?;
        clone::set_stdio([terminal.slave.as_fd(); 3]).doing(|| "make the terminal the standard files")?;
    }
    let affinity = process.exec_cpu_affinity().as_ref().and_then(|affinity| affinity.cpu_affinity_final().as_deref());
    let cpus = affinity::of(affinity.unwrap_or_default())?;
    if !cpus.is_empty() {
        privilege::set_affinity(&cpus).doing(|| "run on the CPUs of `execCPUAffinity.final`")?;
    }
    program::schedule(process, target.spec.linux().as_ref())?;
    privileges.apply()?;
    clone::close_on_exec_from(3 + preserved_fds).doing(|| "close files on exec")?;
    privileges.seal()?;
    Err(program.execute())
}
