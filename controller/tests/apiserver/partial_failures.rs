//! A write that the API server rejects affects no other slice of the Service.

use std::time::Duration;

use crate::bed::{Controller, Fixture};
use crate::service_removal::own_server;
use anyhow::Result;
use api::names;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use testbed::apiserver::Options;
use testbed::wait;

const SOON: Duration = Duration::from_secs(20);

/// A dual-stack pod whose port `http` has this number: pods with other numbers are in other slices.
async fn pod(fixture: &Fixture, n: usize, port: u16) -> Result<()> {
    let name = format!("web-{n}");
    let status = fixture.status(&[&format!("10.1.0.{n}"), &format!("fd00:1::{n}")]);
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}, "annotations": {names::NETWORK_STATUS_ANNOTATION: status}},
        "spec": {"nodeName": "node-1", "containers": [
            {"name": "c", "image": "localhost/none", "ports": [{"name": "http", "containerPort": port}]}]},
    });
    let pods = fixture.api::<Pod>();
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    fixture.pod_status(&name, "True", "2026-01-01T00:00:00Z").await
}

/// Rejects IPv6 slices in the namespace of the fixture, and waits until the API server does so.
async fn reject_ipv6(fixture: &Fixture) -> Result<()> {
    let name = format!("no-ipv6-{}", fixture.namespace);
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["discovery.k8s.io"], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["endpointslices"]}]},
            "matchConditions": [{"name": "here", "expression": format!("request.namespace == '{}'", fixture.namespace)}],
            "validations": [{"expression": "object.addressType != 'IPv6'", "message": "no IPv6 here"}],
        },
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}),
    )?;
    let parameters = PostParams::default();
    Api::all(fixture.client.clone())
        .create(&parameters, &policy)
        .await?;
    Api::all(fixture.client.clone())
        .create(&parameters, &binding)
        .await?;
    let probe: EndpointSlice = serde_json::from_value(
        json!({"metadata": {"name": "probe"}, "addressType": "IPv6", "endpoints": []}),
    )?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    wait::eventually(SOON, "the policy", async || {
        let answer = fixture.api::<EndpointSlice>().create(&dry, &probe).await;
        Ok(answer.is_err().then_some(()))
    })
    .await
}

fn ports_of(slices: &[EndpointSlice], family: &str) -> Vec<i32> {
    let of_family = slices.iter().filter(|slice| slice.address_type == family);
    let ports = of_family.flat_map(|slice| slice.ports.iter().flatten());
    let mut ports: Vec<_> = ports.filter_map(|port| port.port).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_rejected_write_of_one_family_keeps_no_slice_of_the_other_from_being_deleted() -> Result<()> {
    // A server of this test's own: failed writes are counted.
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "neighbours", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "neighbours").await?;
    pod(&fixture, 1, 8080).await?;
    pod(&fixture, 2, 8081).await?;
    let dual = json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    fixture.service("web", dual).await?;
    let both = |slices: &[EndpointSlice]| {
        ports_of(slices, "IPv4") == [8080, 8081] && ports_of(slices, "IPv6") == [8080, 8081]
    };
    fixture
        .slices_until("web", "two slices of each family", both)
        .await?;

    reject_ipv6(&fixture).await?;
    pod(&fixture, 3, 8080).await?;
    fixture
        .slices_until("web", "the update of IPv4", |slices| {
            slices
                .iter()
                .any(|slice| slice.address_type == "IPv4" && slice.endpoints.len() == 2)
        })
        .await?;
    fixture.delete_pod("web-2").await?;
    let slices = fixture
        .slices_until("web", "the second IPv4 slice is gone", |slices| {
            ports_of(slices, "IPv4") == [8080]
        })
        .await?;
    assert_eq!(
        ports_of(&slices, "IPv6"),
        [8080, 8081],
        "what replaces them is not written"
    );

    let binding: Api<ValidatingAdmissionPolicyBinding> = Api::all(fixture.client.clone());
    let off = json!({"spec": {"validationActions": ["Audit"]}});
    let name = format!("no-ipv6-{}", fixture.namespace);
    binding
        .patch(&name, &PatchParams::default(), &Patch::Merge(&off))
        .await?;
    fixture
        .slices_until("web", "IPv6 follows once it is allowed", |slices| {
            ports_of(slices, "IPv6") == [8080]
        })
        .await?;
    Ok(())
}
