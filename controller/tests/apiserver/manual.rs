//! A Service without any selector is served from the slices that its author wrote.

use crate::bed::audit::slice_writes;
use crate::bed::{Bed, Controller, Scene, endpoints};
use crate::service_removal::own_server;
use anyhow::Result;
use api::names;
use e2e::apiserver::Options;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

fn unselected(spec: &Value) -> Value {
    let mut change = json!({"spec": {"selector": null}});
    // Not merged: a null would be taken out.
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
    let scene = Bed::shared().await?.scene("manual").await?;
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let ready =
        json!({"addresses": ["10.1.0.2"], "nodeName": "node-1", "zone": "zone-a", "hostname": "db-0"});
    let going = json!({"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    scene
        .manual_slice("first", "db", json!({"endpoints": [ready, going]}))
        .await?;
    let udp = json!({"ports": [{"name": "dns", "port": 5353, "protocol": "UDP"}], "endpoints": [{"addresses": ["10.1.0.4"]}]});
    scene.manual_slice("second", "db", udp).await?;
    let service = scene.service("db", unselected(&json!({"ports": ports}))).await?;
    let all = [("10.1.0.2", true), ("10.1.0.3", false), ("10.1.0.4", true)];
    let slices = scene.endpoints_until("db", &all).await?;
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
    scene.accepted_until("db", "True", "Accepted").await?;

    let fewer = json!({"endpoints": [{"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.5"]}]});
    scene.patch::<EndpointSlice>("first", fewer).await?;
    scene
        .endpoints_until(
            "db",
            &[("10.1.0.2", true), ("10.1.0.4", true), ("10.1.0.5", true)],
        )
        .await?;
    // Handed to another Service.
    let moved = json!({"metadata": {"labels": {names::SERVICE_NAME_LABEL: "other"}}});
    scene.patch::<EndpointSlice>("second", moved).await?;
    scene
        .endpoints_until("db", &[("10.1.0.2", true), ("10.1.0.5", true)])
        .await?;
    let manual = scene.api::<EndpointSlice>();
    manual.delete("first", &DeleteParams::default()).await?;
    scene.slices_until("db", "no copies", <[_]>::is_empty).await?;
    scene.accepted_until("db", "True", "NoSelector").await?;
    assert!(manual.get_opt("second").await?.is_some(), "the author's stay");
    Ok(())
}

/// Each address is checked as those of pods are, and each slice for its family; what is not taken is named.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn ignored_endpoints_of_a_manual_slice_are_named() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "checked", &[])?;
    controller.wait_ready().await?;
    let scene = Scene::new(&server, "checked").await?;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.11"}]}});
    nodes
        .patch_status("node-1", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let bad = ["172.30.0.1", "192.168.0.11", "239.1.1.1"];
    for (n, address) in bad.iter().enumerate() {
        let name = format!("bad-{n}");
        let slice = json!({"endpoints": [{"addresses": [address]}, {"addresses": ["10.1.0.2"]}]});
        scene.manual_slice(&name, &name, slice).await?;
        scene.service(&name, unselected(&json!({}))).await?;
        scene.endpoints_until(&name, &[("10.1.0.2", true)]).await?;
        let note = scene.event_until(&name, "InvalidEndpointAddress").await?.note;
        let names_it = |note: &String| note.contains(address) && note.contains(&name);
        assert!(note.as_ref().is_some_and(names_it), "{note:?}");
        scene
            .accepted_until(&name, "True", "AcceptedWithWarnings")
            .await?;
    }
    let names = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["db.example.com"]}]});
    scene.manual_slice("names", "odd", names).await?;
    let six = json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00:1::2"]}]});
    scene.manual_slice("six", "odd", six).await?;
    let good = json!({"endpoints": [{"addresses": ["10.1.0.7"]}]});
    scene.manual_slice("good", "odd", good).await?;
    scene
        .service("odd", unselected(&json!({"ipFamilyPolicy": "SingleStack"})))
        .await?;
    scene.endpoints_until("odd", &[("10.1.0.7", true)]).await?;
    let note = scene
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
    let (scene, other) = (bed.scene("mine").await?, bed.scene("theirs").await?);
    let slice = |address: &str| json!({"endpoints": [{"addresses": [address]}]});
    other.manual_slice("theirs", "db", slice("10.1.0.66")).await?;
    scene.manual_slice("mine", "db", slice("10.1.0.2")).await?;
    scene.manual_slice("web", "web", slice("10.1.0.67")).await?;
    scene.service("db", unselected(&json!({}))).await?;
    other.service("web", unselected(&json!({}))).await?;
    scene.service("web", json!({})).await?;
    scene.pod("web-1", "web", &["10.1.0.3"]).await?;
    scene.endpoints_until("db", &[("10.1.0.2", true)]).await?;
    scene.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    other.accepted_until("web", "True", "NoSelector").await?;
    assert!(other.slices("web").await?.is_empty());
    // Changes of the same name elsewhere are not its own.
    scene.patch::<EndpointSlice>("web", slice("10.1.0.68")).await?;
    other.manual_slice("web", "web", slice("10.1.0.4")).await?;
    other.endpoints_until("web", &[("10.1.0.4", true)]).await?;
    scene.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    Ok(())
}

