//! Which of the ready endpoints a client gets by where both are.

use super::fixture::Scene;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Endpoint, Service, endpoint};
use super::traffic::Outcome;
use rules::Protocol::{Tcp, Udp};
use serde_json::{Value, json};

for_every_backend_and_family![
    internal_traffic_policy_local_keeps_flows_on_the_node_and_rejects_without_an_endpoint_there,
    topology_hints_keep_flows_in_the_zone_and_on_the_node,
];

/// A ready endpoint on a node, with these hints.
fn placed(host: u8, node: &str, hints: &Value) -> Endpoint {
    let mut placed = endpoint(host, &json!({"ready": true}));
    placed.object["nodeName"] = json!(node);
    placed.object["hints"] = hints.clone();
    placed
}

fn internal_traffic_policy_local_keeps_flows_on_the_node_and_rejects_without_an_endpoint_there(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    "here".clone_into(&mut scene.settings.node.name);
    let mut web = Service::new("web", 10);
    web.spec = json!({"internalTrafficPolicy": "Local"});
    let (near, far) = (placed(2, "here", &Value::Null), placed(3, "there", &Value::Null));
    web.endpoints = vec![near.clone(), far.clone()];
    scene.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        assert_eq!(scene.hosts(protocol, scene.at(&web, port)), [2]);
    }
    // kube-proxy drops; here a client is told at once.
    web.endpoints = vec![far.clone()];
    scene.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        assert_eq!(scene.ask(protocol, scene.at(&web, port)), Outcome::Rejected);
    }
    web.endpoints = vec![far, near];
    scene.sync_to(&[&web]);
    assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), [2]);
    web.spec = json!({"internalTrafficPolicy": "Cluster"});
    scene.sync_to(&[&web]);
    assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), [2, 3]);
}

fn topology_hints_keep_flows_in_the_zone_and_on_the_node(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    "here".clone_into(&mut scene.settings.node.name);
    let mut web = Service::new("web", 10);
    let zones = |host, zone| placed(host, "there", &json!({"forZones": [{"name": zone}]}));
    web.endpoints = vec![zones(2, "east"), zones(3, "west")];
    let in_zone = |scene: &mut Scene, zone: Option<&str>, web: &Service| {
        scene.settings.node.zone = zone.map(str::to_owned);
        scene.sync_to(&[web]);
    };
    in_zone(&mut scene, Some("east"), &web);
    // Asked once only: an endpoint that serves still keeps its UDP flows, and a new socket may have the port of one of them.
    assert_eq!(scene.hosts(Udp, scene.at(&web, 53)), [2]);
    for (zone, hosts) in [
        (Some("east"), &[2][..]),
        (Some("west"), &[3]),
        (Some("south"), &[2, 3]),
        (None, &[2, 3]),
    ] {
        in_zone(&mut scene, zone, &web);
        assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), hosts, "{zone:?}");
    }
    // Node hints come first (trafficDistribution: PreferSameNode).
    let both = |host, node| {
        placed(
            host,
            node,
            &json!({"forZones": [{"name": "east"}], "forNodes": [{"name": node}]}),
        )
    };
    scene.settings.node.zone = Some("east".to_owned());
    web.endpoints = vec![both(2, "there"), both(3, "here")];
    scene.sync_to(&[&web]);
    assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), [3]);
    // One endpoint without a hint, and none counts.
    web.endpoints[0] = placed(2, "there", &Value::Null);
    scene.sync_to(&[&web]);
    assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), [2, 3]);
}
