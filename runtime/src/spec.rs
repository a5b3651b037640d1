//! From a [`ContainerConfig`] and its image to an OCI [`Spec`] and a [`Launch`]. Pure: values in, values out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::id::NetworkName;
use crate::layout::Layout;
use crate::network;
use crate::runtime::{ContainerConfig, ImageConfig, MountConfig, MountSource, NETWORKS_MAX, NetworkMode, PodPart};
use crate::{Error, Result};

mod etc;
pub mod launch;
mod oci;

pub(crate) use oci::NOFILE_MAX;

use launch::{Attachment, BridgeAttachment, Joins, Launch, LaunchMount, LaunchSource, RootLayers, RootSource};

#[cfg(test)]
mod tests;

/// What [`lower`] builds from.
#[derive(Debug)]
pub struct LowerInput<'a> {
    /// The container.
    pub config: &'a ContainerConfig,
    /// The config of its image.
    pub image: &'a ImageConfig,
    /// Directories of the image's unpacked layers, **top first**.
    pub layers: Vec<PathBuf>,
    /// The table of paths.
    pub layout: &'a Layout,
    /// Directory of this data root's cgroups below each hierarchy's root, `boxship-1a2b3c`.
    pub cgroup_parent: &'a str,
    /// The networks of `NetworkMode::Bridge`, in its order; empty for the other modes.
    pub bridges: Vec<Bridge>,
    /// Values of what is sealed, by its sealed text; what is not among them is empty.
    pub secrets: &'a BTreeMap<String, Vec<u8>>,
}

/// A bridge as [`lower`] needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its interface name.
    pub interface: String,
    /// Its address.
    pub gateway: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_len: u8,
}

/// Builds the OCI spec of a container and what an OCI spec cannot say.
///
/// # Errors
/// `BadContainer` for an empty command, a relative path, a bad capability name, a bridge mode without a bridge.
pub fn lower(input: &LowerInput<'_>) -> Result<(Spec, Launch)> {
    let spec = oci::spec(input)?;
    let config = input.config;
    let mut bridges = attachments(input)?;
    let network = match (&config.network, bridges.is_empty()) {
        (NetworkMode::Host, _) => Attachment::Host,
        (NetworkMode::None | NetworkMode::Bridge { .. }, true) => Attachment::None,
        (NetworkMode::None | NetworkMode::Bridge { .. }, false) => Attachment::Bridge(bridges.remove(0)),
    };
    let launch = Launch {
        id: config.id.to_string(),
        ids: config.ids,
        root: RootSource::Layers(root_layers(input)?),
        cgroup: format!("{}/{}", input.cgroup_parent, config.id),
        user: config.user.clone().or_else(|| input.image.user.clone()),
        groups: config.extras.groups.clone(),
        numeric_user: false,
        all_controllers: false,
        mounts: launch_mounts(input)?,
        files_dir: files_dir(input),
        etc: Some(etc::files(input)),
        network,
        more_bridges: bridges,
        reaper: config.init,
        told: None,
        holds: config.is_holder(),
        joins: joins(config),
    };
    Ok((spec, launch))
}

/// Content files are on disk, but for a container that has secrets among them: the run directory is in memory.
fn files_dir(input: &LowerInput<'_>) -> PathBuf {
    let config = input.config;
    let is_secret = |mount: &MountConfig| matches!(mount.source, MountSource::Secret { .. });
    let dir = match config.mounts.iter().any(is_secret) {
        true => input.layout.container_run_dir(&config.id),
        false => input.layout.container_dir(&config.id),
    };
    dir.join("files")
}

/// The user's number where the user is one.
fn user_number(input: &LowerInput<'_>) -> Option<[u32; 2]> {
    let user = input.config.user.as_deref().or(input.image.user.as_deref())?;
    let (user, group) = user.split_once(':').unwrap_or((user, "0"));
    Some([user.parse().ok()?, group.parse().unwrap_or(0)])
}

