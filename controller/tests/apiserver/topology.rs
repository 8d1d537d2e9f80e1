//! Topology hints: zones and nodes, and Nodes that are added late or change.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bed::{Bed, Controller, Fixture};
use crate::kube_controller_manager::{both_until, server_with_twin};
use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use testbed::wait;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn traffic_distribution_gives_hints_and_a_late_node_completes_the_endpoints() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("topology").await?;
    fixture
        .service("web", json!({"spec": {"trafficDistribution": "PreferClose"}}))
        .await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    let pod = json!({
        "metadata": {"name": "web-2", "labels": {"app": "web"}, "annotations": {names::NETWORK_STATUS_ANNOTATION: fixture.status(&["10.1.0.3"])}},
        "spec": {"nodeName": format!("late-{}", fixture.namespace), "containers": [{"name": "c", "image": "localhost/none"}]},
    });
    fixture
        .api::<Pod>()
        .create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    fixture
        .pod_status("web-2", "True", "2026-01-01T00:00:00Z")
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let late = format!("late-{}", fixture.namespace);
    let nodes: Api<Node> = Api::all(fixture.client.clone());
    nodes
        .create(
            &PostParams::default(),
            &serde_json::from_value(
                json!({"metadata": {"name": late, "labels": {"topology.kubernetes.io/zone": "zone-x"}}}),
            )?,
        )
        .await?;
    let zones = |slices: &[EndpointSlice]| {
        let mut zones: Vec<_> = slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .filter_map(|e| Some(e.hints.as_ref()?.for_zones.as_ref()?[0].name.clone()))
            .collect();
        zones.sort_unstable();
        zones
    };
    fixture
        .slices_until("web", "hints for both zones", |slices| {
            zones(slices) == ["zone-a", "zone-x"]
        })
        .await?;
    let relabel = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-y"}}});
    nodes
        .patch(&late, &PatchParams::default(), &Patch::Merge(&relabel))
        .await?;
    fixture
        .slices_until("web", "the new zone", |slices| {
            zones(slices) == ["zone-a", "zone-y"]
        })
        .await?;
    Ok(())
}

