//! Selection among ready endpoints by node and zone.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Endpoint, Service, endpoint};
use super::traffic::Outcome;
use rules::Protocol::{Tcp, Udp};
use serde_json::{Value, json};

for_every_backend_and_family![
    internal_traffic_policy_local_keeps_flows_on_the_node_and_rejects_without_a_local_endpoint,
    topology_hints_keep_flows_in_the_zone_and_on_the_node,
];

/// A ready endpoint on a node, with these hints.
fn placed(host: u8, node: &str, hints: &Value) -> Endpoint {
    let mut placed = endpoint(host, &json!({"ready": true}));
    placed.object["nodeName"] = json!(node);
    placed.object["hints"] = hints.clone();
    placed
}

fn internal_traffic_policy_local_keeps_flows_on_the_node_and_rejects_without_a_local_endpoint(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    "here".clone_into(&mut fixture.settings.node.name);
    let mut web = Service::new("web", 10);
    web.spec = json!({"internalTrafficPolicy": "Local"});
    let (near, far) = (placed(2, "here", &Value::Null), placed(3, "there", &Value::Null));
    web.endpoints = vec![near.clone(), far.clone()];
    fixture.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        assert_eq!(fixture.hosts(protocol, fixture.at(&web, port)), [2]);
    }
    // kube-proxy drops here; this proxy rejects at once.
    web.endpoints = vec![far.clone()];
    fixture.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        assert_eq!(fixture.probe(protocol, fixture.at(&web, port)), Outcome::Rejected);
    }
    web.endpoints = vec![far, near];
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [2]);
    web.spec = json!({"internalTrafficPolicy": "Cluster"});
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [2, 3]);
}

fn topology_hints_keep_flows_in_the_zone_and_on_the_node(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    "here".clone_into(&mut fixture.settings.node.name);
    let mut web = Service::new("web", 10);
    let zones = |host, zone| placed(host, "there", &json!({"forZones": [{"name": zone}]}));
    web.endpoints = vec![zones(2, "east"), zones(3, "west")];
    let in_zone = |fixture: &mut Fixture, zone: Option<&str>, web: &Service| {
        fixture.settings.node.zone = zone.map(str::to_owned);
        fixture.sync_to(&[web]);
    };
    in_zone(&mut fixture, Some("east"), &web);
    // Requested only once: a serving endpoint keeps its UDP flows, and a new socket may reuse the port of one of them.
    assert_eq!(fixture.hosts(Udp, fixture.at(&web, 53)), [2]);
    for (zone, hosts) in [
        (Some("east"), &[2][..]),
        (Some("west"), &[3]),
        (Some("south"), &[2, 3]),
        (None, &[2, 3]),
    ] {
        in_zone(&mut fixture, zone, &web);
        assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), hosts, "{zone:?}");
    }
    // Node hints take precedence (trafficDistribution: PreferSameNode).
    let both = |host, node| {
        placed(
            host,
            node,
            &json!({"forZones": [{"name": "east"}], "forNodes": [{"name": node}]}),
        )
    };
    fixture.settings.node.zone = Some("east".to_owned());
    web.endpoints = vec![both(2, "there"), both(3, "here")];
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [3]);
    // If one endpoint has no hint, hints are ignored.
    web.endpoints[0] = placed(2, "there", &Value::Null);
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [2, 3]);
}
