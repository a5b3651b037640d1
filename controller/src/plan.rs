//! Deciding: `plan(desired, observed) -> Plan`. Pure: no clock, file, socket, randomness, logger.
//!
//! A plan is a value: comparable, printable, every step with a reason that points to file:line. The whole life of a
//! container is in it. One subject a file; each writes its steps into the `Pass`; `order.rs` makes the DAG; `check.rs`
//! refuses plans that break an invariant.

mod action;
pub mod backoff;
#[doc(hidden)]
pub mod bug;
pub mod change;
mod check;
mod container;
pub use crate::model::cron;
mod dependency;
mod endpoints;
mod ids;
mod image;
mod job;
mod name;
mod network;
mod order;
mod pass;
mod pod;
mod rollout;
mod seal;
mod service;
mod template_hash;
#[cfg(test)]
mod tests;
mod undeclared;
mod volume;
mod workload;

pub use action::{Action, Plan, Reason, Step, StepId, Waiting, WaitingOn};
pub use endpoints::PARK_MS;
pub use ids::{RANGE_LEN, apart};
pub use image::UNUSED_MS;
pub use job::LATE_MS_MAX;
pub use name::{anonymous_volume_name, container_id, member_id, network_name, network_of, volume_name};
pub use seal::{Seal, seal};
pub use template_hash::{changed_fields, pod_hash, template_hash};

pub use volume::named as declared_volume;

use crate::model::{DesiredState, ObservedState};
use bug::Bug;
use pass::Pass;

/// What to do to get from what is to what should be. Total and deterministic: any two values give a plan, the same two
/// the same plan. Carrying out any part of it, in any order its edges allow, and planning again leads on.
#[must_use]
pub fn plan(desired: &DesiredState, observed: &ObservedState) -> Plan {
    plan_with(desired, observed, None)
}

/// `plan`, with a planted mistake for the simulator to find.
#[doc(hidden)]
#[must_use]
pub fn plan_with(desired: &DesiredState, observed: &ObservedState, bug: Option<Bug>) -> Plan {
    let mut pass = Pass::new(desired, observed, bug);
    image::plan_images(&mut pass);
    volume::plan_volumes(&mut pass);
    network::plan_networks(&mut pass);
    // What goes first makes room, and frees volumes, for what comes.
    undeclared::remove_undeclared(&mut pass);
    for (key, workload) in &desired.workloads {
        workload::plan_workload(&mut pass, key, workload);
    }
    for (key, job) in &desired.jobs {
        job::plan_job(&mut pass, key, job);
    }
    endpoints::plan_endpoints(&mut pass);
    network::remove_networks(&mut pass);
    volume::remove_volumes(&mut pass);
    image::remove_images(&mut pass);
    pass.finish()
}
