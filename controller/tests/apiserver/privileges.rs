//! The shipped role is exactly what is used, and an idle controller writes nothing but its Lease.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bed::audit::{own_writes, requests};
use crate::bed::{Controller, Fixture, RBAC};
use crate::service_removal::own_server;
use anyhow::{Context as _, Result};
use api::names;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use testbed::apiserver::{Apiserver, Options};
use testbed::audit::Request;
use testbed::scrape::Scraper;
use testbed::wait;

const SOON: Duration = Duration::from_mins(1);

/// (group, resource with subresource, verb).
type Use = (String, String, String);

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_role_is_exactly_what_is_used_and_idle_writes_nothing() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "privileged", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "rbac").await?;
    // Exercises everything: creates, updates, deletes, a repeated rejection.
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    fixture.service("db", json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app=web"}}, "spec": {"selector": null}})).await?;
    fixture.endpoints_until("db", &[("10.1.0.2", true)]).await?;
    let manual = json!({"endpoints": [{"addresses": ["10.1.0.9"]}, {"addresses": ["172.30.0.1"]}]});
    fixture.manual_slice("by-hand", "by-hand", manual).await?;
    fixture
        .service("by-hand", json!({"spec": {"selector": null}}))
        .await?;
    fixture.endpoints_until("by-hand", &[("10.1.0.9", true)]).await?;
    fixture
        .accepted_until("by-hand", "True", "AcceptedWithWarnings")
        .await?;
    for (network, status, reason) in [
        ("a,b", "False", "InvalidNetwork"),
        ("testnet1", "True", "Accepted"),
        ("a,b", "False", "InvalidNetwork"),
    ] {
        fixture
            .patch::<Service>(
                "web",
                json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: network}}}),
            )
            .await?;
        fixture.accepted_until("web", status, reason).await?;
    }
    fixture.slices_until("web", "no slices", <[_]>::is_empty).await?;
    let event = fixture.event_until("web", "InvalidNetwork").await?;
    assert!(
        event.series.is_some(),
        "the second time is counted on the first event"
    );
    serve_metrics(&server, &controller).await?;
    // Two bounded windows: something may be in progress when the first begins.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = requests(&server)?.len();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let later: Vec<_> = requests(&server)?.split_off(before);
    assert_eq!(own_writes(&later), [] as [&Request; 0], "idle");
    assert!(
        later.iter().any(|r| r.resource == "leases"),
        "but it renews its lease"
    );

    let all = requests(&server)?;
    let forbidden: Vec<_> = all.iter().filter(|request| request.code == 403).collect();
    assert_eq!(forbidden, [] as [&Request; 0]);
    let mut used: BTreeSet<Use> = all.iter().map(used_by).collect();
    used.extend(used_where_no_list_is_streamed().await?);
    let granted = granted()?;
    let unused: Vec<_> = granted.difference(&used).collect();
    assert_eq!(unused, [] as [&Use; 0], "granted but never used");
    Ok(())
}

/// A scrape with a token, and the TLS profile of OpenShift.
async fn serve_metrics(server: &Apiserver, controller: &Controller) -> Result<()> {
    server.set_tls_profile("Modern").await?;
    server.allow_metrics("allowed").await?;
    let scraper = Scraper::with_token(&server.token("allowed").await?);
    let tls12 = Scraper::default().arg("--tls-max", "1.2");
    wait::eventually(SOON, "a scrape, and only by TLS 1.3", async || {
        let is_strict = tls12.get(&controller.metrics, "/metrics").is_err();
        let answer = scraper.get(&controller.metrics, "/metrics")?;
        Ok((is_strict && answer.0 == 200).then_some(()))
    })
    .await
}

/// An older API server, which streams no lists, gets the same requests.
async fn used_where_no_list_is_streamed() -> Result<BTreeSet<Use>> {
    let (server, kubeconfig) = own_server(Options {
        apiserver_flags: vec!["--feature-gates=WatchList=false".to_owned()],
        ..Options::default()
    })
    .await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "older", &[])?;
    controller.wait_ready().await?;
    Ok(requests(&server)?.iter().map(used_by).collect())
}

fn used_by(request: &Request) -> Use {
    let Request {
        group,
        resource,
        verb,
        ..
    } = request.clone();
    (group, resource, verb)
}

fn granted() -> Result<BTreeSet<Use>> {
    let roles: Vec<Value> = serde_saphyr::from_multiple(RBAC)?;
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
