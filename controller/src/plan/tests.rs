//! Goldens and properties of the planner. `world.rs` is a small text language for both sides; the simulator is in
//! `tests/simulation`.

mod golden;
mod golden_change;
mod golden_image;
mod golden_job;
mod golden_network;
mod golden_pod;
mod golden_restart;
mod golden_service;
mod property;
mod world;
