//! `MultusServiceConfig`: the cluster-scoped singleton by which an administrator installs and configures everything.
//!
//! Pure. Field documentation is what `kubectl explain msc` prints; `config/crd` and `docs/api.md` are generated from these types. A
//! field can never be removed once released, so only what something honours is here. Defaults are the operator's and not the
//! schema's, so that a later version can choose better ones; only `managementState` is frozen.

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives on a private copy of the struct"
)]

mod operands;
mod schema;
mod status;
#[cfg(test)]
mod tests;

pub use operands::{
    Backend, ControllerSpec, NetworkPolicyMode, NetworkPolicySpec, ProxySpec, ProxyUpdateStrategy, Resources,
    RollingUpdate, UpdateStrategyType,
};
pub use status::{
    BackendNodes, ControllerStatus, Failure, MultusServiceConfigStatus, ProxyStatus, RelatedObject,
    RolloutStatus, UnhealthyNode,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Desired state of Services on secondary networks in this cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "multusservice.cni.cncf.io",
    version = "v1alpha1",
    kind = "MultusServiceConfig",
    plural = "multusserviceconfigs",
    shortname = "msc",
    status = "MultusServiceConfigStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "MultusServiceConfig installs and configures Kubernetes Services on secondary networks: the endpoint controller and the per-node proxy. It is a singleton; its name is cluster.",
    validation = Rule::new("self.metadata.name == 'cluster'").message("MultusServiceConfig is a singleton; its name must be 'cluster'"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.observedVersion"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Progressing", type_ = "string", json_path = ".status.conditions[?(@.type=='Progressing')].status"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type=='Degraded')].status"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.conditions[?(@.type=='Available')].lastTransitionTime"),
    printcolumn(name = "Upgradeable", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Upgradeable')].status"),
    printcolumn(name = "Proxies", type_ = "integer", priority = 1, json_path = ".status.proxy.available"),
    printcolumn(name = "Backend", type_ = "string", priority = 1, json_path = ".status.proxy.backends[0].name"),
    printcolumn(name = "Progress", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Progressing')].message"),
    printcolumn(name = "Problem", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Degraded')].message"),
    printcolumn(name = "Age", type_ = "date", priority = 1, json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MultusServiceConfigSpec {
    /// Whether the operator runs the operands. Managed: it installs, configures and mends them. Unmanaged: it changes nothing and
    /// only reports. Removed: it removes them and keeps this object.
    #[serde(default)]
    pub management_state: ManagementState,

    /// See [`LogLevel`]: the schema describes an optional enum by the enum's documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,

    /// How much the operator itself logs; values as in logLevel. Takes effect without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::operator_log_level")]
    pub operator_log_level: Option<LogLevel>,

    /// See [`ImagePullPolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets in the operator's namespace by which nodes pull the images of controller and proxy. At most 10. When omitted, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pull_secrets")]
    pub image_pull_secrets: Vec<PullSecret>,

    /// Namespaces whose networks Services and pods of every namespace may use, as Multus' own globalNamespaces. At most 64. Without meaning
    /// when networkNamespaceIsolation is Disabled. When omitted the operator chooses, today the namespace default, on OpenShift also
    /// openshift-multus, openshift-sriov-network-operator and openshift-cnv.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub global_namespaces: Option<Vec<String>>,

    /// See [`NetworkNamespaceIsolation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace_isolation: Option<NetworkNamespaceIsolation>,

    /// The cluster's ranges of ClusterIPs, in which no endpoint can be, such as 172.30.0.0/16. At most 16. Needed where the cluster does
    /// not name them itself, and without meaning where it does: Kubernetes 1.33 and newer by ServiceCIDR objects, OpenShift by its
    /// network configuration. The same ranges as kube-apiserver's --service-cluster-ip-range. When omitted where they are needed,
    /// endpoints are not checked against them; the condition Available says so.
    #[serde(default, rename = "serviceCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::service_cidrs")]
    pub service_cidrs: Option<Vec<String>>,

    /// The NetworkPolicy that protects the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicySpec>,

    /// The endpoint controller, which writes EndpointSlices with secondary-network addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerSpec>,

    /// The proxy, which programs routes and NAT rules inside the network namespaces of attached pods, on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
}

/// Whether the operator acts on its operands.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagementState {
    /// Install, configure and mend.
    #[default]
    Managed,
    /// Change nothing, only report.
    Unmanaged,
    /// Remove the operands, keep the configuration.
    Removed,
}

/// How much controller and proxy log. Normal shows each change, Debug also what was left as it is, Trace every request, TraceAll
/// also what libraries do. When omitted the operator chooses, today Normal; the choice may change.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Each change.
    #[default]
    Normal,
    /// Also decisions that changed nothing.
    Debug,
    /// Also every request of ours.
    Trace,
    /// Also what libraries log.
    TraceAll,
}

/// When nodes pull the images of controller and proxy: Always, IfNotPresent or Never. When omitted the operator chooses, today
/// IfNotPresent; the choice may change.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// At every start of a container.
    Always,
    /// When the node does not have the image.
    #[default]
    IfNotPresent,
    /// The node must have the image.
    Never,
}

/// Whether a Service may only name, and a pod only be a client on, networks of its own namespace and of globalNamespaces (Enabled), or
/// any network (Disabled), as the Go original did. When omitted the operator chooses, today Enabled; the choice may change.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkNamespaceIsolation {
    /// Services and pods use networks of their own namespace and of the global namespaces.
    #[default]
    Enabled,
    /// Services and pods use any network.
    Disabled,
}

/// A Secret with credentials for a registry.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PullSecret {
    /// Name of the Secret, of type kubernetes.io/dockerconfigjson.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The CustomResourceDefinition.
pub fn crd() -> CustomResourceDefinition {
    schema::crd()
}

/// The CustomResourceDefinition as files hold it: bounds of whole numbers are whole numbers, as the API server and kustomize write them.
///
/// # Errors
/// Never for the types of this crate; those of serde.
pub fn crd_document() -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(schema::crd()).map(schema::with_whole_numbers)
}
