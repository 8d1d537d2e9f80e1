//! `MultusServiceConfig`: the cluster-scoped singleton that installs and configures multus-service.
//!
//! Pure. `kubectl explain msc` prints the field documentation; `config/crd` and `docs/reference/api.md` are generated from these types. A field
//! can never be removed once released, so every field here has an effect. The operator sets defaults, not the schema, so that a later
//! version can choose better ones; only the default of `managementState` is frozen.

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives on a private copy of the struct"
)]

mod operands;
mod schema;
mod status;
#[cfg(test)]
mod tests;
mod tracing;

pub use operands::{
    Backend, ControllerSpec, MonitoringSpec, MonitoringState, NetworkPolicyMode, NetworkPolicySpec,
    ProxySpec, ProxyUpdateStrategy, Resources, RollingUpdate, UpdateStrategyType,
};
pub use status::{
    BackendNodes, ControllerStatus, Failure, MultusServiceConfigStatus, ProxyCause, ProxyStatus,
    RelatedObject, RolloutStatus, UnhealthyNode,
};
pub use tracing::{CaReference, TracingSpec};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Spec is the desired state of Services on secondary networks in this cluster.
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
    printcolumn(name = "Desired", type_ = "integer", priority = 1, json_path = ".status.proxy.desired"),
    printcolumn(name = "Ready", type_ = "integer", priority = 1, json_path = ".status.proxy.ready"),
    printcolumn(name = "Backend", type_ = "string", priority = 1, json_path = ".status.proxy.backends[0].name"),
    printcolumn(name = "Failing", type_ = "integer", priority = 1, json_path = ".status.proxy.unhealthyNodeCount"),
    printcolumn(name = "Cause", type_ = "string", priority = 1, json_path = ".status.proxy.causes[0].reason"),
    printcolumn(name = "Reason", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Degraded')].reason"),
    printcolumn(name = "Progress", type_ = "string", priority = 1, json_path = ".status.rollout.progress"),
    printcolumn(name = "Age", type_ = "date", priority = 1, json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MultusServiceConfigSpec {
    /// managementState indicates whether and how the operator manages its operands. Managed: the operator installs and configures them
    /// and repairs drift. Unmanaged: the operator changes nothing and only reports. Removed: the operator removes them and keeps this
    /// object. Defaults to Managed.
    #[serde(default)]
    pub management_state: ManagementState,

    /// See [`LogLevel`]: in the schema an optional enum has the documentation of the enum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,

    /// operatorLogLevel is the log level of the operator itself, with the values of logLevel. It takes effect without a restart. When
    /// omitted, this means no opinion and the platform is left to choose a reasonable default, which is subject to change over time.
    /// The current default is Normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::operator_log_level")]
    pub operator_log_level: Option<LogLevel>,

    /// See [`ImagePullPolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// imagePullSecrets is a list of references to secrets in the namespace of the operator to use for pulling the images of controller
    /// and proxy. At most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pull_secrets")]
    pub image_pull_secrets: Vec<PullSecret>,

    /// globalNamespaces is a list of namespaces whose networks Services and pods of every namespace may use, as globalNamespaces of
    /// Multus. At most 64. It has no effect when networkNamespaceIsolation is Disabled. When omitted, this means no opinion and the
    /// platform is left to choose a reasonable default, which is subject to change over time. The current default is the namespace
    /// default, on OpenShift also openshift-multus, openshift-sriov-network-operator and openshift-cnv.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub global_namespaces: Option<Vec<String>>,

    /// See [`NetworkNamespaceIsolation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace_isolation: Option<NetworkNamespaceIsolation>,

    /// See [`ServiceValidation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_validation: Option<ServiceValidation>,

    /// serviceCIDRs is a list of the ranges of ClusterIPs, such as 172.30.0.0/16, with the same values as --service-cluster-ip-range of
    /// kube-apiserver. An endpoint cannot have an address of these ranges. At most 16. Needed where the cluster does not publish its
    /// ranges; ignored where it does: Kubernetes 1.33 and newer by ServiceCIDR objects, OpenShift by its network configuration. When
    /// omitted where it is needed, addresses of endpoints are not checked against the ranges, which the message of the condition
    /// Available reports.
    #[serde(default, rename = "serviceCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::service_cidrs")]
    pub service_cidrs: Option<Vec<String>>,

    /// networkPolicy configures the NetworkPolicy that protects the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicySpec>,

    /// monitoring configures what Prometheus reads and the alerts, where prometheus-operator is installed, as on OpenShift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<MonitoringSpec>,

    /// tracing configures traces of changes, from a change of a Service or pod to the rules on every node. When omitted, there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSpec>,

    /// controller configures the endpoint controller, which writes EndpointSlices with secondary-network addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerSpec>,

    /// proxy configures the proxy, which runs on every node and programs routes and NAT rules inside the network namespaces of attached
    /// pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
}

/// Whether the operator manages its operands.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagementState {
    /// Install, configure, repair drift.
    #[default]
    Managed,
    /// Change nothing, only report.
    Unmanaged,
    /// Remove the operands, keep the configuration.
    Removed,
}

/// logLevel is the log level of controller and proxy. Valid values are: Normal logs each change, Debug also decisions that change
/// nothing, Trace also every request, TraceAll also what libraries log. When omitted, this means no opinion and the platform is left to
/// choose a reasonable default, which is subject to change over time. The current default is Normal.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Logs each change.
    #[default]
    Normal,
    /// Logs decisions that change nothing, too.
    Debug,
    /// Logs every request, too.
    Trace,
    /// Logs messages of libraries, too.
    TraceAll,
}

