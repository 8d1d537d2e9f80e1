//! The controller on a real apiserver: the shipped binary, under its shipped role.

#[path = "apiserver/availability.rs"]
mod availability;
#[path = "apiserver/bed.rs"]
mod bed;
#[path = "apiserver/coredns.rs"]
mod coredns;
#[path = "apiserver/dns.rs"]
mod dns;
#[path = "apiserver/http_flood.rs"]
mod http_flood;
#[path = "apiserver/initial_lists.rs"]
mod initial_lists;
#[path = "apiserver/kcm_parity.rs"]
mod kcm_parity;
#[path = "apiserver/kube_controller_manager.rs"]
mod kube_controller_manager;
#[path = "apiserver/manual.rs"]
mod manual;
#[path = "apiserver/mirrored.rs"]
mod mirrored;
#[path = "apiserver/node_addresses.rs"]
mod node_addresses;
#[path = "apiserver/outages.rs"]
mod outages;
#[path = "apiserver/partial_failures.rs"]
mod partial_failures;
#[path = "apiserver/preexisting_slices.rs"]
mod preexisting_slices;
#[path = "apiserver/privileges.rs"]
mod privileges;
#[path = "apiserver/rate_limit.rs"]
mod rate_limit;
#[path = "apiserver/service_cidrs.rs"]
mod service_cidrs;
#[path = "apiserver/service_kinds.rs"]
mod service_kinds;
#[path = "apiserver/service_removal.rs"]
mod service_removal;
#[path = "apiserver/service_status.rs"]
mod service_status;
#[path = "apiserver/slices.rs"]
mod slices;
#[path = "apiserver/stale_watch.rs"]
mod stale_watch;
#[path = "apiserver/topology.rs"]
mod topology;
#[path = "apiserver/traces.rs"]
mod traces;
#[path = "apiserver/without_multus.rs"]
mod without_multus;
