//! A cluster without Multus: the kind NetworkAttachmentDefinition is not defined, and no request is made for it.

use std::time::Duration;

use crate::bed::audit::requests;
use crate::bed::{Controller, Fixture, define_networks, prepare_without_networks};
use anyhow::Result;
use serde_json::json;
use testbed::apiserver::{Apiserver, Options};
use testbed::wait;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn networks_are_listed_as_soon_as_the_kind_is_defined_and_not_before() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare_without_networks(&server).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "alone", &[])?;
    controller.wait_ready().await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let asked = |code: fn(u16) -> bool| -> Result<usize> {
        let requests = requests(&server)?;
        let about = requests
            .iter()
            .filter(|request| request.resource == "network-attachment-definitions");
        Ok(about.filter(|request| code(request.code)).count())
    };
    assert_eq!(asked(|_| true)?, 0, "requests for a kind that is not there");
    define_networks(&server.client().await?).await?;
    wait::eventually(Duration::from_secs(20), "a list of networks", async || {
        Ok((asked(|code| code == 200)? > 0).then_some(()))
    })
    .await?;
    let fixture = Fixture::new(&server, "multus").await?;
    fixture.delete_network("testnet1").await?;
    fixture.service("web", json!({})).await?;
    fixture.event_until("web", "NetworkNotFound").await?;
    Ok(())
}
