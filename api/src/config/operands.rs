//! Settings of controller and proxy.

use super::schema;
use k8s_openapi::api::core::v1::{Affinity, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings of the endpoint controller.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerSpec {
    /// replicas is the number of desired controller pods, 1 to 5. One of them is the leader; the others wait for its Lease. When
    /// omitted, this means no opinion and the platform is left to choose a reasonable default, which is subject to change over time.
    /// The current default is 2, and 1 on an OpenShift cluster with a single-replica control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<i32>,

    /// image is the container image of the controller, by tag or digest. When omitted, the image that belongs to the operator's version
    /// is used. An image set here stays when the operator is upgraded; the condition OperandImageOverridden reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pull_spec")]
    pub image: Option<String>,

    /// nodeSelector is a selector which must be true for a pod of the controller to fit on a node: it must match the node's labels. At
    /// most 16. When omitted, this means no opinion and the platform is left to choose a reasonable default, which is subject to change
    /// over time. The current default is kubernetes.io/os: linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<BTreeMap<String, String>>,

    /// tolerations is the list of the controller pods' tolerations. At most 32. It replaces the default. When omitted, this means no
    /// opinion and the platform is left to choose a reasonable default, which is subject to change over time. The current default is to
    /// tolerate the taint of control-plane nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Option<Vec<Toleration>>,

    /// affinity is the controller pods' scheduling constraints. It replaces the default. When omitted, this means no opinion and the
    /// platform is left to choose a reasonable default, which is subject to change over time. The current default is that replicas
    /// prefer different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// priorityClassName indicates the controller pods' priority. When omitted, this means no opinion and the platform is left to
    /// choose a reasonable default, which is subject to change over time. The current default is system-cluster-critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub priority_class_name: Option<String>,

    /// resources are the compute resources required by the controller container. When omitted, this means no opinion and the platform
    /// is left to choose reasonable requests, which are subject to change over time, and no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Settings of the proxy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProxySpec {
    /// image is the container image of the proxy, by tag or digest. When omitted, the image that belongs to the operator's version is
    /// used. An image set here stays when the operator is upgraded; the condition OperandImageOverridden reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pull_spec")]
    pub image: Option<String>,

    /// nodeSelector is a selector which must be true for a pod of the proxy to fit on a node: it must match the node's labels. At most
    /// 16. Pods on other nodes cannot use Services on secondary networks. A selector that no node matches is rejected. When a node no
    /// longer matches, its rules are cleaned up. When omitted, this means no opinion and the platform is left to choose a reasonable
    /// default, which is subject to change over time. The current default is kubernetes.io/os: linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<BTreeMap<String, String>>,

    /// tolerations is the list of the proxy pods' tolerations. At most 32. It replaces the default. When omitted, this means no opinion
    /// and the platform is left to choose a reasonable default, which is subject to change over time. The current default is to
    /// tolerate every taint, as kube-proxy does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Option<Vec<Toleration>>,

    /// affinity is the proxy pods' scheduling constraints, beyond nodeSelector. When omitted, there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// priorityClassName indicates the proxy pods' priority. When omitted, this means no opinion and the platform is left to choose a
    /// reasonable default, which is subject to change over time. The current default is system-node-critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub priority_class_name: Option<String>,

    /// resources are the compute resources required by the proxy container. When omitted, this means no opinion and the platform is
    /// left to choose reasonable requests and a memory limit, which are subject to change over time. A memory request without a memory
    /// limit removes the default limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// See [`Backend`]: in the schema an optional enum has the documentation of the enum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,

    /// containerRuntimeEndpoint is the socket of the container runtime, in a folder below /run, such as /run/crio/crio.sock. When
    /// omitted, the proxy uses the first of the default sockets of CRI-O and containerd that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::runtime_endpoint")]
    pub container_runtime_endpoint: Option<String>,

    /// metricsPort is the port on which the proxy serves metrics and its state, on the address of each node. 1024 to 65535, and not 9124,
    /// on which it serves probes. Choose another one where a program of the nodes uses the default; firewalls between Prometheus and the
    /// nodes must let it through. OpenShift lets 9000 to 9999 through. When omitted, this means no opinion and the platform is left to
    /// choose a reasonable default, which is subject to change over time. The current default is 9125.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::metrics_port")]
    pub metrics_port: Option<u16>,

    /// hostNetworks maps networks to interfaces of nodes. Services on these networks are served to the node itself and to pods with
    /// hostNetwork. At most 16. When omitted, none. A node that lacks the interface, or on which it is the parent of macvlan or ipvlan
    /// interfaces, is not served; the condition RulesApplied of its proxy reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::host_networks")]
    pub host_networks: Option<Vec<HostNetwork>>,

    /// legacyProxyNamespaces is a list of namespaces in which a DaemonSet may run the archived multus-service proxy. While a pod of
    /// such a DaemonSet is on a node, the proxy of this operator writes nothing there. A pod of another namespace that looks like it is
    /// reported and ignored. List only namespaces that tenants cannot write to. At most 64. When omitted, this means no opinion and the
    /// platform is left to choose a reasonable default, which is subject to change over time. The current default is kube-system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub legacy_proxy_namespaces: Option<Vec<String>>,

    /// updateStrategy is an update strategy to replace existing proxy pods with new pods. When omitted, this means no opinion and the
    /// platform is left to choose a reasonable default, which is subject to change over time. The current default is RollingUpdate with
    /// a maxUnavailable of 10%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<ProxyUpdateStrategy>,
}

/// A network that nodes are attached to by an interface of their own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// network is the network-attachment-definition, as namespace/name.
    pub network: String,
    /// interface is the interface of the node, such as ens4 or ens4.100.
    pub interface: String,
}

