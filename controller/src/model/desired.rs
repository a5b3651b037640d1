//! What should be. Made by `model::resolve` from the objects of all files; a pure value, compared and persisted.

mod healthcheck;
mod job;
mod pull;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use runtime::image::ImageRef;
use runtime::network::ipam::Subnet;
use runtime::runtime::{HostPort, Protocol};
use runtime::runtime::{Resources, SecurityConfig};
use serde::{Deserialize, Serialize};

use super::{ObjectKey, Orders, Pod, SourceRef, Tuning};

pub use healthcheck::{Healthcheck, HttpWith, Probe};
pub use job::{ConcurrencyPolicy, DesiredJob, RunPolicy, Schedule};
pub use pull::{DesiredImage, PullPolicy};

/// Everything the host should run and hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// Grows by one with each accepted change.
    pub generation: u64,
    /// Images to hold.
    pub images: BTreeMap<ObjectKey, DesiredImage>,
    /// Apps.
    pub workloads: BTreeMap<ObjectKey, Workload>,
    /// Jobs.
    pub jobs: BTreeMap<ObjectKey, DesiredJob>,
    /// Volumes.
    pub volumes: BTreeMap<ObjectKey, DesiredVolume>,
    /// Networks beside the stacks' own, and those with settings for a stack's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<ObjectKey, DesiredNetwork>,
    /// What must not be removed although no object names it.
    pub holds: Vec<Hold>,
    /// What people asked of objects by hand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub orders: BTreeMap<ObjectKey, Orders>,
    /// The root of the source that each App and Job comes from; where files are named relative to it, they are only
    /// told apart with it. Empty until sources are merged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roots: BTreeMap<ObjectKey, String>,
}

/// Objects that are kept as they are: their source cannot be read, or a removal waits for confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The root of the source whose objects are kept; `None`: of every source.
    #[serde(default)]
    pub root: Option<String>,
    /// The manifest file (exact, relative to the root) whose objects are kept; `None`: all objects.
    pub file: Option<String>,
    /// Why, for people.
    pub reason: String,
}

impl Hold {
    /// Whether an object of this file is kept. One whose root is not known (made by an earlier version) is kept by any
    /// source's hold of such a file.
    #[must_use]
    pub fn keeps(&self, root: Option<&str>, file: &str) -> bool {
        let same_root = match (self.root.as_deref(), root) {
            (Some(held), Some(root)) => held == root,
            (None, _) | (_, None) => true,
        };
        same_root && self.file.as_deref().is_none_or(|held| held == file)
    }

    /// Whether it keeps everything there is.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.root.is_none() && self.file.is_none()
    }
}

/// An `App` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Where it is written.
    pub source: SourceRef,
    /// How many.
    pub replicas: u32,
    /// What each runs.
    pub template: ContainerTemplate,
    /// Host ports that lead to its ready replicas.
    pub ports: Vec<PublishedPort>,
    /// How it is replaced.
    pub strategy: UpdateStrategy,
    /// Something it writes to may have one user at a time: replace stop-first, one at a time.
    pub exclusive: bool,
    /// What must hold before its first replica is created.
    pub depends_on: BTreeMap<ObjectKey, DependsOn>,
    /// What the end of a replica's program leads to.
    #[serde(default, skip_serializing_if = "Restart::is_default")]
    pub restart: Restart,
    /// Further names in the stack's DNS, which other Apps may share.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub aliases: BTreeSet<String>,
    /// Its name leads to the replicas themselves and not to an address that stands for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// Services that lead to it, among other Apps, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServiceUse>,
}

/// What a Service says of an App that it leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUse {
    /// Its names in the stack's DNS.
    pub names: BTreeSet<String>,
    /// Its ports, and the App's port each leads to.
    pub ports: Vec<(Protocol, u16, u16)>,
}

/// What the end of a replica's program leads to. An end that nobody saw, such as that of a host that lost power, always
/// leads to a new container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Restart {
    /// Another container.
    #[default]
    Always,
    /// Another container after a failure, so many times (`None`: any number); after success nothing.
    OnFailure {
        /// Failures in a row after which it is left alone.
        retries_max: Option<u32>,
    },
    /// Nothing.
    Never,
}

