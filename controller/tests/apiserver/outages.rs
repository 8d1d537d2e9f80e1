//! An API server that is unavailable, has compacted its history, rejects requests or is overloaded: the controller converges and loses
//! nothing.

use std::time::Duration;

use crate::bed::audit::slice_requests;
use crate::bed::{Bed, Controller, Fixture};
use crate::service_removal::own_server;
use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use testbed::apiserver::{Apiserver, Options};
use testbed::wait;

/// kube-apiserver is killed during changes and restarts ninety seconds later.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn ninety_seconds_without_an_api_server_lose_nothing() -> Result<()> {
    let (mut server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "outage", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "outage").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    // The change and the outage at once: the write may be in progress.
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    server.stop_apiserver();
    tokio::time::sleep(Duration::from_secs(90)).await;
    server.start_apiserver().await?;
    fixture.pod("web-3", "web", &["10.1.0.4"]).await?;
    fixture
        .endpoints_until(
            "web",
            &[("10.1.0.2", true), ("10.1.0.3", true), ("10.1.0.4", true)],
        )
        .await?;
    assert!(
        !controller.has_ended(),
        "no other replica could take the lease, so there is no reason to exit"
    );
    assert_eq!(fixture.slices("web").await?.len(), 1, "nothing was created twice");
    Ok(())
}

/// Unavailable for longer than a Lease lasts: no replica leads. Afterwards one does, and it catches up.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn replicas_of_an_api_server_that_was_away_agree_on_one_leader() -> Result<()> {
    let (mut server, kubeconfig) = own_server(Options::default()).await?;
    let replicas = [
        Controller::start(&kubeconfig, server.folder(), "one", &[])?,
        Controller::start(&kubeconfig, server.folder(), "other", &[])?,
    ];
    for replica in &replicas {
        replica.wait_ready().await?;
    }
    let fixture = Fixture::new(&server, "replicas").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    server.stop_apiserver();
    tokio::time::sleep(Duration::from_secs(25)).await;
    server.start_apiserver().await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    assert_eq!(fixture.slices("web").await?.len(), 1, "nothing was created twice");
    wait::eventually(Duration::from_secs(30), "one leader", async || {
        let mut leaders = 0;
        for replica in replicas.iter().filter(|replica| !replica.has_ended()) {
            leaders += usize::from(replica.is_leader().await?);
        }
        Ok((leaders == 1).then_some(()))
    })
    .await
}

/// The controller is paused during changes, and the restarted API server no longer has the version it last saw: 410 Gone.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_watch_that_has_expired_lists_again() -> Result<()> {
    let (mut server, kubeconfig) = own_server(Options::default()).await?;
    let args = ["--leader-elect", "false"];
    let controller = Controller::start(&kubeconfig, server.folder(), "expired", &args)?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "expired").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    controller.signal("STOP")?;
    // An addition, a change and a deletion that no watch will ever report.
    fixture.pod("web-3", "web", &["10.1.0.4"]).await?;
    fixture
        .pod_status("web-2", "False", "2026-01-01T00:01:00Z")
        .await?;
    fixture.delete_pod("web-1").await?;
    server.stop_apiserver();
    server.start_apiserver().await?;
    controller.signal("CONT")?;
    fixture
        .endpoints_until("web", &[("10.1.0.3", false), ("10.1.0.4", true)])
        .await?;
    let log = std::fs::read_to_string(&controller.log)?;
    assert!(
        log.contains("too old resource version") || log.contains("Expired"),
        "no watch expired:\n{log}"
    );
    assert!(!controller.has_ended());
    Ok(())
}

/// Kubernetes before 1.34, or with the gate off.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_api_server_without_streaming_lists_is_listed_in_pages() -> Result<()> {
    let (server, kubeconfig) = own_server(Options {
        apiserver_flags: vec!["--feature-gates=WatchList=false".to_owned()],
        ..Options::default()
    })
    .await?;
    let fixture = Fixture::new(&server, "pages").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "pages", &[])?;
    controller.wait_ready().await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    Ok(())
}

