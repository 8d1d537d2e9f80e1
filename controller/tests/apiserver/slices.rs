//! Slices follow Services and pods.

use crate::bed::Bed;
use crate::bed::audit::slice_writes;
use anyhow::Result;
use api::{NetworkRef, names};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use serde_json::json;
use std::time::Instant;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_slice_holds_the_secondary_addresses_of_the_selected_pods() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("basic").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    fixture.pod("other", "other", &["10.1.0.9"]).await?;
    let slices = fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    let service = fixture.api::<Service>().get("web").await?;
    let slice = serde_json::to_value(&slices[0])?;
    assert!(
        slice["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("web-multus-")
    );
    assert_eq!(
        slice["metadata"]["labels"],
        json!({
            names::PROXY_NAME_LABEL: names::PROXY_NAME,
            names::SERVICE_NAME_LABEL: "web",
            names::MANAGED_BY_LABEL: names::MANAGED_BY,
            names::NETWORK_LABEL: NetworkRef::parse("testnet1", &fixture.namespace)?.label_value(),
        })
    );
    assert_eq!(
        slice["metadata"]["annotations"][names::NETWORK_NAME_ANNOTATION],
        format!("{}/testnet1", fixture.namespace)
    );
    assert_eq!(
        slice["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Service", "name": "web",
        "uid": service.metadata.uid, "controller": true, "blockOwnerDeletion": false}])
    );
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(
        slice["ports"],
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
    );
    let endpoint = &slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["addresses"][0] == "10.1.0.2")
        .unwrap();
    assert_eq!(
        endpoint["conditions"],
        json!({"ready": true, "serving": true, "terminating": false})
    );
    assert_eq!(endpoint["nodeName"], "node-1");
    assert_eq!(endpoint["zone"], "zone-a");
    assert_eq!(endpoint["targetRef"]["name"], "web-1");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn endpoints_follow_readiness_termination_and_late_addresses() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("follow").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.bare_pod("web-2", "web", json!({})).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    // A network that is attached while the pod runs.
    fixture.patch::<Pod>("web-2", json!({"metadata": {"annotations": {names::NETWORK_STATUS_ANNOTATION: fixture.status(&["10.1.0.3"])}}})).await?;
    fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    fixture
        .pod_status("web-1", "False", "2026-01-01T00:01:00Z")
        .await?;
    let slices = fixture
        .endpoints_until("web", &[("10.1.0.2", false), ("10.1.0.3", true)])
        .await?;
    let trigger = slices[0]
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION));
    assert_eq!(trigger.map(String::as_str), Some("2026-01-01T00:01:00Z"));
    // Deleted gracefully: no kubelet confirms, so it stays terminating, and still serving.
    fixture
        .api::<Pod>()
        .delete("web-2", &kube::api::DeleteParams::default())
        .await?;
    let slices = fixture
        .endpoints_until("web", &[("10.1.0.2", false), ("10.1.0.3", false)])
        .await?;
    let endpoint = slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .find(|e| e.addresses == ["10.1.0.3"])
        .unwrap();
    let conditions = endpoint.conditions.clone().unwrap();
    assert_eq!(
        (conditions.serving, conditions.terminating),
        (Some(true), Some(true))
    );
    fixture.delete_pod("web-2").await?;
    fixture.endpoints_until("web", &[("10.1.0.2", false)]).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn slices_are_deleted_and_created_with_the_label() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("label").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture
        .patch::<Service>(
            "web",
            json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: null}}}),
        )
        .await?;
    fixture
        .slices_until("web", "the slices to go with the label", <[_]>::is_empty)
        .await?;
    fixture.accepted_gone("web").await?;
    fixture
        .patch::<Service>(
            "web",
            json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME}}}),
        )
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture
        .patch::<Service>(
            "web",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: null}}}),
        )
        .await?;
    fixture
        .slices_until("web", "the slices to go with the annotation", <[_]>::is_empty)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn metrics_count_writes_and_problems() -> Result<()> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("metrics").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let page = bed.controller.metrics().await?;
    assert!(bed.controller.is_leader().await?, "{page}");
    let failed = "multus_service_controller_endpointslice_syncs_total{result=\"error\"} 0";
    assert!(page.lines().any(|line| line == failed), "{page}");
    let created = page.lines().find_map(|line| {
        line.strip_prefix("multus_service_controller_endpointslice_changes_total{operation=\"create\"} ")
    });
    assert!(
        created.is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 0)),
        "{page}"
    );
    for series in [
        "multus_service_controller_endpointslice_services{verdict=\"Accepted\"} ",
        "multus_service_controller_queue_latency_seconds_count ",
        "multus_service_api_requests_total{verb=\"create\",code=\"201\"} ",
        "multus_service_watch_restarts_total{resource=\"services\"} ",
        "multus_service_build_info{component=\"controller\",",
        "process_resident_memory_bytes ",
    ] {
        assert!(
            page.lines().any(|line| line.starts_with(series)),
            "{series} in {page}"
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_slice_that_another_client_changes_or_deletes_is_repaired() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("repaired").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    let slices = fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let name = slices[0].metadata.name.clone().unwrap();
    fixture
        .patch::<EndpointSlice>(&name, json!({"endpoints": [{"addresses": ["10.1.0.66"]}]}))
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    // Its managed-by value changes: it is no longer managed, and another one takes its place.
    fixture
        .patch::<EndpointSlice>(
            &name,
            json!({"metadata": {"labels": {names::MANAGED_BY_LABEL: "another-controller"}}}),
        )
        .await?;
    let slices = fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let other = slices[0].metadata.name.clone().unwrap();
    assert_ne!(other, name);
    fixture
        .api::<EndpointSlice>()
        .delete(&other, &kube::api::DeleteParams::default())
        .await?;
    fixture
        .slices_until("web", "another slice", |slices| {
            slices.len() == 1 && slices[0].metadata.name.as_deref() != Some(&other)
        })
        .await?;
    Ok(())
}

/// Slices that other clients write for a managed Service while the controller runs: a forged one with our managed-by value is deleted,
/// one of another manager stays as it is.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_forged_slice_is_deleted_and_another_controllers_stays() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("forged").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let slices = fixture.api::<EndpointSlice>();
    for (name, manager) in [("foreign", "another-controller"), ("forged", names::MANAGED_BY)] {
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.66"]}], "metadata": {"name": name,
            "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME, names::SERVICE_NAME_LABEL: "web", names::MANAGED_BY_LABEL: manager}}});
        slices
            .create(&PostParams::default(), &serde_json::from_value(slice)?)
            .await?;
    }
    let before = slices.get("foreign").await?;
    let has_gone =
        |slices: &[EndpointSlice]| slices.len() == 1 && slices[0].metadata.name.as_deref() != Some("forged");
    fixture
        .slices_until("web", "the forged slice to go", has_gone)
        .await?;
    // No event enqueues the Service for the foreign one.
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    assert_eq!(slices.get("foreign").await?, before);
    Ok(())
}

