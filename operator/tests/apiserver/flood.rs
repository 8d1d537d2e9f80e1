//! Anybody in the cluster may connect to the port for probes and metrics.

use crate::bed::Bed;
use anyhow::Result;
use e2e::flood;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_attack_on_the_http_port_keeps_no_probe_out() -> Result<()> {
    let mut bed = Bed::start().await?;
    bed.start_operator(true).await?;
    let address = bed.operator_http().await?;
    flood::attack(bed.operator_pid()?, address).await
}
