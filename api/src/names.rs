//! Names in the API, in stored objects and in running kernels. Frozen: none may change after the first release.
//!
//! Pure. The first group is the contract of the archived Go project `k8snetworkplumbingwg/multus-service`, byte for byte, so that
//! its controller and ours, or its proxy and ours, can be exchanged one at a time.

/// Label on a Service: the service proxy that serves it. kube-proxy and OVN-Kubernetes skip a Service that carries it
/// (KEP-2447, `service.kubernetes.io/service-proxy-name`).
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Value of [`PROXY_NAME_LABEL`] of a Service that multus-service serves.
pub const PROXY_NAME: &str = "multus-proxy";
/// Annotation on a Service: the network attachment its endpoints are taken from, `name` or `namespace/name`.
pub const SERVICE_NETWORK_ANNOTATION: &str = "k8s.v1.cni.cncf.io/service-network";
/// Annotation on a Pod, written by Multus: its interfaces and addresses, as JSON
/// (NPWG Multi-Network Specification 1.3, "Network Attachment Status Annotation").
pub const NETWORK_STATUS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/network-status";
/// Label on an EndpointSlice: the controller that manages it.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on slices of the controller.
pub const MANAGED_BY: &str = "multus-endpointslice-controller.npwg.k8s.io";
/// Label on an EndpointSlice: the Service it belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label on an EndpointSlice whose Service has no ClusterIP.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Annotation on an EndpointSlice: RFC 3339 time of the change that led to this content.
pub const LAST_CHANGE_TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label on a managed EndpointSlice: the network of its Service, as
/// [`NetworkRef::label_value`](crate::NetworkRef::label_value). By it a proxy watches the slices of its node's networks alone.
pub const NETWORK_LABEL: &str = "multusservice.cni.cncf.io/network";
/// Annotation on a managed EndpointSlice: the same network in readable form, `namespace/name`.
pub const NETWORK_NAME_ANNOTATION: &str = "multusservice.cni.cncf.io/network-name";
/// Suffix of the Service's name in `generateName` of managed slices.
pub const SLICE_NAME_SUFFIX: &str = "-multus-";

/// Annotation on a Service without `spec.selector`: the selector of its pods, in the syntax of `kubectl get -l`.
pub const SELECTOR_ANNOTATION: &str = "multusservice.cni.cncf.io/selector";

/// API group of `MultusServiceConfig`, and prefix of conditions and labels.
pub const GROUP: &str = "multusservice.cni.cncf.io";
/// Name of the only [`MultusServiceConfig`](crate::MultusServiceConfig) a cluster can have.
pub const CONFIG_NAME: &str = "cluster";
/// Namespace of operator and operands, unless the administrator chose another.
pub const NAMESPACE: &str = "multus-service";

/// Server-side-apply field manager of the operator. It must never change: a second field manager would conflict with the first.
pub const OPERATOR_FIELD_MANAGER: &str = "multus-service-operator";
/// Field manager of the controller.
pub const CONTROLLER_FIELD_MANAGER: &str = "multus-service-controller";
/// Field manager of the proxy.
pub const PROXY_FIELD_MANAGER: &str = "multus-service-proxy";
/// Name of the operator's Deployment, service account and Lease.
pub const OPERATOR: &str = "multus-service-operator";
/// Name of the controller's Deployment, service account and Lease.
pub const CONTROLLER: &str = "multus-service-controller";
/// Name of the proxy's DaemonSet and service account.
pub const PROXY: &str = "multus-service-proxy";
/// Name of the DaemonSet that cleans up nodes without a proxy.
pub const CLEANUP: &str = "multus-service-cleanup";

/// Condition the controller keeps on each Service it serves.
pub const ACCEPTED_CONDITION: &str = "multusservice.cni.cncf.io/Accepted";
/// Condition a proxy keeps on its own Pod.
pub const RULES_APPLIED_CONDITION: &str = "multusservice.cni.cncf.io/RulesApplied";

/// Label on a Node whose pods may have multus-service routes and rules.
pub const RULES_LABEL: &str = "multusservice.cni.cncf.io/rules";

/// Value of the label `app.kubernetes.io/part-of` on everything the operator applies.
pub const PART_OF: &str = "multus-service";
/// Value of the label `app.kubernetes.io/managed-by` on everything the operator applies.
pub const OPERATOR_MANAGED_BY: &str = "multus-service-operator";

/// Port of the health endpoints of operator and controller (pod network).
pub const POD_HTTP_PORT: u16 = 8080;
/// Port of the metrics of operator and controller (pod network), HTTPS.
pub const POD_METRICS_PORT: u16 = 8443;
/// Port of the proxy's health endpoints, on 127.0.0.1 of the node.
/// Outside the ranges of OpenShift's host-port registry.
pub const PROXY_HTTP_PORT: u16 = 9124;
/// Port of the proxy's metrics and debug state, on the node's address, HTTPS.
pub const PROXY_METRICS_PORT: u16 = 9125;

/// Routing protocol number of multus-service routes in pods (`ip route show proto 77`), so that cleanup is exact.
pub const ROUTE_PROTOCOL: u8 = 77;
/// nftables table in a pod's network namespace, one per family.
pub const NFT_TABLE: &str = "multus-proxy";
/// Prefix of every managed iptables chain in a pod's network namespace. Chains of the legacy proxy have the prefix `MULTUS-`, so that
/// its leftovers are distinct.
pub const CHAIN_PREFIX: &str = "MSP-";

/// The CustomResourceDefinition of networks, which Multus installs.
pub const NETWORK_DEFINITION: &str = "network-attachment-definitions.k8s.cni.cncf.io";
