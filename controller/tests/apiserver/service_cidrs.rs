//! No endpoint is inside a Service CIDR of the cluster, also without the flag `--service-cidrs`.

use crate::bed::{Controller, Fixture, endpoints};
use crate::service_removal::own_server;
use anyhow::Result;
use api::names;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use testbed::apiserver::Options;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_service_cidrs_follow_the_clusters() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "ranges", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "ranges").await?;
    // The API server's own ClusterIP.
    fixture.pod("evil", "evil", &["172.30.0.1"]).await?;
    fixture.service("evil", json!({})).await?;
    let note = fixture.event_until("evil", "InvalidEndpointAddress").await?.note;
    assert!(
        note.as_ref()
            .is_some_and(|note| note.contains("172.30.0.1") && note.contains("172.30.0.0/16")),
        "{note:?}"
    );
    let is_bare = |slices: &[_]| slices.len() == 1 && endpoints(slices).is_empty();
    fixture.slices_until("evil", "a placeholder", is_bare).await?;

    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.service("web", json!({})).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let ranges: Api<ServiceCIDR> = Api::all(fixture.client.clone());
    let wide = json!({"metadata": {"name": "wide"}, "spec": {"cidrs": ["10.1.0.0/24"]}});
    ranges
        .create(&PostParams::default(), &serde_json::from_value(wide)?)
        .await?;
    fixture.slices_until("web", "the range to count", is_bare).await?;
    fixture.event_until("web", "InvalidEndpointAddress").await?;
    ranges.delete("wide", &DeleteParams::default()).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.accepted_until("web", "True", "Accepted").await
}

/// A role of an earlier release, and Kubernetes before 1.33: the ranges of the command line count, and nothing waits for others.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn service_cidrs_that_may_not_be_watched_delay_nothing() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let roles: Api<ClusterRole> = Api::all(server.client().await?);
    let mut role = roles.get(names::CONTROLLER).await?;
    let is_other = |rule: &PolicyRule| rule.resources.iter().flatten().all(|kind| kind != "servicecidrs");
    role.rules.get_or_insert_default().retain(is_other);
    roles
        .replace(names::CONTROLLER, &PostParams::default(), &role)
        .await?;
    let given = ["--service-cidrs", "10.9.0.0/16"];
    let controller = Controller::start(&kubeconfig, server.folder(), "without", &given)?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "without").await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.pod("web-2", "web", &["10.9.0.2"]).await?;
    fixture.service("web", json!({})).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.event_until("web", "InvalidEndpointAddress").await?;
    Ok(())
}
