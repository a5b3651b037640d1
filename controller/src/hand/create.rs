//! From what was asked for to a container that is written down: image, name, ids, network, volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use runtime::id::{ContainerId, NetworkName, VolumeName};
use runtime::network::ipam::{self, Subnet};
use runtime::runtime::{
    ContainerConfig, Extras, IdRange, ImageInfo, LogConfig, MountConfig, MountSource, NetworkConfig, NetworkMode,
    OwnEndpoints, Protocol, PublishedPort, VolumeConfig,
};
use runtime::{Error, LinuxRuntime, Result, Runtime as _};

use super::names::{self, SHORT_CHARS};
use super::{HandAnswer, RunMount, RunNetwork, RunPort, RunSource, RunSpec};
use crate::model::{ObservedContainer, by_hand};
use crate::plan::{RANGE_LEN, apart};

/// Containers on the network of those made by hand: as many as a bridge has ports.
const PREFIX_LEN: u8 = 22;
/// Docker's /dev/shm.
const SHM_BYTES: u64 = 64 << 20;

/// Writes one down. An image that is not here is `NotFound`: whoever asks decides whether to fetch it.
pub(super) fn create(linux: &LinuxRuntime, spec: &RunSpec) -> Result<HandAnswer> {
    let digest = linux.images().find(&spec.image)?.digest;
    let image = linux.images().get(&digest)?;
    if let Some(label) = spec.labels.keys().find(|label| label.starts_with(by_hand::OURS)) {
        return Err(Error::Unsupported(format!("`{label}` is a label of boxship itself: choose another")));
    }
    let _alone = linux.lock_kept();
    let all = linux.container_configs()?;
    let name = choose_name(spec.name.as_deref(), &all)?;
    let images = linux.list_images()?;
    let is_taken = |short: &str| {
        all.iter().any(|config| config.id.as_str().starts_with(short))
            || images
                .iter()
                .any(|image| image.id.to_string().contains(short) || image.digest.to_string().contains(short))
    };
    let id = names::new_id(is_taken)?;
    let mut warnings = Vec::new();
    let (network, gateway) = match spec.network {
        RunNetwork::None => (NetworkMode::None, Ipv4Addr::LOCALHOST),
        RunNetwork::Host => (NetworkMode::Host, Ipv4Addr::LOCALHOST),
        RunNetwork::Default => bridge(linux, &all)?,
    };
    let is_bridged = matches!(network, NetworkMode::Bridge { .. });
    if !is_bridged && (spec.publish_all || !spec.publish.is_empty()) {
        warnings.push("published ports have no effect without a network of one's own".to_owned());
    }
    let (mounts, made) = mounts(linux, spec, &image, &id)?;
    let ports = if is_bridged { published(&wanted_ports(spec, &image.config.exposed_ports))? } else { Vec::new() };
    let config = ContainerConfig {
        hostname: spec.hostname.clone().unwrap_or_else(|| id.as_str()[..SHORT_CHARS].to_owned()),
        labels: labels(spec, &name),
        image: digest,
        entrypoint: spec.entrypoint.clone(),
        args: (!spec.args.is_empty()).then(|| spec.args.clone()),
        env: spec.env.clone(),
        sealed_env: BTreeMap::new(),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        mounts,
        network,
        resources: spec.resources.clone(),
        ids: ids(&all)?,
        security: spec.security.clone(),
        stop_signal: spec.stop_signal.clone(),
        shm_bytes: spec.shm_bytes.unwrap_or(SHM_BYTES),
        tty: spec.tty,
        init: spec.init,
        dns_search: Vec::new(),
        log: LogConfig { lossy: spec.lossy_log, ..LogConfig::default() },
        pod: None,
        extras: Extras {
            kept: true,
            lasting: !spec.auto_remove,
            stdin: spec.stdin,
            hosts: hosts(spec, gateway),
            nameservers: spec.nameservers.clone(),
            ulimits: spec.ulimits.clone(),
            endpoints: Some(OwnEndpoints { names: vec![name.clone()], ports }),
            ..Extras::default()
        },
        id,
    };
    let kept = linux.keep_container(&config);
    if let Err(error) = kept {
        made.iter().for_each(|volume| drop(linux.remove_volume(volume)));
        return Err(error);
    }
    Ok(HandAnswer::Created { id: config.id.to_string(), name, warnings })
}

