//! A Service that changes its kind, or is no longer managed, leaves nothing behind.

use std::path::PathBuf;

use crate::bed::audit::slice_writes;
use crate::bed::{Bed, Controller, Fixture, prepare};
use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use rstest::rstest;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::apiserver::{Apiserver, Options};
use testbed::wait;

/// Each case edits a served Service and states the expected slices.
#[rstest]
#[case::network_changed("network", json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "testnet2"}}}), &[("10.2.0.2", true)])]
#[case::selector_changed("selector", json!({"spec": {"selector": {"app": "other"}}}), &[("10.1.0.9", true)])]
#[case::ports_changed("ports", json!({"spec": {"ports": [{"name": "alt", "port": 81, "targetPort": 8081}]}}), &[("10.1.0.2", true)])]
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_edited_service_gets_the_endpoints_of_its_new_spec(
    #[case] name: &str,
    #[case] edit: Value,
    #[case] want: &[(&str, bool)],
) -> Result<()> {
    let fixture = Bed::shared().await?.fixture(name).await?;
    fixture.network("testnet2").await?;
    fixture.service("web", json!({})).await?;
    let statuses = json!([
        {"name": format!("{}/testnet1", fixture.namespace), "ips": ["10.1.0.2"]},
        {"name": format!("{}/testnet2", fixture.namespace), "ips": ["10.2.0.2"]},
    ]);
    fixture
        .bare_pod(
            "web-1",
            "web",
            json!({names::NETWORK_STATUS_ANNOTATION: statuses.to_string()}),
        )
        .await?;
    fixture.pod("other-1", "other", &["10.1.0.9"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.patch::<Service>("web", edit).await?;
    fixture.endpoints_until("web", want).await?;
    assert_eq!(
        fixture.slices("web").await?.len(),
        1,
        "the slice is updated in place"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_service_that_becomes_an_external_name_loses_its_slices() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("external").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let edit = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null,
        "ipFamilies": null, "ipFamilyPolicy": null}});
    fixture.patch::<Service>("web", edit).await?;
    fixture.slices_until("web", "no slices", <[_]>::is_empty).await?;
    fixture.event_until("web", "ExternalNameNotServed").await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_recreated_service_gets_slices_of_its_own() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("recreated").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await?;
    let uid = fixture.service("web", json!({})).await?.metadata.uid;
    let owner = |slice: &EndpointSlice| {
        slice
            .metadata
            .owner_references
            .as_ref()
            .map(|owners| owners[0].uid.clone())
    };
    fixture
        .slices_until("web", "one slice of the new Service", |slices| {
            slices.len() == 1 && owner(&slices[0]) == uid && !slices[0].endpoints.is_empty()
        })
        .await?;
    Ok(())
}

/// kubernetes/kubernetes#108779: clients reach the Service until its last finalizer is removed, so its endpoints must be up to date.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_service_that_waits_for_a_finalizer_keeps_true_endpoints() -> Result<()> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("finalizer").await?;
    let held = json!({"metadata": {"finalizers": ["example.org/slow"]}});
    fixture.service("web", held).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    let both = [("10.1.0.2", true), ("10.1.0.3", true)];
    fixture.endpoints_until("web", &both).await?;
    let services = fixture.api::<Service>();
    services.delete("web", &DeleteParams::default()).await?;
    let before = slice_writes(bed.server, &fixture.namespace)?;

    fixture
        .pod_status("web-1", "False", "2026-01-01T00:01:00Z")
        .await?;
    fixture
        .endpoints_until("web", &[("10.1.0.2", false), ("10.1.0.3", true)])
        .await?;
    fixture.delete_pod("web-2").await?;
    fixture.endpoints_until("web", &[("10.1.0.2", false)]).await?;
    fixture.delete_pod("web-1").await?;
    let is_empty = |slices: &[EndpointSlice]| crate::bed::endpoints(slices).is_empty();
    fixture
        .slices_until("web", "the last endpoint to go", is_empty)
        .await?;
    // A slice created now could outlive the Service: the garbage collector may have passed already.
    let after = slice_writes(bed.server, &fixture.namespace)?;
    assert_eq!(after.0, before.0, "nothing is created");
    let released = json!({"metadata": {"finalizers": null}});
    fixture.patch::<Service>("web", released).await
}

