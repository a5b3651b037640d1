//! Init: from a fresh clone to the container's program, in one straight line. Speaks only through the handshake.
//!
//! Runs as root of the container's user namespace, never with the host's rights: whatever goes wrong here stays inside.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};

use super::handshake::{Report, START, Supply, decode, encode};
use super::program::{self, Privileges, Program};
use super::pty::{self, Terminal};
use super::{Stdio, parent, reaper, stage};
use crate::error::{Doing as _, Error, Result};
use crate::network::link::Netlink;
use crate::rootfs::assemble::{Assembly, Host, Supplies};
use crate::rootfs::mounts::{self, Step, What};
use crate::spec::launch::{Attachment, BridgeAttachment, Launch};
use crate::sys::{clone, fdpass, privilege};

/// Where the container's resolver is asked; `spec` writes the same address into resolv.conf.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

/// Init's ends of the two conversations.
pub(super) struct Ends<'a> {
    /// To the caller.
    pub(super) report: BorrowedFd<'a>,
    /// From stage.
    pub(super) supplies: BorrowedFd<'a>,
}

/// Becomes the container's program; returns only with the reason why not.
pub(super) fn run(spec: &Spec, launch: &Launch, stdio: &Stdio, ends: &Ends<'_>) -> Result<()> {
    clear_up(stdio, ends)?;
    // Done while stage works.
    let mut privileges = Privileges::of(spec)?;
    let steps = mounts::plan(spec, launch, parent::owns_network(spec))?;
    expect(ends, &Supply::Mapped)?;
    let host = Host::open()?;
    privilege::become_user(0, 0, &[]).doing(|| "become root of the container")?;
    let assembly = Assembly::new(receive_supplies(ends)?, host)?;
    let (early, late): (Vec<&Step>, Vec<&Step>) =
        steps.iter().partition(|step| !matches!(step.what, What::Cgroups { .. }));
    early.into_iter().try_for_each(|step| assembly.mount(step))?;
    if let Some(hostname) = spec.hostname() {
        nix::unistd::sethostname(hostname).doing(|| format!("set the host name {hostname}"))?;
    }
    let dns = configure_network(spec, launch, &assembly, ends)?;
    expect(ends, &Supply::Ready)?;
    clone::unshare(libc::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace")?;
    late.into_iter().try_for_each(|step| assembly.mount(step))?;
    let linux = spec.linux().as_ref();
    assembly.protect(linux.and_then(|linux| linux.readonly_paths().as_deref()).unwrap_or_default())?;
    assembly.mask(linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default())?;
    let wants_terminal = matches!(stdio, Stdio::Terminal);
    let read_only = spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false);
    let process = spec.process().as_ref().ok_or_else(|| Error::BadContainer("the spec has no process".into()))?;
    program::make_directory(assembly.root(), process.cwd())?;
    assembly.enter(read_only)?;
    let root = open_root()?;
    program::enter_directory(root.as_fd(), process.cwd())?;
    let user = privileges.look_up_user(root.as_fd(), launch.user.as_deref())?.clone();
    let program = Program::find(
        process.args().as_deref().unwrap_or_default(),
        process.env().clone().unwrap_or_default(),
        &user.home,
    )?;
    rustix::process::setsid().doing(|| "make a session")?;
    let terminal = if wants_terminal { Some(open_terminal(root.as_fd(), user.uid)?) } else { None };
    drop(root);
    privileges.apply()?;
    announce(ends, dns, terminal)?;
    wait_for_start(ends)?;
    if launch.reaper {
        reaper::stand_before(ends.report)?;
    }
    Err(program.execute())
}

/// Takes the standard files, lets go of everything else that was the caller's.
fn clear_up(stdio: &Stdio, ends: &Ends<'_>) -> Result<()> {
    let doing = || "set up standard files";
    if let Stdio::Fds([stdin, stdout, stderr]) = stdio {
        clone::set_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).doing(doing)?;
        program::share_pipes();
    }
    // SAFETY: whatever else is open belongs to the caller's copy of the state, which this child never touches.
    unsafe { clone::close_others(&[ends.report, ends.supplies]) }.doing(doing)?;
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