/// `PreferSameNode` names nodes too; the annotation distributes four endpoints over the two zones.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn hints_are_given_as_asked() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("hints").await?;
    let mut want = Vec::new();
    for n in 1..=4 {
        let address = format!("10.1.0.{n}");
        let node = format!("node-{}", 1 + n % 2);
        let pod = json!({
            "metadata": {"name": format!("web-{n}"), "labels": {"app": "web"}, "annotations": {names::NETWORK_STATUS_ANNOTATION: fixture.status(&[&address])}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "localhost/none"}]},
        });
        let pods = fixture.api::<Pod>();
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        fixture
            .pod_status(&format!("web-{n}"), "True", "2026-01-01T00:00:00Z")
            .await?;
        want.push((address, node, if n % 2 == 0 { "zone-a" } else { "zone-b" }));
    }
    let selects = json!({"app": "web"});
    let near = json!({"spec": {"selector": selects, "trafficDistribution": "PreferSameNode"}});
    fixture.service("near", near).await?;
    let auto = json!({"spec": {"selector": selects}, "metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}});
    fixture.service("auto", auto).await?;
    let hints = |slices: &[EndpointSlice]| {
        let mut found: Vec<_> = slices.iter().flat_map(|slice| slice.endpoints.clone()).collect();
        found.sort_by(|one, other| one.addresses.cmp(&other.addresses));
        let names = |endpoint: k8s_openapi::api::discovery::v1::Endpoint| {
            let hints = endpoint.hints.unwrap_or_default();
            let node = hints
                .for_nodes
                .and_then(|nodes| Some(nodes.first()?.name.clone()));
            let zone = hints
                .for_zones
                .and_then(|zones| Some(zones.first()?.name.clone()));
            (endpoint.addresses[0].clone(), node, zone)
        };
        found.into_iter().map(names).collect::<Vec<_>>()
    };
    let zones: Vec<_> = want
        .iter()
        .map(|(address, _, zone)| (address.clone(), None, Some((*zone).to_owned())))
        .collect();
    let nodes: Vec<_> = want
        .iter()
        .map(|(address, node, zone)| (address.clone(), Some(node.clone()), Some((*zone).to_owned())))
        .collect();
    fixture
        .slices_until("near", "node and zone hints", |slices| hints(slices) == nodes)
        .await?;
    fixture
        .slices_until("auto", "zone hints", |slices| hints(slices) == zones)
        .await?;
    Ok(())
}

const MODE: &str = "service.kubernetes.io/topology-mode";

fn nodes(fixture: &Fixture) -> Api<Node> {
    Api::all(fixture.client.clone())
}

/// A ready Node with so many CPUs. It is not ready before, as when it boots, and Kubernetes evaluates its CPUs when it becomes ready.
async fn boot(fixture: &Fixture, name: &str, cpu: &str) -> Result<()> {
    for ready in ["False", "True"] {
        let status = json!({"status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]}});
        nodes(fixture)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
    }
    Ok(())
}

async fn in_zone(fixture: &Fixture, node: &str, zone: Option<&str>) -> Result<()> {
    let label = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    nodes(fixture)
        .patch(node, &PatchParams::default(), &Patch::Merge(&label))
        .await?;
    Ok(())
}

/// Number of endpoints that serve each zone; under "" those without hints.
fn by_zone(slices: &[EndpointSlice]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
        let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.clone());
        let zone = zones.and_then(|zones| Some(zones.first()?.name.clone()));
        *count.entry(zone.unwrap_or_default()).or_default() += 1;
    }
    count
}

fn counts(wanted: &[(&str, usize)]) -> BTreeMap<String, usize> {
    wanted.iter().map(|(zone, n)| ((*zone).to_owned(), *n)).collect()
}

async fn both_share(fixture: &Fixture, wanted: &[(&str, usize)]) -> Result<()> {
    both_until(fixture, "auto", by_zone, |found| *found == counts(wanted)).await
}

/// kube-controller-manager publishes an Event of the same reason with another message.
async fn event_contains(fixture: &Fixture, words: &str) -> Result<()> {
    wait::eventually(Duration::from_secs(20), words, async || {
        let events = fixture.events("auto").await?;
        let is_published = |event: &Event| {
            event.reason.as_deref() == Some("TopologyAwareHintsDisabled")
                && event.note.as_ref().is_some_and(|note| note.contains(words))
        };
        Ok(events.iter().any(is_published).then_some(()))
    })
    .await
}

/// Twelve endpoints in one zone are distributed by the zones' CPUs, again whenever these change, and not at all where that is impossible.
#[tokio::test]
#[ignore = "needs etcd, kube-apiserver and kube-controller-manager: make test-apiserver"]
async fn the_topology_annotation_distributes_endpoints_as_kube_controller_manager_does() -> Result<()> {
    let (server, kubeconfig) = server_with_twin().await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "topology", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "shares").await?;
    fixture.default_account().await?;
    boot(&fixture, "node-1", "12").await?;
    for n in 10..22 {
        fixture
            .pod(&format!("auto-{n}"), "auto", &[&format!("10.1.0.{n}")])
            .await?;
    }
    let auto = json!({"metadata": {"annotations": {MODE: "Auto"}}});
    fixture.service("auto", auto).await?;
    both_share(&fixture, &[("zone-a", 9), ("zone-b", 3)]).await?;

    in_zone(&fixture, "node-2", Some("zone-c")).await?;
    both_share(&fixture, &[("zone-a", 9), ("zone-c", 3)]).await?;

    let late: Node = serde_json::from_value(
        json!({"metadata": {"name": "late", "labels": {"topology.kubernetes.io/zone": "zone-d"}}}),
    )?;
    nodes(&fixture).create(&PostParams::default(), &late).await?;
    boot(&fixture, "late", "8000m").await?;
    both_share(&fixture, &[("zone-a", 6), ("zone-c", 2), ("zone-d", 4)]).await?;

    for n in 15..22 {
        fixture.delete_pod(&format!("auto-{n}")).await?;
    }
    both_share(&fixture, &[("", 5)]).await?;
    event_contains(&fixture, "without overloading one").await?;
    for n in 12..15 {
        fixture.delete_pod(&format!("auto-{n}")).await?;
    }
    both_share(&fixture, &[("", 2)]).await?;
    event_contains(&fixture, "fewer ready endpoints than zones").await?;

    for n in 12..22 {
        fixture
            .pod(&format!("auto-{n}"), "auto", &[&format!("10.1.0.{n}")])
            .await?;
    }
    both_share(&fixture, &[("zone-a", 6), ("zone-c", 2), ("zone-d", 4)]).await?;
    // A ready node without zone: the zones' shares are unknown. (kube-controller-manager evaluates that at the Service's next change.)
    in_zone(&fixture, "late", None).await?;
    let is_even = |slices: &[EndpointSlice]| by_zone(slices) == counts(&[("", 12)]);
    fixture.slices_until("auto", "no hints", is_even).await?;
    in_zone(&fixture, "late", Some("zone-c")).await?;
    both_share(&fixture, &[("zone-a", 6), ("zone-c", 6)]).await
}