fn joins(config: &ContainerConfig) -> Option<Joins> {
    match &config.pod {
        Some(PodPart::Member { of, share_pids, .. }) => Some(Joins { holder: of.clone(), share_pids: *share_pids }),
        Some(PodPart::Holder) | None => None,
    }
}

fn root_layers(input: &LowerInput<'_>) -> Result<RootLayers> {
    if input.layers.is_empty() {
        return Err(Error::BadContainer("the image has no layers".into()));
    }
    let dir = input.layout.container_dir(&input.config.id);
    Ok(RootLayers {
        layers: input.layers.clone(),
        upper: dir.join("upper"),
        work: dir.join("work"),
        lasting: input.config.extras.lasting,
    })
}

/// What only the host can open, parents before children.
fn launch_mounts(input: &LowerInput<'_>) -> Result<Vec<LaunchMount>> {
    let mut mounts = Vec::new();
    if input.config.is_holder() {
        return Ok(mounts);
    }
    for (at, mount) in input.config.mounts.iter().enumerate() {
        check_target(&mount.target)?;
        let source = match &mount.source {
            MountSource::Volume { name } => LaunchSource::Volume { dir: input.layout.volume_dir(name) },
            MountSource::Bind { path } => LaunchSource::Bind { path: path.clone() },
            MountSource::File { content, mode } => LaunchSource::File {
                name: file_name(at, &mount.target),
                content: content.clone(),
                mode: mode & 0o777,
                owner: None,
            },
            MountSource::Secret { sealed, mode, owner } => LaunchSource::File {
                name: file_name(at, &mount.target),
                content: input.secrets.get(sealed).cloned().unwrap_or_default(),
                mode: mode & 0o777,
                owner: Some(owner.or_else(|| user_number(input)).unwrap_or_default()),
            },
            MountSource::Tmpfs { .. } => continue,
        };
        mounts.push(LaunchMount { target: mount.target.clone(), source, read_only: mount.read_only });
    }
    mounts.sort_by_key(|mount| depth(&mount.target));
    Ok(mounts)
}

fn file_name(at: usize, target: &str) -> String {
    format!("{at}/{}", target.rsplit('/').next().unwrap_or_default())
}

/// How many directories a path has above it: parents sort before their children.
pub(crate) fn depth(target: &str) -> usize {
    target.split('/').filter(|part| !part.is_empty() && *part != ".").count()
}

/// A mount target: absolute, without `..`, not the root itself.
fn check_target(target: &str) -> Result<()> {
    let why = if !target.starts_with('/') {
        "it is not absolute"
    } else if depth(target) == 0 {
        "it is the root itself"
    } else if target.split('/').any(|part| part == "..") {
        "it contains `..`"
    } else if target.contains('\0') || target.ends_with('/') && target.len() > 4096 {
        "it is no path"
    } else {
        return Ok(());
    };
    Err(Error::BadContainer(format!("nothing can be mounted at `{target}`: {why}")))
}

/// One attachment for each address, in the order of the interfaces.
fn attachments(input: &LowerInput<'_>) -> Result<Vec<BridgeAttachment>> {
    // A member has its holder's links.
    let own = input.config.network.addresses().filter(|_| input.config.holder().is_none());
    let addresses: Vec<_> = own.collect();
    if addresses.len() > NETWORKS_MAX {
        let count = addresses.len();
        return Err(Error::BadContainer(format!("{count} networks are more than the {NETWORKS_MAX} one can be on")));
    }
    let of = |(n, (network, address)): (usize, (&NetworkName, Ipv4Addr))| {
        let bridge = input.bridges.get(n);
        let bridge =
            bridge.ok_or_else(|| Error::BadContainer(format!("network `{network}` is not there to attach to")))?;
        Ok(BridgeAttachment {
            bridge: bridge.interface.clone(),
            host_interface: network::link_name(input.layout, &input.config.id, n),
            address,
            prefix_len: bridge.prefix_len,
            gateway: bridge.gateway,
            mac: network::mac_of(address),
        })
    };
    addresses.into_iter().enumerate().map(of).collect()
}