impl Restart {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::Always
    }
}

/// A `Volume` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredVolume {
    /// Where it is written.
    pub source: SourceRef,
    /// Who may write at once.
    pub access: VolumeAccess,
}

/// A `Network` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNetwork {
    /// Where it is written.
    pub source: SourceRef,
    /// No way out.
    pub internal: bool,
    /// Its addresses; `None`: chosen clear of what the host routes.
    pub range: Option<NetworkRange>,
}

/// The addresses of a network, where the manifest says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRange {
    /// From /16 to /29.
    pub subnet: Subnet,
    /// The host's own address in it.
    pub gateway: Ipv4Addr,
}

/// The name under which a stack's own network is declared and used.
pub const DEFAULT_NETWORK: &str = "default";

/// A network that a container is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUse {
    /// Which.
    pub network: ObjectKey,
    /// As its object says.
    pub internal: bool,
    /// As its object says: another range is another network.
    pub range: Option<NetworkRange>,
    /// Further names on it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub aliases: BTreeSet<String>,
    /// The container's address there; `None`: chosen.
    pub address: Option<Ipv4Addr>,
}

/// Who may write to a volume at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeAccess {
    /// One container: an App that writes is replaced stop-first.
    Single,
    /// Any number.
    Shared,
    /// Any number, as Compose and Kubernetes have it; an App of one replica that writes is still replaced stop-first.
    Any,
}

/// What a container runs, resolved.
pub type ContainerTemplate = Template<ImageSource, EnvValue, Mount, NetworkUse>;

/// What a container runs, whatever it belongs to: as written ([`TemplateSpec`](super::object::TemplateSpec)) or resolved
/// ([`ContainerTemplate`]), which differ in what names other objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "Image: Serialize, Env: Serialize, Mount: Serialize, Network: Serialize",
    deserialize = "Image: Deserialize<'de>, Env: Deserialize<'de>, Mount: Deserialize<'de>, Network: Deserialize<'de>"
))]
pub struct Template<Image, Env, Mount, Network> {
    /// Which image.
    pub image: Image,
    /// When it is asked for. What runs does not change by it.
    #[serde(default, skip_serializing_if = "PullPolicy::is_default")]
    pub pull: PullPolicy,
    /// Replaces the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's cmd.
    pub args: Option<Vec<String>>,
    /// Environment.
    pub env: BTreeMap<String, Env>,
    /// Replaces the image's.
    pub working_dir: Option<String>,
    /// Replaces the image's.
    pub user: Option<String>,
    /// Replaces the replica's name.
    pub hostname: Option<String>,
    /// In the order written.
    pub mounts: Vec<Mount>,
    /// Limits; changed in place.
    pub resources: Resources,
    /// Ports the program listens on, for the default readiness gate.
    pub container_ports: BTreeSet<u16>,
    /// Readiness; `None`: the image's, else "port open and stays up".
    pub healthcheck: Option<Healthcheck>,
    /// Tried until it passes once; the other two wait for it. What does not pass it in `retries` intervals is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Healthcheck>,
    /// What fails it `retries` times in a row is restarted; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Healthcheck>,
    /// Milliseconds between the stop signal and the kill.
    pub stop_grace_ms: u64,
    /// Replaces the image's.
    pub stop_signal: Option<String>,
    /// Named deviations from the safe defaults.
    pub security: SecurityConfig,
    /// Size of /dev/shm in bytes; `None`: 64 MiB.
    pub shm_bytes: Option<u64>,
    /// Our reaper as PID 1.
    pub init: bool,
    /// Lines are dropped rather than the program held up by its log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lossy_log: bool,
    /// The host's network instead of the stack's.
    pub host_network: bool,
    /// No network but its own loopback.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_network: bool,
    /// Networks it is on, the one that leads out first; empty: the stack's own.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// A terminal as stdio.
    pub tty: bool,
    /// What it asks of the kernel besides limits and security.
    #[serde(default, skip_serializing_if = "Tuning::is_default")]
    pub tuning: Tuning,
    /// What runs beside it in the same replica; `None`: it is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<Pod<Image, Env, Mount, Network>>>,
}

