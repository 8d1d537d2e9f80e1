//! The node's zone and the Service CIDRs select the endpoints that receive flows.

use crate::cluster::{Cluster, NODE, create, object};
use crate::serving::{outcomes, until};
use crate::traffic::Outcome;
use crate::traffic::Server;
use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn zone_and_service_cidrs_select_the_endpoints() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    create(nodes.clone(), &object(json!({"metadata": {"name": NODE}}))).await?;
    let status = cluster.status(7);
    let client = cluster.attached_pod(7, &status).await?;
    let servers = [cluster.testbed.pod(2), cluster.testbed.pod(3)];
    let _servers = servers.each_ref().map(Server::start);
    let from = |host| Outcome::Answered(host, client.address());

    let proxy = cluster.proxy().await?;
    let nginx = cluster.service("nginx", "macvlan1").await?;
    cluster.slice(&nginx, &[2, 3]).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    let hinted = |host: u8, zone: &str| json!({"addresses": [format!("10.1.0.{host}")], "hints": {"forZones": [{"name": zone}]}});
    let hints = json!({"endpoints": [hinted(2, "east"), hinted(3, "west")]});
    slices
        .patch("nginx-multus-a", &PatchParams::default(), &Patch::Merge(&hints))
        .await?;
    until("without a zone no hint counts", || {
        outcomes(&client, &nginx) == [from(2), from(3)]
    })
    .await;

    for (zone, host) in [("east", 2), ("west", 3)] {
        let label = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
        nodes
            .patch(NODE, &PatchParams::default(), &Patch::Merge(&label))
            .await?;
        until("the node's zone counts", || {
            outcomes(&client, &nginx) == [from(host)]
        })
        .await;
    }

    // Node addresses are checked by the controller; the proxy serves what it writes.
    let address = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.1.0.3"}]}});
    nodes
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(&address))
        .await?;
    assert_eq!(outcomes(&client, &nginx), [from(3)]);

    let range = json!({"metadata": {"name": "wide"}, "spec": {"cidrs": ["10.1.0.0/24"]}});
    create(Api::all(cluster.admin.clone()), &object::<ServiceCIDR>(range)).await?;
    until("no endpoint is in a Service range", || {
        outcomes(&client, &nginx) == [Outcome::Rejected]
    })
    .await;
    proxy.stop().await
}
