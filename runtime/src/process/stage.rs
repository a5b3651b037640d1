//! The stage helper: what takes the host's credentials, done by a child that may hang or die without anybody waiting
//! for it. A straight line; speaks to init through supplies, to the caller only when it fails.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType as Type, PosixRlimitType, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};

use super::handshake::{Supply, encode};
use super::namespaces;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Doing as _, Error, Result};
use crate::network::link::{Netlink, Veth};
use crate::rootfs::mounts::{has_files, is_dev};
use crate::rootfs::options::Options;
use crate::rootfs::{binds, devices, files, layers, volumes};
use crate::spec::launch::{Attachment, BridgeAttachment, Launch, LaunchSource, RootSource};
use crate::sys::mount::Attr;
use crate::sys::{clone, fdpass};

/// Name of the `n`-th interface inside.
pub(super) fn interface(n: usize) -> String {
    format!("eth{n}")
}

/// The helper's ends of the two conversations.
pub(super) struct Ends<'a> {
    /// To the caller.
    pub(super) report: BorrowedFd<'a>,
    /// To init.
    pub(super) supplies: BorrowedFd<'a>,
}

/// Serves one init.
pub(super) fn run(spec: &Spec, launch: &Launch, init: i32, ends: &Ends<'_>) -> Result<()> {
    // SAFETY: whatever else is open belongs to the caller's copy of the state, which this child never touches.
    unsafe { clone::close_others(3, &[ends.report, ends.supplies]) }.doing(|| "close inherited files")?;
    let _ = rustix::thread::set_name(c"boxship-stage");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    prepare(spec, launch, init, ends)?;
    limit(spec, launch, init)?;
    open_doors(spec, launch, ends)
}

/// Whether nothing of this helper's work needs an init to be there: then a caller that may do it, can do it ahead.
pub(super) fn needs_no_init(spec: &Spec, launch: &Launch) -> bool {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    !namespaces::has(spec, Type::User)
        && devices.is_none_or(std::collections::HashMap::is_empty)
        && matches!(launch.network, Attachment::None | Attachment::Host)
}

/// Does the helper's work before init is cloned: what it will ask for waits in the socket. [`limit`] is left for after.
pub(super) fn serve_ahead(spec: &Spec, launch: &Launch, ends: &Ends<'_>) -> Result<()> {
    let before = rustix::process::umask(Mode::from_raw_mode(0o022));
    let served = send(ends, &Supply::Mapped, &[])
        .and_then(|()| supply_mounts(spec, launch, None, ends))
        .and_then(|()| open_doors(spec, launch, ends));
    rustix::process::umask(before);
    served
}

fn prepare(spec: &Spec, launch: &Launch, init: i32, ends: &Ends<'_>) -> Result<()> {
    if namespaces::makes(spec, Type::User) {
        write_maps(spec, init)?;
    }
    send(ends, &Supply::Mapped, &[])?;
    let userns = if namespaces::has(spec, Type::User) { Some(open_namespace(init, "user")?) } else { None };
    supply_mounts(spec, launch, userns.as_ref().map(AsFd::as_fd), ends)?;
    move_devices(spec, init)?;
    if let Attachment::Bridge(_) = &launch.network {
        attach_networks(launch, init)?;
        send(ends, &Supply::Network, &[])?;
    }
    Ok(())
}

fn send(ends: &Ends<'_>, supply: &Supply, fds: &[BorrowedFd<'_>]) -> Result<()> {
    fdpass::send(ends.supplies, &encode(supply), fds).doing(|| "hand over to init")
}

fn write_maps(spec: &Spec, init: i32) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for (name, maps) in [("uid_map", linux.uid_mappings()), ("gid_map", linux.gid_mappings())] {
        let map = binds::lines(maps.as_deref().unwrap_or_default());
        fs::write(format!("/proc/{init}/{name}"), &map).doing(|| format!("map ids {}", map.trim()))?;
    }
    Ok(())
}

fn open_namespace(init: i32, kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{init}/ns/{kind}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(|| format!("open {path}"))
}

