//! Which container people mean by a word, whatever made it, and what it is called.

use std::collections::BTreeMap;
use std::sync::Arc;

use runtime::Result;
use runtime::linux::LinuxRuntime;
use runtime::runtime::ContainerConfig;

use crate::model::{by_hand, labels};

/// The container of this name, this id or its beginning, or of this replica (`web-2`, `shop/web-2`).
///
/// # Errors
/// `NotFound`; `Conflict` when several fit, with their ids; `Io`.
pub fn find(linux: &LinuxRuntime, text: &str) -> Result<Arc<ContainerConfig>> {
    Ok(Arc::clone(by_hand::find_container(&linux.container_configs()?, text)?))
}

/// What people call a container: its own name, the replica's, else its id.
#[must_use]
pub fn name_of(said: &BTreeMap<String, String>, id: &str) -> String {
    match (by_hand::name_of(said), said.get(labels::NAME), said.get(labels::ORDINAL)) {
        (Some(name), ..) => name.to_owned(),
        (None, Some(name), Some(ordinal)) => format!("{name}-{ordinal}"),
        (None, ..) => id.to_owned(),
    }
}
