//! Where the ranges of ClusterIPs are known from: no endpoint can be in one.
//!
//! Reads what the API server serves and `networks.config.openshift.io/cluster`. ServiceCIDR objects (KEP-1880, `networking.k8s.io/v1` since
//! Kubernetes 1.33) are watched by controller and proxy themselves; what only OpenShift or an administrator knows is passed to them.

use ipnet::IpNet;
use kube::api::ListParams;
use kube::{Api, Client, CustomResource};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tracing::warn;

/// The source of the ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServiceRanges {
    /// `ServiceCIDR` objects.
    #[default]
    Objects,
    /// These, sorted.
    Given(BTreeSet<IpNet>),
    /// Nothing names them.
    Unknown,
}

/// OpenShift's network configuration, as far as it is read.
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
pub struct NetworkSpec {
    /// One range per address family.
    #[serde(default)]
    pub service_network: Vec<String>,
}

/// Name of the only [`Network`].
pub const NETWORK_NAME: &str = "cluster";

/// Looks where the cluster names its ranges.
pub async fn detect(client: &Client) -> kube::Result<ServiceRanges> {
    let served = client.list_api_group_resources("networking.k8s.io/v1").await?;
    if served
        .resources
        .iter()
        .any(|resource| resource.name == "servicecidrs")
    {
        return Ok(ServiceRanges::Objects);
    }
    // A list, because the watch needs that right, too.
    let named = ListParams::default().fields(&format!("metadata.name={NETWORK_NAME}"));
    match Api::<Network>::all(client.clone()).list(&named).await {
        Ok(networks) => Ok(networks
            .items
            .first()
            .map_or(ServiceRanges::Unknown, of_openshift)),
        // The API itself is absent: then the answer is no Status and gives no reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(ServiceRanges::Unknown),
        Err(error) => Err(error),
    }
}

/// While ranges are changed, `status` has the old ones and `spec` the new ones: no endpoint can be in either.
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

/// A range without host bits; a range of every address is none.
pub fn parse(range: &str) -> Option<IpNet> {
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
    #[case::a_word("cluster", None)]
    fn a_range(#[case] text: &str, #[case] want: Option<&str>) {
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
    fn openshift_names_them(#[case] spec: Value, #[case] status: Value, #[case] want: &[&str]) {
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
