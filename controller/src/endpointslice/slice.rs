//! A slice's metadata: names, labels, owner.
//!
//! Pure. Byte for byte as the archived multus-service controller writes it, plus the network.

use crate::validate::is_headless;
use api::names::{
    HEADLESS_LABEL, LAST_CHANGE_TRIGGER_TIME_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, NETWORK_LABEL,
    NETWORK_NAME_ANNOTATION, SERVICE_NAME_LABEL, SLICE_NAME_SUFFIX,
};
use api::{Family, NetworkRef};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

const RESERVED_LABELS: [&str; 4] = [
    SERVICE_NAME_LABEL,
    MANAGED_BY_LABEL,
    HEADLESS_LABEL,
    NETWORK_LABEL,
];

/// A slice of the Service without endpoints.
pub(super) fn blank(service: &Service, family: Family, ports: Vec<EndpointPort>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(service)),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![owner(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.as_str().to_owned(),
        endpoints: Vec::new(),
        ports: Some(ports),
    }
}

/// The prefix the API server makes names from. A Service's name is at most 63 characters, so it is always valid.
fn generate_name(service: &Service) -> String {
    format!(
        "{}{SLICE_NAME_SUFFIX}",
        service.metadata.name.as_deref().unwrap_or_default()
    )
}

/// The Service's labels without the reserved ones, and the reserved ones as the controller sets them.
pub(super) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = unreserved(service.metadata.labels.as_ref());
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(
        SERVICE_NAME_LABEL.to_owned(),
        service.metadata.name.clone().unwrap_or_default(),
    );
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

/// Returns true if the slice's labels differ from the Service's. Differences in reserved labels alone are no reason to write.
pub(super) fn mirrors_other_labels(slice: &EndpointSlice, service: &Service) -> bool {
    unreserved(slice.metadata.labels.as_ref()) != unreserved(service.metadata.labels.as_ref())
}

fn unreserved(labels: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let all = labels.into_iter().flatten();
    all.filter(|(key, _)| !RESERVED_LABELS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        // True requires the permission to update services/finalizers, and no deletion has to wait for the slices.
        block_owner_deletion: Some(false),
    }
}

/// Sets the network of the slice: for proxies in a label, for users in an annotation.
pub(super) fn set_network(slice: &mut EndpointSlice, network: &NetworkRef) {
    let labels = slice.metadata.labels.get_or_insert_default();
    labels.insert(NETWORK_LABEL.to_owned(), network.label_value());
    let annotations = slice.metadata.annotations.get_or_insert_default();
    annotations.insert(NETWORK_NAME_ANNOTATION.to_owned(), network.to_string());
}

/// Returns true if proxies select the slice by its network. A slice without the label, of an earlier release or the archived
/// controller, is selected by all proxies; it gets the label in place.
pub(super) fn has_network(slice: &EndpointSlice, network: &NetworkRef) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(NETWORK_LABEL)) == Some(&network.label_value())
}

