//! One object as a front-end lowered it: validated by itself, its references to other objects still names.
//!
//! Every dialect makes these; `resolve` turns all of them together into a `DesiredState`. Contents of `file:` are
//! already read (`manifest::load` does that), so that everything after is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use runtime::image::ImageRef;
use runtime::runtime::{HostPort, Protocol};
use serde::{Deserialize, Serialize};

use super::desired::{Template, content_as_text};
use super::{
    DependsOn, Diagnostic, Kind, NetworkRange, ObjectKey, OnChange, PullPolicy, Restart, RunPolicy, Schedule, Span,
    UpdateStrategy, VolumeAccess,
};

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Stack, kind and name.
    pub key: ObjectKey,
    /// Where its name is written.
    pub span: Span,
    /// What it says.
    pub spec: ObjectSpec,
}

/// What an object says, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ObjectSpec {
    /// `Image`.
    Image(ImageSpec),
    /// `App`.
    App(Box<AppSpec>),
    /// `Job`.
    Job(Box<JobSpec>),
    /// `Volume`.
    Volume(VolumeSpec),
    /// `Config`.
    Config(ConfigSpec),
    /// `Secret`.
    Secret(SecretSpec),
    /// A Kubernetes Service.
    Service(ServiceSpec),
    /// `Network`.
    Network(NetworkSpec),
}

/// An `Image`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// What to hold.
    pub reference: ImageRef,
    /// Where that is written.
    #[serde(default)]
    pub span: Option<Span>,
    /// Ask the registry again this often, in milliseconds.
    pub follow_ms: Option<u64>,
    /// Earlier digests to hold.
    pub keep: u32,
    /// Whether it may be fetched at all.
    #[serde(default, skip_serializing_if = "PullPolicy::is_default")]
    pub pull: PullPolicy,
}

/// An `App`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    /// How many.
    pub replicas: u32,
    /// What each runs.
    pub template: TemplateSpec,
    /// Whole `Config`s as environment; what `env` names wins, then the later one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSpec>,
    /// Host ports.
    pub ports: Vec<PortSpec>,
    /// How it is replaced.
    pub strategy: UpdateStrategy,
    /// What must hold first.
    pub depends_on: Vec<DependencySpec>,
    /// What the end of a replica's program leads to.
    #[serde(default, skip_serializing_if = "Restart::is_default")]
    pub restart: Restart,
    /// Further names in the stack's DNS.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub aliases: BTreeSet<String>,
    /// Its name leads to the replicas themselves and not to an address that stands for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// What a Service selects it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ports a Service may call by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub port_names: BTreeMap<String, u16>,
}

/// A name, and published ports, for the Apps of its stack that have certain labels. It is an object of its own, and
/// not a part of the Apps, so that an error in its file does not look like its absence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Labels an App must have, all of them; empty: it selects nothing.
    pub selector: BTreeMap<String, String>,
    /// Names in the stack's DNS that lead to the Apps.
    pub names: BTreeSet<String>,
    /// Its names lead to the containers themselves.
    #[serde(default)]
    pub headless: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The port it is called by.
    pub port: u16,
    /// Of what kind.
    #[serde(default)]
    pub protocol: Protocol,
    /// The host's port that leads to it, if it is published.
    pub publish: Option<HostPort>,
    /// A port of the host is to be chosen for it.
    #[serde(default)]
    pub choose: bool,
    /// Port in the containers.
    pub target: PortTarget,
    /// Where it is written.
    pub span: Span,
}

/// A port of a container, as a Service names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PortTarget {
    /// By number.
    Number(u16),
    /// By the name the container's manifest gives it.
    Name(String),
}

/// A `Job`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What it runs.
    pub template: TemplateSpec,
    /// Whole `Config`s as environment; what `env` names wins, then the later one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSpec>,
    /// When; `None`: once per template.
    pub schedule: Option<Schedule>,
    /// Failed runs that are tried again.
    pub backoff_limit: u32,
    /// How often, how many at once, for how long.
    #[serde(default)]
    pub runs: RunPolicy,
    /// What must hold first.
    pub depends_on: Vec<DependencySpec>,
}

/// A `Volume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Who may write at once.
    pub access: VolumeAccess,
}

/// A `Network`. The one called `default` is that of Apps and Jobs which name none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// No way out.
    pub internal: bool,
    /// Its addresses; `None`: chosen clear of what the host routes.
    pub range: Option<NetworkRange>,
}

/// A network that an App or Job is on, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUseSpec {
    /// A `Network` of the same stack, or `default`.
    pub name: String,
    /// Further names there.
    pub aliases: BTreeSet<String>,
    /// Its address there; `None`: chosen.
    pub address: Option<Ipv4Addr>,
    /// Where it is written.
    pub span: Span,
}

/// A `Config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSpec {
    /// Content by key; a key is a file name.
    pub data: BTreeMap<String, FileContent>,
}

