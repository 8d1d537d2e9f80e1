//! Slices that exist when the controller starts: adopted, filled, recycled or replaced, with the fewest writes.

use std::collections::BTreeMap;

use crate::bed::audit::slice_writes;
use crate::bed::{Bed, Controller, Fixture};
use crate::service_removal::own_server;
use anyhow::Result;
use api::{NetworkRef, names};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use testbed::apiserver::Options;

/// A row of the archived multus-service controller's reconciler tests that is about API calls.
struct Row {
    name: &'static str,
    /// Sizes of the slices that exist; they hold the first pods, with this target port and for this owner.
    existing: &'static [usize],
    port: u16,
    is_own: bool,
    pods: usize,
    /// Every tenth of the pods in slices is no longer ready.
    has_unready: bool,
    /// Sizes afterwards, biggest first; then creates, updates, deletes.
    sizes: &'static [usize],
    writes: (usize, usize, usize),
}

/// Slices that do not name their network, as the archived multus-service controller and our earlier releases wrote them.
const WITHOUT_NETWORK: &str = "without-network";

const ROWS: [Row; 11] = [
    Row {
        name: "many-pods",
        existing: &[],
        port: 8080,
        is_own: true,
        pods: 250,
        has_unready: false,
        sizes: &[100, 100, 50],
        writes: (3, 0, 0),
    },
    Row {
        name: "some-preexisting",
        existing: &[62, 61],
        port: 8080,
        is_own: true,
        pods: 250,
        has_unready: false,
        sizes: &[100, 89, 61],
        writes: (1, 1, 0),
    },
    Row {
        name: "worse-allocation",
        existing: &[74, 74],
        port: 8080,
        is_own: true,
        pods: 300,
        has_unready: false,
        sizes: &[100, 74, 74, 52],
        writes: (2, 0, 0),
    },
    Row {
        name: "recycling",
        existing: &[30; 10],
        port: 8081,
        is_own: true,
        pods: 300,
        has_unready: false,
        sizes: &[100, 100, 100],
        writes: (0, 3, 7),
    },
    Row {
        name: "adopted",
        existing: &[30; 10],
        port: 8080,
        is_own: true,
        pods: 300,
        has_unready: false,
        sizes: &[30; 10],
        writes: (0, 0, 0),
    },
    Row {
        name: WITHOUT_NETWORK,
        existing: &[30; 10],
        port: 8080,
        is_own: true,
        pods: 300,
        has_unready: false,
        sizes: &[30; 10],
        writes: (0, 10, 0),
    },
    Row {
        name: "update-packing",
        existing: &[80, 20],
        port: 8080,
        is_own: true,
        pods: 115,
        has_unready: true,
        sizes: &[95, 20],
        writes: (0, 2, 0),
    },
    Row {
        name: "shrinking",
        existing: &[80, 20],
        port: 8080,
        is_own: true,
        pods: 90,
        has_unready: false,
        sizes: &[80, 10],
        writes: (0, 1, 0),
    },
    Row {
        name: "recreation",
        existing: &[5],
        port: 8080,
        is_own: false,
        pods: 5,
        has_unready: false,
        sizes: &[5],
        writes: (1, 0, 1),
    },
    Row {
        name: "label-selection",
        existing: &[0, 0],
        port: 8080,
        is_own: true,
        pods: 0,
        has_unready: false,
        sizes: &[0],
        writes: (0, 1, 1),
    },
    Row {
        name: "placeholder",
        existing: &[5],
        port: 8080,
        is_own: true,
        pods: 0,
        has_unready: false,
        sizes: &[0],
        writes: (0, 1, 0),
    },
];

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn existing_slices_are_reused_with_the_fewest_writes() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let mut scenes = Vec::new();
    for row in &ROWS {
        let fixture = Fixture::new(&server, row.name).await?;
        prepare_row(&fixture, row).await?;
        scenes.push(fixture);
    }
    let controller = Controller::start(&kubeconfig, server.folder(), "placement", &[])?;
    controller.wait_ready().await?;
    for (fixture, row) in scenes.iter().zip(&ROWS) {
        fixture.accepted_until("web", "True", "Accepted").await?;
        fixture
            .slices_until("web", row.name, |slices| sizes(slices) == row.sizes)
            .await?;
        assert_eq!(
            slice_writes(&server, &fixture.namespace)?,
            row.writes,
            "{}",
            row.name
        );
    }
    drop(controller);

    // The flag, on the first row's 250 pods.
    let args = ["--max-endpoints-per-slice", "80"];
    let controller = Controller::start(&kubeconfig, server.folder(), "eighty", &args)?;
    controller.wait_ready().await?;
    scenes[0]
        .service("eighty", json!({"spec": {"selector": {"app": "web"}}}))
        .await?;
    scenes[0]
        .slices_until("eighty", "250 endpoints by 80", |slices| {
            sizes(slices) == [80, 80, 80, 10]
        })
        .await?;
    Ok(())
}

