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
    /// How many replicas run; one of them writes, the others wait to take over. 1 to 5. When omitted the operator chooses, today 2,
    /// and 1 on an OpenShift cluster with a single-replica control plane; the choice may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<i32>,

    /// Container image of the controller, by tag or digest. When omitted, the image that belongs to the operator's version. An image
    /// set here stays when the operator is upgraded; the condition OperandImageOverridden says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pull_spec")]
    pub image: Option<String>,

    /// Labels a node must have to run the controller. At most 16. When omitted the operator chooses, today kubernetes.io/os: linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<BTreeMap<String, String>>,

    /// Taints of nodes that the controller runs on all the same. At most 32. Replaces the operator's choice, today the taint of
    /// control-plane nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Option<Vec<Toleration>>,

    /// Which nodes the controller prefers or needs, and its distance to other pods. Replaces the operator's choice, today that
    /// replicas prefer different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// PriorityClass of the controller's pods. When omitted the operator chooses, today system-cluster-critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub priority_class_name: Option<String>,

    /// Compute resources of the controller's container. When omitted the operator chooses requests and no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Settings of the proxy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProxySpec {
    /// Container image of the proxy, by tag or digest. When omitted, the image that belongs to the operator's version. An image set
    /// here stays when the operator is upgraded; the condition OperandImageOverridden says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pull_spec")]
    pub image: Option<String>,

    /// Labels a node must have to run the proxy. Pods on other nodes cannot use Services on secondary networks. At most 16. When
    /// omitted the operator chooses, today kubernetes.io/os: linux. A change that would leave no node is rejected. A node that no
    /// longer matches is cleaned of rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: Option<BTreeMap<String, String>>,

    /// Taints of nodes that the proxy runs on all the same. At most 32. Replaces the operator's choice, today all taints, as
    /// kube-proxy does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Option<Vec<Toleration>>,

    /// Which nodes the proxy needs, beyond nodeSelector. When omitted, none in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// PriorityClass of the proxy's pods. When omitted the operator chooses, today system-node-critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub priority_class_name: Option<String>,

    /// Compute resources of the proxy's container. When omitted the operator chooses requests and a limit of memory. A request for memory
    /// without a limit takes the operator's limit away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// See [`Backend`]: the schema describes an optional enum by the enum's documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,

    /// Socket of the container runtime, such as /run/crio/crio.sock: one folder below /run. When omitted the proxy takes the first
    /// that answers of CRI-O's and containerd's usual sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::runtime_endpoint")]
    pub container_runtime_endpoint: Option<String>,

    /// Networks whose Services are served to the node itself and to pods with hostNetwork, by an interface that nodes have. At most 16. When
    /// omitted, none. A node that lacks the interface, or on which it is the parent of macvlan or ipvlan interfaces, is not served: its
    /// proxy's condition says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::host_networks")]
    pub host_networks: Option<Vec<HostNetwork>>,

    /// Namespaces in which a DaemonSet may run the archived multus-proxy. While a pod of such a DaemonSet is on a node, this proxy writes
    /// nothing there. A pod elsewhere that looks like it is reported and ignored. Name only namespaces that tenants cannot write into. At
    /// most 64. When omitted the operator chooses, today kube-system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub legacy_proxy_namespaces: Option<Vec<String>>,

    /// How a new version or setting reaches the nodes. When omitted the operator chooses, today RollingUpdate with a maxUnavailable
    /// of 10%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<ProxyUpdateStrategy>,
}

/// A network that nodes reach by an interface of their own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// Its network-attachment-definition, as namespace/name.
    pub network: String,
    /// The interface of the node, such as ens4 or ens4.100.
    pub interface: String,
}

/// How a changed proxy reaches the nodes. Rules in the kernel stay in force while a node's proxy is replaced.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.rollingUpdate) || self.type == 'RollingUpdate'",
    "message": "rollingUpdate is only for type RollingUpdate",
}]))]
pub struct ProxyUpdateStrategy {
    /// RollingUpdate replaces proxies by itself. OnDelete replaces a proxy when somebody deletes its pod.
    #[serde(rename = "type")]
    pub type_: UpdateStrategyType,

    /// Pace of a RollingUpdate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// Ways to replace proxies.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateStrategyType {
    /// Some nodes at a time, by itself.
    #[default]
    RollingUpdate,
    /// When somebody deletes the pod.
    OnDelete,
}

/// Pace of a roll-out of the proxy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// How many proxies may be down at once because of the roll-out: a number of at least 1, or a percentage of nodes from 1% to
    /// 100%. When omitted the operator chooses, today 10%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::max_unavailable")]
    pub max_unavailable: Option<IntOrString>,
}

/// Compute resources of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// What the scheduler sets aside on a node, such as cpu: 10m and memory: 64Mi. At most 8. What is omitted here is the operator's
    /// choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: Option<BTreeMap<String, Quantity>>,

    /// What the container may use at most. At most 8. Else the operator chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: Option<BTreeMap<String, Quantity>>,
}

/// Whether a NetworkPolicy protects the controller.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPolicySpec {
    /// See [`NetworkPolicyMode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkPolicyMode>,
}

/// Enabled: a NetworkPolicy lets into the controller's pods only what reads its health and metrics. Disabled: none. The proxy uses
/// the node's network, which no NetworkPolicy reaches. When omitted the operator chooses, today Enabled; the choice may change.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicyMode {
    /// With a NetworkPolicy.
    #[default]
    Enabled,
    /// Without.
    Disabled,
}

/// How rules are written into the kernel. Auto picks per node the best that works there. NFTables writes nftables directly: a change
/// costs microseconds and a new flow the same with any number of Services. IPTables uses the iptables programs of the proxy's image.
/// A change replaces the rules that pods have, without a gap. When omitted the operator chooses, today Auto; the choice may change.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Picked per node by what works there: NFTables, else IPTables.
    #[default]
    Auto,
    /// nftables, written directly.
    #[serde(rename = "NFTables")]
    NfTables,
    /// The iptables programs, legacy or nft variant.
    #[serde(rename = "IPTables")]
    IpTables,
}
