//! [`LinuxRuntime`]: the real thing. Puts rooms together and decides nothing: images from `image`, networks from
//! `network`, names and ports through `switchboard`, processes through `supervisor`, what is on disk in `containers`
//! and `volumes` below.
//!
//! Every call blocks and may be made from any thread.

mod alone;
mod containers;
mod copy;
mod durable;
mod images;
mod inspect;
mod kept;
mod look;
mod own_endpoints;
mod pod;
mod roots;
mod secrets;
pub(crate) mod signal;
mod volumes;
mod writable;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::cgroup;
use crate::error::{Error, Result, chain};
use crate::id::{ContainerId, NetworkName, VolumeName};
use crate::image::{ImageRef, Store, StoreOptions};
use crate::layout::Layout;
use crate::network;
use crate::runtime::{
    ContainerConfig, ContainerInfo, ContainerState, ContainerTimes, EndpointTable, ExecConfig, ExecSession, ExecStdio,
    ExitStatus, Finding, ImageInfo, MountSource, NetworkConfig, NetworkInfo, NetworkMode, PullProgress, PullRequest,
    Resources, Runtime, RuntimeWatch, VolumeConfig, VolumeInfo,
};
use crate::spec::{self, Bridge, LowerInput};
use crate::supervisor::client::SupervisorClient;
use crate::supervisor::wire::{ContainerStatus, Create};
use crate::switchboard::client::SwitchboardClient;
pub use alone::Alone;
use containers::Containers;
pub use images::Removed;
use inspect::Inspector;
pub use kept::{AttachedStdio, Life};
pub use look::{Process, Sample};
pub use secrets::Unseal;
use signal::signal_number;
pub use volumes::backup as volume_backup;
pub use volumes::list as list_volumes;

/// How long a creation or a start waits for a process of ours that is being restarted.
const RESTART_PATIENCE: Duration = Duration::from_secs(3);

/// How a [`LinuxRuntime`] is opened.
#[derive(Clone, Default)]
pub struct LinuxOptions {
    /// How images are fetched and unpacked.
    pub images: StoreOptions,
    /// Opens what is sealed; `None`: a container that has such a thing cannot be made.
    pub secrets: Option<Arc<dyn Unseal>>,
}

/// The runtime of this host. Its supervisor and switchboard are other processes, found through the run directory.
pub struct LinuxRuntime {
    layout: Layout,
    images: Store,
    containers: Containers,
    inspector: Inspector,
    supervisor: SupervisorClient,
    switchboard: SwitchboardClient,
    /// Name of this data root's cgroups.
    cgroup_parent: String,
    /// Held shared while a container is being written down, alone while images go: an image in use is never deleted.
    images_in_use: RwLock<()>,
    /// The table that whoever plans published last, without what is published for kept containers.
    planned: Mutex<Option<EndpointTable>>,
    /// Held while names, addresses and ports of kept containers are given out, and while one is started.
    kept: Mutex<()>,
    /// Held while a `life.json` is changed.
    lives: Mutex<()>,
    secrets: Option<Arc<dyn Unseal>>,
    /// Held while the root of a container that does not run is put together.
    roots: roots::Roots,
}

