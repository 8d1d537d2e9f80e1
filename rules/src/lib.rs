//! What must happen to a pod's packets to a ClusterIP on a secondary network.
//!
//! Pure: no netlink, no kube client, no clock. Equal inputs give equal values, whatever their order.
//!
//! ```text
//! Service ──► ServedService ┐                      (api::network_status) attachments
//! EndpointSlice ──► Slice ──┴─► NetworkRules (one per network, shared) ──┴─► PodRules ──► trace → Verdict
//! ```
//!
//! Backends only spell [`PodRules`]; [`trace`](PodRules::trace) says what they mean.

mod endpoints;
mod plan;
mod pod_rules;
mod service;
mod slice;
mod trace;

pub use plan::{Plan, Shortcoming, Unserved, network_rules, plan, pod_rules};
pub use pod_rules::{
    AttachedNetwork, Family, NetworkRules, PodRules, Port, PortRules, Protocol, Source, VipRules,
};
pub use service::{NotServed, ObjectName, ServedService};
pub use slice::{Endpoint, NotCounted, RefusedAddress, Slice};
pub use trace::{Packet, Verdict};