fn supply_mounts(spec: &Spec, launch: &Launch, userns: Option<BorrowedFd<'_>>, ends: &Ends<'_>) -> Result<()> {
    let linux = spec.linux().as_ref();
    let more = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let dev = spec.mounts().iter().flatten().find(|mount| is_dev(mount));
    let root = root(spec, launch, userns)?;
    let devices = devices::make(launch.ids, &dev.map(Options::of).unwrap_or_default(), more)?;
    let etc = launch.etc.as_ref().map(|etc| devices::make_etc(etc, launch.ids)).transpose()?;
    let content = if has_files(launch) { Some(content_files(launch, mapped(userns)?)?) } else { None };
    let mut mounts = Vec::new();
    for (number, mount) in launch.mounts.iter().enumerate() {
        if !matches!(mount.source, LaunchSource::File { .. }) {
            mounts.extend(volumes::open(mount, root.as_fd(), launch.ids, mapped(userns)?)?.map(|fd| (number, fd)));
        }
    }
    let shares =
        linux.and_then(|linux| linux.rootfs_propagation().as_deref()).is_some_and(|kind| kind.contains("shared"));
    let base = launch.told.as_ref().map_or(Path::new("/"), |told| &told.bundle);
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        let options = Options::of(mount);
        if options.bind.is_some() && !options.remount {
            mounts.push((launch.mounts.len() + number, binds::bind(mount, base, shares, userns)?));
        }
    }
    let numbers = mounts.iter().map(|(number, _)| *number).collect();
    let supply = Supply::Mounts { etc: etc.is_some(), files: content.is_some(), numbers };
    let all = [&root, &devices].into_iter().chain(&etc).chain(&content).chain(mounts.iter().map(|(_, fd)| fd));
    let fds: Vec<BorrowedFd<'_>> = all.map(AsFd::as_fd).collect();
    if fds.len() > fdpass::FDS_MAX {
        let count = mounts.len();
        return Err(Error::BadContainer(format!("{count} mounts are more than one container can have")));
    }
    send(ends, &supply, &fds)
}

fn root(spec: &Spec, launch: &Launch, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    match &launch.root {
        RootSource::Directory { directory } => {
            let propagation = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
            binds::root(directory, propagation)
        }
        RootSource::Layers(layers) => {
            let mut attributes = Attr::MOUNT_ATTR_NODEV;
            if spec.process().as_ref().and_then(oci_spec::runtime::Process::no_new_privileges) == Some(true) {
                // Under no_new_privs a file with capabilities would refuse to execute; on a nosuid mount they are
                // ignored.
                attributes |= Attr::MOUNT_ATTR_NOSUID;
            }
            layers::overlay(layers, launch.ids, mapped(userns)?, attributes)
        }
    }
}

/// What is on disk with the container's own ids can only be shown through a map.
fn mapped(userns: Option<BorrowedFd<'_>>) -> Result<BorrowedFd<'_>> {
    userns.ok_or_else(|| Error::Unsupported("layers and volumes need a user namespace; this is a bug".into()))
}

fn content_files(launch: &Launch, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let list: Vec<files::ContentFile<'_>> = launch
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            LaunchSource::File { name, content, mode, owner } => {
                Some(files::ContentFile { name, content, mode: *mode, owner: owner.unwrap_or_default() })
            }
            LaunchSource::Volume { .. } | LaunchSource::Bind { .. } => None,
        })
        .collect();
    if launch.has_files_in_memory() {
        files::publish(&launch.files_dir, &list, Some(launch.ids))?;
        return volumes::open_shifted_files(&launch.files_dir);
    }
    files::publish(&launch.files_dir, &list, None)?;
    volumes::open_files(&launch.files_dir, userns)
}

/// Moves interfaces of the host into the container's network namespace, where this helper ends up too.
fn move_devices(spec: &Spec, init: i32) -> Result<()> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    let Some(devices) = devices.filter(|devices| !devices.is_empty()) else { return Ok(()) };
    let namespace = open_namespace(init, "net")?;
    let mut netlink = Netlink::open()?;
    let mut moved = Vec::new();
    for (name, device) in devices {
        let link = netlink.link(name)?.ok_or_else(|| {
            Error::BadContainer(format!("`linux.netDevices`: this host has no network device `{name}`"))
        })?;
        let addresses = netlink.lasting_addresses(link.index)?;
        let inside = device.name().as_deref().filter(|inside| !inside.is_empty()).unwrap_or(name);
        netlink.move_link(link.index, namespace.as_fd(), inside)?;
        moved.push((inside, addresses));
    }
    clone::join(namespace.as_fd(), libc::CLONE_NEWNET).doing(|| "enter the container's network namespace")?;
    let mut netlink = Netlink::open()?;
    for (name, addresses) in moved {
        let link = netlink.link(name)?.ok_or_else(|| Error::NotFound { what: "network", name: name.to_owned() })?;
        netlink.set_up(link.index)?;
        addresses.iter().try_for_each(|address| netlink.add_raw_address(link.index, address))?;
    }
    Ok(())
}

fn attach_networks(launch: &Launch, init: i32) -> Result<()> {
    let netns = open_namespace(init, "net")?;
    let mut netlink = Netlink::open()?;
    let mut bridges = launch.bridges().enumerate();
    bridges.try_for_each(|(n, bridge)| attach_network(&mut netlink, bridge, &interface(n), netns.as_fd()))
}

