//! The fake host: kernel, store, registry and switchboard in one. It refuses what the real ones would refuse, and says
//! so as a `Refused`: with nothing changed behind its back, no plan may lead to one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use controller::model::{DesiredState, MountedVolume, ObservedContainer, VolumeAccess};
use controller::plan::{Action, volume_name};
use runtime::id::{ContainerId, NetworkName, VolumeName};
use runtime::image::{Digest, ImageRef};
use runtime::runtime::{
    Alteration, ContainerConfig, ContainerState, EndpointTable, ExitStatus, ImageConfig, NetworkConfig, Resources,
};

use runtime::runtime::HostPort;

use crate::desire::{TAGS, reference};
use crate::pods::Timing;
use crate::rng::Rng;

/// How the program of an image behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Serves { ready_after_ms: u64 },
    NeverReady,
    Crashes { after_ms: u64 },
    NotExecutable,
    Ends { after_ms: u64, failures_first: u32, code: u8 },
}

impl Program {
    pub(crate) fn is_good(self) -> bool {
        matches!(self, Self::Serves { .. })
    }
}

/// Why a call failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    /// The call makes no sense in this world: a planner's mistake, unless somebody changed the world meanwhile.
    Refused(String),
    /// Injected.
    Fault,
    /// The table is in force but for this port.
    PortInUse(HostPort),
}

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) config: ContainerConfig,
    pub(crate) seen: ObservedContainer,
    pub(crate) ready_at: Option<u64>,
    pub(crate) ends_at: Option<(u64, u8)>,
    /// How long it had been ready when it ended.
    pub(crate) ready_for_ms: u64,
    /// What happens to its members.
    pub(crate) timings: BTreeMap<ContainerId, Timing>,
}

#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) digest: Digest,
    pub(crate) previous: Vec<Digest>,
    pub(crate) checked_boot_ms: u64,
    pub(crate) unused_since: BTreeMap<Digest, u64>,
}

/// Everything outside the controller.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) unix: u64,
    pub(crate) images: BTreeMap<ImageRef, Image>,
    /// What a tag that moves leads to now.
    pub(crate) follow_version: u32,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    /// Somebody else's.
    pub(crate) foreign: BTreeSet<ContainerId>,
    pub(crate) networks: BTreeMap<NetworkName, (NetworkConfig, bool)>,
    pub(crate) volumes: BTreeMap<VolumeName, BTreeMap<String, String>>,
    pub(crate) published: Option<EndpointTable>,
    pub(crate) taken_ports: BTreeSet<u16>,
    /// Calls that fail, in a thousand.
    pub(crate) fault_per_mille: u64,
    pub(crate) registry_down: bool,
}

pub(crate) fn digest_of(tag: &str, version: u32) -> Digest {
    Digest::of(format!("{tag} {version}").as_bytes())
}

/// What the registry or the store says about a digest. `follow` moves: its third version is bad.
pub(crate) fn program_of(digest: &Digest) -> Program {
    let is = |tag: &str| *digest == digest_of(tag, 0);
    let crashes = || Program::Crashes { after_ms: 700 };
    match () {
        () if is("never-ready") => Program::NeverReady,
        () if is("crash") || *digest == digest_of("follow", 3) => crashes(),
        () if is("bad-exec") => Program::NotExecutable,
        () if is("job-ok") => Program::Ends { after_ms: 2_000, failures_first: 0, code: 0 },
        () if is("job-flaky") => Program::Ends { after_ms: 500, failures_first: 1, code: 0 },
        () if is("job-fail") => Program::Ends { after_ms: 500, failures_first: u32::MAX, code: 3 },
        () if is("job-slow") => Program::Ends { after_ms: 150_000, failures_first: 0, code: 0 },
        () if is("5") => Program::Serves { ready_after_ms: 5_000 },
        () => Program::Serves { ready_after_ms: 800 },
    }
}

