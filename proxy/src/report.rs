//! Reports of this node: Events on its pods, a condition on the proxy's own Pod.
//!
//! Writes: through [`process::events`] and [`node_condition`], each by one task.

pub mod node_condition;
pub mod pod_events;
