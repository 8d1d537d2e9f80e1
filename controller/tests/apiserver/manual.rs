//! A Service without any selector is served from the slices that its author wrote.

use crate::bed::audit::slice_writes;
use crate::bed::{Bed, Controller, Fixture, endpoints};
use crate::service_removal::own_server;
use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::apiserver::Options;

fn unselected(spec: &Value) -> Value {
    let mut change = json!({"spec": {"selector": null}});
    // Not merged: a null would be removed.
    change["spec"]
        .as_object_mut()
        .expect("it is one")
        .extend(spec.as_object().cloned().unwrap_or_default());
    change
}

/// Kubernetes' conformance tests of EndpointSlices "multiple ports" and "multiple endpoint IPs", on a network: two ports, and endpoints in
/// several slices.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn manual_slices_are_copied_and_followed() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("manual").await?;
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let ready =
        json!({"addresses": ["10.1.0.2"], "nodeName": "node-1", "zone": "zone-a", "hostname": "db-0"});
    let going = json!({"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    fixture
        .manual_slice("first", "db", json!({"endpoints": [ready, going]}))
        .await?;
    let udp = json!({"ports": [{"name": "dns", "port": 5353, "protocol": "UDP"}], "endpoints": [{"addresses": ["10.1.0.4"]}]});
    fixture.manual_slice("second", "db", udp).await?;
    let service = fixture
        .service("db", unselected(&json!({"ports": ports})))
        .await?;
    let all = [("10.1.0.2", true), ("10.1.0.3", false), ("10.1.0.4", true)];
    let slices = fixture.endpoints_until("db", &all).await?;
    assert_eq!(slices.len(), 2, "one for each list of ports");
    for slice in &slices {
        let meta = serde_json::to_value(&slice.metadata)?;
        assert_eq!(meta["labels"][names::PROXY_NAME_LABEL], names::PROXY_NAME);
        let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": "db", "uid": service.metadata.uid,
            "controller": true, "blockOwnerDeletion": false}]);
        assert_eq!(meta["ownerReferences"], owner);
    }
    let copied = slices.iter().flat_map(|slice| &slice.endpoints);
    let copied: Vec<_> = copied.map(|endpoint| json!(endpoint)).collect();
    let of = |address: &str| copied.iter().find(|endpoint| endpoint["addresses"][0] == address);
    assert_eq!(
        of("10.1.0.2"),
        Some(
            &json!({"addresses": ["10.1.0.2"], "nodeName": "node-1", "zone": "zone-a", "hostname": "db-0",
            "conditions": {"ready": true, "serving": true, "terminating": false}})
        )
    );
    let conditions = of("10.1.0.3").map(|endpoint| &endpoint["conditions"]);
    assert_eq!(
        conditions,
        Some(&json!({"ready": false, "serving": true, "terminating": true}))
    );
    fixture.accepted_until("db", "True", "Accepted").await?;

    let fewer = json!({"endpoints": [{"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.5"]}]});
    fixture.patch::<EndpointSlice>("first", fewer).await?;
    fixture
        .endpoints_until(
            "db",
            &[("10.1.0.2", true), ("10.1.0.4", true), ("10.1.0.5", true)],
        )
        .await?;
    // Moved to another Service.
    let moved = json!({"metadata": {"labels": {names::SERVICE_NAME_LABEL: "other"}}});
    fixture.patch::<EndpointSlice>("second", moved).await?;
    fixture
        .endpoints_until("db", &[("10.1.0.2", true), ("10.1.0.5", true)])
        .await?;
    let manual = fixture.api::<EndpointSlice>();
    manual.delete("first", &DeleteParams::default()).await?;
    fixture.slices_until("db", "no copies", <[_]>::is_empty).await?;
    fixture.accepted_until("db", "True", "NoSelector").await?;
    assert!(manual.get_opt("second").await?.is_some(), "the author's stay");
    Ok(())
}

/// Each address is checked as those of pods are, and each slice for its family; ignored ones are named.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn ignored_endpoints_of_a_manual_slice_are_named() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "checked", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "checked").await?;
    let nodes: Api<Node> = Api::all(fixture.client.clone());
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.11"}]}});
    nodes
        .patch_status("node-1", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let bad = ["172.30.0.1", "192.168.0.11", "239.1.1.1"];
    for (n, address) in bad.iter().enumerate() {
        let name = format!("bad-{n}");
        let slice = json!({"endpoints": [{"addresses": [address]}, {"addresses": ["10.1.0.2"]}]});
        fixture.manual_slice(&name, &name, slice).await?;
        fixture.service(&name, unselected(&json!({}))).await?;
        fixture.endpoints_until(&name, &[("10.1.0.2", true)]).await?;
        let note = fixture.event_until(&name, "InvalidEndpointAddress").await?.note;
        let names_it = |note: &String| note.contains(address) && note.contains(&name);
        assert!(note.as_ref().is_some_and(names_it), "{note:?}");
        fixture
            .accepted_until(&name, "True", "AcceptedWithWarnings")
            .await?;
    }
    let names = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["db.example.com"]}]});
    fixture.manual_slice("names", "odd", names).await?;
    let six = json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00:1::2"]}]});
    fixture.manual_slice("six", "odd", six).await?;
    let good = json!({"endpoints": [{"addresses": ["10.1.0.7"]}]});
    fixture.manual_slice("good", "odd", good).await?;
    fixture
        .service("odd", unselected(&json!({"ipFamilyPolicy": "SingleStack"})))
        .await?;
    fixture.endpoints_until("odd", &[("10.1.0.7", true)]).await?;
    let note = fixture
        .event_until("odd", "EndpointsIgnored")
        .await?
        .note
        .unwrap_or_default();
    for word in ["FQDN", "names", "IPv6", "six"] {
        assert!(note.contains(word), "{word} in {note}");
    }
    Ok(())
}

