//! Rules and routes on real packets: pods as network namespaces, joined by macvlan and by a cluster network, as on a node.
//!
//! Needs root. Each test has a bed of its own and takes it away, also when it fails.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "netns/affinity.rs"]
mod affinity;
#[path = "netns/bed.rs"]
mod bed;
#[path = "netns/case.rs"]
mod case;
#[path = "netns/change.rs"]
mod change;
#[path = "netns/churn.rs"]
mod churn;
#[path = "netns/cleaning.rs"]
mod cleaning;
#[path = "netns/cluster.rs"]
mod cluster;
#[path = "netns/crash.rs"]
mod crash;
#[path = "netns/crowd.rs"]
mod crowd;
#[path = "netns/deferred.rs"]
mod deferred;
#[path = "netns/differential.rs"]
mod differential;
#[path = "netns/discovery.rs"]
mod discovery;
#[path = "netns/driver.rs"]
mod driver;
#[path = "netns/duplicate.rs"]
mod duplicate;
#[path = "netns/far.rs"]
mod far;
#[path = "netns/faults.rs"]
mod faults;
#[path = "netns/flood.rs"]
mod flood;
#[path = "netns/forward.rs"]
mod forward;
#[path = "netns/host.rs"]
mod host;
#[path = "netns/hostile.rs"]
mod hostile;
#[path = "netns/injected.rs"]
mod injected;
#[path = "netns/invalid.rs"]
mod invalid;
#[path = "netns/kernel_memory.rs"]
mod kernel_memory;
#[path = "netns/large.rs"]
mod large;
#[path = "netns/lifecycle.rs"]
mod lifecycle;
#[path = "netns/memory.rs"]
mod memory;
#[path = "netns/mending.rs"]
mod mending;
#[path = "netns/neighbours.rs"]
mod neighbours;
#[path = "netns/networks.rs"]
mod networks;
#[path = "netns/nftables.rs"]
mod nftables;
#[path = "netns/order.rs"]
mod order;
#[path = "netns/partial.rs"]
mod partial;
#[path = "netns/places.rs"]
mod places;
#[path = "netns/privileges.rs"]
mod privileges;
#[path = "netns/probe.rs"]
mod probe;
#[path = "netns/reach.rs"]
mod reach;
#[path = "netns/readiness.rs"]
mod readiness;
#[path = "netns/rejection.rs"]
mod rejection;
#[path = "netns/rounds.rs"]
mod rounds;
#[path = "netns/routes.rs"]
mod routes;
#[path = "netns/scale.rs"]
mod scale;
#[path = "netns/scene.rs"]
mod scene;
#[path = "netns/sctp.rs"]
mod sctp;
#[path = "netns/server.rs"]
mod server;
#[path = "netns/sidecar.rs"]
mod sidecar;
#[path = "netns/source.rs"]
mod source;
#[path = "netns/stale.rs"]
mod stale;
#[path = "netns/takeover.rs"]
mod takeover;
#[path = "netns/topology.rs"]
mod topology;
#[path = "netns/wire.rs"]
mod wire;
#[path = "netns/writer.rs"]
mod writer;
