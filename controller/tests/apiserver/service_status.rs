//! Problems are reported on the Service, once, with a remedy, and affect no other Service.

use crate::bed::Bed;
use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::PostParams;
use serde_json::json;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_rejection_is_an_event_and_a_condition_and_ends_with_the_fault() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("rejected").await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture
        .service(
            "web",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "a,b"}}}),
        )
        .await?;
    let event = fixture.event_until("web", "InvalidNetwork").await?;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let note = event.note.unwrap();
    assert!(
        note.contains("k8s.v1.cni.cncf.io/service-network")
            && note.contains("a,b")
            && note.contains("one Service per network"),
        "{note}"
    );
    fixture.accepted_until("web", "False", "InvalidNetwork").await?;
    assert!(fixture.slices("web").await?.is_empty());
    fixture
        .patch::<Service>(
            "web",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "testnet1"}}}),
        )
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.accepted_until("web", "True", "Accepted").await?;
    let events = fixture.events("web").await?;
    let notes: Vec<_> = events.iter().map(|event| (&event.reason, &event.note)).collect();
    assert_eq!(notes.len(), 1, "published once: {notes:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_unknown_network_is_reported_and_endpoints_stay() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("unknown").await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.service("web", json!({})).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.accepted_until("web", "True", "Accepted").await?;
    fixture.delete_network("testnet1").await?;
    fixture.event_until("web", "NetworkNotFound").await?;
    fixture
        .accepted_until("web", "True", "AcceptedWithWarnings")
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.network("testnet1").await?;
    fixture.accepted_until("web", "True", "Accepted").await?;
    Ok(())
}

/// One invalid Service among a hundred, invalid pods and a huge annotation do not affect the latency or the slices of the others.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_invalid_object_never_delays_another() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("crowd").await?;
    // A longer text than the API server takes is tried on pure code (`of_a_huge_text_little_is_kept`,
    // `a_long_value_is_cut_in_the_message`).
    let mebibyte = "x".repeat(1 << 20);
    let mebibyte = json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: mebibyte}}});
    let rejected = fixture.service("bad-mebibyte", mebibyte).await.unwrap_err();
    assert!(format!("{rejected:#}").contains("262144 bytes"), "{rejected:#}");
    let huge = "x".repeat(200 << 10);
    fixture
        .bare_pod("huge", "shared", json!({names::NETWORK_STATUS_ANNOTATION: huge}))
        .await?;
    fixture
        .bare_pod(
            "broken",
            "shared",
            json!({names::NETWORK_STATUS_ANNOTATION: "{{{"}),
        )
        .await?;
    fixture
        .bare_pod(
            "odd",
            "shared",
            json!({names::NETWORK_STATUS_ANNOTATION: fixture.status(&["10.1.0.300"])}),
        )
        .await?;
    fixture.pod("good", "shared", &["10.1.0.2"]).await?;
    let bad = [
        (
            "bad-network",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "/"}}}),
        ),
        (
            "bad-selector",
            json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "((("}}, "spec": {"selector": null}}),
        ),
        (
            "bad-namespace",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "kube-system/secret"}}}),
        ),
        (
            "bad-huge",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: huge}}}),
        ),
    ];
    for (name, change) in bad {
        fixture.service(name, change).await?;
    }
    for n in 0..96 {
        fixture
            .service(
                &format!("good-{n}"),
                json!({"spec": {"selector": {"app": "shared"}}}),
            )
            .await?;
    }
    for n in 0..96 {
        fixture
            .endpoints_until(&format!("good-{n}"), &[("10.1.0.2", true)])
            .await?;
    }
    for (name, reason) in [
        ("bad-network", "InvalidNetwork"),
        ("bad-selector", "InvalidSelector"),
        ("bad-namespace", "NetworkNotAllowed"),
        ("bad-huge", "InvalidNetwork"),
        ("good-7", "InvalidNetworkStatus"),
    ] {
        let event = fixture.event_until(name, reason).await?;
        assert!(event.note.is_some_and(|note| note.len() <= 1024));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_that_are_not_attached_are_named() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("attached").await?;
    fixture.bare_pod("lonely", "web", json!({})).await?;
    fixture.service("web", json!({})).await?;
    let note = fixture
        .event_until("web", "NoPodsAttached")
        .await?
        .note
        .unwrap_or_default();
    assert!(
        note.contains("lonely") && note.contains("k8s.v1.cni.cncf.io/networks"),
        "{note}"
    );
    fixture
        .service(
            "ports",
            json!({"spec": {"type": "NodePort", "selector": {"app": "web"}}}),
        )
        .await?;
    fixture.event_until("ports", "UnsupportedServiceType").await?;
    let balanced = json!({"spec": {"type": "LoadBalancer", "selector": {"app": "web"}}});
    fixture.service("balanced", balanced).await?;
    let outside = json!({"spec": {"externalIPs": ["203.0.113.9"], "selector": {"app": "web"}}});
    fixture.service("outside", outside).await?;
    let labelled =
        json!({"metadata": {"labels": {names::HEADLESS_LABEL: ""}}, "spec": {"selector": {"app": "web"}}});
    fixture.service("labelled", labelled).await?;
    for (service, part) in [
        ("balanced", "LoadBalancer"),
        ("outside", "externalIPs"),
        ("labelled", names::HEADLESS_LABEL),
    ] {
        let event = fixture.event_until(service, "UnsupportedServiceType").await?;
        assert!(event.note.is_some_and(|note| note.contains(part)), "{service}");
    }
    fixture
        .service("six", json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}))
        .await?;
    fixture.pod("six-1", "six", &["10.1.0.2"]).await?;
    fixture.event_until("six", "AddressFamilyMissing").await?;
    Ok(())
}