impl LinuxRuntime {
    /// Opens a data root; makes it when it is not there and deletes what a crash left half made. The caller holds the
    /// data root alone.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(layout: &Layout, options: LinuxOptions) -> Result<Self> {
        let containers = Containers::open(layout)?;
        for parent in [layout.containers_dir(), layout.data_root.join("volumes")] {
            durable::sweep(&parent);
        }
        containers.list()?;
        Ok(Self {
            images: Store::open(layout, options.images)?,
            supervisor: SupervisorClient::new(layout),
            switchboard: SwitchboardClient::new(layout),
            cgroup_parent: cgroup_parent(layout),
            inspector: Inspector::default(),
            images_in_use: RwLock::new(()),
            planned: Mutex::new(None),
            kept: Mutex::new(()),
            lives: Mutex::new(()),
            secrets: options.secrets,
            roots: roots::Roots::default(),
            layout: layout.clone(),
            containers,
        })
    }

    /// The image store, for what is not part of the life of containers: build, load, resolve.
    #[must_use]
    pub fn images(&self) -> &Store {
        &self.images
    }

    /// The supervisor, for a single signal or to see whether it is there.
    #[must_use]
    pub fn supervisor(&self) -> &SupervisorClient {
        &self.supervisor
    }

    fn sweep_network(&self) -> Result<Vec<String>> {
        let written = || Ok(self.containers.list()?.iter().map(|config| config.id.clone()).collect());
        network::sweep(&self.layout, written)
    }

    /// Cgroups with neither a directory nor a process the supervisor knows: the latter is still in one while it goes.
    fn sweep_cgroups(&self) -> Result<Vec<String>> {
        let owners = || {
            let known = self.supervisor.list()?.into_iter().map(|status| status.id);
            Ok(known.chain(self.containers.list()?.iter().map(|config| config.id.clone())).collect())
        };
        cgroup::sweep(&self.cgroup_parent, owners)
    }

    /// What is to be launched, and its stop signal. Looks at much and changes nothing.
    fn lower(&self, config: &ContainerConfig) -> Result<(Create, i32)> {
        let image = self.images.get(&config.image)?;
        for mount in &config.mounts {
            if let MountSource::Volume { name } = &mount.source
                && !volumes::exists(&self.layout, name)
            {
                return Err(Error::NotFound { what: "volume", name: name.to_string() });
            }
        }
        self.check_holder(config)?;
        let stop_signal = config.stop_signal.as_deref().or(image.config.stop_signal.as_deref()).unwrap_or("SIGTERM");
        let stop_signal = signal_number(stop_signal)?;
        let secrets = self.open_secrets(config)?;
        let input = LowerInput {
            config,
            image: &image.config,
            layers: self.images.layer_dirs(&config.image)?,
            layout: &self.layout,
            cgroup_parent: &self.cgroup_parent,
            bridges: self.bridges(config)?,
            secrets: &secrets,
        };
        let (spec, launch) = spec::lower(&input)?;
        let (id, log, stdin) = (config.id.clone(), config.log, config.extras.stdin);
        Ok((Create { id, spec, launch, log, stdin }, stop_signal))
    }

    fn bridges(&self, config: &ContainerConfig) -> Result<Vec<Bridge>> {
        config.network.addresses().map(|(network, address)| self.bridge(network, address)).collect()
    }

    fn bridge(&self, name: &NetworkName, address: Ipv4Addr) -> Result<Bridge> {
        let found = durable::read_file::<NetworkConfig>(&self.layout.network_file(name))?;
        let found = found.ok_or_else(|| Error::NotFound { what: "network", name: name.to_string() })?;
        let subnet = network::ipam::Subnet::containing(found.gateway, found.prefix_len);
        if !subnet.contains(address) || address == found.gateway {
            return Err(Error::BadContainer(format!("address {address} is not one of network `{name}`'s containers")));
        }
        let interface = network::bridge_name(&self.layout, name);
        Ok(Bridge { interface, gateway: found.gateway, prefix_len: found.prefix_len })
    }

    /// No live container may have the address; one that has ended lets go of it.
    fn claim_address(&self, config: &ContainerConfig, others: &[Arc<ContainerConfig>]) -> Result<()> {
        let same = containers::with_address_of(config, others);
        // one that is kept is not given up: its address is its own until it is removed
        if let Some(kept) = others.iter().find(|other| other.extras.kept && same.contains(&other.id)) {
            return Err(Error::Conflict(format!("container `{}` has the address of `{}`", kept.id, config.id)));
        }
        // A member has its holder's.
        if same.is_empty() || config.holder().is_some() {
            return Ok(());
        }
        let known = self.supervisor.list()?;
        for other in same {
            if known.iter().any(|status| status.id == other && status.state != ContainerState::Stopped) {
                return Err(Error::Conflict(format!("container `{other}` has the address of `{}`", config.id)));
            }
            // by id alone: `containers` is locked while this looks
            if let Err(error) = self.switchboard.drop_dns(&other) {
                tracing::warn!(container = %other, error = %chain(&error), "name service not closed");
            }
        }
        Ok(())
    }

    /// Everything after the container was written down.
    fn launch(&self, create: Create, stop_signal: i32) -> Result<()> {
        let id = create.id.clone();
        self.set_up(create)?;
        self.containers.complete(&id, stop_signal)
    }

    /// What of a launch is in the kernel.
    fn set_up(&self, create: Create) -> Result<()> {
        let id = create.id.clone();
        self.containers.keep_spec(&id, &create.spec, &create.launch)?;
        if let Some([udp, tcp]) = self.supervisor.create(create)? {
            patiently(|| self.switchboard.add_dns(&id, &udp, &tcp))?;
        }
        Ok(())
    }

    fn create_once(&self, config: &ContainerConfig) -> Result<()> {
        let using = self.images_in_use.read().unwrap_or_else(PoisonError::into_inner);
        if self.containers.get(&config.id).is_ok() {
            return Err(Error::Conflict(format!("container `{}` exists already", config.id)));
        }
        let (create, stop_signal) = self.lower(config)?;
        self.containers.begin(config, |others| self.claim_address(config, others))?;
        drop(using);
        self.launch(create, stop_signal).inspect_err(|_| self.undo(&config.id))
    }

    /// Takes back a creation that failed.
    fn undo(&self, id: &ContainerId) {
        match self.supervisor.remove(id) {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            // it stays `Creating`, to be removed by whoever plans
            Err(error) => return tracing::warn!(container = %id, error = %chain(&error), "creation not undone"),
        }
        self.drop_dns(id);
        if let Err(error) = self.containers.remove(id) {
            tracing::warn!(container = %id, error = %chain(&error), "creation not undone");
        }
    }

    /// Without this the container's network namespace would live on in the switchboard's sockets.
    fn drop_dns(&self, id: &ContainerId) {
        let has_resolver = |config: &ContainerConfig| {
            matches!(config.network, NetworkMode::Bridge { .. }) && config.holder().is_none()
        };
        if self.containers.get(id).is_ok_and(|config| !has_resolver(&config)) {
            return;
        }
        if let Err(error) = self.switchboard.drop_dns(id) {
            tracing::warn!(container = %id, error = %chain(&error), "name service not closed");
        }
    }

    fn info(&self, config: &ContainerConfig, status: Option<&ContainerStatus>) -> ContainerInfo {
        let created = self.containers.created(&config.id);
        let config = config.clone();
        match (status, created) {
            // the supervisor is done, but not all of the creation is
            (Some(status), None) if status.state == ContainerState::Created => {
                ContainerInfo { state: ContainerState::Creating, ..of_status(config, status) }
            }
            (Some(status), Some(created)) if config.extras.kept => self.kept_info(config, status, &created),
            (Some(status), _) => of_status(config, status),
            (None, Some(created)) if config.extras.kept => self.kept_alone(config, &created),
            (None, Some(created)) => {
                let times = ContainerTimes { created_unix_ms: created.created_unix_ms, ..ContainerTimes::default() };
                let exit = Some(ExitStatus::Unknown);
                let altered = BTreeSet::new();
                ContainerInfo { config, state: ContainerState::Stopped, pid: None, times, exit, altered }
            }
            (None, None) => {
                let (times, altered) = (ContainerTimes::default(), BTreeSet::new());
                ContainerInfo { config, state: ContainerState::Creating, pid: None, times, exit: None, altered }
            }
        }
    }
}

