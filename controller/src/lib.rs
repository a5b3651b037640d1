//! Decides: knows intent, and has never heard of a mount flag.
//!
//! The walk of one manifest: `watch` → `manifest` (text → objects) → `model` (desired state) → `observe` (the world) →
//! `plan` (pure: what to do and why) → `execute` (do it) → `status` (say it). `reconcile` is that loop; `store` is its
//! memory, `probe` its eyes, `api` and `cli` its doors.

pub mod api;
pub mod cli;
pub mod daemon;
pub mod demo;
pub mod execute;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hand;
pub mod manifest;
pub mod memory;
pub mod model;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod secret;
pub mod sources;
pub mod status;
pub mod store;
pub mod text;
pub mod watch;
