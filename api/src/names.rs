//! Names that other software, stored objects or running kernels know us by. Frozen: none may change after the first release.
//!
//! Pure. The first group is the contract of the archived Go project `k8snetworkplumbingwg/multus-service`, byte for byte, so that
//! its controller and ours, or its proxy and ours, can be exchanged one at a time.

/// Label on a Service: which service proxy serves it. kube-proxy and OVN-Kubernetes skip a Service that carries it
/// (KEP-2447, `service.kubernetes.io/service-proxy-name`).
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Value of [`PROXY_NAME_LABEL`] that makes a Service ours.
pub const PROXY_NAME: &str = "multus-proxy";
/// Annotation on a Service: the network attachment its endpoints are taken from, `name` or `namespace/name`.
pub const SERVICE_NETWORK_ANNOTATION: &str = "k8s.v1.cni.cncf.io/service-network";
/// Annotation on a Pod, written by Multus: its interfaces and addresses, as JSON
/// (NPWG Multi-Network Specification 1.3, "Network Attachment Status Annotation").
pub const NETWORK_STATUS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/network-status";
/// Label on an EndpointSlice: who writes it.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on the slices of our controller.
pub const MANAGED_BY: &str = "multus-endpointslice-controller.npwg.k8s.io";
/// Label on an EndpointSlice: the Service it belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label on an EndpointSlice whose Service has no ClusterIP.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Annotation on an EndpointSlice: RFC 3339 time of the change that led to this content.
pub const LAST_CHANGE_TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label on an EndpointSlice of ours: the network of its Service, as
/// [`NetworkRef::label_value`](crate::NetworkRef::label_value). By it a proxy watches the slices of its node's networks alone.
pub const NETWORK_LABEL: &str = "multusservice.cni.cncf.io/network";
/// Annotation on an EndpointSlice of ours: the same network, for people, as `namespace/name`.
pub const NETWORK_NAME_ANNOTATION: &str = "multusservice.cni.cncf.io/network-name";
/// What follows the Service's name in `generateName` of our slices.
pub const SLICE_NAME_SUFFIX: &str = "-multus-";

/// Annotation on a Service without `spec.selector`: which pods are its endpoints, in the syntax of `kubectl get -l`.
pub const SELECTOR_ANNOTATION: &str = "multusservice.cni.cncf.io/selector";

/// API group of our own kinds, and prefix of our own conditions.
pub const GROUP: &str = "multusservice.cni.cncf.io";
/// Name of the only [`MultusServiceConfig`](crate::MultusServiceConfig) a cluster can have.
pub const CONFIG_NAME: &str = "cluster";
/// Namespace of operator and operands, unless the administrator chose another.
pub const NAMESPACE: &str = "multus-service";

/// Server-side-apply field manager of the operator. One name for ever: a second one would fight the first.
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
/// Name of the DaemonSet that cleans nodes on which no proxy is to run any more.
pub const CLEANUP: &str = "multus-service-cleanup";

/// Condition the controller keeps on each Service it serves.
pub const ACCEPTED_CONDITION: &str = "multusservice.cni.cncf.io/Accepted";
/// Condition a proxy keeps on its own Pod.
pub const RULES_APPLIED_CONDITION: &str = "multusservice.cni.cncf.io/RulesApplied";

/// Label on a Node whose pods may hold routes and rules of ours.
pub const RULES_LABEL: &str = "multusservice.cni.cncf.io/rules";

/// Value of the label `app.kubernetes.io/part-of` on everything the operator applies.
pub const PART_OF: &str = "multus-service";
/// Value of the label `app.kubernetes.io/managed-by` on everything the operator applies.
pub const OPERATOR_MANAGED_BY: &str = "multus-service-operator";

/// Port of the health and metrics endpoints of operator and controller (pod network).
pub const POD_HTTP_PORT: u16 = 8080;
/// Port of the proxy's health and metrics endpoints, on 127.0.0.1 of the node.
/// Outside the ranges of OpenShift's host-port registry.
pub const PROXY_HTTP_PORT: u16 = 9124;

/// Routing protocol number of our routes in pods (`ip route show proto 77`), so that clean-up is exact.
pub const ROUTE_PROTOCOL: u8 = 77;
/// nftables table in a pod's network namespace, one per family.
pub const NFT_TABLE: &str = "multus-proxy";
/// First part of every iptables chain of ours in a pod's network namespace. The Go original's chains begin with
/// `MULTUS-`: another prefix keeps its leftovers apart from our rules.
pub const CHAIN_PREFIX: &str = "MSP-";

/// The CustomResourceDefinition of networks, which Multus brings.
pub const NETWORK_DEFINITION: &str = "network-attachment-definitions.k8s.cni.cncf.io";
