//! `RUN/switchboard.table.json`: the last table, for the switchboard's next life in this boot. Replaced by rename.
//!
//! Not synced to disk: the run directory does not survive a reboot, and neither do the sockets it describes.

use crate::Result;
use crate::error::Doing;
use crate::layout::Layout;
use crate::runtime::EndpointTable;

/// The last table; `None` when there is none, or it does not read back (the controller sends another soon).
pub(super) fn read(layout: &Layout) -> Option<EndpointTable> {
    let bytes = std::fs::read(path(layout)).ok()?;
    serde_json::from_slice(&bytes).inspect_err(|e| tracing::warn!("the last table is damaged: {e}")).ok()
}

/// Replaces it.
pub(super) fn write(layout: &Layout, table: &EndpointTable) -> Result<()> {
    let path = path(layout);
    let doing = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(table).map_err(std::io::Error::from).doing(doing)?;
    let next = path.with_extension("json.new");
    std::fs::write(&next, bytes).and_then(|()| std::fs::rename(&next, &path)).doing(doing)
}

fn path(layout: &Layout) -> std::path::PathBuf {
    layout.run_dir.join("switchboard.table.json")
}
