//! What the fake's world holds and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::Sender;

use super::inject::Faults;
use crate::error::{Error, Result};
use crate::id::{ContainerId, NetworkName, VolumeName};
use crate::image::{Digest, ImageRef};
use crate::network::ipam::Subnet;
use crate::runtime::{
    ContainerConfig, ContainerInfo, ContainerState, ContainerTimes, EndpointTable, ExitStatus, Finding, HostPort,
    ImageInfo, Listener, MountSource, NetworkInfo, RuntimeEvent, VolumeInfo,
};

/// What a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Runs,
    Ends(u8),
    Missing,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) boot_ms: u64,
    pub(super) unix_ms: u64,
    pub(super) registry: BTreeMap<String, ImageInfo>,
    pub(super) images: BTreeMap<Digest, ImageInfo>,
    pub(super) networks: BTreeMap<NetworkName, NetworkInfo>,
    pub(super) volumes: BTreeMap<VolumeName, VolumeInfo>,
    pub(super) containers: BTreeMap<ContainerId, ContainerInfo>,
    pub(super) table: EndpointTable,
    /// Ports of other programs of the host.
    pub(super) foreign_ports: BTreeSet<(IpAddr, u16)>,
    pub(super) watchers: Vec<Sender<RuntimeEvent>>,
    pub(super) faults: Faults,
    pub(super) execs: BTreeMap<ContainerId, u8>,
    pub(super) next_pid: i32,
    /// Things in the kernel whose owner is gone.
    pub(super) orphans: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

impl World {
    pub(super) fn container(&mut self, id: &ContainerId) -> Result<&mut ContainerInfo> {
        self.containers.get_mut(id).ok_or_else(|| Error::NotFound { what: "container", name: id.to_string() })
    }

    pub(super) fn resolve(&self, reference: &ImageRef) -> Option<ImageInfo> {
        self.images.values().find(|image| image.references.contains(reference)).cloned()
    }

    /// A reference names one image: the one that had it loses it.
    pub(super) fn add_image(&mut self, reference: &ImageRef, image: ImageInfo) -> ImageInfo {
        for other in self.images.values_mut() {
            other.references.retain(|known| known != reference);
        }
        let digest = image.digest.clone();
        let image = self.images.entry(digest).or_insert(ImageInfo { references: Vec::new(), ..image });
        image.references.push(reference.clone());
        image.clone()
    }

    pub(super) fn remove_image(&mut self, reference: &ImageRef) -> Result<()> {
        let image = self
            .images
            .values()
            .find(|image| image.references.contains(reference))
            .ok_or_else(|| Error::NotFound { what: "image", name: reference.to_string() })?;
        let digest = image.digest.clone();
        let users = self.users(|config| config.image == digest);
        if image.references.len() == 1 && !users.is_empty() {
            return Err(Error::Conflict(format!("image `{reference}` is used by {users}")));
        }
        if let Some(image) = self.images.get_mut(&digest) {
            image.references.retain(|known| known != reference);
        }
        self.images.retain(|_, image| !image.references.is_empty());
        Ok(())
    }

    pub(super) fn remove_network(&mut self, name: &NetworkName) -> Result<()> {
        let users = self.users(|config| config.network.interface_on(name).is_some());
        if !users.is_empty() {
            return Err(Error::Conflict(format!("network `{name}` is used by {users}")));
        }
        let gone = self.networks.remove(name);
        gone.map(drop).ok_or_else(|| Error::NotFound { what: "network", name: name.to_string() })
    }

    pub(super) fn remove_volume(&mut self, name: &VolumeName) -> Result<()> {
        let users = self.users(|config| {
            config.mounts.iter().any(|m| matches!(&m.source, MountSource::Volume { name: used } if used == name))
        });
        if !users.is_empty() {
            return Err(Error::Conflict(format!("volume `{name}` is used by {users}")));
        }
        let gone = self.volumes.remove(name);
        gone.map(drop).ok_or_else(|| Error::NotFound { what: "volume", name: name.to_string() })
    }

