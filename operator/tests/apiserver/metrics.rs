//! `/metrics` of a real operator.

use crate::fixture::Fixture;
use anyhow::Result;
use api::names::CONFIG_NAME;
use testbed::scrape::Scraper;

/// Its metrics, as OpenShift's monitoring gets them.
async fn metrics(fixture: &Fixture) -> Result<String> {
    let address = fixture.operator_metrics().await?.to_string();
    let monitoring = Scraper::monitoring(fixture.server.folder());
    let answered = async || {
        let (status, page) = monitoring.get(&address, "/metrics")?;
        Ok((status == 200).then_some(page))
    };
    fixture
        .eventually("the operator to know the authority of clients", answered)
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_status_is_served_as_metrics_until_the_configuration_is_deleted() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let page = metrics(&fixture).await?;
    for series in [
        "multus_service_condition{type=\"Available\",status=\"True\"} 1",
        "multus_service_condition{type=\"Available\",status=\"False\"} 0",
        "multus_service_operand_version_info{operand=\"proxy\",version=",
        "multus_service_rollout_nodes{operand=\"proxy\",state=\"ready\"} ",
        "multus_service_operator_reconcile_duration_seconds_count ",
        "multus_service_watch_restarts_total{resource=\"nodes\"} ",
        "multus_service_api_requests_total{verb=\"patch\",code=\"200\"} ",
    ] {
        assert!(
            page.lines().any(|line| line.starts_with(series)),
            "{series} in {page}"
        );
    }
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    fixture.until_config_deleted().await?;
    let gone = async || {
        let page = metrics(&fixture).await?;
        Ok((!page.contains("multus_service_condition{")).then_some(()))
    };
    fixture.eventually("the series are gone", gone).await
}
