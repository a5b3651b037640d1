//! Init: from a fresh clone to the container's program, in one straight line. Speaks only through the handshake.
//!
//! Runs as root of the container's user namespace, never with the host's rights: whatever goes wrong here stays inside.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxNamespaceType as Type, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use rustix::net::SocketFlags;

use super::handshake::{PROCEED, Report, START, Supply, decode, encode};
use super::program::{self, Privileges, Program};
use super::pty::{self, Terminal};
use super::{Moment, SpawnOptions, Stdio, Witness, hooks, namespaces, reaper, stage};
use crate::cgroup;
use crate::error::{Doing as _, Error, Result};
use crate::network::link::Netlink;
use crate::rootfs::assemble::{self, Assembly, Host, Supplies};
use crate::rootfs::mounts::{self, Step, Surroundings, What};
use crate::spec::launch::{Attachment, BridgeAttachment, Launch, RootSource};
use crate::sys::mount::{self, Attr};
use crate::sys::{clone, fdpass, privilege};

/// Where the container's resolver is asked; `spec` writes the same address into resolv.conf.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Init's ends of the two conversations.
pub(super) struct Ends<'a> {
    /// To the caller.
    pub(super) report: BorrowedFd<'a>,
    /// From stage.
    pub(super) supplies: BorrowedFd<'a>,
}

/// Becomes the container's program; returns only with the reason why not.
pub(super) fn run(
    spec: &Spec,
    launch: &Launch,
    options: &SpawnOptions,
    ends: &Ends<'_>,
    mut witness: Option<&mut Witness<'_>>,
) -> Result<()> {
    clear_up(options, ends, witness.as_deref().map(|witness| witness.keep))?;
    let process = spec.process().as_ref().ok_or_else(|| Error::BadContainer("the spec has no process".into()))?;
    if let Some(witness) = &mut witness {
        (witness.at)(Moment::Cloned)?;
        stage::adjust_oom_score(process, "/proc/self/oom_score_adj")?;
    }
    // Done while stage works.
    let mut privileges = Privileges::of(spec)?;
    let steps = mounts::plan(spec, launch, surroundings(spec))?;
    expect(ends, &Supply::Mapped)?;
    let own_mounts = namespaces::has(spec, Type::Mount);
    if own_mounts && !namespaces::makes(spec, Type::User) {
        separate_mounts()?;
    }
    let host = Host::open()?;
    if namespaces::has(spec, Type::User) {
        privilege::become_user(0, 0, &[]).doing(|| "become root of the container")?;
    }
    let directory = match &launch.root {
        RootSource::Directory { directory } => Some(directory.as_path()),
        RootSource::Layers(_) => None,
    };
    let assembly = Assembly::new(receive_supplies(ends)?, host, &steps, directory, own_mounts)?;
    let dns = furnish(spec, launch, &assembly, &steps, ends)?;
    run_hooks_before_entering(spec, launch, ends)?;
    program::make_directory(assembly.root(), process.cwd())?;
    let read_only = spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false);
    let linux = spec.linux().as_ref();
    assembly.enter(read_only, linux.and_then(|linux| linux.rootfs_propagation().as_deref()))?;
    let root = open_root()?;
    program::enter_directory(root.as_fd(), process.cwd())?;
    let user = privileges.look_up_user(root.as_fd(), launch, None, process)?.clone();
    let program = if launch.holds { None } else { Some(find_program(process, &user.home)?) };
    rustix::process::setsid().doing(|| "make a session")?;
    let wants_terminal = matches!(options.stdio, Stdio::Terminal);
    let terminal = if wants_terminal { Some(open_terminal(root.as_fd(), user.uid, process)?) } else { None };
    drop(root);
    program::schedule(process, linux)?;
    if let Some(witness) = witness {
        (witness.at)(Moment::Ready)?;
        stage::limit_own_resources(process)?;
        privileges.apply()?;
        close_on_exec(options)?;
    } else {
        privileges.apply()?;
        announce(ends, dns, terminal)?;
        wait_for_start(ends, options)?;
        run_hooks_before_program(spec, launch)?;
    }
    privileges.seal()?;
    if launch.reaper {
        reaper::stand_before(ends.report)?;
    }
    match program {
        Some(program) => Err(program.execute()),
        None => reaper::hold(ends.report),
    }
}

fn find_program(process: &Process, home: &str) -> Result<Program> {
    let args = process.args().as_deref().unwrap_or_default();
    Program::find(args, process.env().clone().unwrap_or_default(), home)
}

fn surroundings(spec: &Spec) -> Surroundings {
    let has = |kind| namespaces::has(spec, kind);
    Surroundings {
        user: has(Type::User),
        network: has(Type::Network),
        cgroup_given: has(Type::Cgroup) && !namespaces::makes(spec, Type::Cgroup),
        cgroup_own: namespaces::makes(spec, Type::Cgroup),
    }
}

