//! What people asked of one object by hand, over what its manifest says: hold, scale, pause, undo. Part of the desired
//! state, so that the planner reads it and a restart keeps it.

use serde::{Deserialize, Serialize};

use super::{DesiredJob, TemplateHash, Workload};

/// All that was asked of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Orders {
    /// It is left as it is.
    pub hold: Option<HoldOrder>,
    /// So many instead of the manifest's.
    pub replicas: Option<u32>,
    /// A roll-out goes no further; what serves goes on.
    pub paused: bool,
    /// An earlier revision runs instead of the manifest's.
    pub undo: Option<UndoOrder>,
}

/// Why an object is left as it is, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldOrder {
    /// What the person said.
    pub why: String,
    /// Since when, wall clock.
    pub since_unix_ms: u64,
    /// As it was wanted then: what its manifest says since does not reach it.
    pub app: Option<Box<Workload>>,
    /// The same of a Job.
    pub job: Option<Box<DesiredJob>>,
}

/// Back to an earlier revision. Means nothing once the manifest makes another revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UndoOrder {
    /// The number of the revision that does not run.
    pub revision: u32,
    /// Its hash: after the memory was lost, numbers begin anew.
    pub of: TemplateHash,
    /// The hash of the one that runs.
    pub to: TemplateHash,
}

impl Orders {
    /// Held, and not directed: nothing is started, stopped or replaced for it. What was scaled or undone while it was held
    /// is kept as that says.
    #[must_use]
    pub fn is_left_alone(&self) -> bool {
        self.hold.is_some() && self.replicas.is_none() && self.undo.is_none()
    }
}