/// Orphans of a time without a controller: no such Service, a Service without the label, a Service with a network it may not name.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn orphans_of_a_time_without_controller_are_deleted_at_start() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let fixture = Fixture::new(&server, "down").await?;
    fixture
        .service(
            "plain",
            json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: "cilium"}}}),
        )
        .await?;
    fixture.service("web", json!({})).await?;
    for service in ["gone", "plain"] {
        orphan(&fixture, service).await?;
    }
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "late", &[])?;
    controller.wait_ready().await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    for service in ["gone", "plain"] {
        fixture
            .slices_until(service, "the orphan to go", <[_]>::is_empty)
            .await?;
    }
    Ok(())
}

/// State of a Service that changed while no controller ran, the endpoints it must have then (none: no slices), and its condition.
struct Missed {
    name: &'static str,
    edit: Value,
    want: &'static [(&'static str, bool)],
    condition: Option<(&'static str, &'static str)>,
}

fn missed() -> Vec<Missed> {
    let missed = |name, edit, want, condition| Missed {
        name,
        edit,
        want,
        condition,
    };
    let annotation =
        |value: Value| json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: value}}});
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null,
        "ipFamilies": null, "ipFamilyPolicy": null}});
    let unlabelled = json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: null}}});
    vec![
        missed(
            "network",
            annotation(json!("testnet2")),
            &[("10.2.0.2", true)],
            Some(("True", "Accepted")),
        ),
        missed(
            "selector",
            json!({"spec": {"selector": {"app": "other"}}}),
            &[("10.1.0.9", true)],
            Some(("True", "Accepted")),
        ),
        missed(
            "unselected",
            json!({"spec": {"selector": null}}),
            &[],
            Some(("True", "NoSelector")),
        ),
        missed("type", external, &[], Some(("False", "ExternalNameNotServed"))),
        missed(
            "annotation",
            annotation(Value::Null),
            &[],
            Some(("False", "InvalidNetwork")),
        ),
        missed(
            "rejected",
            annotation(json!("kube-system/secret")),
            &[],
            Some(("False", "NetworkNotAllowed")),
        ),
        missed("label", unlabelled, &[], None),
    ]
}

/// The slices are those of the archived multus-service controller: adopted without a write, and reconciled too.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn changes_of_a_time_without_controller_are_reconciled_at_start() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "before", &[])?;
    let mut scenes = Vec::new();
    for case in missed() {
        let fixture = Fixture::new(&server, case.name).await?;
        fixture.network("testnet2").await?;
        fixture.service("web", json!({})).await?;
        let statuses = json!([
            {"name": format!("{}/testnet1", fixture.namespace), "ips": ["10.1.0.2"]},
            {"name": format!("{}/testnet2", fixture.namespace), "ips": ["10.2.0.2"]},
        ]);
        let status = json!({names::NETWORK_STATUS_ANNOTATION: statuses.to_string()});
        fixture.bare_pod("web-1", "web", status).await?;
        fixture.pod("other-1", "other", &["10.1.0.9"]).await?;
        fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
        fixture.accepted_until("web", "True", "Accepted").await?;
        scenes.push((fixture, case));
    }
    drop(controller);
    for (fixture, case) in &scenes {
        write_references_as_the_legacy_controller(fixture).await?;
        fixture.patch::<Service>("web", case.edit.clone()).await?;
    }
    let controller = Controller::start(&kubeconfig, server.folder(), "after", &[])?;
    controller.wait_ready().await?;
    for (fixture, case) in &scenes {
        if case.want.is_empty() {
            fixture.slices_until("web", case.name, <[_]>::is_empty).await?;
        } else {
            let slices = fixture.endpoints_until("web", case.want).await?;
            assert_eq!(slices.len(), 1, "{}: the slice is updated in place", case.name);
        }
        match case.condition {
            Some((status, reason)) => fixture.accepted_until("web", status, reason).await?,
            None => fixture.accepted_gone("web").await?,
        }
    }
    Ok(())
}

