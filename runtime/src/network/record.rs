//! `networks/<name>.json`: which networks should exist. Durable before anything is made in the kernel.
//!
//! Must not know the kernel's side.

use std::fs::File;
use std::io::Write as _;

use crate::error::Doing;
use crate::id::NetworkName;
use crate::layout::Layout;
use crate::runtime::NetworkConfig;
use crate::{Error, Result};

/// Writes a record durably; an equal one is left alone, so that nothing is written while nothing changes.
pub(super) fn write(layout: &Layout, config: &NetworkConfig) -> Result<()> {
    let path = layout.network_file(&config.name);
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec_pretty(config).map_err(std::io::Error::from).doing(doing)?;
    if std::fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let next = path.with_extension("json.new");
    let mut file = File::create(&next).doing(doing)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).doing(doing)?;
    std::fs::rename(&next, &path).doing(doing)?;
    sync_dir(layout)
}

/// Whether there is one.
pub(super) fn exists(layout: &Layout, name: &NetworkName) -> bool {
    layout.network_file(name).exists()
}

/// Deletes a record durably; an absent one is no error.
pub(super) fn delete(layout: &Layout, name: &NetworkName) -> Result<()> {
    let path = layout.network_file(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("delete {}", path.display())).and_then(|()| sync_dir(layout)),
    }
}

/// All records, by name. One that does not read back is an error: guessing would open or close somebody's network.
pub(super) fn all(layout: &Layout) -> Result<Vec<NetworkConfig>> {
    let dir = layout.data_root.join("networks");
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("list {}", dir.display()))?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.doing(|| format!("list {}", dir.display()))?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let bytes = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
            let config: NetworkConfig = serde_json::from_slice(&bytes)
                .map_err(|e| Error::Untrusted(format!("{} is damaged: {e}", path.display())))?;
            records.push(config);
        }
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

fn sync_dir(layout: &Layout) -> Result<()> {
    let dir = layout.data_root.join("networks");
    File::open(&dir).and_then(|d| d.sync_all()).doing(|| format!("sync {}", dir.display()))
}
