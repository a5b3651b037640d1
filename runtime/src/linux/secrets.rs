//! Sealed values of containers: opened here, on their way to the supervisor, and nowhere else. What is kept on disk of a
//! container has them sealed or not at all; what the supervisor keeps of it is in the run directory, in memory.

use std::collections::BTreeMap;

use oci_spec::runtime::Spec;
use rustix::fs::statfs;

use super::LinuxRuntime;
use crate::error::{Doing, Error, Result};
use crate::runtime::{ContainerConfig, MountSource};
use crate::spec::launch::{Launch, LaunchSource};

/// f_type of tmpfs and ramfs (statfs(2)).
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Opens what is sealed.
pub trait Unseal: Send + Sync {
    /// The value of a sealed text.
    ///
    /// # Errors
    /// A sentence for people that says why not.
    fn unseal(&self, sealed: &str) -> std::result::Result<Vec<u8>, String>;
}

impl LinuxRuntime {
    /// The values of everything sealed in a container's configuration, by the sealed text.
    pub(super) fn open_secrets(&self, config: &ContainerConfig) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut open = BTreeMap::new();
        for sealed in sealed_texts(config) {
            let unseal = self.secrets.as_ref().ok_or_else(|| {
                Error::Unsupported("a container with secrets can only be made by the controller".to_owned())
            })?;
            let cannot = |why| Error::BadContainer(format!("a secret of `{}` cannot be opened: {why}", config.id));
            open.insert(sealed.clone(), unseal.unseal(sealed).map_err(cannot)?);
        }
        if !open.is_empty() {
            self.require_memory()?;
        }
        Ok(open)
    }

    fn require_memory(&self) -> Result<()> {
        let dir = &self.layout.run_dir;
        let kind = statfs(dir).doing(|| format!("look at {}", dir.display()))?.f_type;
        if MEMORY.iter().any(|memory| i128::from(*memory) == i128::from(kind)) {
            return Ok(());
        }
        let dir = dir.display();
        Err(Error::Unsupported(format!("the run directory {dir} is on a disk, and secrets would be written there")))
    }
}

fn sealed_texts(config: &ContainerConfig) -> impl Iterator<Item = &String> {
    let mounted = config.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Secret { sealed, .. } => Some(sealed),
        MountSource::Volume { .. }
        | MountSource::Bind { .. }
        | MountSource::File { .. }
        | MountSource::Tmpfs { .. } => None,
    });
    config.sealed_env.values().chain(mounted)
}

/// What is kept on disk of a container with secrets: the same without the values. `None` where there are none.
pub(super) fn stripped(config: &ContainerConfig, spec: &Spec, launch: &Launch) -> Option<(Spec, Launch)> {
    sealed_texts(config).next()?;
    let (mut spec, mut launch) = (spec.clone(), launch.clone());
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.retain(|line| !config.sealed_env.contains_key(line.split('=').next().unwrap_or_default()));
        process.set_env(Some(env));
    }
    for mount in &mut launch.mounts {
        if let LaunchSource::File { content, owner: Some(_), .. } = &mut mount.source {
            content.clear();
        }
    }
    Some((spec, launch))
}