    fn users(&self, uses: impl Fn(&ContainerConfig) -> bool) -> String {
        let users = self.containers.values().filter(|info| uses(&info.config)).map(|info| info.config.id.as_str());
        users.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn create(&mut self, config: &ContainerConfig) -> Result<()> {
        if self.containers.contains_key(&config.id) {
            return Err(Error::Conflict(format!("container `{}` exists already", config.id)));
        }
        if !self.images.contains_key(&config.image) {
            return Err(Error::NotFound { what: "image", name: config.image.to_string() });
        }
        for mount in &config.mounts {
            if let MountSource::Volume { name } = &mount.source
                && !self.volumes.contains_key(name)
            {
                return Err(Error::NotFound { what: "volume", name: name.to_string() });
            }
        }
        if self.argv(config).is_empty() {
            return Err(Error::BadContainer("there is no program to run".to_owned()));
        }
        self.check_holder(config)?;
        if config.holder().is_none() {
            self.check_network(config)?;
        }
        self.next_pid += 1;
        let times = ContainerTimes { created_unix_ms: self.unix_ms, ..ContainerTimes::default() };
        let info = ContainerInfo {
            config: config.clone(),
            state: ContainerState::Created,
            pid: Some(self.next_pid),
            times,
            exit: None,
            altered: BTreeSet::new(),
        };
        self.containers.insert(config.id.clone(), info);
        Ok(())
    }

    fn check_network(&self, config: &ContainerConfig) -> Result<()> {
        config.network.addresses().try_for_each(|(network, address)| self.check_address(network, address))
    }

    fn check_address(&self, network: &NetworkName, address: Ipv4Addr) -> Result<()> {
        let found = self.networks.get(network);
        let found = found.ok_or_else(|| Error::NotFound { what: "network", name: network.to_string() })?;
        let subnet = Subnet::containing(found.config.gateway, found.config.prefix_len);
        if !subnet.contains(address) || address == found.config.gateway {
            return Err(Error::BadContainer(format!(
                "address {address} is not one of network `{network}`'s containers"
            )));
        }
        let has = |config: &ContainerConfig| config.network.addresses().any(|held| held == (network, address));
        let holder = self.containers.values().find(|info| info.state != ContainerState::Stopped && has(&info.config));
        match holder {
            Some(info) => Err(Error::Conflict(format!("container `{}` has the address {address}", info.config.id))),
            None => Ok(()),
        }
    }

    pub(super) fn start(&mut self, id: &ContainerId) -> Result<()> {
        let config = self.container(id)?.config.clone();
        let program = if config.is_holder() { Program::Runs } else { program(&self.argv(&config)) };
        let (boot_ms, unix_ms) = (self.boot_ms, self.unix_ms);
        let info = self.container(id)?;
        if info.state != ContainerState::Created {
            return Err(Error::Conflict(format!("container `{id}` is {:?}, not Created", info.state)));
        }
        if program == Program::Missing {
            self.end(id, ExitStatus::Code(127));
            return Err(Error::BadContainer("its program cannot be executed".to_owned()));
        }
        info.state = ContainerState::Running;
        (info.times.started_boot_ms, info.times.started_unix_ms) = (boot_ms, unix_ms);
        self.announce(&RuntimeEvent::Changed);
        if let Program::Ends(code) = program {
            self.end(id, ExitStatus::Code(code));
        }
        Ok(())
    }

    fn argv(&self, config: &ContainerConfig) -> Vec<String> {
        let image = self.images.get(&config.image).map(|image| image.config.clone()).unwrap_or_default();
        let args = match (&config.args, &config.entrypoint) {
            (Some(args), _) => args.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => image.cmd,
        };
        let mut argv = config.entrypoint.clone().unwrap_or(image.entrypoint);
        argv.extend(args);
        argv
    }

    /// A live container's first process ends.
    pub(super) fn end(&mut self, id: &ContainerId, exit: ExitStatus) {
        let (boot_ms, unix_ms) = (self.boot_ms, self.unix_ms);
        let Some(info) = self.containers.get_mut(id) else { return };
        if info.state == ContainerState::Stopped {
            return;
        }
        (info.state, info.pid, info.exit) = (ContainerState::Stopped, None, Some(exit));
        (info.times.finished_boot_ms, info.times.finished_unix_ms) = (boot_ms, unix_ms);
        self.announce(&RuntimeEvent::Exited { id: id.clone(), exit });
        self.end_with_pids_of(id);
    }

    pub(super) fn exec_answer(&mut self, id: &ContainerId, args: &[String]) -> Program {
        match (self.execs.get(id), program(args)) {
            (_, Program::Missing) => Program::Missing,
            (Some(code), _) => Program::Ends(*code),
            (None, program) => program,
        }
    }

    pub(super) fn publish(&mut self, table: &EndpointTable) -> Result<()> {
        let mut seen = BTreeSet::new();
        for listener in &table.listeners {
            if !seen.insert(listener.at) {
                return Err(Error::Conflict(format!("two listeners at {}", listener.at)));
            }
        }
        let taken = |listener: &Listener| {
            let HostPort { address, port, protocol } = listener.at;
            self.foreign_ports.iter().any(|(foreign, taken)| {
                let same_address = *foreign == address || foreign.is_unspecified() || address.is_unspecified();
                protocol.is_tcp() && *taken == port && same_address
            })
        };
        let refused = table.listeners.iter().find(|listener| taken(listener)).cloned();
        let mut in_force = table.clone();
        in_force.listeners.retain(|listener| !taken(listener));
        self.table = in_force;
        match refused {
            Some(listener) => {
                let holder = " by another program".to_owned();
                Err(Error::PortInUse { at: listener.at, holder })
            }
            None => Ok(()),
        }
    }

    pub(super) fn announce(&mut self, event: &RuntimeEvent) {
        self.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
    }
}

/// What a program does, by its arguments.
fn program(argv: &[String]) -> Program {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => Program::Missing,
        [path, ..] if path.starts_with("/no/such") => Program::Missing,
        [name] if name.ends_with("true") => Program::Ends(0),
        [name] if name.ends_with("false") => Program::Ends(1),
        [.., "-c", line] => {
            line.strip_prefix("exit ").and_then(|code| code.parse().ok()).map_or(Program::Runs, Program::Ends)
        }
        _ => Program::Runs,
    }
}