fn sizes(slices: &[EndpointSlice]) -> Vec<usize> {
    let mut sizes: Vec<_> = slices.iter().map(|slice| slice.endpoints.len()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

async fn prepare_row(fixture: &Fixture, row: &Row) -> Result<()> {
    let service = fixture.service("web", json!({})).await?;
    let total = row.pods.max(row.existing.iter().sum());
    pods(fixture, row.pods).await?;
    let pods: BTreeMap<String, Pod> = fixture
        .api::<Pod>()
        .list(&kube::api::ListParams::default())
        .await?
        .items
        .into_iter()
        .map(|pod| (pod.metadata.name.clone().unwrap_or_default(), pod))
        .collect();
    let endpoints: Vec<_> = (0..total)
        .map(|n| endpoint(fixture, &pods, n, &address(n)))
        .collect();
    let mut rest = endpoints.as_slice();
    for size in row.existing {
        let (these, others) = rest.split_at(*size);
        rest = others;
        write_slice(fixture, &service, row, these).await?;
    }
    if row.has_unready {
        let in_slices = row.existing.iter().sum();
        for n in (0..in_slices).step_by(10) {
            let name = format!("web-{n:03}");
            fixture.pod_status(&name, "False", "2026-01-01T00:01:00Z").await?;
        }
    }
    Ok(())
}

fn address(n: usize) -> String {
    format!("10.1.{}.{}", 1 + n / 200, 1 + n % 200)
}

/// Ready pods `web-000`, `web-001` and so on.
async fn pods(fixture: &Fixture, count: usize) -> Result<()> {
    stream::iter(0..count)
        .map(|n| async move { fixture.pod(&format!("web-{n:03}"), "web", &[&address(n)]).await })
        .buffer_unordered(16)
        .try_collect()
        .await
}

/// Field by field what the archived multus-service controller wrote, with the resourceVersion in targetRef.
fn endpoint(fixture: &Fixture, pods: &BTreeMap<String, Pod>, n: usize, address: &str) -> Value {
    let name = format!("web-{n:03}");
    let meta = pods
        .get(&name)
        .map(|pod| pod.metadata.clone())
        .unwrap_or_default();
    json!({
        "addresses": [address], "nodeName": "node-1", "zone": "zone-a",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": fixture.namespace, "name": name, "uid": meta.uid, "resourceVersion": meta.resource_version},
    })
}

async fn write_slice(fixture: &Fixture, service: &Service, row: &Row, endpoints: &[Value]) -> Result<()> {
    let uid = if row.is_own {
        service.metadata.uid.clone()
    } else {
        Some("00000000-dead".to_owned())
    };
    let mut slice = json!({
        "metadata": {
            "generateName": "web-multus-",
            "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME, names::SERVICE_NAME_LABEL: "web", names::MANAGED_BY_LABEL: names::MANAGED_BY},
            "annotations": {names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION: "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": uid, "controller": true, "blockOwnerDeletion": false}],
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": row.port, "protocol": "TCP"}],
    });
    if row.name != WITHOUT_NETWORK {
        let network = NetworkRef::parse("testnet1", &fixture.namespace)?.label_value();
        slice["metadata"]["labels"][names::NETWORK_LABEL] = json!(network);
    }
    fixture
        .api::<EndpointSlice>()
        .create(&PostParams::default(), &serde_json::from_value(slice)?)
        .await?;
    Ok(())
}

/// Cost of each edit of a Service with 250 endpoints, in creates, updates and deletes, added up.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn edits_of_a_service_cost_the_fewest_writes() -> Result<()> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("edits").await?;
    let writes = || slice_writes(bed.server, &fixture.namespace);
    pods(&fixture, 250).await?;
    fixture.service("web", json!({})).await?;
    let is_full = |slices: &[EndpointSlice]| sizes(slices) == [100, 100, 50];
    fixture.slices_until("web", "three slices", is_full).await?;
    assert_eq!(writes()?, (3, 0, 0));

    let label = json!({"metadata": {"labels": {"foo": "bar"}}});
    fixture.patch::<Service>("web", label).await?;
    let is_labelled = |slice: &EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        labels.is_some_and(|labels| labels.contains_key("foo"))
    };
    fixture
        .slices_until("web", "the label everywhere", |slices| {
            is_full(slices) && slices.iter().all(is_labelled)
        })
        .await?;
    assert_eq!(writes()?, (3, 3, 0), "ServicesLabelsUpdating");

    // Reserved labels alone are no reason to write; the edit after them proves that they were seen.
    let reserved =
        json!({"metadata": {"labels": {names::SERVICE_NAME_LABEL: "evil", names::MANAGED_BY_LABEL: "evil"}}});
    fixture.patch::<Service>("web", reserved).await?;
    let port = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 81}]}});
    fixture.patch::<Service>("web", port).await?;
    let is_moved = |slice: &EndpointSlice| {
        slice
            .ports
            .as_ref()
            .is_some_and(|ports| ports[0].port == Some(81))
    };
    fixture
        .slices_until("web", "the other port everywhere", |slices| {
            is_full(slices) && slices.iter().all(is_moved)
        })
        .await?;
    assert_eq!(
        writes()?,
        (3, 6, 0),
        "EndpointSlicesUpdating, ServicesReservedLabels"
    );

    let no_pods = json!({"spec": {"selector": {"app": "no-pods"}}});
    fixture.patch::<Service>("web", no_pods).await?;
    fixture
        .slices_until("web", "a placeholder", |slices| sizes(slices) == [0])
        .await?;
    assert_eq!(writes()?, (3, 7, 2), "Reconcile1EndpointSlice");

    // Being deleted, but held by a finalizer: the one slice follows the pods, and none is created.
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    fixture.patch::<Service>("web", hold).await?;
    let services = fixture.api::<Service>();
    services.delete("web", &DeleteParams::default()).await?;
    let everybody = json!({"spec": {"selector": {"app": "web"}}});
    fixture.patch::<Service>("web", everybody).await?;
    fixture
        .service("after", json!({"spec": {"selector": {"app": "web"}}}))
        .await?;
    fixture.slices_until("after", "three slices", is_full).await?;
    assert_eq!(writes()?, (6, 8, 2), "SyncServicePendingDeletion");
    fixture
        .patch::<Service>("web", json!({"metadata": {"finalizers": null}}))
        .await?;
    fixture.slices_until("web", "nothing", <[_]>::is_empty).await?;
    Ok(())
}

/// Pods that give one port name five numbers: a slice per number, each made by one create.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_port_name_with_five_numbers_is_five_slices() -> Result<()> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture("named").await?;
    for n in 0..20_usize {
        let ports = json!([{"name": "http", "containerPort": 8080 + n % 5}]);
        let pod = json!({
            "metadata": {"name": format!("web-{n}"), "labels": {"app": "web"},
                "annotations": {names::NETWORK_STATUS_ANNOTATION: fixture.status(&[&address(n)])}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "localhost/none", "ports": ports}]},
        });
        fixture
            .api::<Pod>()
            .create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        fixture
            .pod_status(&format!("web-{n}"), "True", "2026-01-01T00:00:00Z")
            .await?;
    }
    let named = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    fixture.service("web", named).await?;
    let slices = fixture
        .slices_until("web", "five slices of four", |slices| sizes(slices) == [4; 5])
        .await?;
    let mut numbers: Vec<_> = slices
        .iter()
        .flat_map(|slice| slice.ports.iter().flatten().filter_map(|port| port.port))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [8080, 8081, 8082, 8083, 8084]);
    assert_eq!(slice_writes(bed.server, &fixture.namespace)?, (5, 0, 0));
    Ok(())
}