fn labels(spec: &RunSpec, name: &str) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    labels.insert(by_hand::NAME.to_owned(), name.to_owned());
    labels.insert(by_hand::IMAGE.to_owned(), spec.image.clone());
    let restart = spec.restart.text().map(|text| (by_hand::RESTART.to_owned(), text));
    labels.extend(restart);
    labels.extend(spec.auto_remove.then(|| (by_hand::AUTO_REMOVE.to_owned(), "1".to_owned())));
    labels.extend(spec.stop_ms.map(|ms| (by_hand::STOP_MS.to_owned(), ms.to_string())));
    labels
}

/// The name that was given, or a new one.
fn choose_name(given: Option<&str>, all: &[Arc<ContainerConfig>]) -> Result<String> {
    let Some(name) = given else { return names::new_name(|name| holder(name, all).is_some()) };
    names::check(name)?;
    match holder(name, all) {
        Some(holder) => Err(in_use(name, holder)),
        None => Ok(name.to_owned()),
    }
}

pub(super) fn in_use(name: &str, holder: &ContainerConfig) -> Error {
    let id = holder.id.as_str();
    let short = if by_hand::name_of(&holder.labels).is_some() { &id[..SHORT_CHARS.min(id.len())] } else { id };
    Error::Conflict(format!("the name `{name}` is in use by container {short}; nothing was made"))
}

/// Who has a name already, be it as the name of a replica.
pub(super) fn holder<'a>(name: &str, all: &'a [Arc<ContainerConfig>]) -> Option<&'a Arc<ContainerConfig>> {
    all.iter().find(|config| {
        let replica = || ObservedContainer::from_config(config).map(|observed| observed.replica.to_string());
        by_hand::name_of(&config.labels) == Some(name)
            || config.id.as_str() == name
            || replica().as_deref() == Some(name)
    })
}

/// 64 Ki host ids that no container of this data root has.
fn ids(all: &[Arc<ContainerConfig>]) -> Result<IdRange> {
    let (first, len) = by_hand::IDS;
    let starts = (first..first + len).step_by(RANGE_LEN as usize);
    let mut starts =
        starts.filter(|start| all.iter().all(|config| apart(*start, RANGE_LEN, config.ids.host_start, config.ids.len)));
    let free = starts.next().map(|host_start| IdRange { host_start, len: RANGE_LEN });
    let most = len / RANGE_LEN;
    free.ok_or_else(|| Error::Conflict(format!("{most} containers made by hand are there already: boxship rm some")))
}

/// The network of containers made by hand, made or repaired where need be, and an address no other of them has.
fn bridge(linux: &LinuxRuntime, all: &[Arc<ContainerConfig>]) -> Result<(NetworkMode, Ipv4Addr)> {
    let name: NetworkName = by_hand::NETWORK.parse().map_err(|error| Error::BadContainer(format!("{error}")))?;
    let networks = linux.list_networks()?;
    let config = match networks.iter().find(|network| network.config.name == name) {
        Some(found) => found.config.clone(),
        None => {
            let mut taken = runtime::network::host_routes()?;
            let others = networks.iter().map(|n| Subnet::containing(n.config.gateway, n.config.prefix_len));
            taken.extend(others);
            let subnet = ipam::pick_subnet(&ipam::DEFAULT_POOL, PREFIX_LEN, &taken);
            let subnet = subnet.ok_or_else(|| Error::Conflict("no subnet is free for a network".to_owned()))?;
            NetworkConfig {
                name: name.clone(),
                gateway: subnet.gateway(),
                prefix_len: subnet.prefix_len(),
                internal: false,
            }
        }
    };
    linux.ensure_network(&config)?;
    let here = |(network, address): (&NetworkName, Ipv4Addr)| (*network == name).then_some(address);
    let used: BTreeSet<Ipv4Addr> = all.iter().flat_map(|other| other.network.addresses().filter_map(here)).collect();
    let subnet = Subnet::containing(config.gateway, config.prefix_len);
    let address = ipam::pick_address(subnet, config.gateway, &used);
    let address = address.ok_or_else(|| Error::Conflict(format!("network `{name}` has no address left")))?;
    Ok((NetworkMode::on(name, address), config.gateway))
}

/// Lines of /etc/hosts; where this host is meant, the address it has for the container.
fn hosts(spec: &RunSpec, gateway: Ipv4Addr) -> Vec<(String, IpAddr)> {
    let line = |(name, address): &(String, Option<IpAddr>)| (name.clone(), address.unwrap_or(IpAddr::V4(gateway)));
    spec.hosts.iter().map(line).collect()
}

