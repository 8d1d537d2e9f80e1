//! The driver against a real apiserver, under the shipped role, with pods that are network namespaces: from objects to packets.
//!
//! Needs etcd, kube-apiserver and root. Only the container runtime is absent: the bed knows its own namespaces.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "apiserver/admission.rs"]
mod admission;
#[path = "netns/bed.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod bed;
#[path = "apiserver/flood.rs"]
mod flood;
#[path = "apiserver/networks.rs"]
mod networks;
#[path = "apiserver/node.rs"]
mod node;
#[path = "netns/probe.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod probe;
#[path = "netns/sctp.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod sctp;
#[path = "netns/server.rs"]
mod server;
#[path = "apiserver/serving.rs"]
mod serving;
#[path = "apiserver/surroundings.rs"]
mod surroundings;
#[path = "apiserver/tampering.rs"]
mod tampering;
#[path = "netns/wire.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of level netns, which use more of it"
)]
mod wire;