/// Only a slice of the Service's own namespace counts, and no slice counts for a Service that selects pods.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_manual_slice_counts_for_its_own_service_alone() -> Result<()> {
    let bed = Bed::shared().await?;
    let (fixture, other) = (bed.fixture("mine").await?, bed.fixture("theirs").await?);
    let slice = |address: &str| json!({"endpoints": [{"addresses": [address]}]});
    other.manual_slice("theirs", "db", slice("10.1.0.66")).await?;
    fixture.manual_slice("mine", "db", slice("10.1.0.2")).await?;
    fixture.manual_slice("web", "web", slice("10.1.0.67")).await?;
    fixture.service("db", unselected(&json!({}))).await?;
    other.service("web", unselected(&json!({}))).await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.3"]).await?;
    fixture.endpoints_until("db", &[("10.1.0.2", true)]).await?;
    fixture.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    other.accepted_until("web", "True", "NoSelector").await?;
    assert!(other.slices("web").await?.is_empty());
    // Changes of the same name elsewhere are not its own.
    fixture.patch::<EndpointSlice>("web", slice("10.1.0.68")).await?;
    other.manual_slice("web", "web", slice("10.1.0.4")).await?;
    other.endpoints_until("web", &[("10.1.0.4", true)]).await?;
    fixture.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    Ok(())
}

/// A selector that is removed and added: pods, then the author's slices, then pods again; a slice with our managed-by value is no author's.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_service_changes_between_pods_and_manual_slices() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("changing").await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture
        .manual_slice("mine", "web", json!({"endpoints": [{"addresses": ["10.1.0.9"]}]}))
        .await?;
    fixture.service("web", json!({})).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    for (selector, want) in [
        (Value::Null, "10.1.0.9"),
        (json!({"app": "web"}), "10.1.0.2"),
        (Value::Null, "10.1.0.9"),
    ] {
        let edit = json!({"spec": {"selector": selector}});
        fixture.patch::<Service>("web", edit).await?;
        fixture.endpoints_until("web", &[(want, true)]).await?;
    }
    // As an earlier controller wrote it: the admission policy forbids the controller any other slice.
    let labels =
        json!({names::MANAGED_BY_LABEL: names::MANAGED_BY, names::PROXY_NAME_LABEL: names::PROXY_NAME});
    let forged = json!({"metadata": {"labels": labels}, "endpoints": [{"addresses": ["10.1.0.66"]}]});
    fixture.manual_slice("forged", "web", forged).await?;
    let is_clean = |slices: &[EndpointSlice]| endpoints(slices) == [("10.1.0.9".to_owned(), true)];
    fixture
        .slices_until("web", "the forged slice to go", |slices| {
            slices.len() == 1 && is_clean(slices)
        })
        .await?;
    Ok(())
}

/// While no controller ran one slice was changed, one added and one deleted. The copies are updated in place, and none is missing in between.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn manual_slices_that_changed_while_the_controller_was_down_are_followed_at_start() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let fixture = Fixture::new(&server, "down").await?;
    let of = |address: &str| json!({"endpoints": [{"addresses": [address]}]});
    let controller = Controller::start(&kubeconfig, server.folder(), "before", &[])?;
    fixture.service("db", unselected(&json!({}))).await?;
    for (name, address) in [("changed", "10.1.0.2"), ("gone", "10.1.0.3")] {
        fixture.manual_slice(name, "db", of(address)).await?;
    }
    let both = [("10.1.0.2", true), ("10.1.0.3", true)];
    fixture.endpoints_until("db", &both).await?;
    fixture.accepted_until("db", "True", "Accepted").await?;
    drop(controller);
    fixture.patch::<EndpointSlice>("changed", of("10.1.0.4")).await?;
    let manual = fixture.api::<EndpointSlice>();
    manual.delete("gone", &DeleteParams::default()).await?;
    fixture.manual_slice("new", "db", of("10.1.0.5")).await?;
    let before = slice_writes(&server, &fixture.namespace)?;
    let controller = Controller::start(&kubeconfig, server.folder(), "after", &[])?;
    controller.wait_ready().await?;
    fixture
        .endpoints_until("db", &[("10.1.0.4", true), ("10.1.0.5", true)])
        .await?;
    let after = slice_writes(&server, &fixture.namespace)?;
    let writes = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    assert_eq!(writes, (0, 1, 0), "the copies stay until the author's are known");
    Ok(())
}

/// One watch for all such Services, begun with the first of them.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn slices_of_other_clients_are_watched_only_for_manual_services() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "watching", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "watching").await?;
    fixture.manual_slice("noise", "noise", json!({})).await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let log = || std::fs::read_to_string(&controller.log);
    assert!(!log()?.contains("Started watching manual EndpointSlices"));
    fixture.service("db", unselected(&json!({}))).await?;
    fixture
        .manual_slice("db", "db", json!({"endpoints": [{"addresses": ["10.1.0.9"]}]}))
        .await?;
    fixture.endpoints_until("db", &[("10.1.0.9", true)]).await?;
    assert!(
        log()?.contains("Started watching manual EndpointSlices"),
        "{}",
        log()?
    );
    Ok(())
}