fn attach_network(
    netlink: &mut Netlink,
    bridge: &BridgeAttachment,
    interface: &str,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let master = netlink
        .link(&bridge.bridge)?
        .ok_or_else(|| Error::NotFound { what: "network", name: bridge.bridge.clone() })?;
    let veth = Veth {
        name: &bridge.host_interface,
        master: Some(master.index),
        peer_name: interface,
        peer_netns: netns,
        peer_mac: Some(bridge.mac),
    };
    match netlink.add_veth(&veth) {
        // The pair of an earlier start whose namespace is not quite gone: its name is ours by right.
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
            netlink.delete_link(&bridge.host_interface)?;
            netlink.add_veth(&veth)?;
        }
        other => other?,
    }
    let port = netlink.link(&bridge.host_interface)?;
    let port = port.ok_or_else(|| Error::Conflict(format!("interface {} vanished", bridge.host_interface)))?;
    netlink.lock_port(port.index, bridge.mac)
}

/// Cgroups and their limits. Into the v1 ones init goes by itself, through the doors that are handed over.
fn open_doors(spec: &Spec, launch: &Launch, ends: &Ends<'_>) -> Result<()> {
    let cgroup = Cgroup::new(Hierarchies::of_launch(launch)?, &launch.cgroup);
    cgroup.prepare(spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()))?;
    let doors = cgroup.doors()?;
    let doors: Vec<BorrowedFd<'_>> = doors.iter().map(AsFd::as_fd).collect();
    send(ends, &Supply::Ready, &doors)
}

/// Resource limits and the out-of-memory score: what another process may set only from outside.
pub(super) fn limit(spec: &Spec, launch: &Launch, init: i32) -> Result<()> {
    let Some(process) = spec.process() else { return Ok(()) };
    adjust_oom_score(process, &format!("/proc/{init}/oom_score_adj"))?;
    limit_resources(init, process, launch)
}

pub(super) fn adjust_oom_score(process: &Process, path: &str) -> Result<()> {
    if let Some(score) = process.oom_score_adj() {
        match fs::write(path, score.to_string()) {
            // Lowering it takes CAP_SYS_RESOURCE: the container then keeps the (higher) score of its parent.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {}
            other => other.doing(|| format!("write {path}"))?,
        }
    }
    Ok(())
}

/// Sets the limits of a spec. One of a foreign bundle that no process of this host can have is an error (OCI config,
/// "rlimits").
pub(super) fn limit_resources(pid: i32, process: &Process, launch: &Launch) -> Result<()> {
    for limit in process.rlimits().as_deref().unwrap_or_default() {
        set_limit(pid, resource(limit.typ()), limit.soft(), limit.hard(), launch.told.is_some())?;
    }
    Ok(())
}

/// Sets the limits of a spec for the calling process, which may see no more of the host; [`check_limits`] came before.
pub(super) fn limit_own_resources(process: &Process) -> Result<()> {
    let mut limits = process.rlimits().iter().flatten();
    limits.try_for_each(|limit| set_limit(0, resource(limit.typ()), limit.soft(), limit.hard(), false))
}

/// Finds the limit of open files that no process of this host can have, before anything is made.
pub(super) fn check_limits(spec: &Spec) -> Result<()> {
    let Some(process) = spec.process() else { return Ok(()) };
    let mut files = process.rlimits().iter().flatten().filter(|limit| limit.typ() == PosixRlimitType::RlimitNofile);
    files.try_for_each(|limit| {
        let own = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        if limit.hard() > own && limit.hard() > files_max() { Err(no_such_limit(limit.hard())) } else { Ok(()) }
    })
}

fn no_such_limit(hard: u64) -> Error {
    let most = files_max();
    Error::BadContainer(format!("RLIMIT_NOFILE {hard} is more than this host allows any process ({most})"))
}

/// Sets a limit; without the right to raise the hard one, both are clamped to what is there.
fn set_limit(pid: i32, resource: Resource, soft: u64, hard: u64, strict: bool) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid);
    let wanted = Rlimit { current: Some(soft), maximum: Some(hard) };
    match rustix::process::prlimit(pid, resource, wanted) {
        Err(rustix::io::Errno::PERM) if strict && resource == Resource::Nofile && hard > files_max() => {
            Err(no_such_limit(hard))
        }
        Err(rustix::io::Errno::PERM) => {
            let ceiling = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX).min(hard);
            let clamped = Rlimit { current: Some(soft.min(ceiling)), maximum: Some(ceiling) };
            rustix::process::prlimit(pid, resource, clamped).map(drop).doing(|| format!("limit {resource:?}"))
        }
        other => other.map(drop).doing(|| format!("limit {resource:?}")),
    }
}

/// `fs.nr_open`.
fn files_max() -> u64 {
    let text = fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}