fn expect(ends: &Ends<'_>, wanted: &Supply) -> Result<()> {
    match receive(ends)? {
        (supply, _) if supply == *wanted => Ok(()),
        (other, _) => Err(Error::Unsupported(format!("{other:?} came instead of {wanted:?}; this is a bug"))),
    }
}

fn receive_supplies(ends: &Ends<'_>) -> Result<Supplies> {
    let bug = || Error::Unsupported("the stage helper handed over something else than mounts; this is a bug".into());
    let (Supply::Mounts { files, numbers }, fds) = receive(ends)? else { return Err(bug()) };
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(bug);
    let (root, devices, etc) = (next()?, next()?, next()?);
    let files = if files { Some(next()?) } else { None };
    let mounts = numbers.into_iter().map(|number| Ok((number, next()?))).collect::<Result<_>>()?;
    Ok(Supplies { root, devices, etc, files, mounts })
}

/// Loopback up, kernel settings of the namespace, and on a bridge: address, route, and the resolver's two sockets.
fn configure_network(
    spec: &Spec,
    launch: &Launch,
    assembly: &Assembly,
    ends: &Ends<'_>,
) -> Result<Option<[OwnedFd; 2]>> {
    if !parent::owns_network(spec) {
        return Ok(None);
    }
    let mut netlink = Netlink::open()?;
    // Always the first interface of a namespace.
    netlink.set_up(1)?;
    if let Some(settings) = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()) {
        for (name, value) in settings {
            write_sysctl(assembly, name, value)?;
        }
    }
    match &launch.network {
        Attachment::None | Attachment::Host => Ok(None),
        Attachment::Bridge(bridge) => {
            expect(ends, &Supply::Network)?;
            configure_interface(&mut netlink, bridge)?;
            let doing = || "open the resolver's sockets";
            let udp = UdpSocket::bind(RESOLVER).doing(doing)?;
            let tcp = TcpListener::bind(RESOLVER).doing(doing)?;
            Ok(Some([udp.into(), tcp.into()]))
        }
    }
}

fn configure_interface(netlink: &mut Netlink, bridge: &BridgeAttachment) -> Result<()> {
    let link = netlink
        .link(stage::INTERFACE)?
        .ok_or_else(|| Error::Unsupported("the container's interface is missing; this is a bug".into()))?;
    netlink.set_up(link.index)?;
    netlink.add_address(link.index, bridge.address, bridge.prefix_len)?;
    netlink.add_default_route(bridge.gateway)
}

/// Through the container's own /proc, before it is made read-only.
fn write_sysctl(assembly: &Assembly, name: &str, value: &str) -> Result<()> {
    let doing = || format!("set {name} to {value}");
    let path = format!("proc/sys/{}", name.replace('.', "/"));
    let flags = OFlags::WRONLY | OFlags::TRUNC;
    match crate::sys::path::open_in_root(assembly.root(), path.as_ref(), flags) {
        Ok(fd) => rustix::io::write(fd, value.as_bytes()).map(drop).doing(doing),
        // Built without it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(doing(), error)),
    }
}

fn open_root() -> Result<OwnedFd> {
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing(|| "open /")
}

fn open_terminal(root: BorrowedFd<'_>, uid: u32) -> Result<Terminal> {
    let terminal = pty::open()?;
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

fn wait_for_start(ends: &Ends<'_>) -> Result<()> {
    match fdpass::receive(ends.report, true).doing(|| "wait for the start")? {
        Some((bytes, _)) if bytes == START => clone::close_on_exec_from_3().doing(|| "close files on exec"),
        // The caller is gone or has changed its mind.
        Some(_) | None => clone::exit_now(127),
    }
}
