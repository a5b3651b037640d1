//! [`Launch`]: what the start path needs and an OCI spec cannot say.
//!
//! A value, serialisable, kept on disk beside `spec.json`, so that a later `exec` needs nobody's memory.
//! Made by [`lower`](super::lower), carried out by `process`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::runtime::IdRange;

/// Everything beside the OCI spec that starting one container takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Whose this is, for messages.
    pub id: String,
    /// The host ids that 0… inside map to. Without a user namespace it begins at 0.
    pub ids: IdRange,
    /// The root file system.
    pub root: RootSource,
    /// Path of its cgroup below the root of each hierarchy: `boxship-1a2b3c/shop-web-1`.
    pub cgroup: String,
    /// `user[:group]` by name or number, looked up in the container's own files by its init.
    pub user: Option<String>,
    /// Groups besides those of the user, looked up there too.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The spec's own numbers say who the program is; `user` is not looked at.
    #[serde(default)]
    pub numeric_user: bool,
    /// The container takes part in every cgroup controller of the host, not only in those that limit what our own
    /// containers are limited in (each costs a directory and a write at every start).
    #[serde(default)]
    pub all_controllers: bool,
    /// Volumes, binds and content files, parents before children.
    pub mounts: Vec<LaunchMount>,
    /// Host directory of content files; each start fills it anew. Only used when `mounts` has content files.
    pub files_dir: PathBuf,
    /// Generated files; `None` leaves /etc as it is.
    pub etc: Option<EtcFiles>,
    /// How it is connected.
    pub network: Attachment,
    /// Further bridges it is on: eth1, eth2, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_bridges: Vec<BridgeAttachment>,
    /// Our reaper is PID 1 in front of the program.
    pub reaper: bool,
    /// What the hooks of the spec are told of the container.
    #[serde(default)]
    pub told: Option<Told>,
    /// It runs no program: it keeps its namespaces for others, and reaps what they leave in its process ids.
    #[serde(default)]
    pub holds: bool,
    /// The namespaces of another container that it joins instead of new ones.
    #[serde(default)]
    pub joins: Option<Joins>,
}

/// Whose namespaces are joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joins {
    /// Who holds them.
    pub holder: ContainerId,
    /// Process ids too.
    pub share_pids: bool,
}

/// What hooks are told beside status and pid (OCI runtime specification, "State").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// The spec's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The version of the specification the bundle was written for: what it is told keeps to it as well.
    pub version: String,
}

/// Where a root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RootSource {
    /// An overlay that is made for the container.
    Layers(RootLayers),
    /// A directory that is there, with the mounts below it.
    Directory {
        /// Absolute host path.
        directory: PathBuf,
    },
}

/// Layers of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootLayers {
    /// Directories of the image's layers, top first, ids as in the image. Not empty.
    pub layers: Vec<PathBuf>,
    /// The writable layer: a plain directory that stores shifted ids. Must exist; it is given to the range at each start.
    pub upper: PathBuf,
    /// Overlay's scratch directory, on the same file system as `upper`. Must exist.
    pub work: PathBuf,
    /// The writable layer is read again after the container's end, be it after a power cut.
    #[serde(default)]
    pub lasting: bool,
}

/// One mount whose source only the host can open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchMount {
    /// Absolute path inside; resolved in the container's root.
    pub target: String,
    /// What is mounted.
    pub source: LaunchSource,
    /// Refuses writes.
    pub read_only: bool,
}

/// The source of a [`LaunchMount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LaunchSource {
    /// A volume: `data/` below this directory, filled from the image on first use.
    Volume {
        /// The volume's own directory.
        dir: PathBuf,
    },
    /// A host file or directory with the mounts below it.
    Bind {
        /// Absolute host path.
        path: PathBuf,
    },
    /// A generated file; `Launch::files_dir` holds it under this number.
    File {
        /// Name of the file inside `files_dir`'s current version.
        name: String,
        /// The bytes, base64 in JSON.
        #[serde(with = "crate::runtime::base64_bytes")]
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// User and group inside. Only files that are in memory have one: on disk they are root's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<[u32; 2]>,
    },
}

/// Generated files of /etc, writable inside, never written to a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcFiles {
    /// /etc/hosts
    pub hosts: String,
    /// /etc/hostname
    pub hostname: String,
    /// /etc/resolv.conf; `None` copies the host's at the start.
    pub resolv_conf: Option<String>,
}

/// How the container's network namespace is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attachment {
    /// Its own namespace with loopback only.
    None,
    /// The host's namespace.
    Host,
    /// Its own namespace with one veth pair into a bridge.
    Bridge(BridgeAttachment),
}

impl Launch {
    /// Its content files are in memory and stored with the ids of the host.
    pub(crate) fn has_files_in_memory(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(mount.source, LaunchSource::File { owner: Some(_), .. }))
    }

    /// The bridges it is on, in the order of its interfaces.
    pub(crate) fn bridges(&self) -> impl Iterator<Item = &BridgeAttachment> {
        let first = match &self.network {
            Attachment::Bridge(bridge) => Some(bridge),
            Attachment::None | Attachment::Host => None,
        };
        first.into_iter().chain(&self.more_bridges)
    }
}

/// One address on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeAttachment {
    /// Interface name of the bridge; must be there when the container is created.
    pub bridge: String,
    /// Interface name of the host end of the veth pair.
    pub host_interface: String,
    /// Address inside.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_len: u8,
    /// The bridge's address, where the default route goes.
    pub gateway: Ipv4Addr,
    /// Hardware address inside; a function of the address, so that a replaced container needs no new ARP entry.
    pub mac: [u8; 6],
}
