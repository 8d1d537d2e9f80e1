//! The shipped role is exactly what is used, and an idle controller writes nothing but its Lease.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bed::{Controller, Scene};
use crate::leaving::own_server;
use anyhow::{Context as _, Result};
use api::names;
use e2e::apiserver::Options;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

const ACCOUNT: &str = "system:serviceaccount:multus-service:multus-service-controller";

/// (group, resource with subresource, verb).
type Use = (String, String, String);

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_role_is_exactly_what_is_used_and_idle_writes_nothing() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "privileged", &[])?;
    controller.wait_ready().await?;
    let scene = Scene::new(&server, "rbac").await?;
    // A life with everything in it: creates, updates, deletes, a refusal that comes back.
    scene.service("web", json!({})).await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    scene.service("db", json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app=web"}}, "spec": {"selector": null}})).await?;
    scene.endpoints_until("db", &[("10.1.0.2", true)]).await?;
    for (network, status, reason) in [
        ("a,b", "False", "InvalidNetwork"),
        ("testnet1", "True", "Served"),
        ("a,b", "False", "InvalidNetwork"),
    ] {
        scene
            .patch::<Service>(
                "web",
                json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: network}}}),
            )
            .await?;
        scene.accepted_until("web", status, reason).await?;
    }
    scene.slices_until("web", "no slices", <[_]>::is_empty).await?;
    let event = scene.event_until("web", "InvalidNetwork").await?;
    assert!(
        event.series.is_some(),
        "the second time is counted on the first event"
    );
    // Two bounded windows: something may be under way when the first begins.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = requests(&server)?.len();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let later: Vec<_> = requests(&server)?.split_off(before);
    let writes: Vec<_> = later
        .iter()
        .filter(|r| is_write(r) && r["objectRef"]["resource"] != "leases")
        .collect();
    assert_eq!(writes, [] as [&Value; 0], "idle");
    assert!(
        later.iter().any(|r| r["objectRef"]["resource"] == "leases"),
        "but it renews its lease"
    );

    let all = requests(&server)?;
    let forbidden: Vec<_> = all
        .iter()
        .filter(|r| r["responseStatus"]["code"] == 403)
        .collect();
    assert_eq!(forbidden, [] as [&Value; 0]);
    let used: BTreeSet<Use> = all.iter().map(used).collect();
    let granted = granted()?;
    let unused: Vec<_> = granted.difference(&used).collect();
    assert_eq!(unused, [] as [&Use; 0], "granted but never used");
    Ok(())
}

fn requests(server: &e2e::apiserver::Apiserver) -> Result<Vec<Value>> {
    let log = std::fs::read_to_string(server.audit_log())?;
    let lines = log.lines().filter(|line| line.contains(ACCOUNT));
    // The last line may be half written.
    Ok(lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|r| r["user"]["username"] == ACCOUNT)
        .collect())
}

fn is_write(request: &Value) -> bool {
    !matches!(request["verb"].as_str(), Some("get" | "list" | "watch"))
}

fn used(request: &Value) -> Use {
    let object = &request["objectRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = match object["subresource"].as_str() {
        Some(sub) => format!("{}/{sub}", text(&object["resource"])),
        None => text(&object["resource"]),
    };
    (text(&object["apiGroup"]), resource, text(&request["verb"]))
}

fn granted() -> Result<BTreeSet<Use>> {
    let roles: Vec<Value> = serde_saphyr::from_multiple(include_str!("../../rbac.yaml"))?;
    let mut granted = BTreeSet::new();
    for rule in roles
        .iter()
        .flat_map(|role| role["rules"].as_array().into_iter().flatten())
    {
        let strings = |key: &str| -> Result<Vec<String>> {
            let list = rule[key]
                .as_array()
                .with_context(|| format!("a rule has no {key}"))?;
            Ok(list
                .iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect())
        };
        for group in strings("apiGroups")? {
            for resource in strings("resources")? {
                for verb in strings("verbs")? {
                    granted.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    Ok(granted)
}
