//! The path from API objects to packets, and the permissions it uses.

use crate::cluster::{Cluster, NODE};
use crate::metrics::SERVING;
use crate::testbed::Pod;
use crate::traffic::{Outcome, Server, probe_repeatedly};
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{self, Service};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use rules::Protocol;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn vip(service: &Service) -> SocketAddr {
    let vip = service.spec.as_ref().unwrap().cluster_ip.as_ref().unwrap();
    SocketAddr::new(vip.parse().unwrap(), 80)
}

pub(crate) fn outcomes(client: &Pod, service: &Service) -> Vec<Outcome> {
    probe_repeatedly(client, Protocol::Tcp, vip(service), 12)
        .into_keys()
        .collect()
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < TIMEOUT, "timed out after 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a condition; conditions are written at most every ten seconds.
pub(crate) async fn until_async(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds().await? {
        anyhow::ensure!(began.elapsed() < 3 * TIMEOUT, "timed out after 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn objects_become_packets_and_a_restart_changes_nothing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let status = cluster.status(7);
    let client = cluster.attached_pod(7, &status).await?;
    let servers = [cluster.testbed.pod(2), cluster.testbed.pod(3)];
    let _servers = servers.each_ref().map(Server::start);
    let from = |host| Outcome::Answered(host, client.address());

    let proxy = cluster.proxy().await?;
    until("ready without any Service", || proxy.is_ready()).await;
    let nginx = cluster.service("nginx", "macvlan1").await?;
    until("rejected without endpoints", || {
        outcomes(&client, &nginx) == [Outcome::Rejected]
    })
    .await;
    cluster.slice(&nginx, &[2, 3]).await?;
    until("both endpoints respond", || {
        outcomes(&client, &nginx) == [from(2), from(3)]
    })
    .await;

    // Invalid Services do not affect valid ones.
    let broken = cluster.service("broken", "a,b").await?;
    cluster.slice(&broken, &[2]).await?;
    let services: Api<Service> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    let external = json!({"metadata": {"name": "external", "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"}},
        "spec": {"type": "ExternalName", "externalName": "example.com"}});
    services
        .create(
            &kube::api::PostParams::default(),
            &serde_json::from_value(external)?,
        )
        .await?;
    cluster.slice(&nginx, &[3]).await?;
    until("one endpoint is left", || outcomes(&client, &nginx) == [from(3)]).await;

    proxy.stop().await?;
    assert_eq!(
        outcomes(&client, &nginx),
        [from(3)],
        "rules stay when the proxy stops"
    );
    cluster.slice(&nginx, &[2]).await?;
    services.delete("broken", &DeleteParams::default()).await?;
    let proxy = cluster.proxy().await?;
    until("adopted", || proxy.is_ready()).await;
    assert_eq!(
        outcomes(&client, &nginx),
        [from(2)],
        "changes made while the proxy was down are applied before Ready"
    );

    let unlabelled = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": null}}});
    services
        .patch("nginx", &PatchParams::default(), &Patch::Merge(&unlabelled))
        .await?;
    until("rules of an unlabelled Service are removed", || {
        let state = client.state();
        !state.contains("MSP-SVC-") && !state.contains("proto 77")
    })
    .await;
    proxy.stop().await
}

/// Any user who may patch a pod can claim any network in its network-status, and rules disclose the endpoints of a network.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pod_that_claims_a_network_of_another_namespace_gets_no_rules() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let owner_namespace = cluster.namespace.clone();
    let status = cluster.status(7);
    let client = cluster.attached_pod(7, &status).await?;
    let _server = Server::start(&cluster.testbed.pod(2));
    let nginx = cluster.service("nginx", "macvlan1").await?;
    cluster.slice(&nginx, &[2]).await?;
    // The pod has the addresses that it claims.
    let status = cluster.status(8);
    cluster.namespace = cluster.server.namespace("tenant").await?;
    let claimant = cluster.attached_pod(8, &status).await?;
    let tenant_namespace = cluster.namespace.clone();
    let proxy = cluster.proxy().await?;
    until("the network's own pod is served", || {
        outcomes(&client, &nginx) == [Outcome::Answered(2, client.address())]
    })
    .await;
    let events: Api<Event> = Api::namespaced(cluster.admin.clone(), &tenant_namespace);
    until_async("the claimant gets an event", async || {
        let listed = events.list(&ListParams::default()).await?;
        Ok(listed.items.iter().any(|event| {
            event.note.as_deref().is_some_and(|note| {
                note.contains(&format!(
                    "names network \"{owner_namespace}/macvlan1\" of another namespace"
                ))
            })
        }))
    })
    .await?;
    let state = claimant.state();
    assert!(
        !state.contains("10.1.0.2:") && !state.contains("proto 77"),
        "{state}"
    );
    proxy.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn failing_pod_blocks_no_other_and_gets_an_event() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let status = cluster.status(7);
    let _garbage = cluster.attached_pod(8, "{{{").await?;
    let wrong_address_status = cluster.status(99);
    let _wrong_address = cluster.attached_pod(9, &wrong_address_status).await?;
    // Rules in this namespace would not match the packets of a sandboxed pod.
    let sandboxed_status = cluster.status(10);
    let sandboxed = cluster
        .attached_pod_with(10, &sandboxed_status, json!({}), "kata-qemu")
        .await?;
    let virt_launcher_status = cluster.status(11);
    let virt_launcher = json!({"kubevirt.io": "virt-launcher"});
    let _virt_launcher = cluster
        .attached_pod_with(11, &virt_launcher_status, virt_launcher, "")
        .await?;
    let client = cluster.attached_pod(7, &status).await?;
    let server = cluster.testbed.pod(2);
    let _server = Server::start(&server);
    let nginx = cluster.service("nginx", "macvlan1").await?;
    cluster.slice(&nginx, &[2]).await?;
    let proxy = cluster.proxy().await?;
    until("served", || {
        outcomes(&client, &nginx) == [Outcome::Answered(2, client.address())]
    })
    .await;
    until("ready", || proxy.is_ready()).await;

    let events: Api<Event> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    let mut reported = BTreeSet::new();
    let began = Instant::now();
    while reported.len() < 4 && began.elapsed() < 3 * TIMEOUT {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let listed = events.list(&ListParams::default()).await?;
        let of_pod = |event: &Event| Some((event.regarding.as_ref()?.name.clone()?, event.reason.clone()?));
        reported = listed.iter().filter_map(of_pod).collect();
    }
    let want = [
        ("client-8", "InvalidNetworkStatus"),
        ("client-9", "ServiceRulesNotApplied"),
        ("client-10", "ServiceRulesNotApplied"),
        ("client-11", "ServiceRulesIncomplete"),
    ];
    assert_eq!(
        reported,
        want.map(|(pod, reason)| (pod.to_owned(), reason.to_owned()))
            .into()
    );
    assert!(
        !sandboxed.state().contains("proto 77"),
        "nothing is written into a sandboxed pod"
    );
    proxy.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn role_grants_exactly_what_is_used_and_an_idle_proxy_writes_nothing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let proxy = cluster.proxy().await?;
    let client = cluster.attached_pod(8, "{{{").await?;
    let pods: Api<v1::Pod> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    let annotate = async |status: &str| {
        let patch = json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": status}}});
        pods.patch("client-8", &PatchParams::default(), &Patch::Merge(&patch))
            .await
    };
    let written = |verb: &'static str| {
        let requests = cluster.requests().unwrap();
        requests
            .iter()
            .any(|request| request["verb"] == verb && request["objectRef"]["resource"] == "events")
    };
    until("an event", || written("create")).await;
    until_async("the condition names the pod", async || {
        let [reason, status, message] = cluster.condition().await?;
        Ok(reason == "PartiallyApplied" && status == "False" && message.contains("client-8: "))
    })
    .await?;
    // Repaired and broken again: the event's count increases.
    let status = cluster.status(8);
    annotate(&status).await?;
    let nginx = cluster.service("nginx", "macvlan1").await?;
    until("served", || outcomes(&client, &nginx) == [Outcome::Rejected]).await;
    annotate("[").await?;
    until("an event series", || written("patch")).await;
    annotate(&status).await?;
    until("served again", || {
        outcomes(&client, &nginx) == [Outcome::Rejected]
    })
    .await;

    until_async("the condition is True", async || {
        let [reason, status, message] = cluster.condition().await?;
        Ok(reason == "Applied"
            && status == "True"
            && message == "Rules are applied in 1 pod (backend iptables-nft)")
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = cluster.requests()?.len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let is_write = |request: &&Value| !matches!(request["verb"].as_str(), Some("list" | "watch"));
    let all = cluster.requests()?;
    assert_eq!(all[before..].iter().filter(is_write).count(), 0, "idle");

    assert_eq!(
        all.iter()
            .filter(|request| request["responseStatus"]["code"] == 403)
            .count(),
        0
    );
    let used: BTreeSet<[String; 3]> = all.iter().map(used_permission).collect();
    let mut granted = granted()?;
    // Used by the process that serves metrics: metrics.rs.
    granted.retain(|[_, resource, verb]| !SERVING.contains(&format!("{verb} {resource}").as_str()));
    assert_eq!(
        granted.difference(&used).collect::<Vec<_>>(),
        [] as [&[String; 3]; 0],
        "granted but unused"
    );
    let pods = all.iter().filter(|request| {
        request["objectRef"]["resource"] == "pods" && request["objectRef"]["subresource"].is_null()
    });
    for request in pods {
        let uri = request["requestURI"].as_str().unwrap_or_default();
        let of_the_node = uri.contains(&format!("spec.nodeName%3D{NODE}"));
        let own = uri.contains("metadata.name%3Dproxy&") || uri.ends_with("metadata.name%3Dproxy");
        assert!(
            of_the_node || own,
            "only pods of this node and the own Pod are read: {uri}"
        );
    }
    proxy.stop().await
}

/// Returns group, resource and verb.
fn used_permission(request: &Value) -> [String; 3] {
    let object = &request["objectRef"];
    let [group, resource, subresource, verb] = [
        &object["apiGroup"],
        &object["resource"],
        &object["subresource"],
        &request["verb"],
    ]
    .map(|text| text.as_str().unwrap_or_default());
    let resource = match subresource {
        "" => resource.to_owned(),
        subresource => format!("{resource}/{subresource}"),
    };
    [group.to_owned(), resource, verb.to_owned()]
}

fn granted() -> Result<BTreeSet<[String; 3]>> {
    let role: Value = serde_saphyr::from_str(include_str!("../../../config/rbac/proxy_role.yaml"))?;
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().context("rules")? {
        let strings = |key: &str| {
            rule[key]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for group in strings("apiGroups") {
            for resource in strings("resources") {
                granted.extend(
                    strings("verbs")
                        .into_iter()
                        .map(|verb| [group.clone(), resource.clone(), verb]),
                );
            }
        }
    }
    Ok(granted)
}
