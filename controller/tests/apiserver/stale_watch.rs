//! The watch of slices is far behind the controller's own writes: it plans from the written slices, and writes nothing twice.

use std::collections::VecDeque;

use crate::bed::Fixture;
use crate::service_removal::own_server;
use anyhow::Result;
use api::names;
use controller::apply::Writer;
use controller::controller::{Driver, Leadership};
use controller::index::{Change, Event, Index};
use controller::manual::Scope;
use controller::metrics::Metrics;
use controller::settings::Settings;
use controller::watches;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use process::Health;
use prometheus_client::registry::Registry;
use serde_json::json;
use testbed::apiserver::{Apiserver, Options};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

const USER: &str = "behind";

/// Passes changes on; those of slices after the first list only when they are released.
async fn hold_slices(mut from: Receiver<Change>, to: Sender<Change>, released: CancellationToken) {
    let (mut held, mut is_listed) = (VecDeque::new(), false);
    loop {
        tokio::select! {
            Some(change) = from.recv() => match change {
                Change::Slice(event) if is_listed && !(released.is_cancelled() && held.is_empty()) => {
                    held.push_back(event);
                }
                change => {
                    is_listed |= matches!(change, Change::Slice(Event::ListDone));
                    let _ = to.send(change).await;
                }
            },
            () = released.cancelled(), if !held.is_empty() => {
                while let Some(event) = held.pop_front() {
                    let _ = to.send(Change::Slice(event)).await;
                }
            }
            else => return,
        }
    }
}

/// The controller's parts, assembled as in `run`, with the delayed watch between them. Never returns.
async fn run(client: Client, released: CancellationToken) -> Result<()> {
    let (from_watches, watched) = channel(256);
    let (to_driver, changes) = channel(256);
    let (scope, scope_changes) = tokio::sync::watch::channel(Scope::default());
    let _watching = watches::start(&client, &from_watches, scope_changes);
    let (granted, shutdown) = (CancellationToken::new(), CancellationToken::new());
    granted.cancel();
    let metrics = Metrics::register(&mut Registry::default());
    let writer = Writer::new(client.clone(), USER);
    let driver = Driver::new(
        client,
        Index::new(Settings::default()),
        writer,
        scope,
        metrics,
        Health::new(),
    );
    let leadership = Leadership { granted, shutdown };
    let (ended, ()) = tokio::join!(
        driver.run(changes, leadership),
        hold_slices(watched, to_driver, released)
    );
    Ok(ended?)
}

/// Counts of slice requests: creates, updates, deletes, and rejected ones of any kind.
fn answers(server: &Apiserver) -> Result<[usize; 4]> {
    let mut requests = server.audit_log().requests()?;
    requests.retain(|request| request.user == USER && request.resource == "endpointslices");
    let count = |verb| requests.iter().filter(|r| r.verb == verb && r.code < 300).count();
    let rejected = requests.iter().filter(|r| r.code >= 400).count();
    Ok([count("create"), count("update"), count("delete"), rejected])
}

async fn live(fixture: &Fixture, released: &CancellationToken) -> Result<()> {
    fixture.service("web", json!({})).await?;
    fixture
        .slices_until("web", "a placeholder", |slices| slices.len() == 1)
        .await?;
    let mut want = Vec::new();
    for n in 1..=5 {
        want.push((format!("10.1.0.{n}"), true));
        fixture.pod(&format!("web-{n}"), "web", &[&want[n - 1].0]).await?;
        let is_there = |slices: &[_]| crate::bed::endpoints(slices) == want;
        fixture.slices_until("web", "one endpoint more", is_there).await?;
    }
    let label = |value| json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: value}}});
    fixture.patch::<Service>("web", label(None)).await?;
    fixture.slices_until("web", "no slices", <[_]>::is_empty).await?;
    fixture
        .patch::<Service>("web", label(Some(names::PROXY_NAME)))
        .await?;
    let is_there = |slices: &[_]| crate::bed::endpoints(slices) == want;
    fixture
        .slices_until("web", "the endpoints again", is_there)
        .await?;

    // The watch reports old events now: slices that are deleted, and versions that were replaced.
    released.cancel();
    fixture.pod("web-6", "web", &["10.1.0.6"]).await?;
    want.push(("10.1.0.6".to_owned(), true));
    let is_there = |slices: &[_]| slices.len() == 1 && crate::bed::endpoints(slices) == want;
    fixture.slices_until("web", "the last endpoint", is_there).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_watch_far_behind_the_controllers_writes_causes_no_writes() -> Result<()> {
    let (server, _) = own_server(Options::default()).await?;
    let fixture = Fixture::new(&server, "behind").await?;
    let client = server.client_as(USER, &["system:masters"]).await?;
    let released = CancellationToken::new();
    tokio::select! {
        ended = run(client, released.clone()) => anyhow::bail!("the driver ended: {ended:?}"),
        lived = live(&fixture, &released) => lived?,
    }
    // The placeholder, six pods one by one, the label removed and added again.
    assert_eq!(
        answers(&server)?,
        [2, 6, 1, 0],
        "creates, updates, deletes, rejected"
    );
    Ok(())
}
