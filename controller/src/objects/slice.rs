//! The fields of Services and of managed EndpointSlices that decisions read, and the owner of a slice.
//!
//! Pure.

use api::ObjectName;
use api::names::SERVICE_NAME_LABEL;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Drops the fields of a Service that no decision reads.
pub fn trim_service(service: &mut Service) {
    service.metadata.managed_fields = None;
    if let Some(status) = &mut service.status {
        status.load_balancer = None;
    }
}

/// Drops the fields of a slice that no decision reads.
pub fn trim_slice(slice: &mut EndpointSlice) {
    slice.metadata.managed_fields = None;
}

/// The Service that a slice's label names.
pub fn service_key(slice: &EndpointSlice) -> Option<ObjectName> {
    let name = slice
        .metadata
        .labels
        .as_ref()?
        .get(SERVICE_NAME_LABEL)
        .filter(|name| !name.is_empty())?;
    Some(ObjectName::new(slice.metadata.namespace.clone()?, name.clone()))
}

/// Returns true if the slice belongs to this Service, by UID: not to an earlier one of the same name.
pub fn is_owned_by(slice: &EndpointSlice, service: &Service) -> bool {
    owners(slice).any(|uid| Some(uid) == service.metadata.uid.as_deref())
}

/// UIDs of the Services the slice belongs to: one, unless another client changed it.
pub fn owners(slice: &EndpointSlice) -> impl Iterator<Item = &str> {
    let owners = slice.metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.kind == "Service" && owner.api_version == "v1")
        .map(|owner| owner.uid.as_str())
}

/// Returns true if the slice is deleted and only a finalizer keeps it.
pub fn is_being_deleted(slice: &EndpointSlice) -> bool {
    slice.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// ServiceControllerKey of the archived multus-service controller: no label, an empty one, a good one.
    #[rstest]
    #[case::no_labels(json!(null), None)]
    #[case::empty(json!({SERVICE_NAME_LABEL: ""}), None)]
    #[case::named(json!({SERVICE_NAME_LABEL: "web"}), Some("shop/web"))]
    fn service_controller_key(#[case] labels: serde_json::Value, #[case] want: Option<&str>) {
        let slice: EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": [],
            "metadata": {"name": "s", "namespace": "shop", "labels": labels}}))
        .unwrap();
        assert_eq!(service_key(&slice).map(|key| key.to_string()).as_deref(), want);
    }

    #[rstest]
    #[case::same_uid("Service", "v1", "u1", true)]
    #[case::recreated("Service", "v1", "u0", false)]
    #[case::other_kind("Pod", "v1", "u1", false)]
    #[case::other_version("Service", "serving.knative.dev/v1", "u1", false)]
    fn a_slice_belongs_to_one_uid(
        #[case] kind: &str,
        #[case] version: &str,
        #[case] uid: &str,
        #[case] want: bool,
    ) {
        let slice: EndpointSlice =
            serde_json::from_value(json!({"addressType": "IPv4", "endpoints": [], "metadata": {
            "ownerReferences": [{"kind": kind, "apiVersion": version, "name": "web", "uid": uid}]}}))
            .unwrap();
        let service: Service =
            serde_json::from_value(json!({"metadata": {"name": "web", "uid": "u1"}})).unwrap();
        assert_eq!(is_owned_by(&slice, &service), want);
    }
}
