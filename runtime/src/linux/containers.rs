//! Containers on disk: `containers/<id>/` with `config.json` from the first moment and `created.json` once the creation
//! is complete. A directory without the latter, of which no supervisor knows better, is `Creating`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::durable;
use crate::clock;
use crate::error::{Doing, Error, Result};
use crate::id::ContainerId;
use crate::layout::{Layout, make_private_dir};
use crate::runtime::ContainerConfig;
use crate::spec::launch::Launch;

/// `created.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CreatedRecord {
    pub(super) created_unix_ms: u64,
    /// Resolved from config and image.
    pub(super) stop_signal: i32,
}

/// The directories, with their configs in memory as long as the files do not change.
pub(super) struct Containers {
    layout: Layout,
    cache: Mutex<BTreeMap<ContainerId, Cached>>,
    /// Directories whose config cannot be read, as already reported.
    bad: Mutex<BTreeSet<ContainerId>>,
}

struct Cached {
    /// Inode and modification time; `None` while it is being made.
    stamp: Option<(u64, i64, i64)>,
    config: Arc<ContainerConfig>,
}

impl Containers {
    pub(super) fn open(layout: &Layout) -> Result<Self> {
        make_private_dir(&layout.containers_dir())?;
        Ok(Self { layout: layout.clone(), cache: Mutex::default(), bad: Mutex::default() })
    }

    /// Every container with a readable config.
    pub(super) fn list(&self) -> Result<Vec<Arc<ContainerConfig>>> {
        let names = durable::list_dirs(&self.layout.containers_dir())?;
        let ids: Vec<ContainerId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        self.cache().retain(|id, cached| cached.stamp.is_none() || ids.binary_search(id).is_ok());
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            match self.get(&id) {
                Ok(config) => all.push(config),
                Err(error) if error.is_not_found() => {}
                // one bad directory must not hide the others, nor fill the log
                Err(error) if self.bad.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone()) => {
                    tracing::error!(container = %id, error = %crate::error::chain(&error), "unreadable, left alone");
                }
                Err(_) => {}
            }
        }
        Ok(all)
    }

    /// What a container was made with. A config that somebody deleted or damaged is written again while it is remembered.
    pub(super) fn get(&self, id: &ContainerId) -> Result<Arc<ContainerConfig>> {
        let remembered = self.cache().get(id).filter(|c| c.stamp.is_some()).map(|cached| Arc::clone(&cached.config));
        match self.read(id) {
            Err(_) if remembered.is_some() && self.has_lost_config(id) && self.layout.container_dir(id).exists() => {
                let config = remembered.expect("the arm's condition");
                tracing::warn!(container = %id, "its config was lost: written again");
                self.replace(&config)?;
                self.read(id)
            }
            other => other,
        }
    }

    /// Whether there is no config, or none that makes sense. A disk that cannot be read proves nothing.
    pub(super) fn has_lost_config(&self, id: &ContainerId) -> bool {
        match std::fs::read(self.layout.container_dir(id).join("config.json")) {
            Ok(bytes) => serde_json::from_slice::<ContainerConfig>(&bytes).is_err(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    fn read(&self, id: &ContainerId) -> Result<Arc<ContainerConfig>> {
        let path = self.layout.container_dir(id).join("config.json");
        let missing = || Error::NotFound { what: "container", name: id.to_string() };
        let stamp = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            other => other.doing(|| format!("look at {}", path.display()))?,
        };
        let stamp = (stamp.ino(), stamp.mtime(), stamp.mtime_nsec());
        if let Some(cached) = self.cache().get(id)
            && cached.stamp == Some(stamp)
        {
            return Ok(Arc::clone(&cached.config));
        }
        let config: Arc<ContainerConfig> = Arc::new(durable::read_file(&path)?.ok_or_else(missing)?);
        self.cache().insert(id.clone(), Cached { stamp: Some(stamp), config: Arc::clone(&config) });
        Ok(config)
    }

    /// Makes the directory; from now on the container is `Creating`. `clashes` looks at all others first, alone.
    pub(super) fn begin(
        &self,
        config: &ContainerConfig,
        clashes: impl FnOnce(&[Arc<ContainerConfig>]) -> Result<()>,
    ) -> Result<()> {
        {
            let mut cache = self.cache();
            let others: Vec<_> = cache.values().map(|cached| Arc::clone(&cached.config)).collect();
            if cache.contains_key(&config.id) && self.layout.container_dir(&config.id).exists() {
                return Err(Error::Conflict(format!("container `{}` exists already", config.id)));
            }
            clashes(&others)?;
            cache.insert(config.id.clone(), Cached { stamp: None, config: Arc::new(config.clone()) });
        }
        let parent = self.layout.containers_dir();
        let made = durable::publish_dir("container", &parent, config.id.as_str(), "config.json", config);
        self.cache().remove(&config.id);
        made?;
        self.get(&config.id)?;
        let dir = self.layout.container_dir(&config.id);
        for sub in ["upper", "work", "logs", "files"] {
            make_private_dir(&dir.join(sub))?;
        }
        Ok(())
    }

    /// Keeps what it was started from, for people and tools.
    pub(super) fn keep_spec(&self, id: &ContainerId, spec: &oci_spec::runtime::Spec, launch: &Launch) -> Result<()> {
        let dir = self.layout.container_dir(id);
        let stripped = super::secrets::stripped(&*self.get(id)?, spec, launch);
        let (spec, launch) = stripped.as_ref().map_or((spec, launch), |(spec, launch)| (spec, launch));
        for (name, bytes) in [("spec.json", serde_json::to_vec(spec)), ("launch.json", serde_json::to_vec(launch))] {
            let path = dir.join(name);
            let doing = || format!("write {}", path.display());
            std::fs::write(&path, bytes.doing(doing)?).doing(doing)?;
        }
        Ok(())
    }

    /// The creation is complete.
    pub(super) fn complete(&self, id: &ContainerId, stop_signal: i32) -> Result<()> {
        let record = CreatedRecord { created_unix_ms: clock::unix_ms(), stop_signal };
        crate::supervisor::write_record(&self.layout.container_dir(id).join("created.json"), &record)
    }

    pub(super) fn created(&self, id: &ContainerId) -> Option<CreatedRecord> {
        durable::read_file(&self.layout.container_dir(id).join("created.json")).ok().flatten()
    }

    pub(super) fn replace(&self, config: &ContainerConfig) -> Result<()> {
        durable::replace_file(&self.layout.container_dir(&config.id).join("config.json"), config)
    }

    /// Deletes the directory; `Ok(false)` when there is none.
    pub(super) fn remove(&self, id: &ContainerId) -> Result<bool> {
        let existed = durable::remove_dir(&self.layout.containers_dir(), id.as_str());
        self.cache().remove(id);
        existed
    }

    fn cache(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Containers of `all` that have one of its addresses, itself excepted.
pub(super) fn with_address_of(config: &ContainerConfig, all: &[Arc<ContainerConfig>]) -> Vec<ContainerId> {
    let has = |other: &ContainerConfig| {
        config.network.addresses().any(|mine| other.network.addresses().any(|theirs| mine == theirs))
    };
    all.iter().filter(|other| other.id != config.id && has(other)).map(|other| other.id.clone()).collect()
}
