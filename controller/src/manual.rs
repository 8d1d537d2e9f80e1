//! Manual slices: EndpointSlices that the author of a Service without any selector wrote.
//!
//! Pure. The slices are watched by the names of these Services, so that the slices of all other Services cost nothing, and in bounded
//! memory: so many Services, so many endpoints for one and for all. Anything beyond the limits is reported, never silently missing.

mod endpoint_budget;
mod scope;

pub use endpoint_budget::EndpointBudget;
pub use scope::{Scope, ScopedServices};

use api::names::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Services whose slices are watched: their names are one label selector.
pub const MAX_SERVICES: usize = 500;
/// Endpoints of one Service: as many as an Endpoints object has at most.
pub const MAX_ENDPOINTS_OF_SERVICE: usize = 1000;
/// Endpoints of all these Services.
pub const MAX_ENDPOINTS: usize = 20_000;
/// Ports of one slice, as the API documents it; its validation lets more pass.
const MAX_PORTS: usize = 100;
/// Label of Endpoints that Kubernetes wrote for a selector; mirroring copies it to the slices.
const ENDPOINTS_MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// managed-by value of the slices that Kubernetes writes for a selector.
pub const ENDPOINT_SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// A slice of an author, trimmed.
#[derive(Clone, Debug, PartialEq)]
pub struct ManualSlice {
    /// Its trimmed content.
    pub slice: EndpointSlice,
    /// Number of its endpoints beyond the budget.
    pub left_out: usize,
}

impl ManualSlice {
    /// Returns true if Kubernetes wrote it for a selector that the Service no longer has, directly or by an Endpoints object that was
    /// mirrored: it names addresses of the cluster network.
    pub fn is_orphaned(&self) -> bool {
        is_orphaned(&self.slice)
    }
}

fn is_orphaned(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let is_kubernetes =
        labels.and_then(|l| l.get(MANAGED_BY_LABEL)).map(String::as_str) == Some(ENDPOINT_SLICE_CONTROLLER);
    is_kubernetes || labels.is_some_and(|labels| labels.contains_key(ENDPOINTS_MANAGED_BY_LABEL))
}

/// Drops the fields that are not copied. Without its resourceVersion a slice with the same content compares equal.
pub fn trim(slice: EndpointSlice) -> EndpointSlice {
    let EndpointSlice {
        metadata,
        address_type,
        endpoints,
        ports,
    } = slice;
    let mut labels = metadata.labels.unwrap_or_default();
    labels.retain(|key, _| {
        [SERVICE_NAME_LABEL, MANAGED_BY_LABEL, ENDPOINTS_MANAGED_BY_LABEL].contains(&key.as_str())
    });
    let mut ports = ports.unwrap_or_default();
    ports.truncate(MAX_PORTS);
    EndpointSlice {
        metadata: ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        address_type,
        endpoints: endpoints.into_iter().map(trim_endpoint).collect(),
        ports: Some(ports),
    }
}

/// "kube-proxy does not look at" addresses beyond the first (API reference); the second shows that there are some.
fn trim_endpoint(mut endpoint: Endpoint) -> Endpoint {
    endpoint.addresses.truncate(2);
    endpoint.addresses.shrink_to_fit();
    Endpoint {
        deprecated_topology: None,
        target_ref: endpoint.target_ref.map(|target| ObjectReference {
            kind: target.kind,
            namespace: target.namespace,
            name: target.name,
            uid: target.uid,
            ..ObjectReference::default()
        }),
        ..endpoint
    }
}