/// Waits until the API server has answered a slice write of a namespace with this status.
async fn until_answered(server: &Apiserver, namespace: &str, status: u16) -> Result<()> {
    let what = format!("a slice write to be answered with {status}");
    wait::eventually(Duration::from_mins(2), &what, async || {
        let found = slice_requests(server, namespace)?
            .iter()
            .any(|request| request.is_write() && request.code == status);
        Ok(found.then_some(()))
    })
    .await
}

/// Makes the pod unready and ready again, for ever.
async fn flip(fixture: &Fixture) -> Result<()> {
    for n in 0_u32.. {
        let ready = if n % 2 == 0 { "False" } else { "True" };
        let since = format!("2026-01-01T00:{:02}:{:02}Z", n / 60 % 60, n % 60);
        fixture.pod_status("web-1", ready, &since).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// Another client writes the slice all the time: the controller's writes conflict, and it wins in the end.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn conflicting_writes_converge() -> Result<()> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("conflict").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    let slices = fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let name = slices[0].metadata.name.clone().unwrap_or_default();
    let meddle = async {
        for n in 0_u32.. {
            let note = json!({"metadata": {"annotations": {"meddler": n.to_string()}}});
            fixture.patch::<EndpointSlice>(&name, note).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = meddle => ended?,
        ended = flip(&fixture) => ended?,
        seen = until_answered(bed.server, &fixture.namespace, 409) => seen?,
    }
    fixture
        .pod_status("web-1", "False", "2026-01-02T00:00:00Z")
        .await?;
    let slices = fixture.endpoints_until("web", &[("10.1.0.2", false)]).await?;
    let note = slices[0]
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get("meddler"));
    assert!(note.is_some(), "what others annotate stays");
    Ok(())
}

/// One priority level of one seat for the slice writes of a namespace, by the controller and by user `crowd`. The API server lets a
/// lone request pass with any limit, so only many requests are rejected.
async fn narrow(fixture: &Fixture) -> Result<()> {
    let name = fixture.namespace.as_str();
    let level = json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}});
    let levels: Api<PriorityLevelConfiguration> = Api::all(fixture.client.clone());
    levels
        .create(&PostParams::default(), &serde_json::from_value(level)?)
        .await?;
    let schema = json!({"metadata": {"name": name}, "spec": {
        "matchingPrecedence": 2, "priorityLevelConfiguration": {"name": name},
        "rules": [{
            "subjects": [
                {"kind": "ServiceAccount", "serviceAccount": {"namespace": "multus-service", "name": "multus-service-controller"}},
                {"kind": "User", "user": {"name": "crowd"}},
            ],
            "resourceRules": [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "namespaces": [name],
                "verbs": ["create", "update", "delete"]}]}]}});
    let schemas: Api<FlowSchema> = Api::all(fixture.client.clone());
    schemas
        .create(&PostParams::default(), &serde_json::from_value(schema)?)
        .await?;
    Ok(())
}

/// Sends concurrent requests without a pause and ignores the responses. Never returns.
async fn crowd(server: &Apiserver, namespace: &str) -> Result<()> {
    let client = server.client_as("crowd", &[]).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client, namespace);
    let slice: EndpointSlice = serde_json::from_value(
        json!({"metadata": {"generateName": "crowd-"}, "addressType": "IPv4", "endpoints": []}),
    )?;
    let one = async || {
        loop {
            // Forbidden when it gets a seat, throttled when not.
            let _ = slices.create(&PostParams::default(), &slice).await;
        }
    };
    futures::future::join_all((0..32).map(|_| one())).await;
    Ok(())
}

async fn widen(fixture: &Fixture) -> Result<()> {
    let schemas: Api<FlowSchema> = Api::all(fixture.client.clone());
    schemas
        .delete(&fixture.namespace, &DeleteParams::default())
        .await?;
    Ok(())
}

