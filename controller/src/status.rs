//! What people read: states of objects in Kubernetes' words, made from desired state, what was seen, and the plan. Pure.

mod text;

pub use text::exit_text;
