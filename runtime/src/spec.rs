//! From a [`ContainerConfig`] and its image to an OCI [`Spec`] and a [`Launch`]. Pure: values in, values out.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::layout::Layout;
use crate::runtime::{ContainerConfig, ImageConfig};
use crate::{Error, Result};

pub mod launch;

use launch::Launch;

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
    /// The network of `NetworkMode::Bridge`; `None` for the other modes.
    pub bridge: Option<Bridge>,
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
pub fn lower(_input: &LowerInput<'_>) -> Result<(Spec, Launch)> {
    Err(Error::Unsupported("starting containers is not built yet".into()))
}