/// More Services are throttled than writes can be in progress, all the time; one of another namespace changes meanwhile.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn throttled_writes_are_retried_and_delay_no_other_service() -> Result<()> {
    const SERVICES: usize = 40;
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "throttled", &[])?;
    controller.wait_ready().await?;
    let (fixture, other) = (
        Fixture::new(&server, "throttled").await?,
        Fixture::new(&server, "free").await?,
    );
    let name = |n: usize| format!("web-{n}");
    for n in 0..SERVICES {
        let selector = json!({"spec": {"selector": {"app": "web"}}});
        fixture.service(&name(n), selector).await?;
    }
    other.service("web", json!({})).await?;
    for fixture in [&fixture, &other] {
        fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    }
    for n in 0..SERVICES {
        fixture.endpoints_until(&name(n), &[("10.1.0.2", true)]).await?;
    }
    other.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    narrow(&fixture).await?;
    let both = [("10.1.0.2", true), ("10.1.0.3", true)];
    tokio::select! {
        ended = crowd(&server, &fixture.namespace) => ended?,
        ended = flip(&fixture) => ended?,
        done = async {
            until_answered(&server, &fixture.namespace, 429).await?;
            other.pod("web-2", "web", &["10.1.0.3"]).await?;
            other.endpoints_until("web", &both).await
        } => drop(done?),
    }
    widen(&fixture).await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    fixture
        .pod_status("web-1", "True", "2026-01-02T00:00:00Z")
        .await?;
    for n in 0..SERVICES {
        fixture.endpoints_until(&name(n), &both).await?;
    }
    Ok(())
}

/// Nothing may be created in a namespace that is being deleted: that is no error, and no reason to retry.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_terminating_namespace_gets_no_slices_and_no_requests() -> Result<()> {
    let bed = Bed::shared().await?;
    let (fixture, other) = (bed.fixture("terminating").await?, bed.fixture("staying").await?);
    for fixture in [&fixture, &other] {
        fixture.service("web", json!({})).await?;
        fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
        fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    }
    // No controller empties it here, so it stays in this state.
    let namespaces: Api<Namespace> = Api::all(fixture.client.clone());
    namespaces
        .delete(&fixture.namespace, &DeleteParams::default())
        .await?;
    let slices: Api<EndpointSlice> = fixture.api();
    slices
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    until_answered(bed.server, &fixture.namespace, 403).await?;
    // A retry would come after a tenth of a second; by the end of this there would have been several.
    for n in 1..=5 {
        let ready = n % 2 == 0;
        let since = format!("2026-01-01T00:0{n}:00Z");
        let text = if ready { "True" } else { "False" };
        other.pod_status("web-1", text, &since).await?;
        other.endpoints_until("web", &[("10.1.0.2", ready)]).await?;
    }
    let creates = slice_requests(bed.server, &fixture.namespace)?;
    let rejected = creates.iter().filter(|request| request.code == 403).count();
    assert_eq!(rejected, 1, "asked again");
    let page = bed.controller.metrics().await?;
    assert!(
        page.contains("multus_service_controller_endpointslice_syncs_total{result=\"error\"} 0"),
        "{page}"
    );
    Ok(())
}

/// The slice is deleted at the moment of its update.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_slice_deleted_under_a_write_is_created_again() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("vanished").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    for round in 0..5 {
        let slices: Api<EndpointSlice> = fixture.api();
        let ready = if round % 2 == 0 { "False" } else { "True" };
        let since = format!("2026-01-01T00:0{}:00Z", round + 1);
        let parameters = DeleteParams::default();
        let all = ListParams::default();
        let (flipped, deleted) = tokio::join!(
            fixture.pod_status("web-1", ready, &since),
            slices.delete_collection(&parameters, &all)
        );
        flipped?;
        deleted?;
        fixture
            .endpoints_until("web", &[("10.1.0.2", ready == "True")])
            .await?;
    }
    assert_eq!(fixture.slices("web").await?.len(), 1);
    Ok(())
}
