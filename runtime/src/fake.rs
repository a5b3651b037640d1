//! [`FakeRuntime`]: the contract of [`Runtime`] in memory. It refuses what kernel, disk and switchboard would refuse, and
//! lets tests break things: failing calls, dying containers, things deleted behind our back, a reboot.
//!
//! Its clock is a field, so one test is one history. Programs are known by their arguments: `sh -c "exit N"` ends with
//! N, `true` and `false` as they do, `/no/such…` cannot be executed, everything else runs until it is ended.

mod inject;
mod pod;
mod world;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::id::{ContainerId, NetworkName, VolumeName};
use crate::image::ImageRef;
use crate::runtime::{
    Alteration, ContainerConfig, ContainerInfo, ContainerState, EndpointTable, ExecConfig, ExecSession, ExecStdio,
    ExitStatus, Finding, ImageInfo, NetworkConfig, NetworkInfo, PullPhase, PullProgress, PullRequest, Resources,
    Runtime, RuntimeEvent, RuntimeWatch, VolumeConfig, VolumeInfo,
};
pub use inject::Verb;
use world::{Program, World};

/// A runtime without a kernel. Clones share one world.
#[derive(Clone, Default)]
pub struct FakeRuntime {
    world: Arc<Mutex<World>>,
    /// Told when an exec's program may have ended.
    ended: Arc<Condvar>,
}

impl FakeRuntime {
    /// An empty world at boot time and wall clock 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a call: fails as a test asked for, else gives the world.
    fn enter(&self, verb: Verb, name: &str) -> Result<MutexGuard<'_, World>> {
        let mut world = self.world();
        world.faults.check(verb, name)?;
        Ok(world)
    }
}

impl Runtime for FakeRuntime {
    fn pull_image(&self, request: &PullRequest, progress: &dyn PullProgress) -> Result<ImageInfo> {
        let mut world = self.enter(Verb::PullImage, &request.reference.to_string())?;
        let by_digest = request.reference.digest().is_some();
        if let Some(found) = world.resolve(&request.reference)
            && (by_digest || !request.refresh)
        {
            return Ok(found);
        }
        let image = world.registry.get(&request.reference.to_string()).cloned().ok_or_else(|| Error::Registry {
            code: "BX0302",
            message: format!("image `{}` does not exist in the registry", request.reference),
            retry: false,
        })?;
        progress.layer(&image.digest, PullPhase::Done, image.size_bytes, image.size_bytes);
        Ok(world.add_image(&request.reference, image))
    }

    fn list_images(&self) -> Result<Vec<ImageInfo>> {
        Ok(self.enter(Verb::ListImages, "")?.images.values().cloned().collect())
    }

    fn remove_image(&self, reference: &ImageRef) -> Result<()> {
        self.enter(Verb::RemoveImage, &reference.to_string())?.remove_image(reference)
    }

    fn ensure_network(&self, config: &NetworkConfig) -> Result<()> {
        let mut world = self.enter(Verb::EnsureNetwork, config.name.as_str())?;
        world.networks.insert(config.name.clone(), NetworkInfo { config: config.clone(), intact: true });
        for info in world.containers.values_mut() {
            if info.config.network.interface_on(&config.name).is_some() {
                info.altered.remove(&Alteration::Link);
            }
        }
        Ok(())
    }

    fn remove_network(&self, name: &NetworkName) -> Result<()> {
        self.enter(Verb::RemoveNetwork, name.as_str())?.remove_network(name)
    }

    fn list_networks(&self) -> Result<Vec<NetworkInfo>> {
        Ok(self.enter(Verb::ListNetworks, "")?.networks.values().cloned().collect())
    }

    fn ensure_volume(&self, config: &VolumeConfig) -> Result<()> {
        let mut world = self.enter(Verb::EnsureVolume, config.name.as_str())?;
        let path = PathBuf::from("/fake/volumes").join(config.name.as_str()).join("data");
        world.volumes.insert(config.name.clone(), VolumeInfo { config: config.clone(), path });
        Ok(())
    }

    fn remove_volume(&self, name: &VolumeName) -> Result<()> {
        self.enter(Verb::RemoveVolume, name.as_str())?.remove_volume(name)
    }

    fn list_volumes(&self) -> Result<Vec<VolumeInfo>> {
        Ok(self.enter(Verb::ListVolumes, "")?.volumes.values().cloned().collect())
    }

    fn create_container(&self, config: &ContainerConfig) -> Result<()> {
        let mut world = self.enter(Verb::CreateContainer, config.id.as_str())?;
        world.create(config)?;
        world.announce(&RuntimeEvent::Changed);
        Ok(())
    }

    fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.enter(Verb::StartContainer, id.as_str())?.start(id)
    }

    fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let mut world = self.enter(Verb::StopContainer, id.as_str())?;
        world.container(id)?;
        for id in world.members_to_stop(id).iter().chain([id]) {
            let state = world.container(id)?.state;
            if matches!(state, ContainerState::Created | ContainerState::Running) {
                let signal = if grace.is_zero() || state == ContainerState::Created { 9 } else { 15 };
                world.end(id, ExitStatus::Signal(signal));
            }
        }
        self.ended.notify_all();
        Ok(())
    }

    fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let mut world = self.enter(Verb::RemoveContainer, id.as_str())?;
        if world.container(id)?.state == ContainerState::Running {
            return Err(Error::Conflict(format!("container `{id}` is running")));
        }
        world.remove_members(id)?;
        world.containers.remove(id);
        world.announce(&RuntimeEvent::Changed);
        Ok(())
    }

    fn update_resources(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let mut world = self.enter(Verb::UpdateResources, id.as_str())?;
        let container = world.container(id)?;
        container.config.resources = resources.clone();
        container.altered.remove(&Alteration::Limits);
        Ok(())
    }

    fn list_containers(&self) -> Result<Vec<ContainerInfo>> {
        Ok(self.enter(Verb::ListContainers, "")?.containers.values().cloned().collect())
    }

    fn exec(&self, id: &ContainerId, config: &ExecConfig, stdio: ExecStdio) -> Result<Box<dyn ExecSession>> {
        let mut world = self.enter(Verb::Exec, id.as_str())?;
        if world.container(id)?.state != ContainerState::Running {
            return Err(Error::Conflict(format!("container `{id}` is not running")));
        }
        let program = world.exec_answer(id, &config.args);
        if program == Program::Missing {
            return Err(Error::BadContainer(format!("`{}` cannot be executed", config.args.join(" "))));
        }
        let terminal = match stdio {
            ExecStdio::Fds(_) => None,
            ExecStdio::Terminal => Some(std::fs::File::open("/dev/null").map(OwnedFd::from)),
        };
        let terminal = terminal.transpose().map_err(|error| Error::io("open /dev/null", error))?;
        let killed = Arc::new(Mutex::new(false));
        Ok(Box::new(FakeExec { runtime: self.clone(), id: id.clone(), program, terminal, killed }))
    }

    fn publish_endpoints(&self, table: &EndpointTable) -> Result<()> {
        self.enter(Verb::PublishEndpoints, "")?.publish(table)
    }

    fn watch(&self) -> Result<Box<dyn RuntimeWatch>> {
        let (sender, receiver) = channel();
        self.enter(Verb::Watch, "")?.watchers.push(sender);
        Ok(Box::new(FakeWatch(receiver)))
    }

    fn sweep(&self) -> Result<Vec<String>> {
        Ok(std::mem::take(&mut self.enter(Verb::Sweep, "")?.orphans))
    }

    fn findings(&self) -> Result<Vec<Finding>> {
        Ok(self.enter(Verb::Findings, "")?.findings.clone())
    }

    fn log_dir(&self, id: &ContainerId) -> PathBuf {
        PathBuf::from("/fake/containers").join(id.as_str()).join("logs")
    }
}

struct FakeWatch(Receiver<RuntimeEvent>);

impl RuntimeWatch for FakeWatch {
    fn next(&mut self) -> Result<RuntimeEvent> {
        let broken = |_| Error::Unreachable { process: "supervisor", why: "the fake cut its watches".to_owned() };
        self.0.recv().map_err(broken)
    }
}

struct FakeExec {
    runtime: FakeRuntime,
    id: ContainerId,
    program: Program,
    terminal: Option<OwnedFd>,
    killed: Arc<Mutex<bool>>,
}

impl ExecSession for FakeExec {
    fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        if let Program::Ends(code) = self.program {
            return Ok(ExitStatus::Code(code));
        }
        let runs = |world: &mut World| {
            let container = world.containers.get(&self.id);
            let killed = *self.killed.lock().unwrap_or_else(PoisonError::into_inner);
            !killed && container.is_some_and(|info| info.state == ContainerState::Running)
        };
        drop(self.runtime.ended.wait_while(self.runtime.world(), runs));
        Ok(ExitStatus::Signal(9))
    }

    fn kill(&mut self) -> Result<()> {
        self.killer()();
        Ok(())
    }

    fn killer(&self) -> Box<dyn Fn() + Send + Sync> {
        let (killed, runtime) = (Arc::clone(&self.killed), self.runtime.clone());
        Box::new(move || {
            let _world = runtime.world();
            *killed.lock().unwrap_or_else(PoisonError::into_inner) = true;
            runtime.ended.notify_all();
        })
    }
}

/// What the fake holds by name, sorted, for comparing two of them.
pub type Names = BTreeMap<&'static str, Vec<String>>;