/// imagePullPolicy is the image pull policy of controller and proxy. One of Always, Never, IfNotPresent. When omitted, this means no
/// opinion and the platform is left to choose a reasonable default, which is subject to change over time. The current default is
/// IfNotPresent.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// Pulls at every start of a container.
    Always,
    /// Pulls when the node does not have the image.
    #[default]
    IfNotPresent,
    /// Never pulls: the node must have the image.
    Never,
}

/// networkNamespaceIsolation restricts the networks that a Service may name and that a pod may be a client on. Enabled: networks of its
/// own namespace and of globalNamespaces. Disabled: any network, as in the archived multus-service project. When omitted, this means no
/// opinion and the platform is left to choose a reasonable default, which is subject to change over time. The current default is
/// Enabled.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkNamespaceIsolation {
    /// Services and pods use networks of their own namespace and of the global namespaces.
    #[default]
    Enabled,
    /// Services and pods use any network.
    Disabled,
}

/// serviceValidation is what the API server does with a labelled Service that the controller would reject: the annotation is missing, the
/// network or the selector is malformed, the network is in a namespace that is not open to it, or the type is ExternalName. Warn: it
/// accepts the Service and warns the client, as kubectl shows. Deny: it rejects the Service; one that exists can be changed elsewhere and
/// deleted. Off: nothing. With Warn and Deny it also warns of an annotation without the label, of a misspelt label, of parts of a Service
/// that are not served, and of pods, Deployments, DaemonSets and StatefulSets with a networks annotation that Multus cannot read. It needs
/// ValidatingAdmissionPolicies, which Kubernetes 1.30 and newer have. When omitted, this means no opinion and the platform is left to
/// choose a reasonable default, which is subject to change over time. The current default is Warn.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceValidation {
    /// Invalid Services are accepted with a warning.
    #[default]
    Warn,
    /// Invalid Services are rejected.
    Deny,
    /// Services are not validated.
    Off,
}

/// A reference to a Secret with credentials of a registry.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PullSecret {
    /// Name of the referent, a Secret of type kubernetes.io/dockerconfigjson.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Returns the CustomResourceDefinition.
pub fn crd() -> CustomResourceDefinition {
    schema::crd()
}

/// Returns the CustomResourceDefinition as files have it: bounds of whole numbers are whole numbers, as the API server and kustomize
/// write them.
///
/// # Errors
/// Never for the types of this crate; those of serde.
pub fn crd_document() -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(schema::crd()).map(schema::with_whole_numbers)
}
