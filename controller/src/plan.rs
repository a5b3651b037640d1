//! Deciding: `plan(desired, observed) -> Plan`. Pure: no clock, file, socket, randomness, logger.
//!
//! A plan is a value: comparable, printable, every step with a reason that points to file:line. The whole life of a
//! container is in it. One subject a file; `order.rs` makes the DAG; `check.rs` refuses plans that break an invariant.

mod action;

pub use action::{Action, Plan, Reason, Step, StepId, Waiting, WaitingOn};