/// updateStrategy is an update strategy to replace existing proxy pods with new pods. Rules in the kernel stay in force while the proxy
/// of a node is replaced.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.rollingUpdate) || self.type == 'RollingUpdate'",
    "message": "rollingUpdate is only for type RollingUpdate",
}]))]
pub struct ProxyUpdateStrategy {
    /// type is the type of daemon set update. Can be RollingUpdate or OnDelete. RollingUpdate replaces pods automatically. OnDelete
    /// replaces a pod only when it is deleted.
    #[serde(rename = "type")]
    pub type_: UpdateStrategyType,

    /// rollingUpdate is the rolling update configuration. Present only if type is RollingUpdate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// Types of daemon set update.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateStrategyType {
    /// Replaces pods automatically, some nodes at a time.
    #[default]
    RollingUpdate,
    /// Replaces a pod when it is deleted.
    OnDelete,
}

/// Rolling update configuration of the proxy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// maxUnavailable is the maximum number of proxy pods that can be unavailable during the update. Value can be an absolute number of
    /// at least 1 (ex: 5) or a percentage of nodes from 1% to 100% (ex: 10%). When omitted, this means no opinion and the platform is
    /// left to choose a reasonable default, which is subject to change over time. The current default is 10%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::max_unavailable")]
    pub max_unavailable: Option<IntOrString>,
}

/// Compute resources of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// requests describes the minimum amount of compute resources required, such as cpu: 10m and memory: 64Mi. At most 8. Resources
    /// that are omitted keep their default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: Option<BTreeMap<String, Quantity>>,

    /// limits describes the maximum amount of compute resources allowed. At most 8. Resources that are omitted keep their default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: Option<BTreeMap<String, Quantity>>,
}

/// Settings of the NetworkPolicy that protects the controller.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPolicySpec {
    /// See [`NetworkPolicyMode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkPolicyMode>,
}

/// mode specifies whether a NetworkPolicy protects the controller. Enabled: ingress to the controller pods is allowed only to the port
/// of health and metrics. Disabled: there is no NetworkPolicy. The proxy uses the host network, to which no NetworkPolicy applies. When
/// omitted, this means no opinion and the platform is left to choose a reasonable default, which is subject to change over time. The
/// current default is Enabled.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicyMode {
    /// With a NetworkPolicy.
    #[default]
    Enabled,
    /// Without.
    Disabled,
}

/// Settings of the objects of prometheus-operator.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSpec {
    /// See [`MonitoringState`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_state: Option<MonitoringState>,

    /// labels are added to the ServiceMonitors and the PrometheusRule, for a Prometheus that selects them by label. At most 16. Labels
    /// that the operator sets itself keep their value. When omitted, no labels are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// managementState specifies whether the operator maintains ServiceMonitors and a PrometheusRule in its namespace, and, for the
/// Prometheus of OpenShift's platform, the right to discover its targets there. Managed: while the cluster serves these kinds. Removed:
/// none. When omitted, this means no opinion and the platform is left to choose a reasonable default, which is subject to change over
/// time. The current default is Managed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MonitoringState {
    /// While the kinds are served.
    #[default]
    Managed,
    /// Without them.
    Removed,
}

/// backend is the backend that writes rules into the kernel. Auto selects the first supported one per node. NFTables writes nftables by
/// netlink: the cost of a change and of a new flow does not depend on the number of Services. IPTables uses the iptables programs of
/// the proxy image. A change replaces the rules of pods without a gap. When omitted, this means no opinion and the platform is left to
/// choose a reasonable default, which is subject to change over time. The current default is Auto.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The first one the node supports: NFTables, then IPTables.
    #[default]
    Auto,
    /// nftables, by netlink.
    #[serde(rename = "NFTables")]
    NfTables,
    /// The iptables programs, legacy or nft variant.
    #[serde(rename = "IPTables")]
    IpTables,
}