/// The mounts of a namespace that belongs to the host's own users are peers of the host's: nothing we do may spread
/// there. (The kernel does it by itself where a user namespace is made with the mount namespace.)
fn separate_mounts() -> Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).doing(|| "separate the mounts from the host's")
}

/// Everything that is in the root before it is entered, and what is set through it.
fn furnish(
    spec: &Spec,
    launch: &Launch,
    assembly: &Assembly,
    steps: &[Step],
    ends: &Ends<'_>,
) -> Result<Option<[OwnedFd; 2]>> {
    // A cgroup mount shows where this process is when its cgroup namespace is made, which is known last.
    let cgroups: Vec<&Step> = steps.iter().filter(|step| matches!(step.what, What::Cgroups(_))).collect();
    let (late, early): (Vec<&Step>, Vec<&Step>) =
        steps.iter().partition(|step| cgroups.iter().any(|cgroup| step.target.starts_with(&cgroup.target)));
    early.into_iter().try_for_each(|step| assembly.mount(step))?;
    if let Some(hostname) = spec.hostname() {
        nix::unistd::sethostname(hostname).doing(|| format!("set the host name {hostname}"))?;
    }
    if let Some(domain) = spec.domainname() {
        privilege::set_domain_name(domain).doing(|| format!("set the domain name {domain}"))?;
    }
    let dns = configure_network(spec, launch, ends)?;
    set_kernel_settings(spec)?;
    cgroup::enter(&expect(ends, &Supply::Ready)?)?;
    if namespaces::makes(spec, Type::Cgroup) {
        clone::unshare(libc::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace")?;
    }
    late.into_iter().try_for_each(|step| assembly.mount(step))?;
    assembly.make_devices(spec, launch.ids)?;
    let linux = spec.linux().as_ref();
    assembly.protect(linux.and_then(|linux| linux.readonly_paths().as_deref()).unwrap_or_default())?;
    assembly.mask(linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default())?;
    Ok(dns)
}

/// Those of the caller's side while we wait, then those of ours.
fn run_hooks_before_entering(spec: &Spec, launch: &Launch, ends: &Ends<'_>) -> Result<()> {
    let (Some(told), Some(list)) = (&launch.told, spec.hooks()) else { return Ok(()) };
    if hooks::has_creating(spec) {
        fdpass::send(ends.report, &encode(&Report::Mounted), &[]).doing(|| "ask for the hooks")?;
        match fdpass::receive(ends.report, true).doing(|| "wait for the hooks")? {
            Some((bytes, _)) if bytes == PROCEED => {}
            // The caller is gone, or a hook failed.
            Some(_) | None => clone::exit_now(127),
        }
    }
    let state = told.state(&launch.id, "creating", Some(own_pid()));
    hooks::run("createContainer", list.create_container().as_deref().unwrap_or_default(), &state, None)
}

fn run_hooks_before_program(spec: &Spec, launch: &Launch) -> Result<()> {
    let (Some(told), Some(list)) = (&launch.told, spec.hooks()) else { return Ok(()) };
    let state = told.state(&launch.id, "created", Some(own_pid()));
    // These are programs of the container with its rights, unlike all the others: its environment cannot lead them astray.
    let env = spec.process().as_ref().and_then(|process| process.env().as_deref());
    hooks::run("startContainer", list.start_container().as_deref().unwrap_or_default(), &state, env)
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Takes the standard files, lets go of everything else that was the caller's.
fn clear_up(options: &SpawnOptions, ends: &Ends<'_>, kept: Option<BorrowedFd<'_>>) -> Result<()> {
    let doing = || "set up standard files";
    let mut keep = vec![ends.report, ends.supplies];
    keep.extend(options.rendezvous.as_ref().map(AsFd::as_fd).into_iter().chain(kept));
    if let Stdio::Fds(stdio) = &options.stdio {
        keep.extend(stdio.iter().map(AsFd::as_fd));
    }
    // First: a caller of many containers has more open than the program's limit, which may be in force already, allows.
    // SAFETY: whatever else is open belongs to the caller's copy of the state, which this child never touches.
    unsafe { clone::close_others(3 + options.preserved_fds, &keep) }.doing(doing)?;
    if let Stdio::Fds([stdin, stdout, stderr]) = &options.stdio {
        clone::set_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).doing(doing)?;
        program::share_pipes();
    }
    clone::reset_signals().doing(doing)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

fn receive(ends: &Ends<'_>) -> Result<(Supply, Vec<OwnedFd>)> {
    let message = fdpass::receive(ends.supplies, true).doing(|| "hear from the stage helper")?;
    match message.and_then(|(bytes, fds)| Some((decode(&bytes)?, fds))) {
        Some(heard) => Ok(heard),
        // It has told the caller why, or was killed by it: a second reason would only hide the first.
        None => clone::exit_now(127),
    }
}

fn expect(ends: &Ends<'_>, wanted: &Supply) -> Result<Vec<OwnedFd>> {
    match receive(ends)? {
        (supply, fds) if supply == *wanted => Ok(fds),
        (other, _) => Err(Error::Unsupported(format!("{other:?} came instead of {wanted:?}; this is a bug"))),
    }
}

fn receive_supplies(ends: &Ends<'_>) -> Result<Supplies> {
    let bug = || Error::Unsupported("the stage helper handed over something else than mounts; this is a bug".into());
    let (Supply::Mounts { etc, files, numbers }, fds) = receive(ends)? else { return Err(bug()) };
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(bug);
    let (root, devices) = (next()?, next()?);
    let etc = if etc { Some(next()?) } else { None };
    let files = if files { Some(next()?) } else { None };
    let mounts = numbers.into_iter().map(|number| Ok((number, next()?))).collect::<Result<_>>()?;
    Ok(Supplies { root, devices, etc, files, mounts })
}

/// Loopback up, and on a bridge: address, route, and the resolver's two sockets.
fn configure_network(spec: &Spec, launch: &Launch, ends: &Ends<'_>) -> Result<Option<[OwnedFd; 2]>> {
    if !namespaces::makes(spec, Type::Network) {
        return Ok(None);
    }
    let mut netlink = Netlink::open()?;
    // Always the first interface of a namespace.
    netlink.set_up(1)?;
    match &launch.network {
        Attachment::None | Attachment::Host => Ok(None),
        Attachment::Bridge(first) => {
            expect(ends, &Supply::Network)?;
            for (n, bridge) in launch.bridges().enumerate() {
                configure_interface(&mut netlink, &stage::interface(n), bridge)?;
            }
            netlink.add_default_route(first.gateway)?;
            crate::network::resolver::open(RESOLVER).map(Some)
        }
    }
}

fn configure_interface(netlink: &mut Netlink, interface: &str, bridge: &BridgeAttachment) -> Result<()> {
    let link = netlink
        .link(interface)?
        .ok_or_else(|| Error::Unsupported("the container's interface is missing; this is a bug".into()))?;
    netlink.set_up(link.index)?;
    netlink.add_address(link.index, bridge.address, bridge.prefix_len)
}

/// Through a /proc that nobody else has seen: the one in the root may be prepared by whoever made the image.
fn set_kernel_settings(spec: &Spec) -> Result<()> {
    let Some(settings) = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()) else { return Ok(()) };
    if settings.is_empty() {
        return Ok(());
    }
    let attributes = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
    let proc = mount::filesystem("proc", &[], attributes).map_err(|error| assemble::refused("proc", error))?;
    settings.iter().try_for_each(|(name, value)| write_setting(proc.as_fd(), name, value))
}

fn write_setting(proc: BorrowedFd<'_>, name: &str, value: &str) -> Result<()> {
    let doing = || format!("set {name} to {value}");
    let path = crate::security::sysctl::path(name)
        .ok_or_else(|| Error::BadContainer(format!("`{name}` is no name of a kernel setting")))?;
    let flags = OFlags::WRONLY | OFlags::TRUNC;
    match crate::sys::path::open_beneath(proc, format!("sys/{path}").as_ref(), flags) {
        Ok(fd) => rustix::io::write(fd, value.as_bytes()).map(drop).doing(doing),
        // Built without it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(doing(), error)),
    }
}

fn open_root() -> Result<OwnedFd> {
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing(|| "open /")
}

fn open_terminal(root: BorrowedFd<'_>, uid: u32, process: &Process) -> Result<Terminal> {
    let terminal = pty::open()?;
    terminal.resize(process)?;
    terminal.make_console(root)?;
    terminal.take(uid)?;
    clone::set_stdio([terminal.slave.as_fd(); 3]).doing(|| "make the terminal the standard files")?;
    Ok(terminal)
}

/// Hands out what the caller needs and keeps nothing of it: at the exec only the standard files are open.
fn announce(ends: &Ends<'_>, dns: Option<[OwnedFd; 2]>, terminal: Option<Terminal>) -> Result<()> {
    let report = Report::Created { dns: dns.is_some(), terminal: terminal.is_some() };
    let fds: Vec<BorrowedFd<'_>> =
        dns.iter().flatten().chain(terminal.iter().map(|terminal| &terminal.master)).map(|fd| fd.as_fd()).collect();
    fdpass::send(ends.report, &encode(&report), &fds).doing(|| "announce the container")
}

fn close_on_exec(options: &SpawnOptions) -> Result<()> {
    clone::close_on_exec_from(3 + options.preserved_fds).doing(|| "close files on exec")
}

fn wait_for_start(ends: &Ends<'_>, options: &SpawnOptions) -> Result<()> {
    let doing = || "wait for the start";
    if let Some(listener) = &options.rendezvous {
        let caller = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).doing(doing)?;
        // From here on, this is who hears of failures.
        clone::replace(ends.report, caller.as_fd()).doing(doing)?;
    }
    match fdpass::receive(ends.report, true).doing(doing)? {
        Some((bytes, _)) if bytes == START => close_on_exec(options),
        // The caller is gone or has changed its mind.
        Some(_) | None => clone::exit_now(127),
    }
}
