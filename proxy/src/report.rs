//! Reports of this node: Events on its pods, a condition on the proxy's own Pod.
//!
//! Writes: through [`pod_events`] and [`node_condition`], each by one task.

pub(crate) mod event_throttle;
pub mod node_condition;
pub mod pod_events;
