//! Rules and routes with real packets: pods are network namespaces, connected by macvlan and by a cluster network, as on a node.
//!
//! Needs root. Each test has its own test bed and removes it, also on failure.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "netns/affinity.rs"]
mod affinity;
#[path = "netns/apply_helper.rs"]
mod apply_helper;
#[path = "netns/bare_poll.rs"]
mod bare_poll;
#[path = "netns/capabilities.rs"]
mod capabilities;
#[path = "netns/cleanup.rs"]
mod cleanup;
#[path = "netns/coexistence.rs"]
mod coexistence;
#[path = "netns/concurrent_writes.rs"]
mod concurrent_writes;
#[path = "netns/crash.rs"]
mod crash;
#[path = "netns/cross_subnet.rs"]
mod cross_subnet;
#[path = "netns/differential.rs"]
mod differential;
#[path = "netns/discovery.rs"]
mod discovery;
#[path = "netns/echo_server.rs"]
mod echo_server;
#[path = "netns/endpoint_conditions.rs"]
mod endpoint_conditions;
#[path = "netns/failure_modes.rs"]
mod failure_modes;
#[path = "netns/fake_node.rs"]
mod fake_node;
#[path = "netns/fault_injection.rs"]
mod fault_injection;
#[path = "netns/fixture.rs"]
mod fixture;
#[path = "netns/flow_cleanup.rs"]
mod flow_cleanup;
#[path = "netns/forwarding.rs"]
mod forwarding;
#[path = "netns/host_network.rs"]
mod host_network;
#[path = "netns/invalid_packets.rs"]
mod invalid_packets;
#[path = "netns/ipv6_dad.rs"]
mod ipv6_dad;
#[path = "netns/kernel_memory.rs"]
mod kernel_memory;
#[path = "netns/large_dumps.rs"]
mod large_dumps;
#[path = "netns/large_payloads.rs"]
mod large_payloads;
#[path = "netns/lifecycle.rs"]
mod lifecycle;
#[path = "netns/load_balancing.rs"]
mod load_balancing;
#[path = "netns/many_pods.rs"]
mod many_pods;
#[path = "netns/matrix.rs"]
mod matrix;
#[path = "netns/memory_limits.rs"]
mod memory_limits;
#[path = "netns/multiple_networks.rs"]
mod multiple_networks;
#[path = "netns/nftables.rs"]
mod nftables;
#[path = "netns/objects.rs"]
mod objects;
#[path = "netns/packet_capture.rs"]
mod packet_capture;
#[path = "netns/partial_failure.rs"]
mod partial_failure;
#[path = "netns/places.rs"]
mod places;
#[path = "netns/pod_churn.rs"]
mod pod_churn;
#[path = "netns/programming.rs"]
mod programming;
#[path = "netns/read_rules.rs"]
mod read_rules;
#[path = "netns/rejection.rs"]
mod rejection;
#[path = "netns/repair.rs"]
mod repair;
#[path = "netns/resync.rs"]
mod resync;
#[path = "netns/routes.rs"]
mod routes;
#[path = "netns/scale.rs"]
mod scale;
#[path = "netns/sctp.rs"]
mod sctp;
#[path = "netns/service_changes.rs"]
mod service_changes;
#[path = "netns/sidecar.rs"]
mod sidecar;
#[path = "netns/source_address.rs"]
mod source_address;
#[path = "netns/stale_flows.rs"]
mod stale_flows;
#[path = "netns/takeover.rs"]
mod takeover;
#[path = "netns/testbed.rs"]
mod testbed;
#[path = "netns/topology.rs"]
mod topology;
#[path = "netns/traffic.rs"]
mod traffic;
#[path = "netns/untrusted_pod.rs"]
mod untrusted_pod;
#[path = "netns/write_order.rs"]
mod write_order;
