//! What tests do to the fake's world from outside: time, registries, faults, deaths, foreign hands.

use std::net::IpAddr;

use super::world::World;
use super::{FakeRuntime, Names};
use crate::error::{Error, Result};
use crate::id::{ContainerId, NetworkName};
use crate::image::{Digest, ImageRef};
use crate::runtime::{
    ContainerInfo, ContainerState, EndpointTable, ExitStatus, Finding, ImageConfig, ImageInfo, RuntimeEvent,
};

/// The calls of [`Runtime`](crate::Runtime), for faults and for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Verb {
    PullImage,
    ListImages,
    RemoveImage,
    EnsureNetwork,
    RemoveNetwork,
    ListNetworks,
    EnsureVolume,
    RemoveVolume,
    ListVolumes,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    UpdateResources,
    ListContainers,
    Exec,
    PublishEndpoints,
    Watch,
    Sweep,
    Findings,
}

type Fault = Box<dyn FnMut(Verb, &str) -> Option<Error> + Send>;

/// Decides which calls fail, and counts all of them.
#[derive(Default)]
pub(super) struct Faults {
    decide: Option<Fault>,
    calls: Vec<(Verb, String)>,
}

impl Faults {
    pub(super) fn check(&mut self, verb: Verb, name: &str) -> Result<()> {
        self.calls.push((verb, name.to_owned()));
        match self.decide.as_mut().and_then(|decide| decide(verb, name)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl FakeRuntime {
    /// Sets both clocks, in milliseconds.
    pub fn set_now(&self, boot_ms: u64, unix_ms: u64) {
        let mut world = self.world();
        (world.boot_ms, world.unix_ms) = (boot_ms, unix_ms);
    }

    /// Puts an image into the registry under a reference, replacing what it named. The digest is a function of the
    /// reference and the config.
    pub fn offer_image(&self, reference: &ImageRef, config: ImageConfig) -> ImageInfo {
        let text = format!("{reference} {config:?}");
        let digest = Digest::of(text.as_bytes());
        let id = Digest::of(format!("config of {text}").as_bytes());
        let info = ImageInfo { digest, id, references: Vec::new(), size_bytes: 4_096, config, created: None };
        self.world().registry.insert(reference.to_string(), info.clone());
        info
    }

    /// Something of an owner that is gone lies around.
    pub fn leave_orphan(&self, name: &str) {
        self.world().orphans.push(name.to_owned());
    }

    /// Names of what [`Self::leave_orphan`] left and nobody swept yet.
    #[must_use]
    pub fn orphans(&self) -> Vec<String> {
        self.world().orphans.clone()
    }

    /// What the host has against networks from now on.
    pub fn set_findings(&self, findings: Vec<Finding>) {
        self.world().findings = findings;
    }

    /// Takes a reference out of the registry.
    pub fn withdraw_image(&self, reference: &ImageRef) {
        self.world().registry.remove(&reference.to_string());
    }

    /// From now on `decide` says which calls fail; it gets the verb and the object's name.
    pub fn fail_when(&self, decide: impl FnMut(Verb, &str) -> Option<Error> + Send + 'static) {
        self.world().faults.decide = Some(Box::new(decide));
    }

    /// No call fails any more.
    pub fn heal(&self) {
        self.world().faults.decide = None;
    }

    /// All calls since the last time, in order.
    pub fn take_calls(&self) -> Vec<(Verb, String)> {
        std::mem::take(&mut self.world().faults.calls)
    }

    /// A live container's first process ends so.
    pub fn end_container(&self, id: &ContainerId, exit: ExitStatus) {
        self.world().end(id, exit);
        self.ended.notify_all();
    }

    /// Somebody deletes a container behind our back.
    pub fn delete_container(&self, id: &ContainerId) {
        let mut world = self.world();
        world.containers.remove(id);
        world.announce(&RuntimeEvent::Changed);
        self.ended.notify_all();
    }

    /// Somebody damages a network: `list_networks` shows it, `ensure_network` repairs it.
    pub fn damage_network(&self, name: &NetworkName) {
        if let Some(network) = self.world().networks.get_mut(name) {
            network.intact = false;
        }
    }

    /// A crash in the middle of a creation leaves this.
    pub fn leave_creating(&self, info: ContainerInfo) {
        let info = ContainerInfo { state: ContainerState::Creating, pid: None, exit: None, ..info };
        self.world().containers.insert(info.config.id.clone(), info);
    }

    /// Execs in this container end with this code from now on.
    pub fn set_exec_code(&self, id: &ContainerId, code: u8) {
        self.world().execs.insert(id.clone(), code);
    }

    /// Another program of the host takes a port.
    pub fn take_port(&self, address: IpAddr, port: u16) {
        self.world().foreign_ports.insert((address, port));
    }

    /// The other program lets go of its port.
    pub fn free_port(&self, address: IpAddr, port: u16) {
        self.world().foreign_ports.remove(&(address, port));
    }

    /// The host reboots: nothing runs, nobody saw how it ended, boot time begins again, watches are cut.
    pub fn reboot(&self) {
        let mut world = self.world();
        world.boot_ms = 0;
        world.table = EndpointTable::default();
        world.watchers.clear();
        world.containers.values_mut().for_each(lose);
        self.ended.notify_all();
    }

    /// Watches break, as when the supervisor restarts.
    pub fn cut_watches(&self) {
        self.world().watchers.clear();
    }

    /// The endpoints in force.
    pub fn endpoints(&self) -> EndpointTable {
        self.world().table.clone()
    }

    /// Everything by name, for audits.
    pub fn names(&self) -> Names {
        let world = self.world();
        let World { images, networks, volumes, containers, .. } = &*world;
        Names::from([
            ("containers", containers.keys().map(ToString::to_string).collect()),
            ("images", images.keys().map(ToString::to_string).collect()),
            ("networks", networks.keys().map(ToString::to_string).collect()),
            ("volumes", volumes.keys().map(ToString::to_string).collect()),
        ])
    }
}

/// What a reboot does to a container.
fn lose(info: &mut ContainerInfo) {
    if matches!(info.state, ContainerState::Creating) {
        return;
    }
    (info.state, info.pid) = (ContainerState::Stopped, None);
    info.exit.get_or_insert(ExitStatus::Unknown);
    (info.times.started_boot_ms, info.times.finished_boot_ms) = (0, 0);
}