/// The network again as it was made, should somebody have taken parts of it away.
pub(super) fn ensure_network(linux: &LinuxRuntime, config: &ContainerConfig) -> Result<()> {
    for (name, _) in config.network.addresses() {
        let networks = linux.list_networks()?;
        match networks.iter().find(|network| network.config.name == *name) {
            Some(network) if network.intact => {}
            Some(network) => linux.ensure_network(&network.config)?,
            None => return Err(Error::NotFound { what: "network", name: name.to_string() }),
        }
    }
    Ok(())
}

/// What is to be published: what was named, and with `publish_all` what is exposed and was not named.
fn wanted_ports(spec: &RunSpec, of_image: &[String]) -> Vec<RunPort> {
    let mut wanted = spec.publish.clone();
    if !spec.publish_all {
        return wanted;
    }
    let of_image = of_image.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            // what else an image may name cannot be published
            _ => return None,
        };
        Some((port.parse().ok().filter(|port| *port > 0)?, protocol))
    });
    for (container_port, protocol) in of_image.chain(spec.expose.iter().copied()) {
        if !wanted.iter().any(|one| one.container_port == container_port && one.protocol == protocol) {
            let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            wanted.push(RunPort { address, port: None, container_port, protocol });
        }
    }
    wanted
}

/// With a port of the host for each that was left open.
fn published(wanted: &[RunPort]) -> Result<Vec<PublishedPort>> {
    let mut ports: Vec<PublishedPort> = Vec::new();
    for one in wanted {
        let port = match one.port {
            Some(port) => port,
            None => free_port(one)?,
        };
        let port = PublishedPort { at: one.host_port(port), container_port: one.container_port };
        if ports.iter().any(|other| other.at == port.at) {
            return Err(Error::Unsupported(format!("port {} is published twice", port.at)));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn free_port(one: &RunPort) -> Result<u16> {
    let any = SocketAddr::new(one.address, 0);
    let bound = match one.protocol {
        Protocol::Tcp => TcpListener::bind(any).and_then(|socket| socket.local_addr()),
        Protocol::Udp => UdpSocket::bind(any).and_then(|socket| socket.local_addr()),
    };
    bound.map(|at| at.port()).map_err(|error| Error::io(format!("find a free port of {}", one.address), error))
}

/// Mounts as asked for, an anonymous volume for each `VOLUME` of the image that is left, and the volumes made for this one.
fn mounts(
    linux: &LinuxRuntime,
    spec: &RunSpec,
    image: &ImageInfo,
    id: &ContainerId,
) -> Result<(Vec<MountConfig>, Vec<VolumeName>)> {
    let mut wanted = spec.mounts.clone();
    for path in &image.config.volumes {
        if !wanted.iter().any(|mount| mount.target == *path) {
            let source = RunSource::Anonymous;
            wanted.push(RunMount { target: path.clone(), source, read_only: false });
        }
    }
    let present = linux.list_volumes()?;
    let (mut mounts, mut made): (Vec<MountConfig>, Vec<VolumeName>) = (Vec::new(), Vec::new());
    for (number, mount) in wanted.iter().enumerate() {
        if mounts.iter().any(|other: &MountConfig| other.target == mount.target) {
            return Err(Error::Unsupported(format!("two things are mounted at {}", mount.target)));
        }
        let source = match &mount.source {
            RunSource::Bind(path) if !path.exists() => {
                let message = format!("{} is not there to be mounted at {}", path.display(), mount.target);
                return Err(Error::BadContainer(message));
            }
            RunSource::Bind(path) => MountSource::Bind { path: path.clone() },
            RunSource::Tmpfs(size_bytes) => MountSource::Tmpfs { size_bytes: *size_bytes },
            RunSource::Volume(text) => {
                let name: VolumeName = text.parse().map_err(|error| Error::Unsupported(format!("{error}")))?;
                // one that is there keeps its labels, and with them its owner
                if !present.iter().any(|volume| volume.config.name == name) {
                    linux.ensure_volume(&VolumeConfig { name: name.clone(), labels: BTreeMap::new() })?;
                }
                MountSource::Volume { name }
            }
            RunSource::Anonymous => {
                let name = format!("run-{}-{number}", &id.as_str()[..SHORT_CHARS]);
                let name: VolumeName = name.parse().map_err(|error| Error::BadContainer(format!("{error}")))?;
                let labels = BTreeMap::from([(by_hand::VOLUME_OF.to_owned(), id.to_string())]);
                linux.ensure_volume(&VolumeConfig { name: name.clone(), labels })?;
                made.push(name.clone());
                MountSource::Volume { name }
            }
        };
        mounts.push(MountConfig { target: mount.target.clone(), source, read_only: mount.read_only });
    }
    Ok((mounts, made))
}
