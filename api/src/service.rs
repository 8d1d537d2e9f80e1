//! The label and the annotation of Services on secondary networks, parsed in one way by controller and proxy.
//!
//! Pure.

use crate::names::{PROXY_NAME, PROXY_NAME_LABEL, SERVICE_NETWORK_ANNOTATION};
use crate::{NetworkRef, ParseNetworkRef};
use k8s_openapi::api::core::v1::Service;

/// Whether the Service has the service-proxy-name label of multus-service: kube-proxy skips it, the proxy serves it.
pub fn has_proxy_label(service: &Service) -> bool {
    service
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(PROXY_NAME_LABEL))
        .is_some_and(|name| name == PROXY_NAME)
}

/// Reason why a labeled Service has no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNetwork {
    /// The Service has the label and not the annotation.
    #[error(
        "annotation {SERVICE_NETWORK_ANNOTATION} is missing: set it to the network-attachment-definition its endpoints are on, or remove the label {PROXY_NAME_LABEL}"
    )]
    Missing,
    /// The annotation does not name a network.
    #[error("annotation {SERVICE_NETWORK_ANNOTATION} {0}")]
    Malformed(ParseNetworkRef),
}

/// Returns the network attachment that a labeled Service is bound to.
pub fn network(service: &Service) -> Result<NetworkRef, NoNetwork> {
    let annotations = service.metadata.annotations.as_ref();
    let value = annotations
        .and_then(|a| a.get(SERVICE_NETWORK_ANNOTATION))
        .ok_or(NoNetwork::Missing)?;
    let own_namespace = service.metadata.namespace.as_deref().unwrap_or("default");
    NetworkRef::parse(value, own_namespace).map_err(NoNetwork::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(metadata: &serde_json::Value) -> Service {
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn the_label_selects_a_service_regardless_of_annotations() {
        assert!(has_proxy_label(&service(
            &json!({"labels": {PROXY_NAME_LABEL: PROXY_NAME}})
        )));
        assert!(!has_proxy_label(&service(
            &json!({"labels": {PROXY_NAME_LABEL: "cilium"}})
        )));
        assert!(!has_proxy_label(&service(
            &json!({"annotations": {SERVICE_NETWORK_ANNOTATION: "macvlan1"}})
        )));
    }

    #[test]
    fn the_annotation_names_the_network() {
        let annotated =
            service(&json!({"namespace": "web", "annotations": {SERVICE_NETWORK_ANNOTATION: "macvlan1"}}));
        assert_eq!(network(&annotated).unwrap().to_string(), "web/macvlan1");
        assert_eq!(
            network(&service(&json!({"namespace": "web"}))),
            Err(NoNetwork::Missing)
        );
        let malformed = service(&json!({"annotations": {SERVICE_NETWORK_ANNOTATION: "a/b/c"}}));
        assert!(network(&malformed).unwrap_err().to_string().contains("a/b/c"));
    }
}
