//! Source of the Service CIDRs: no endpoint address can be in one.
//!
//! Reads the resources of the API server and `networks.config.openshift.io/cluster`. Controller and proxy watch ServiceCIDR objects
//! (KEP-1880, `networking.k8s.io/v1` since Kubernetes 1.33) themselves; CIDRs from OpenShift or from the configuration are passed
//! to them as arguments.

use ipnet::IpNet;
use kube::api::ListParams;
use kube::{Api, Client, CustomResource};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tracing::warn;

/// The source of the Service CIDRs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServiceRanges {
    /// `ServiceCIDR` objects.
    #[default]
    Objects,
    /// OpenShift's network configuration or `spec.serviceCIDRs`, sorted.
    Given(BTreeSet<IpNet>),
    /// The cluster does not publish them.
    Unknown,
}

/// The part of OpenShift's network configuration that the operator reads.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "config.openshift.io",
    version = "v1",
    kind = "Network",
    status = "NetworkSpec",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkSpec {
    /// One CIDR per address family.
    #[serde(default)]
    pub service_network: Vec<String>,
}

/// Name of the only [`Network`].
pub(crate) const NETWORK_NAME: &str = "cluster";

/// Detects the source of the Service CIDRs.
pub(crate) async fn detect(client: &Client) -> kube::Result<ServiceRanges> {
    let served = client.list_api_group_resources("networking.k8s.io/v1").await?;
    if served
        .resources
        .iter()
        .any(|resource| resource.name == "servicecidrs")
    {
        return Ok(ServiceRanges::Objects);
    }
    // A list, because the watch needs that permission, too.
    let named = ListParams::default().fields(&format!("metadata.name={NETWORK_NAME}"));
    match Api::<Network>::all(client.clone()).list(&named).await {
        Ok(networks) => Ok(networks
            .items
            .first()
            .map_or(ServiceRanges::Unknown, of_openshift)),
        // The API itself is absent: then the answer is a bare 404 without a Status.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(ServiceRanges::Unknown),
        Err(error) => Err(error),
    }
}

/// During a change, `status` has the old CIDRs and `spec` the new ones: no endpoint address can be in either.
fn of_openshift(network: &Network) -> ServiceRanges {
    let status = network.status.iter().flat_map(|status| &status.service_network);
    let ranges: BTreeSet<_> = status
        .chain(&network.spec.service_network)
        .filter_map(|range| {
            let parsed = parse(range);
            if parsed.is_none() {
                warn!(
                    range,
                    "Ignored a serviceNetwork of networks.config.openshift.io/cluster that is not a CIDR"
                );
            }
            parsed
        })
        .collect();
    if ranges.is_empty() {
        ServiceRanges::Unknown
    } else {
        ServiceRanges::Given(ranges)
    }
}

/// Parses a CIDR and clears its host bits; a CIDR of every address is invalid.
pub(crate) fn parse(range: &str) -> Option<IpNet> {
    let range: IpNet = range.parse().ok()?;
    (range.prefix_len() > 0).then(|| range.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::ipv4("172.30.0.0/16", Some("172.30.0.0/16"))]
    #[case::ipv6("fd00:96::/112", Some("fd00:96::/112"))]
    #[case::with_host_bits("172.30.0.1/16", Some("172.30.0.0/16"))]
    #[case::an_address("172.30.0.1", None)]
    #[case::every_address("0.0.0.0/0", None)]
    #[case::every_address_of_ipv6("::/0", None)]
    #[case::no_cidr("cluster", None)]
    fn cidr_is_parsed_without_host_bits(#[case] text: &str, #[case] want: Option<&str>) {
        assert_eq!(parse(text).map(|range| range.to_string()).as_deref(), want);
    }

    #[rstest]
    #[case::installed(json!({"serviceNetwork": ["172.30.0.0/16"]}), json!({"serviceNetwork": ["172.30.0.0/16"]}), &["172.30.0.0/16"])]
    #[case::a_second_family_is_being_added(
        json!({"serviceNetwork": ["172.30.0.0/16", "fd02::/112"]}), json!({"serviceNetwork": ["172.30.0.0/16"]}),
        &["172.30.0.0/16", "fd02::/112"],
    )]
    #[case::without_a_status(json!({"serviceNetwork": ["172.30.0.0/16"]}), Value::Null, &["172.30.0.0/16"])]
    #[case::one_that_cannot_be_read(json!({"serviceNetwork": ["x", "172.30.0.0/16"]}), json!({}), &["172.30.0.0/16"])]
    #[case::nothing_yet(json!({}), json!({}), &[])]
    fn openshift_network_publishes_service_cidrs(
        #[case] spec: Value,
        #[case] status: Value,
        #[case] want: &[&str],
    ) {
        let network: Network = serde_json::from_value(json!({
            "apiVersion": "config.openshift.io/v1", "kind": "Network", "metadata": { "name": "cluster" }, "spec": spec, "status": status,
        }))
        .unwrap();
        let want: BTreeSet<IpNet> = want.iter().map(|range| range.parse().unwrap()).collect();
        let want = if want.is_empty() {
            ServiceRanges::Unknown
        } else {
            ServiceRanges::Given(want)
        };
        assert_eq!(of_openshift(&network), want);
    }
}
