//! Kinds of Services and their slices: families, headless Services, many endpoints.

use crate::bed::Bed;
use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use serde_json::json;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_dual_stack_service_has_a_slice_per_family() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("dual").await?;
    fixture
        .service("web", json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}))
        .await?;
    fixture
        .pod("web-1", "web", &["10.1.0.2", "fd00:1::2", "fe80::1"])
        .await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    let slices = fixture
        .endpoints_until(
            "web",
            &[("10.1.0.2", true), ("10.1.0.3", true), ("fd00:1::2", true)],
        )
        .await?;
    let mut kinds: Vec<_> = slices
        .iter()
        .map(|s| (s.address_type.as_str(), s.endpoints.len()))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [("IPv4", 2), ("IPv6", 1)]);
    // One family less: its slices are deleted.
    fixture
        .patch::<Service>(
            "web",
            json!({"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}}),
        )
        .await?;
    fixture
        .slices_until("web", "only IPv4", |slices| {
            slices.len() == 1 && slices[0].address_type == "IPv4"
        })
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_headless_service_without_selector_has_only_our_slices_with_host_names() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("headless").await?;
    let pod = json!({
        "metadata": {"name": "db-0", "labels": {"app": "db"}, "annotations": {names::NETWORK_STATUS_ANNOTATION: fixture.status(&["10.1.0.2"])}},
        "spec": {"nodeName": "node-1", "hostname": "db-0", "subdomain": "db", "containers": [{"name": "c", "image": "localhost/none"}]},
    });
    fixture
        .api::<Pod>()
        .create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    fixture.pod_status("db-0", "True", "2026-01-01T00:00:00Z").await?;
    let service = json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app in (db, cache), !canary"}},
        "spec": {"clusterIP": "None", "selector": null}});
    fixture.service("db-fast", service).await?;
    let slices = fixture.endpoints_until("db-fast", &[("10.1.0.2", true)]).await?;
    // The API server gives such a Service both families; the IPv6 slice is an empty placeholder.
    let slice = slices.iter().find(|slice| slice.address_type == "IPv4").unwrap();
    assert_eq!(slice.endpoints[0].hostname.as_deref(), Some("db-0"));
    assert_eq!(
        slice
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(names::HEADLESS_LABEL))
            .map(String::as_str),
        Some("")
    );
    fixture.accepted_until("db-fast", "True", "Accepted").await?;
    // A headless Service with a selector works too, with a warning.
    fixture
        .service("db", json!({"spec": {"clusterIP": "None"}}))
        .await?;
    fixture.endpoints_until("db", &[("10.1.0.2", true)]).await?;
    let note = fixture
        .event_until("db", "HeadlessWithSelector")
        .await?
        .note
        .unwrap_or_default();
    assert!(note.contains(names::SELECTOR_ANNOTATION), "{note}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn two_hundred_and_fifty_endpoints_are_three_slices_and_one_flip_is_one_write() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("many").await?;
    let mut names = Vec::new();
    for n in 0..250_u32 {
        let name = format!("web-{n}");
        fixture
            .pod(&name, "web", &[&format!("10.1.{}.{}", 1 + n / 200, 1 + n % 200)])
            .await?;
        names.push(name);
    }
    fixture.service("web", json!({})).await?;
    let total = |slices: &[EndpointSlice]| slices.iter().map(|s| s.endpoints.len()).sum::<usize>();
    let before = fixture
        .slices_until("web", "250 endpoints", |slices| total(slices) == 250)
        .await?;
    assert_eq!(before.len(), 3);
    fixture
        .pod_status(&names[120], "False", "2026-01-01T00:01:00Z")
        .await?;
    let is_flipped = |slices: &[EndpointSlice]| {
        crate::bed::endpoints(slices)
            .iter()
            .filter(|(_, ready)| !ready)
            .count()
            == 1
    };
    let after = fixture
        .slices_until("web", "one unready endpoint", is_flipped)
        .await?;
    let versions = |slices: &[EndpointSlice]| {
        slices
            .iter()
            .map(|s| s.metadata.resource_version.clone())
            .collect::<Vec<_>>()
    };
    let changed = versions(&before)
        .iter()
        .zip(versions(&after))
        .filter(|(a, b)| *a != b)
        .count();
    assert_eq!(changed, 1, "one change to one endpoint rewrites one slice");
    Ok(())
}

/// The forms in which a network may be named, and a pod with several interfaces on it: the first usable address of a family counts.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_network_is_found_by_each_form_of_its_name_and_the_first_interface_counts() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("forms").await?;
    let own = format!("{}/testnet1", fixture.namespace);
    let interfaces = json!([
        {"name": "cluster-net", "interface": "eth0", "ips": ["10.128.0.5"], "default": true},
        {"name": own, "interface": "net1", "ips": ["169.254.0.1"]},
        {"name": own, "interface": "net2", "ips": ["10.1.0.9", "10.1.0.8"]},
        {"name": own, "interface": "net3", "ips": ["10.1.0.2", "fd00:1::2"]},
        {"name": "default/shared", "interface": "net4", "ips": ["10.2.0.2"]},
    ]);
    let status = json!({names::NETWORK_STATUS_ANNOTATION: interfaces.to_string()});
    fixture.bare_pod("web-1", "web", status).await?;
    let (mine, shared) = (["10.1.0.9", "fd00:1::2"], ["10.2.0.2"]);
    let forms: [(&str, &str, &[&str]); 4] = [
        ("bare", "testnet1", &mine),
        ("spaces", "  testnet1 ", &mine),
        ("qualified", &own, &mine),
        ("global", "default/shared", &shared),
    ];
    for (name, form, _) in forms {
        let service = json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: form}},
            "spec": {"selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack"}});
        fixture.service(name, service).await?;
    }
    for (name, _, want) in forms {
        let want: Vec<_> = want.iter().map(|address| (*address, true)).collect();
        fixture.endpoints_until(name, &want).await?;
    }
    Ok(())
}