/// Addresses that no pod can have, one that two pods have, and two selectors: each is reported, and the good pod serves.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn invalid_addresses_of_a_pod_are_left_out_and_reported() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("addresses").await?;
    fixture.pod("good", "web", &["10.1.0.2"]).await?;
    for (name, address, why) in [
        ("loopback", "127.0.0.1", "loopback"),
        ("local", "169.254.1.1", "link-local"),
        ("multicast", "224.0.0.9", "multicast"),
        ("vip", "172.30.4.4", "Service CIDR 172.30.0.0/16"),
    ] {
        fixture.pod(name, name, &[address]).await?;
        fixture.service(name, json!({})).await?;
        let event = fixture.event_until(name, "InvalidEndpointAddress").await?;
        let note = event.note.unwrap_or_default();
        assert!(note.contains(why) && note.contains(address), "{note}");
        let is_empty = |slices: &[_]| slices.len() == 1 && crate::bed::endpoints(slices).is_empty();
        fixture.slices_until(name, "a placeholder", is_empty).await?;
    }
    fixture.pod("twice", "web", &["10.1.0.2"]).await?;
    let both = json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app=no-pods"}}});
    fixture.service("web", both).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let note = fixture.event_until("web", "DuplicateAddress").await?.note;
    assert!(note.is_some_and(|note| note.contains("also reported by pod")));
    fixture.event_until("web", "SelectorAnnotationIgnored").await?;
    Ok(())
}

/// A targetPort by name that no pod has, and pods on the host network.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_missing_target_port_and_pods_on_the_host_network_are_named() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("wrong").await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "web-ui"}, {"name": "raw", "port": 81, "targetPort": 8081}]);
    fixture.service("web", json!({"spec": {"ports": ports}})).await?;
    let event = fixture.event_until("web", "TargetPortNotFound").await?;
    let note = event.note.unwrap_or_default();
    assert!(note.contains("web-ui") && note.contains("\"http\""), "{note}");
    fixture
        .accepted_until("web", "True", "AcceptedWithWarnings")
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    // One pod that has the port is enough.
    let named = json!({
        "metadata": {"name": "web-2", "labels": {"app": "web"}, "annotations": {names::NETWORK_STATUS_ANNOTATION: fixture.status(&["10.1.0.3"])}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "localhost/none", "ports": [{"name": "web-ui", "containerPort": 8080}]}]},
    });
    fixture
        .api::<Pod>()
        .create(&PostParams::default(), &serde_json::from_value(named)?)
        .await?;
    fixture
        .pod_status("web-2", "True", "2026-01-01T00:00:00Z")
        .await?;
    fixture.accepted_until("web", "True", "Accepted").await?;
    let message = fixture.accepted("web").await?.map(|condition| condition.message);
    let network = format!("{}/testnet1", fixture.namespace);
    let states_which_pods_reach_it = |text: &String| {
        text.contains(&format!("only pods attached to {network}")) && text.contains("another namespace")
    };
    assert!(
        message.as_ref().is_some_and(states_which_pods_reach_it),
        "{message:?}"
    );

    let on_the_host = json!({
        "metadata": {"name": "host-1", "labels": {"app": "host"}, "annotations": {"k8s.v1.cni.cncf.io/networks": "testnet1"}},
        "spec": {"nodeName": "node-1", "hostNetwork": true, "containers": [{"name": "c", "image": "localhost/none"}]},
    });
    fixture
        .api::<Pod>()
        .create(&PostParams::default(), &serde_json::from_value(on_the_host)?)
        .await?;
    fixture
        .pod_status("host-1", "True", "2026-01-01T00:00:00Z")
        .await?;
    fixture.service("host", json!({})).await?;
    let event = fixture.event_until("host", "NoPodsAttached").await?;
    let note = event.note.unwrap_or_default();
    assert!(
        note.contains("hostNetwork") && !note.contains("k8s.v1.cni.cncf.io/networks"),
        "{note}"
    );
    Ok(())
}
