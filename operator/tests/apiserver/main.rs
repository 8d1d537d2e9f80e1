//! The operator's binary on a real apiserver with a real controller-manager, installed from `config/` by kubectl.
//!
//! Nodes are simulated: `fixture::fake_kubelet` acts as scheduler and kubelet, binds pods and reports them as Ready, or not, as a
//! test asks.

mod admission;
mod availability;
mod config_walk;
mod connection_flood;
mod crash;
mod crd;
mod failure_modes;
mod fixture;
mod install;
mod many_nodes;
mod metrics;
mod monitoring;
mod node_cleanup;
mod node_failures;
mod openshift;
mod rbac;
mod removal;
mod service_validation;
mod upgrade;