pub(crate) fn image_config(digest: &Digest) -> ImageConfig {
    let volumes = if *digest == digest_of("volume", 0) { vec!["/var/lib/data".to_owned()] } else { Vec::new() };
    ImageConfig { volumes, ..ImageConfig::default() }
}

impl World {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let foreign = ["shop-web-1-ffffff", "postgres", "3f09ab5d1e2c4477aa01b6c8d9e0f1a2b3c4d5e6"];
        Self {
            now: 1_000 + rng.below(100_000),
            unix: 1_790_000_000_000 + rng.below(100_000_000),
            images: BTreeMap::new(),
            follow_version: 0,
            containers: BTreeMap::new(),
            foreign: foreign.into_iter().map(|id| id.parse().expect("a label")).collect(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            published: None,
            taken_ports: BTreeSet::new(),
            fault_per_mille: if rng.chance(300) { 0 } else { rng.below(150) },
            registry_down: false,
        }
    }

    fn version_of(&self, reference: &ImageRef) -> Digest {
        let tag = reference.tag().unwrap_or("1");
        digest_of(tag, if tag == "follow" { self.follow_version } else { 0 })
    }

    /// Lets boot time and wall clock go on.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.now += ms;
        self.unix = self.unix.saturating_add(ms);
        for container in self.containers.values_mut().filter(|c| c.seen.pod.is_some()) {
            container.advance_members(self.now);
        }
        for container in self.containers.values_mut().filter(|c| c.seen.state == ContainerState::Running) {
            if let Some((at, code)) = container.ends_at.filter(|(at, _)| *at <= self.now) {
                container.end(at, ExitStatus::Code(code));
            } else if let Some(at) = container.ready_at.filter(|at| *at <= self.now) {
                container.seen.ready_since_boot_ms.get_or_insert(at);
            }
        }
    }

    /// When something happens here by itself.
    pub(crate) fn next_event(&self) -> Option<u64> {
        let running = self.containers.values().filter(|c| c.seen.state == ContainerState::Running);
        let events = running.flat_map(|c| {
            let ready = c.ready_at.filter(|_| c.seen.ready_since_boot_ms.is_none());
            [ready, c.ends_at.map(|(at, _)| at)]
        });
        let members = self.containers.values().filter_map(Container::next_member_event).min();
        events.flatten().chain(members).min()
    }

    /// Carries out one call. `rng` decides whether it fails, and how much of it happened then.
    pub(crate) fn act(&mut self, action: &Action, desired: &DesiredState, rng: &mut Rng) -> Result<(), Fail> {
        let fails = rng.chance(self.fault_per_mille);
        let refuse = |text: String| Err(Fail::Refused(text));
        match action {
            Action::PullImage { reference, .. } => {
                if fails || self.registry_down {
                    return Err(Fail::Fault);
                }
                self.pull(reference);
                Ok(())
            }
            Action::RemoveImage { reference } => self.remove_image(reference),
            Action::CreateNetwork { .. } | Action::CreateVolume { .. } if fails => Err(Fail::Fault),
            Action::CreateNetwork { config } => self.create_network(config),
            Action::RemoveNetwork { name } => {
                if self.containers.values().any(|c| c.seen.addresses().any(|(n, _)| n == name)) {
                    return refuse(format!("network {name} has containers"));
                }
                self.networks.remove(name).map(|_| ()).ok_or_else(|| Fail::Refused(format!("no network {name}")))
            }
            Action::CreateVolume { config } => {
                self.volumes.entry(config.name.clone()).or_insert_with(|| config.labels.clone());
                Ok(())
            }
            Action::RemoveVolume { name } => {
                if self.containers.values().any(|c| c.seen.volumes.iter().any(|v| v.name == *name)) {
                    return refuse(format!("volume {name} is mounted"));
                }
                self.volumes.remove(name).map(|_| ()).ok_or_else(|| Fail::Refused(format!("no volume {name}")))
            }
            Action::CreateContainer { config } if config.holder().is_some() => self.create_member(config, fails, rng),
            Action::CreateContainer { config } => self.create(config, desired, fails, rng),
            Action::StartContainer { id } => self.start_member(id, fails).unwrap_or_else(|| self.start(id, fails)),
            Action::StopContainer { id, .. } => self.stop(id, fails, rng),
            Action::RemoveContainer { id } => self.remove_member(id, fails).unwrap_or_else(|| self.remove(id, fails)),
            Action::UpdateResources { id, resources } => {
                self.limit_member(id, resources, fails).unwrap_or_else(|| self.limit(id, resources, fails))
            }
            Action::PublishEndpoints { table } => self.publish(table, fails),
            Action::RecordRevision { .. } | Action::RecordJob { .. } => {
                if fails {
                    Err(Fail::Fault)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn pull(&mut self, reference: &ImageRef) {
        let digest = self.version_of(reference);
        let now = self.now;
        let new = || Image {
            digest: digest.clone(),
            previous: Vec::new(),
            checked_boot_ms: now,
            unused_since: BTreeMap::new(),
        };
        let image = self.images.entry(reference.clone()).or_insert_with(new);
        image.checked_boot_ms = now;
        if image.digest != digest {
            image.previous.retain(|known| *known != digest);
            image.previous.insert(0, std::mem::replace(&mut image.digest, digest));
        }
    }

    fn remove_image(&mut self, reference: &ImageRef) -> Result<(), Fail> {
        let refuse = |text: String| Err(Fail::Refused(text));
        let used = |digest: &Digest| self.uses_image(digest);
        if let Some(image) = self.images.get(reference) {
            if used(&image.digest) {
                return refuse(format!("image {reference} is in use"));
            }
            self.images.remove(reference);
            return Ok(());
        }
        let Some(digest) = reference.digest() else { return refuse(format!("no image {reference}")) };
        if used(digest) {
            return refuse(format!("image {reference} is in use"));
        }
        let Some(image) = self.images.values_mut().find(|image| image.previous.contains(digest)) else {
            return refuse(format!("no image {reference}"));
        };
        image.previous.retain(|previous| previous != digest);
        Ok(())
    }

    pub(crate) fn uses_image(&self, digest: &Digest) -> bool {
        self.containers.values().any(|c| c.seen.images().any(|image| image == digest))
    }

    fn create_network(&mut self, config: &NetworkConfig) -> Result<(), Fail> {
        let clash =
            self.networks.values().any(|(other, _)| other.name != config.name && other.gateway == config.gateway);
        if clash {
            return Err(Fail::Refused(format!("two networks at {}", config.gateway)));
        }
        self.networks.insert(config.name.clone(), (config.clone(), true));
        Ok(())
    }

    /// Whether creating this is legal. What only a race can break is told apart by the caller.
    fn create(
        &mut self,
        config: &ContainerConfig,
        desired: &DesiredState,
        fails: bool,
        rng: &mut Rng,
    ) -> Result<(), Fail> {
        self.check_create(config, desired).map_err(Fail::Refused)?;
        let Some(seen) = ObservedContainer::from_config(config) else {
            return Err(Fail::Refused(format!("{} has no labels", config.id)));
        };
        let mut container = Container {
            config: config.clone(),
            seen,
            ready_at: None,
            ends_at: None,
            ready_for_ms: 0,
            timings: BTreeMap::new(),
        };
        if fails {
            if rng.chance(400) {
                self.containers.insert(config.id.clone(), container);
            }
            return Err(Fail::Fault);
        }
        container.seen.state = ContainerState::Created;
        self.containers.insert(config.id.clone(), container);
        Ok(())
    }

    pub(crate) fn check_create(&self, config: &ContainerConfig, desired: &DesiredState) -> Result<(), String> {
        let id = &config.id;
        if self.foreign.contains(id) || self.containers.contains_key(id) {
            return Err(format!("{id} exists"));
        }
        let present = |image: &Image| image.digest == config.image || image.previous.contains(&config.image);
        if !self.images.values().any(present) {
            return Err(format!("{id}: no image {}", config.image));
        }
        for (network, address) in config.network.addresses() {
            if !self.networks.get(network).is_some_and(|(_, intact)| *intact) {
                return Err(format!("{id}: no network {network}"));
            }
            self.check_address(id, network, address)?;
        }
        let Some(seen) = ObservedContainer::from_config(config) else { return Err(format!("{id} has no labels")) };
        for mounted in &seen.volumes {
            if !self.volumes.contains_key(&mounted.name) {
                return Err(format!("{id}: no volume {}", mounted.name));
            }
            self.check_writers(id, mounted, desired)?;
        }
        Ok(())
    }

    fn check_address(&self, id: &ContainerId, network: &NetworkName, address: Ipv4Addr) -> Result<(), String> {
        let alive = self.containers.values().filter(|c| c.is_alive());
        let mut holders = alive.filter(|c| c.seen.addresses().any(|held| held == (network, address)));
        holders.next().map_or(Ok(()), |other| Err(format!("{id}: {address} belongs to {}", other.config.id)))
    }

    /// Never two writers to what is for one.
    fn check_writers(&self, id: &ContainerId, volume: &MountedVolume, desired: &DesiredState) -> Result<(), String> {
        let shared = desired.volumes.iter().filter(|(_, v)| v.access == VolumeAccess::Shared);
        if volume.read_only || shared.map(|(key, _)| volume_name(key)).any(|name| name == volume.name) {
            return Ok(());
        }
        let alive = self.containers.values().filter(|c| c.is_alive());
        let mut writers = alive.filter(|c| c.seen.volumes.iter().any(|v| v.name == volume.name && !v.read_only));
        writers.next().map_or(Ok(()), |w| Err(format!("{id}: {} is written by {}", volume.name, w.config.id)))
    }

    fn get(&mut self, id: &ContainerId) -> Result<&mut Container, Fail> {
        self.containers.get_mut(id).ok_or_else(|| Fail::Refused(format!("no container {id} of ours")))
    }

    fn start(&mut self, id: &ContainerId, fails: bool) -> Result<(), Fail> {
        let now = self.now;
        let container = self.get(id)?;
        if container.seen.state != ContainerState::Created {
            return Err(Fail::Refused(format!("start of {id}, which is {:?}", container.seen.state)));
        }
        let program = program_of(&container.config.image);
        let is_bad = program == Program::NotExecutable && container.seen.pod.is_none();
        if fails || is_bad {
            return Err(Fail::Fault);
        }
        container.seen.state = ContainerState::Running;
        container.seen.started_boot_ms = now;
        if container.seen.pod.is_some() {
            return Ok(());
        }
        match program {
            Program::Serves { ready_after_ms } => container.ready_at = Some(now + ready_after_ms),
            Program::Crashes { after_ms } => container.ends_at = Some((now + after_ms, 1)),
            Program::Ends { after_ms, failures_first, code } => {
                let code = if container.seen.attempt < failures_first { 7 } else { code };
                container.ends_at = Some((now + after_ms, code));
            }
            Program::NeverReady | Program::NotExecutable => {}
        }
        Ok(())
    }

    fn stop(&mut self, id: &ContainerId, fails: bool, rng: &mut Rng) -> Result<(), Fail> {
        let now = self.now;
        let table = self.published.clone();
        let container = self.get(id)?;
        if !container.is_alive() {
            return Ok(());
        }
        if let Some((_, address)) = container.seen.address
            && table.is_some_and(|table| leads_to(&table, address))
        {
            return Err(Fail::Refused(format!("{id} is stopped while connections lead to it")));
        }
        if fails && rng.chance(500) {
            // Perhaps it got as far as one of its members.
            if let Some(id) = container.member_ids().first().filter(|_| rng.chance(500)) {
                container.end_member(id, now, ExitStatus::Signal(15));
            }
            return Err(Fail::Fault);
        }
        container.end_members(now, ExitStatus::Signal(15));
        if container.seen.state == ContainerState::Stopped {
            return if fails { Err(Fail::Fault) } else { Ok(()) };
        }
        container.end(now, ExitStatus::Code(0));
        if fails { Err(Fail::Fault) } else { Ok(()) }
    }

    fn remove(&mut self, id: &ContainerId, fails: bool) -> Result<(), Fail> {
        let container = self.get(id)?;
        if container.seen.state == ContainerState::Running {
            return Err(Fail::Refused(format!("removal of {id}, which runs")));
        }
        let members = container.seen.pod.iter().flat_map(|pod| pod.members.values());
        if members.into_iter().any(|member| member.state == ContainerState::Running) {
            return Err(Fail::Refused(format!("removal of {id}, of which a member runs")));
        }
        if fails {
            return Err(Fail::Fault);
        }
        self.containers.remove(id);
        Ok(())
    }

    fn limit(&mut self, id: &ContainerId, resources: &Resources, fails: bool) -> Result<(), Fail> {
        let container = self.get(id)?;
        if fails {
            return Err(Fail::Fault);
        }
        container.config.resources = resources.clone();
        container.seen.resources = resources.clone();
        container.seen.altered.remove(&Alteration::Limits);
        Ok(())
    }

    fn publish(&mut self, table: &EndpointTable, fails: bool) -> Result<(), Fail> {
        if fails {
            return Err(Fail::Fault);
        }
        let taken = table.listeners.iter().find(|listener| self.taken_ports.contains(&listener.at.port)).cloned();
        let mut table = table.clone();
        table.listeners.retain(|listener| !self.taken_ports.contains(&listener.at.port));
        self.published = Some(table);
        taken.map_or(Ok(()), |listener| Err(Fail::PortInUse(listener.at)))
    }

    /// The host goes down and comes up: nothing runs, boot time starts anew, bridges and rules are gone.
    pub(crate) fn reboot(&mut self, rng: &mut Rng) {
        self.now = 500 + rng.below(20_000);
        self.published = None;
        for container in self.containers.values_mut() {
            match container.seen.state {
                ContainerState::Running => container.end(0, ExitStatus::Unknown),
                ContainerState::Created => container.seen.state = ContainerState::Creating,
                ContainerState::Creating | ContainerState::Stopped => {}
            }
            container.seen.started_boot_ms = 0;
            container.seen.finished_boot_ms = 0;
            container.reboot_members();
        }
        self.networks.values_mut().for_each(|(_, intact)| *intact = false);
        for image in self.images.values_mut() {
            image.checked_boot_ms = 0;
            image.unused_since.clear();
        }
    }

    /// A tag whose program is good.
    pub(crate) fn good_tag(rng: &mut Rng) -> ImageRef {
        reference(TAGS[rng.index(4)])
    }
}

impl Container {
    pub(crate) fn end(&mut self, at: u64, exit: ExitStatus) {
        let since = self.seen.ready_since_boot_ms.take();
        self.ready_for_ms = since.map_or(0, |since| at.saturating_sub(since));
        self.seen.state = ContainerState::Stopped;
        self.seen.exit = Some(exit);
        self.seen.finished_boot_ms = at;
        self.ready_at = None;
        self.ends_at = None;
    }
}

pub(crate) fn leads_to(table: &EndpointTable, address: Ipv4Addr) -> bool {
    let address = IpAddr::V4(address);
    table.listeners.iter().any(|listener| listener.backends.iter().any(|backend| backend.ip() == address))
        || table.zones.values().flat_map(BTreeMap::values).flatten().any(|named| *named == address)
}
