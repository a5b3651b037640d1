//! What a pass is made with and what it shows.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{DesiredState, ObservedState};
use crate::observe::Seen;
use crate::plan::Plan;

/// The planner, a pure function.
pub type Planner = fn(&DesiredState, &ObservedState) -> Plan;

/// The last pass, for those who show it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// What should be.
    pub desired: Arc<DesiredState>,
    /// What was seen.
    pub seen: Arc<Seen>,
    /// What follows from both.
    pub plan: Arc<Plan>,
    /// Nothing is to be done, waited for or being carried out: what is, is what should be.
    pub settled: bool,
    /// Why the last look failed; the rest is then of the look before.
    pub blind: Option<String>,
}

/// What a pass came to.
pub(super) struct Pass {
    /// Something was to be done.
    pub(super) acted: bool,
    /// When to look again at the latest.
    pub(super) next: Duration,
    /// How long looking and planning took.
    pub(super) took: Duration,
}