/// PodAdds-, PodUpdates- and PodDeleteBatching: each burst is one write at once and at most one per quarter second after it.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pod_changes_close_together_are_few_writes() -> Result<()> {
    const PODS: usize = 30;
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("batching").await?;
    fixture.service("web", json!({})).await?;
    fixture
        .slices_until("web", "a placeholder", |slices| slices.len() == 1)
        .await?;
    let name = |n: usize| format!("web-{n}");
    let all = |ready: bool| -> Vec<(String, bool)> {
        (0..PODS)
            .map(|n| (format!("10.1.0.{}", 100 + n), ready))
            .collect()
    };
    for burst in ["adds", "updates", "deletes"] {
        let before = slice_writes(bed.server, &fixture.namespace)?;
        let started = Instant::now();
        for n in 0..PODS {
            match burst {
                "adds" => fixture.pod(&name(n), "web", &[&all(true)[n].0]).await?,
                "updates" => {
                    fixture
                        .pod_status(&name(n), "False", "2026-01-01T00:01:00Z")
                        .await?;
                }
                _ => fixture.delete_pod(&name(n)).await?,
            }
        }
        let want = match burst {
            "adds" => all(true),
            "updates" => all(false),
            _ => Vec::new(),
        };
        fixture
            .slices_until("web", burst, |slices| crate::bed::endpoints(slices) == want)
            .await?;
        // A burst at once, then one in each 250 ms.
        let most = started.elapsed().as_millis() / 250 + 5;
        let after = slice_writes(bed.server, &fixture.namespace)?;
        let writes = after.0 + after.1 + after.2 - before.0 - before.1 - before.2;
        assert!(
            (1..=most).contains(&(writes as u128)),
            "{burst}: {writes} writes in {:?}",
            started.elapsed()
        );
    }
    Ok(())
}

/// A Service with neither selector belongs to its author: any slices it has, of any client, stay as they are.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_service_that_selects_nothing_causes_no_slice_request() -> Result<()> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("unselected").await?;
    fixture
        .service("web", json!({"spec": {"selector": null}}))
        .await?;
    fixture.accepted_until("web", "True", "NoSelector").await?;
    assert_eq!(slice_writes(bed.server, &fixture.namespace)?, (0, 0, 0));
    Ok(())
}

/// A third of the pods is not ready, and all are published as ready.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn not_ready_addresses_are_published_when_asked() -> Result<()> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("published").await?;
    let mut want = Vec::new();
    for n in 0..6 {
        let (name, address) = (format!("web-{n}"), format!("10.1.0.{}", 10 + n));
        fixture.pod(&name, "web", &[&address]).await?;
        if n % 3 == 0 {
            fixture.pod_status(&name, "False", "2026-01-01T00:01:00Z").await?;
        }
        want.push(address);
    }
    let published = json!({"spec": {"publishNotReadyAddresses": true}});
    fixture.service("web", published).await?;
    let want: Vec<_> = want.iter().map(|address| (address.as_str(), true)).collect();
    fixture.endpoints_until("web", &want).await?;
    assert_eq!(slice_writes(bed.server, &fixture.namespace)?, (1, 0, 0));
    Ok(())
}