/// Sets the time of the change that led to the slice's content; removes an older one if the time is unknown.
pub(super) fn set_trigger_time(slice: &mut EndpointSlice, at: Option<Timestamp>) {
    let annotations = slice.metadata.annotations.get_or_insert_default();
    match at {
        Some(at) => annotations.insert(LAST_CHANGE_TRIGGER_TIME_ANNOTATION.to_owned(), at.to_string()),
        None => annotations.remove(LAST_CHANGE_TRIGGER_TIME_ANNOTATION),
    };
    slice.metadata.annotations = slice.metadata.annotations.take().filter(|a| !a.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn service(labels: &serde_json::Value, cluster_ip: &str) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "foo", "namespace": "shop", "uid": "u1", "labels": labels},
            "spec": {"clusterIP": cluster_ip}}),
        )
        .unwrap()
    }

    fn slice(labels: &serde_json::Value) -> EndpointSlice {
        serde_json::from_value(
            json!({"addressType": "IPv4", "endpoints": [], "metadata": {"labels": labels}}),
        )
        .unwrap()
    }

    /// The thirteen cases of the archived controller of SetEndpointSliceLabels: what the slice has, what the Service has, is a write due.
    #[rstest]
    #[case::none_none(json!({}), json!({}), "172.30.0.1", json!({}), false)]
    #[case::service_has(json!({}), json!({"foo": "bar"}), "172.30.0.1", json!({"foo": "bar"}), true)]
    #[case::slice_has(json!({"foo": "bar"}), json!({}), "172.30.0.1", json!({}), true)]
    #[case::equal(json!({"foo": "bar"}), json!({"foo": "bar"}), "172.30.0.1", json!({"foo": "bar"}), false)]
    #[case::other_value(json!({"foo": "bar"}), json!({"foo": "baz"}), "172.30.0.1", json!({"foo": "baz"}), true)]
    #[case::other_key(json!({"foo": "bar"}), json!({"a": "b"}), "172.30.0.1", json!({"a": "b"}), true)]
    #[case::reserved_in_the_slice(json!({SERVICE_NAME_LABEL: "foo", MANAGED_BY_LABEL: MANAGED_BY}), json!({}), "172.30.0.1", json!({}), false)]
    #[case::reserved_in_the_service(json!({}), json!({SERVICE_NAME_LABEL: "evil", MANAGED_BY_LABEL: "evil"}), "172.30.0.1", json!({}), false)]
    #[case::both_and_reserved(json!({"foo": "bar", SERVICE_NAME_LABEL: "foo"}), json!({"foo": "bar", MANAGED_BY_LABEL: "evil"}), "172.30.0.1", json!({"foo": "bar"}), false)]
    #[case::headless_added(json!({}), json!({}), "None", json!({HEADLESS_LABEL: ""}), false)]
    #[case::headless_removed(json!({HEADLESS_LABEL: ""}), json!({}), "172.30.0.1", json!({}), false)]
    #[case::headless_kept(json!({HEADLESS_LABEL: ""}), json!({"foo": "bar"}), "None", json!({"foo": "bar", HEADLESS_LABEL: ""}), true)]
    #[case::headless_hijacked(json!({}), json!({HEADLESS_LABEL: "evil"}), "172.30.0.1", json!({}), false)]
    fn set_endpoint_slice_labels(
        #[case] has: serde_json::Value,
        #[case] wants: serde_json::Value,
        #[case] cluster_ip: &str,
        #[case] want: serde_json::Value,
        #[case] is_due: bool,
    ) {
        let service = service(&wants, cluster_ip);
        let mut want: BTreeMap<String, String> = serde_json::from_value(want).unwrap();
        want.insert(SERVICE_NAME_LABEL.into(), "foo".into());
        want.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
        assert_eq!(labels(&service), want);
        assert_eq!(mirrors_other_labels(&slice(&has), &service), is_due);
    }

    /// NewEndpointSlice of the archived multus-service controller: the whole object.
    #[rstest]
    #[case::cluster_ip("172.30.0.1", Family::V4, json!({}), json!({}))]
    #[case::cluster_ip_v6("fd00:96::1", Family::V6, json!({}), json!({}))]
    #[case::headless("None", Family::V4, json!({}), json!({HEADLESS_LABEL: ""}))]
    #[case::headless_v6("None", Family::V6, json!({}), json!({HEADLESS_LABEL: ""}))]
    #[case::labels("172.30.0.1", Family::V4, json!({"foo": "bar"}), json!({"foo": "bar"}))]
    #[case::headless_labels("None", Family::V4, json!({"foo": "bar"}), json!({"foo": "bar", HEADLESS_LABEL: ""}))]
    fn new_endpoint_slice(
        #[case] cluster_ip: &str,
        #[case] family: Family,
        #[case] has: serde_json::Value,
        #[case] extra: serde_json::Value,
    ) {
        let slice = blank(&service(&has, cluster_ip), family, vec![]);
        let mut labels = json!({SERVICE_NAME_LABEL: "foo", MANAGED_BY_LABEL: MANAGED_BY});
        labels
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        assert_eq!(
            serde_json::to_value(&slice).unwrap(),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family.as_str(), "endpoints": [], "ports": [],
                "metadata": {
                    "generateName": "foo-multus-", "namespace": "shop", "labels": labels,
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "foo", "uid": "u1",
                        "controller": true, "blockOwnerDeletion": false}],
                },
            })
        );
    }

    #[test]
    fn the_trigger_time_has_gos_format_and_is_removed_when_unknown() {
        let mut slice = slice(&json!({}));
        set_trigger_time(&mut slice, Some("2026-01-02T03:04:05.600Z".parse().unwrap()));
        let annotations = slice.metadata.annotations.clone().unwrap();
        assert_eq!(
            annotations[LAST_CHANGE_TRIGGER_TIME_ANNOTATION],
            "2026-01-02T03:04:05.6Z"
        );
        set_trigger_time(&mut slice, None);
        assert_eq!(slice.metadata.annotations, None);
    }
}
