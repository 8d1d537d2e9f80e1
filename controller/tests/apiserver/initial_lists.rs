//! Requests of a start: one list of each kind.

use std::time::Duration;

use crate::bed::audit::requests;
use crate::bed::{Controller, Fixture};
use crate::service_removal::own_server;
use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use testbed::apiserver::Options;
use testbed::wait;

const SERVICES: usize = 250;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_start_lists_each_kind_by_one_request_and_sees_all_of_it() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let fixture = Fixture::new(&server, "lists").await?;
    let fixture = &fixture;
    stream::iter(0..SERVICES)
        .map(|n| async move { fixture.service(&format!("svc-{n}"), json!({})).await })
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "lists", &[])?;
    controller.wait_ready().await?;
    wait::eventually(Duration::from_mins(1), "a slice of every Service", async || {
        let writes = crate::bed::audit::slice_writes(&server, &fixture.namespace)?;
        Ok((writes.0 == SERVICES).then_some(()))
    })
    .await?;
    let requests = requests(&server)?;
    for resource in ["services", "pods", "nodes", "endpointslices"] {
        let lists = requests.iter().filter(|request| {
            request.resource == resource && request.verb == "list" && request.namespace.is_empty()
        });
        assert_eq!(lists.count(), 1, "lists of {resource}");
    }
    Ok(())
}