/// A `Secret`: what is in it after `manifest::load` is sealed, but where a load was asked to show it (`convert`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    /// Sealed text by key; a key is a file name.
    pub data: BTreeMap<String, FileContent>,
    /// Keys whose values are not text, and so no values of variables.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub binary: BTreeSet<String>,
}

/// Bytes written in a manifest or read from a file beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// The file it comes from, relative to the manifest's directory or absolute; `None`: written in the manifest.
    pub path: Option<String>,
    /// The bytes; empty until `manifest::load` has read `path`.
    #[serde(with = "content_as_text")]
    pub bytes: Arc<[u8]>,
    /// Where it is written.
    pub span: Span,
}

/// What a container runs, with names instead of what they stand for.
pub type TemplateSpec = Template<ImageChoice, EnvSpec, MountSpec, NetworkUseSpec>;

/// Which image, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageChoice {
    /// `image:`.
    Reference(ImageRef, Span),
    /// `imageFrom:`, the name of an `Image` of the same stack.
    From(String, Span),
}

/// One environment variable, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvSpec {
    /// A value.
    Plain(String),
    /// A key of a `Config` of the same stack.
    Config {
        /// Its name.
        name: String,
        /// The key.
        key: String,
        /// Where it is written.
        span: Span,
    },
    /// A key of a `Secret` of the same stack.
    Secret {
        /// Its name.
        name: String,
        /// The key; `None`: the only one.
        key: Option<String>,
        /// Where it is written.
        span: Span,
    },
}

/// All keys of a `Config` or `Secret` of the same stack that can name an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFromSpec {
    /// Its name.
    pub name: String,
    /// It is a Secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// Put before each key.
    pub prefix: String,
    /// Where it is written.
    pub span: Span,
}

/// One mount, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path inside.
    pub path: String,
    /// What.
    pub what: MountWhatSpec,
    /// Refuses writes.
    pub read_only: bool,
    /// What a change of content does.
    pub on_change: OnChange,
    /// Permission bits of a file; ignored for the others.
    pub mode: u32,
    /// Where what it shows is written.
    pub span: Span,
}

/// What a mount shows, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountWhatSpec {
    /// A `Volume` of the same stack.
    Volume(String),
    /// A `Config` of the same stack: one key as a file, or (`None`) all keys as files of a directory.
    Config {
        /// Its name.
        name: String,
        /// The key.
        key: Option<String>,
    },
    /// A `Secret` of the same stack: one key as a file, or (`None`) all keys as files of a directory.
    Secret {
        /// Its name.
        name: String,
        /// The key.
        key: Option<String>,
        /// User and group inside.
        owner: Option<[u32; 2]>,
    },
    /// A host file, copied.
    File(FileContent),
    /// A host directory or file, absolute.
    Bind(String),
    /// Memory.
    Tmpfs {
        /// Bound in bytes.
        size_bytes: Option<u64>,
    },
    /// A volume of this name for each replica, which stays when the replica or its App goes.
    Claim(String),
    /// A volume without a name: one for each replica, kept over restart and replacement, removed with its App.
    Anonymous,
    /// A volume that lives as long as one container or pod; containers of a pod share it by its name.
    Scratch(String),
}

/// A published port, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Host address.
    pub address: IpAddr,
    /// Host port.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// Where it is written.
    pub span: Span,
}

/// A dependency, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependencySpec {
    /// `App` or `Job`; `None`: whichever has the name (a `Job` for `completed`).
    pub kind: Option<Kind>,
    /// The name.
    pub name: String,
    /// What it must have reached.
    pub condition: DependsOn,
    /// Where it is written.
    pub span: Span,
}

/// Everything found under one manifest root, with what is wrong with it. Made by `manifest::load`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The root as the user wrote it, for commands in notices.
    pub root: String,
    /// Good objects, in the order of files and documents.
    pub objects: Vec<Object>,
    /// Everything there is to say, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
    /// Each file and what it is.
    pub files: BTreeMap<String, FileKind>,
    /// The root itself cannot be read: why.
    pub root_unreadable: Option<String>,
    /// Directories below it that cannot be read, relative to the root, and why.
    pub unreadable: BTreeMap<String, String>,
    /// Text of each manifest, for carets.
    pub sources: BTreeMap<String, Arc<str>>,
    /// Hash over paths and contents of everything that was read; equal means nothing changed.
    pub fingerprint: String,
    /// Files named by `file:`, absolute: to be hashed beside the manifests.
    pub file_refs: BTreeSet<String>,
    /// Host paths that containers write to, absolute: never watched.
    pub bind_paths: BTreeSet<String>,
}

impl Loaded {
    /// Whether anything keeps an object from being taken.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileKind {
    /// Only good native objects.
    Native,
    /// Something in it is wrong: what it defined before stays.
    Broken,
    /// Not one byte, as a power cut leaves what was saved last: what it defined before stays.
    Empty,
    /// Kubernetes objects.
    Kubernetes,
    /// A compose file.
    Compose,
    /// Any other YAML.
    NotAManifest,
}
