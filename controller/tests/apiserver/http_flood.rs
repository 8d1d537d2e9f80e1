//! Every client in the cluster can connect to the port for probes and metrics.

use crate::bed::Controller;
use crate::service_removal::own_server;
use anyhow::Result;
use testbed::apiserver::Options;
use testbed::flood;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn probes_succeed_during_a_flood_of_the_http_port() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "attacked", &[])?;
    controller.wait_ready().await?;
    flood::attack(controller.child.pid, controller.http.parse()?).await
}
