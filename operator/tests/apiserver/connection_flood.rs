//! Every pod of the cluster can connect to the port for probes and metrics.

use crate::fixture::Fixture;
use anyhow::Result;
use testbed::flood;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn connection_flood_on_the_http_port_does_not_block_probes() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    fixture.start_operator(true).await?;
    let address = fixture.operator_http().await?;
    flood::attack(fixture.operator_pid()?, address).await
}