/// A selector that comes and goes: pods, then the author's slices, then pods again; and a slice written in our name is no author's.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_service_changes_between_pods_and_manual_slices() -> Result<()> {
    let scene = Bed::shared().await?.scene("changing").await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene
        .manual_slice("mine", "web", json!({"endpoints": [{"addresses": ["10.1.0.9"]}]}))
        .await?;
    scene.service("web", json!({})).await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    for (selector, want) in [
        (Value::Null, "10.1.0.9"),
        (json!({"app": "web"}), "10.1.0.2"),
        (Value::Null, "10.1.0.9"),
    ] {
        let edit = json!({"spec": {"selector": selector}});
        scene.patch::<Service>("web", edit).await?;
        scene.endpoints_until("web", &[(want, true)]).await?;
    }
    // As a controller of an earlier time left it: the admission policy rejects the controller any other slice.
    let labels =
        json!({names::MANAGED_BY_LABEL: names::MANAGED_BY, names::PROXY_NAME_LABEL: names::PROXY_NAME});
    let forged = json!({"metadata": {"labels": labels}, "endpoints": [{"addresses": ["10.1.0.66"]}]});
    scene.manual_slice("forged", "web", forged).await?;
    let is_clean = |slices: &[EndpointSlice]| endpoints(slices) == [("10.1.0.9".to_owned(), true)];
    scene
        .slices_until("web", "the forged slice to go", |slices| {
            slices.len() == 1 && is_clean(slices)
        })
        .await?;
    Ok(())
}

/// While no controller ran one slice changed, one came and one went. The copies are changed in place, and none is missing in between.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn manual_slices_that_changed_while_the_controller_was_down_are_followed_at_start() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let scene = Scene::new(&server, "down").await?;
    let of = |address: &str| json!({"endpoints": [{"addresses": [address]}]});
    let controller = Controller::start(&kubeconfig, server.folder(), "before", &[])?;
    scene.service("db", unselected(&json!({}))).await?;
    for (name, address) in [("changed", "10.1.0.2"), ("gone", "10.1.0.3")] {
        scene.manual_slice(name, "db", of(address)).await?;
    }
    let both = [("10.1.0.2", true), ("10.1.0.3", true)];
    scene.endpoints_until("db", &both).await?;
    scene.accepted_until("db", "True", "Accepted").await?;
    drop(controller);
    scene.patch::<EndpointSlice>("changed", of("10.1.0.4")).await?;
    let manual = scene.api::<EndpointSlice>();
    manual.delete("gone", &DeleteParams::default()).await?;
    scene.manual_slice("new", "db", of("10.1.0.5")).await?;
    let before = slice_writes(&server, &scene.namespace)?;
    let controller = Controller::start(&kubeconfig, server.folder(), "after", &[])?;
    controller.wait_ready().await?;
    scene
        .endpoints_until("db", &[("10.1.0.4", true), ("10.1.0.5", true)])
        .await?;
    let after = slice_writes(&server, &scene.namespace)?;
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
    let scene = Scene::new(&server, "watching").await?;
    scene.manual_slice("noise", "noise", json!({})).await?;
    scene.service("web", json!({})).await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let log = || std::fs::read_to_string(&controller.log);
    assert!(!log()?.contains("Started watching manual EndpointSlices"));
    scene.service("db", unselected(&json!({}))).await?;
    scene
        .manual_slice("db", "db", json!({"endpoints": [{"addresses": ["10.1.0.9"]}]}))
        .await?;
    scene.endpoints_until("db", &[("10.1.0.9", true)]).await?;
    assert!(
        log()?.contains("Started watching manual EndpointSlices"),
        "{}",
        log()?
    );
    Ok(())
}
