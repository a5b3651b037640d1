//! Volumes: `volumes/<name>/` with `volume.json` and `data/`. What is in `data/` is never touched here but to delete it.

pub mod backup;

use super::durable;
use crate::error::{Doing, Error, Result};
use crate::id::VolumeName;
use crate::layout::{Layout, make_private_dir};
use crate::runtime::{VolumeConfig, VolumeInfo};

pub(super) fn ensure(layout: &Layout, config: &VolumeConfig) -> Result<()> {
    let dir = layout.volume_dir(&config.name);
    let parent = layout.data_root.join("volumes");
    make_private_dir(&parent)?;
    let file = dir.join("volume.json");
    match durable::read_file::<VolumeConfig>(&file) {
        Ok(Some(found)) if found == *config => {}
        Ok(Some(_)) | Err(_) => durable::replace_file(&file, config)?,
        Ok(None) if dir.exists() => durable::replace_file(&file, config)?,
        Ok(None) => durable::publish_dir("volume", &parent, config.name.as_str(), "volume.json", config)?,
    }
    // readable by the container's root only through its own mount: the parent is private
    let data = dir.join("data");
    match std::fs::create_dir(&data) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.doing(|| format!("make {}", data.display())),
    }
}

pub(super) fn exists(layout: &Layout, name: &VolumeName) -> bool {
    layout.volume_dir(name).join("data").is_dir()
}

pub(super) fn remove(layout: &Layout, name: &VolumeName) -> Result<()> {
    if durable::remove_dir(&layout.data_root.join("volumes"), name.as_str())? {
        return Ok(());
    }
    Err(Error::NotFound { what: "volume", name: name.to_string() })
}

/// Every volume of a data root, whether or not a runtime is open on it.
///
/// # Errors
/// `Io`.
pub fn list(layout: &Layout) -> Result<Vec<VolumeInfo>> {
    let names = durable::list_dirs(&layout.data_root.join("volumes"))?;
    let mut all = Vec::with_capacity(names.len());
    for name in names.iter().filter_map(|name| name.parse::<VolumeName>().ok()) {
        let dir = layout.volume_dir(&name);
        let config = match durable::read_file(&dir.join("volume.json")) {
            Ok(Some(config)) => config,
            // its data is there: never invisible for the sake of its label
            Ok(None) | Err(_) => VolumeConfig { name, labels: std::collections::BTreeMap::new() },
        };
        all.push(VolumeInfo { config, path: dir.join("data") });
    }
    Ok(all)
}