fn of_status(config: ContainerConfig, status: &ContainerStatus) -> ContainerInfo {
    let ContainerStatus { state, pid, times, exit, .. } = *status;
    ContainerInfo { config, state, pid, times, exit, altered: BTreeSet::new() }
}

/// Directory of a data root's cgroups below each hierarchy's root: `boxship-` and 24 bits of its path, so that two data
/// roots of one host never meet.
#[must_use]
pub fn cgroup_parent(layout: &Layout) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let hash = Sha256::digest(layout.data_root.as_os_str().as_bytes());
    format!("boxship-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2])
}

/// Repeats a call while the process that answers it is being restarted.
fn patiently(mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let until_ms = crate::clock::boot_ms() + u64::try_from(RESTART_PATIENCE.as_millis()).unwrap_or(u64::MAX);
    loop {
        match call() {
            Err(Error::Unreachable { .. }) if crate::clock::boot_ms() < until_ms => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

impl Runtime for LinuxRuntime {
    fn pull_image(&self, request: &PullRequest, progress: &dyn PullProgress) -> Result<ImageInfo> {
        self.images.pull(request, progress).map_err(|error| self.with_reclaimable(error))
    }

    fn list_images(&self) -> Result<Vec<ImageInfo>> {
        self.images.list()
    }

    fn remove_image(&self, reference: &ImageRef) -> Result<()> {
        self.remove_images(&[reference.to_string()], true).map(|_| ())
    }

    fn ensure_network(&self, config: &NetworkConfig) -> Result<()> {
        let (ids, ports) = self.ports_on(&config.name)?;
        network::ensure(&self.layout, config, &ports)?;
        self.inspector.forget(&ids);
        Ok(())
    }

    fn remove_network(&self, name: &NetworkName) -> Result<()> {
        let attached = |config: &ContainerConfig| config.network.interface_on(name).is_some();
        let users: Vec<_> =
            self.containers.list()?.iter().filter(|config| attached(config)).map(|c| c.id.to_string()).collect();
        if !users.is_empty() {
            return Err(Error::Conflict(format!("network `{name}` is used by {}", users.join(", "))));
        }
        match network::remove(&self.layout, name) {
            // The kernel takes a gone container's interface in its own time: do not wait for it.
            Err(Error::Conflict(_)) => {
                self.sweep_network()?;
                network::remove(&self.layout, name)
            }
            removed => removed,
        }
    }

    fn list_networks(&self) -> Result<Vec<NetworkInfo>> {
        network::list(&self.layout)
    }

    fn ensure_volume(&self, config: &VolumeConfig) -> Result<()> {
        volumes::ensure(&self.layout, config)
    }

    fn remove_volume(&self, name: &VolumeName) -> Result<()> {
        let uses = |config: &ContainerConfig| {
            config.mounts.iter().any(|m| matches!(&m.source, MountSource::Volume { name: used } if used == name))
        };
        let users: Vec<_> =
            self.containers.list()?.iter().filter(|config| uses(config)).map(|c| c.id.to_string()).collect();
        if !users.is_empty() {
            return Err(Error::Conflict(format!("volume `{name}` is used by {}", users.join(", "))));
        }
        volumes::remove(&self.layout, name)
    }

    fn list_volumes(&self) -> Result<Vec<VolumeInfo>> {
        volumes::list(&self.layout)
    }

    fn create_container(&self, config: &ContainerConfig) -> Result<()> {
        // one that a dying supervisor left half made is undone, and made again by the next
        patiently(|| self.create_once(config))
    }

    fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.containers.get(id)?;
        if self.containers.created(id).is_none() {
            return Err(Error::Conflict(format!("container `{id}` is Creating, not Created")));
        }
        let mut again = false;
        patiently(|| match (self.supervisor.start(id), std::mem::replace(&mut again, true)) {
            // the supervisor that died under the first attempt had started it
            (Err(Error::Conflict(_)), true) => Ok(()),
            (Err(Error::NotFound { .. }), _) => {
                Err(Error::Conflict(format!("container `{id}` is Stopped, not Created")))
            }
            (other, _) => other,
        })
    }

    fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let config = self.containers.get(id)?;
        if config.is_holder() {
            self.stop_members(id, grace)?;
        }
        let created = self.containers.created(id);
        let signal = created.map_or(libc::SIGTERM, |created| created.stop_signal);
        match self.supervisor.stop(id, signal, grace) {
            // on disk only: of an earlier boot
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.drop_dns(&config.id);
        Ok(())
    }

    fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.remove_members(id)?;
        let known = match self.supervisor.remove(id) {
            Ok(()) => true,
            Err(Error::NotFound { .. }) => false,
            Err(error) => return Err(error),
        };
        self.drop_dns(id);
        if self.containers.remove(id)? || known {
            return Ok(());
        }
        Err(Error::NotFound { what: "container", name: id.to_string() })
    }

    fn update_resources(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let config = self.containers.get(id)?;
        match self.supervisor.update(id, resources) {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.inspector.forget(std::slice::from_ref(id));
        self.containers.replace(&ContainerConfig { resources: resources.clone(), ..(*config).clone() })
    }

    fn list_containers(&self) -> Result<Vec<ContainerInfo>> {
        // the supervisor first: what it knows has a directory, unless somebody took that away
        let known = self.supervisor.list()?;
        let known: BTreeMap<&ContainerId, &ContainerStatus> = known.iter().map(|status| (&status.id, status)).collect();
        let configs = self.containers.list()?;
        let on_disk: BTreeSet<&ContainerId> = configs.iter().map(|config| &config.id).collect();
        for id in known.keys().filter(|id| !on_disk.contains(*id)) {
            if self.containers.has_lost_config(id) {
                self.end_orphan(id);
            }
        }
        self.end_left_members(&configs);
        let mut found: Vec<_> =
            configs.iter().map(|config| self.info(config, known.get(&config.id).copied())).collect();
        self.inspector.inspect(&self.layout, &self.cgroup_parent, &mut found);
        Ok(found)
    }

    fn exec(&self, id: &ContainerId, config: &ExecConfig, stdio: ExecStdio) -> Result<Box<dyn ExecSession>> {
        self.containers.get(id)?;
        match self.supervisor.exec(id, config, stdio) {
            Ok(session) => Ok(Box::new(session)),
            Err(Error::NotFound { .. }) => Err(Error::Conflict(format!("container `{id}` is not running"))),
            Err(error) => Err(error),
        }
    }

    fn publish_endpoints(&self, table: &EndpointTable) -> Result<()> {
        self.publish_with_own(table)
    }

    fn watch(&self) -> Result<Box<dyn RuntimeWatch>> {
        Ok(Box::new(self.supervisor.watch()?))
    }

    fn sweep(&self) -> Result<Vec<String>> {
        let (links, groups) = (self.sweep_network(), self.sweep_cgroups());
        Ok(links?.into_iter().chain(groups?).collect())
    }

    fn findings(&self) -> Result<Vec<Finding>> {
        network::findings(&self.layout)
    }

    fn log_dir(&self, id: &ContainerId) -> PathBuf {
        self.layout.container_dir(id).join("logs")
    }
}
