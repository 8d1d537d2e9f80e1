//! The driver against a real API server, under the shipped role, with network namespaces as pods: from objects to packets.
//!
//! Needs etcd, kube-apiserver and root. Only the container runtime is replaced: the test bed knows its own namespaces.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "apiserver/admission.rs"]
mod admission;
#[path = "apiserver/cluster.rs"]
mod cluster;
#[path = "apiserver/cluster_info.rs"]
mod cluster_info;
#[path = "apiserver/connection_flood.rs"]
mod connection_flood;
#[path = "netns/echo_server.rs"]
mod echo_server;
#[path = "apiserver/metrics.rs"]
mod metrics;
#[path = "netns/packet_capture.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod packet_capture;
#[path = "apiserver/repair.rs"]
mod repair;
#[path = "netns/sctp.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod sctp;
#[path = "apiserver/serving.rs"]
mod serving;
#[path = "netns/testbed.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod testbed;
#[path = "apiserver/traces.rs"]
mod traces;
#[path = "netns/traffic.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod traffic;
#[path = "apiserver/watch_scope.rs"]
mod watch_scope;