impl<Image, Env, Mount, Network> Template<Image, Env, Mount, Network> {
    /// Whether it has addresses of its own on bridge networks.
    #[must_use]
    pub fn is_bridged(&self) -> bool {
        !self.host_network && !self.no_network
    }
}

/// Which image a template runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// The reference (of the `Image` object, when it came from `imageFrom`).
    pub reference: ImageRef,
    /// Where it is written.
    pub source: SourceRef,
}

/// One environment variable's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvValue {
    /// As written, or read from a `Config` key when the state was resolved.
    Plain(String),
    /// Of a `Secret`.
    Secret(SecretUse),
}

/// A key of a `Secret`, with its value as it was when the state was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// The Secret's name.
    pub secret: String,
    /// Its key.
    pub key: String,
    /// The value, sealed.
    pub sealed: String,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside.
    pub path: String,
    /// What.
    pub what: MountWhat,
    /// Refuses writes.
    pub read_only: bool,
    /// What a change of its content does.
    pub on_change: OnChange,
    /// Where it is written.
    pub source: SourceRef,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountWhat {
    /// A declared volume.
    Volume(ObjectKey),
    /// A host directory or read-write file, absolute.
    Bind(String),
    /// A file's content as read when the state was resolved: a `Config` key or `file:`. The digest is of the content;
    /// the bytes live in the accepted state's file store under that digest.
    File {
        /// Content.
        #[serde(with = "content_as_text")]
        content: Arc<[u8]>,
        /// Permission bits.
        mode: u32,
    },
    /// A file of a `Secret`, in memory only.
    Secret {
        /// What.
        value: SecretUse,
        /// Permission bits.
        mode: u32,
        /// User and group inside; `None`: the container's user, where it is a number.
        owner: Option<[u32; 2]>,
    },
    /// Memory.
    Tmpfs {
        /// Bound in bytes.
        size_bytes: Option<u64>,
    },
    /// A declared volume of the replica's own, `CLAIM-APP-ORDINAL` ([`claim_key`](super::claim_key)): it stays when the replica,
    /// or its App, goes.
    Claim(String),
    /// A volume of the replica's own.
    Anonymous,
    /// A volume that lives as long as one container or pod; containers of a pod share it by its name.
    Scratch(String),
}

/// What a change of mounted content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// The replicas are replaced.
    Roll,
    /// Nothing: the next replacement shows it.
    None,
}

/// A port on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Of the host.
    #[serde(flatten)]
    pub at: HostPort,
    /// Port in the container.
    pub container_port: u16,
    /// Where it is written.
    pub source: SourceRef,
}

/// How an App is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStrategy {
    /// Replicas above `replicas` while replacing.
    pub max_surge: u32,
    /// Replicas that may be missing while replacing.
    pub max_unavailable: u32,
    /// A replica counts as available after being ready this long.
    pub min_ready_ms: u64,
    /// A replica is started only once those of lower numbers are ready, and surplus ones go one by one, the highest first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ordered: bool,
    /// A revision that makes no progress this long has failed.
    pub progress_deadline_ms: u64,
    /// What then.
    pub on_failure: OnFailure,
}

/// What a failed revision leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Back to the last good one.
    Undo,
    /// Stay as it is.
    Hold,
}

/// What a dependency must have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DependsOn {
    /// Its containers run.
    Started,
    /// All its replicas are ready.
    Ready,
    /// The job has completed with this outcome.
    Completed(Completion),
}

/// How a job must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Completion {
    /// Exit code 0.
    Success,
}

pub(super) mod content_as_text {
    //! File content in the accepted state: text stays readable, other bytes become numbers.
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Content {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(in crate::model) fn serialize<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Content::Text(text.to_owned()).serialize(serializer),
            Err(_) => Content::Bytes(bytes.to_vec()).serialize(serializer),
        }
    }

    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        Ok(match Content::deserialize(deserializer)? {
            Content::Text(text) => text.into_bytes().into(),
            Content::Bytes(bytes) => bytes.into(),
        })
    }
}
