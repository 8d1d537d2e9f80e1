//! Leader election: replicas that stop or are paused. Another one takes over, and nothing is undone.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bed::audit::requests;
use crate::bed::{Controller, Fixture};
use crate::service_removal::own_server;
use anyhow::{Context as _, Result};
use api::names;
use futures::TryStreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use serde_json::json;
use testbed::apiserver::{Apiserver, Options};
use testbed::wait;

async fn holder(server: &Apiserver) -> Result<Option<String>> {
    let leases: Api<Lease> = Api::namespaced(server.client().await?, names::NAMESPACE);
    Ok(leases
        .get_opt(names::CONTROLLER)
        .await?
        .and_then(|lease| lease.spec?.holder_identity))
}

async fn until_holder(server: &Apiserver, limit: Duration, name: &str) -> Result<()> {
    wait::eventually(limit, &format!("{name} to lead"), async || {
        Ok((holder(server).await?.as_deref() == Some(name)).then_some(()))
    })
    .await
}

/// Two controllers, of which the first leads and the other waits.
async fn replicas(server: &Apiserver, kubeconfig: &Path) -> Result<[Controller; 2]> {
    let first = Controller::start(kubeconfig, server.folder(), "first", &[])?;
    until_holder(server, Duration::from_secs(20), "first").await?;
    let second = Controller::start(kubeconfig, server.folder(), "second", &[])?;
    second.wait_ready().await?;
    Ok([first, second])
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_stopped_leader_hands_over_within_three_seconds() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let [first, _second] = replicas(&server, &kubeconfig).await?;
    let fixture = Fixture::new(&server, "handover").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    first.signal("TERM")?;
    let stopped = Instant::now();
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    until_holder(&server, Duration::from_secs(10), "second").await?;
    let took = stopped.elapsed();
    eprintln!("took over after {took:.1?}");
    assert!(took < Duration::from_secs(3), "took over after {took:?}");
    fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    assert!(first.has_ended(), "it exits");
    Ok(())
}

/// A killed leader does not release its Lease: it expires, 15 s after the last renewal. Meanwhile replicas send few requests.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_killed_leader_is_replaced_soon_after_its_lease_expires() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let [first, _second] = replicas(&server, &kubeconfig).await?;
    let leases = || -> Result<usize> {
        let all = requests(&server)?;
        Ok(all.iter().filter(|request| request.resource == "leases").count())
    };
    let (before, since) = (leases()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let idle = u64::try_from(leases()? - before)? * 60 / since.elapsed().as_secs();
    first.signal("KILL")?;
    let killed = Instant::now();
    until_holder(&server, Duration::from_secs(40), "second").await?;
    let took = killed.elapsed();
    eprintln!("two idle replicas sent {idle} requests a minute; took over after {took:.1?}");
    assert!(took < Duration::from_secs(30), "took over after {took:?}");
    assert!(idle <= 42, "{idle} requests a minute");
    Ok(())
}

/// The first leader is frozen, loses its Lease, and resumes with an outdated decision.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_leader_that_was_paused_undoes_nothing_and_exits() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let first = Controller::start(&kubeconfig, server.folder(), "paused", &[])?;
    until_holder(&server, Duration::from_secs(20), "paused").await?;
    let second = Controller::start(&kubeconfig, server.folder(), "successor", &[])?;
    second.wait_ready().await?;
    let fixture = Fixture::new(&server, "paused").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    first.signal("STOP")?;
    // It receives this event when it resumes, and plans from slices that are out of date.
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    until_holder(&server, Duration::from_secs(40), "successor").await?;
    fixture
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    fixture.delete_pod("web-1").await?;
    fixture.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    first.signal("CONT")?;
    wait::eventually(Duration::from_secs(30), "the old leader to exit", async || {
        Ok(first.has_ended().then_some(()))
    })
    .await?;
    fixture.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    assert_eq!(fixture.slices("web").await?.len(), 1, "nothing was created twice");
    Ok(())
}

/// Frozen during a burst of creates: some are written, some are in progress, some are not begun. Its successor finishes the work; when
/// it resumes, its late writes are repaired.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn slices_of_a_leader_that_was_paused_in_mid_write_are_repaired() -> Result<()> {
    const SERVICES: usize = 300;
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let fixture = Fixture::new(&server, "burst").await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.pod("web-2", "web", &["10.1.0.3"]).await?;
    for n in 0..SERVICES {
        fixture
            .service(&format!("web-{n}"), json!({"spec": {"selector": {"app": "web"}}}))
            .await?;
    }
    let first = Controller::start(&kubeconfig, server.folder(), "first", &[])?;
    let mut slices = Box::pin(watcher(fixture.api::<EndpointSlice>(), Config::default()).applied_objects());
    for _ in 0..20 {
        tokio::time::timeout(Duration::from_secs(30), slices.try_next()).await??;
    }
    first.signal("STOP")?;
    let written = fixture
        .api::<EndpointSlice>()
        .list(&ListParams::default())
        .await?;
    let written = written.items.len();
    assert!(
        written < SERVICES,
        "paused too late: all {written} slices were written"
    );
    let second = Controller::start(&kubeconfig, server.folder(), "second", &[])?;
    // The state that the paused leader has seen becomes outdated in the meantime.
    fixture.delete_pod("web-1").await?;
    until_holder(&server, Duration::from_secs(40), "second").await?;
    all_have(&fixture, SERVICES, "10.1.0.3").await?;
    first.signal("CONT")?;
    wait::eventually(Duration::from_secs(30), "the old leader to exit", async || {
        Ok(first.has_ended().then_some(()))
    })
    .await?;
    all_have(&fixture, SERVICES, "10.1.0.3").await?;
    assert!(!second.has_ended());
    Ok(())
}

/// Waits until there is one slice a Service, each with this address alone.
async fn all_have(fixture: &Fixture, services: usize, address: &str) -> Result<()> {
    let mut last = (0, 0);
    let found = wait::eventually(Duration::from_mins(1), "one right slice a Service", async || {
        let slices = fixture
            .api::<EndpointSlice>()
            .list(&ListParams::default())
            .await?
            .items;
        let right = slices
            .iter()
            .filter(|slice| matches!(&slice.endpoints[..], [only] if only.addresses == [address]));
        last = (slices.len(), right.count());
        Ok((last == (services, services)).then_some(()))
    })
    .await;
    found.with_context(|| format!("(slices, right ones) are {last:?}"))
}
