//! Rules for a pod's packets to ClusterIPs on secondary networks.
//!
//! Pure: no netlink, no kube client, no clock. Equal inputs give equal values, regardless of their order.
//!
//! ```text
//! Service ──► ServedService ┐                                     attachments (api::network_status)
//! EndpointSlice ──► Slice ──┼─► NetworkRules (one per network, shared) ──┴─► PodRules ─┬─► trace → Verdict
//! node, cluster: Settings ──┘                                                          └─► Delta → a backend's writes
//! ```
//!
//! Backends only render [`PodRules`]; [`trace`](PodRules::trace) defines their meaning. The meaning of a Service, in short:
//!
//! | field | meaning here |
//! |---|---|
//! | `clusterIPs` | each is a VIP: in every pod on the Service's network it is translated, port by port, or rejected at once; a packet to it never leaves the pod |
//! | `ports` | number and protocol name a port: the same number with several protocols is several ports; others are rejected |
//! | endpoints | of managed slices that the Service owns, in the VIP's family, each with the same weight; an address listed twice counts once |
//! | `conditions` | ready ones; if none, those serving while terminating (KEP-1669); if none, rejected |
//! | `publishNotReadyAddresses` | is in the slices already, as `ready` |
//! | `internalTrafficPolicy: Local` | endpoints on the client's node only; without one rejected at once, where kube-proxy drops |
//! | `trafficDistribution`, topology hints | as kube-proxy: node hints, then zone hints, if every ready endpoint has one and some fit |
//! | `sessionAffinity: ClientIP` | a client (source address) stays with an endpoint for `timeoutSeconds` after its last flow to the port |
//! | `type: NodePort`, `LoadBalancer`, `externalIPs` | the ClusterIP is served, the rest is not |
//! | source address | of a flow of the pod itself, regardless of the address its socket is bound to: its first address of the VIP's family on the network; none: rejected. Forwarded flows keep theirs |
//! | UDP and SCTP flows | end with the endpoint (when it stops serving); TCP flows live on |

#![warn(missing_docs)]

mod applied;
mod delta;
mod endpoint_selection;
mod endpoint_slice;
mod kernel_state;
mod partial_update;
mod places;
mod plan;
mod pod_rules;
mod rules_size;
mod service;
mod settings;
mod trace;
mod vip_map;

pub use applied::{AppliedClusterIp, AppliedPort, AppliedRoute, AppliedRules, UnknownRule};
pub use delta::{Base, Delta, PortChange, SourceChange};
pub use endpoint_slice::{Endpoint, InvalidAddress, NotCounted, Slice};
pub use kernel_state::{KernelState, Translated};
pub use places::{PlaceChange, Places};
pub use plan::{Plan, ServicePlan, Shortcoming, Unserved, network_rules, plan, pod_rules, service_plan};
pub use pod_rules::{
    AttachedNetwork, NetworkRules, PodRules, Port, PortRules, Protocol, Source, Translation, Unreachable,
    VipRules,
};
pub use rules_size::RulesSize;
pub use service::{NotServed, ServedService};
pub use settings::{Node, Settings};
pub use trace::{Origin, Packet, PreviousFlow, Verdict};
pub use vip_map::VipMap;
