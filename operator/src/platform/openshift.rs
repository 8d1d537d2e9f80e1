//! Defaults that differ on OpenShift.
//!
//! Reads `infrastructures.config.openshift.io/cluster`; a cluster without that API is not OpenShift.

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use std::collections::BTreeSet;

/// An OpenShift cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenShift {
    /// The control plane has a single replica, and so should other workloads.
    pub single_replica: bool,
}

/// Namespaces whose networks are usable from every namespace under OpenShift's Multus.
const GLOBAL_NAMESPACES: [&str; 4] = [
    "default",
    "openshift-multus",
    "openshift-sriov-network-operator",
    "openshift-cnv",
];

impl OpenShift {
    /// Controller replicas, unless the configuration specifies them.
    pub fn replicas(found: Option<&Self>) -> i32 {
        if found.is_some_and(|openshift| openshift.single_replica) {
            1
        } else {
            2
        }
    }

    /// Global namespaces, unless the configuration specifies them.
    pub fn global_namespaces(found: Option<&Self>) -> BTreeSet<String> {
        let names = if found.is_some() {
            &GLOBAL_NAMESPACES[..]
        } else {
            &GLOBAL_NAMESPACES[..1]
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }
}

pub(crate) async fn detect(client: &Client) -> kube::Result<Option<OpenShift>> {
    let kind = GroupVersionKind::gvk("config.openshift.io", "v1", "Infrastructure");
    let resource = ApiResource::from_gvk_with_plural(&kind, "infrastructures");
    let infrastructures: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let found = match infrastructures.get("cluster").await {
        Ok(infrastructure) => Some(infrastructure),
        // Also when the API itself is absent: then the answer is a bare 404 without a Status.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => return Err(error),
    };
    Ok(found.map(|infrastructure| OpenShift {
        single_replica: infrastructure.data.pointer("/status/controlPlaneTopology")
            == Some(&serde_json::json!("SingleReplica")),
    }))
}