async fn write_references_as_the_legacy_controller(fixture: &Fixture) -> Result<()> {
    for mut slice in fixture.slices("web").await? {
        for endpoint in &mut slice.endpoints {
            let target = endpoint.target_ref.get_or_insert_default();
            target.resource_version = Some("4711".to_owned());
        }
        let name = slice.metadata.name.clone().unwrap_or_default();
        let slices: Api<EndpointSlice> = fixture.api();
        slices.replace(&name, &PostParams::default(), &slice).await?;
    }
    Ok(())
}

async fn orphan(fixture: &Fixture, service: &str) -> Result<()> {
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.77"]}], "metadata": {
        "generateName": format!("{service}-multus-"),
        "labels": {names::SERVICE_NAME_LABEL: service, names::MANAGED_BY_LABEL: names::MANAGED_BY, names::PROXY_NAME_LABEL: names::PROXY_NAME}}});
    fixture
        .api::<EndpointSlice>()
        .create(&PostParams::default(), &serde_json::from_value(slice)?)
        .await?;
    Ok(())
}

/// A server of this test's own and the kubeconfig of a controller on it.
pub(crate) async fn own_server(options: Options) -> Result<(Apiserver, PathBuf)> {
    let server = Apiserver::start(options).await?;
    let kubeconfig = prepare(&server).await?;
    Ok((server, kubeconfig))
}

/// With the real kube-controller-manager: it leaves its slices behind when the selector is removed; the commands of the Event delete them.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn orphaned_slices_of_a_removed_selector_are_reported_until_they_are_deleted() -> Result<()> {
    let (server, kubeconfig) = own_server(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "leftovers", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "leftovers").await?;
    fixture.default_account().await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let foreign = format!(
        "{}=web,{}!={}",
        names::SERVICE_NAME_LABEL,
        names::MANAGED_BY_LABEL,
        names::MANAGED_BY
    );
    let foreign = ListParams::default().labels(&foreign);
    let slices: Api<EndpointSlice> = fixture.api();
    wait::eventually(
        Duration::from_secs(30),
        "kube-controller-manager's slice",
        async || {
            let found = slices.list(&foreign).await?.items;
            Ok(found
                .iter()
                .any(|slice| !slice.endpoints.is_empty())
                .then_some(()))
        },
    )
    .await?;
    let edit = json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app=web"}}, "spec": {"selector": null}});
    fixture.patch::<Service>("web", edit).await?;
    let event = fixture.event_until("web", "ConflictingEndpoints").await?;
    let note = event.note.unwrap_or_default();
    assert!(
        note.contains(&format!("kubectl -n {} delete endpoints web", fixture.namespace)),
        "{note}"
    );
    fixture
        .accepted_until("web", "True", "AcceptedWithWarnings")
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    // The effect of the two commands.
    let endpoints: Api<k8s_openapi::api::core::v1::Endpoints> = fixture.api();
    endpoints.delete("web", &DeleteParams::default()).await?;
    slices
        .delete_collection(&DeleteParams::default(), &foreign)
        .await?;
    wait::eventually(Duration::from_mins(1), "the warning to end", async || {
        let service = fixture.api::<Service>().get("web").await?;
        Ok(controller::service_status::condition::current(&service)
            .filter(|c| c.reason == "Accepted")
            .map(drop))
    })
    .await?;
    assert!(
        slices.list(&foreign).await?.items.is_empty(),
        "and they stay away"
    );
    Ok(())
}
