//! The record of one container: what was seen last, and what was already done about it.

use serde::{Deserialize, Serialize};

use crate::model::ObservedContainer;

/// One container as remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// As last seen.
    pub observed: ObservedContainer,
    /// Its end is in the history: each exit is recorded exactly once.
    pub exit_recorded: bool,
    /// We asked it to stop.
    pub stop_asked: bool,
}
