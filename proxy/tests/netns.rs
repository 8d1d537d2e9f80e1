//! Rules and routes on real packets: pods as network namespaces, joined by macvlan and by a cluster network, as on a node.
//!
//! Needs root. Each test has a bed of its own and takes it away, also when it fails.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "netns/bed.rs"]
mod bed;
#[path = "netns/cluster.rs"]
mod cluster;
#[path = "netns/lifecycle.rs"]
mod lifecycle;
#[path = "netns/probe.rs"]
mod probe;
#[path = "netns/semantics.rs"]
mod semantics;
#[path = "netns/wire.rs"]
mod wire;
#[path = "netns/writer.rs"]
mod writer;
