//! Names of attributes, as docs/admin/traces.md describes them: those of OpenTelemetry's conventions, else with the prefix `multusservice`.

/// Namespace of the Service.
pub const NAMESPACE: &str = "k8s.namespace.name";
/// Name of the Service.
pub const SERVICE: &str = "k8s.service.name";
/// UID of the Service.
pub const SERVICE_UID: &str = "k8s.service.uid";
/// `metadata.generation` of the slice; of several, the highest.
pub const SLICE_GENERATION: &str = "multusservice.endpointslice.generation";
/// Pods: in the controller those that the Service selects, in the proxy those of the node that got the rules.
pub const PODS: &str = "multusservice.pods";
/// Endpoints: in the controller of all slices, in the proxy of the slice.
pub const ENDPOINTS: &str = "multusservice.endpoints";
