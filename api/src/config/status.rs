//! Status of the installation, written by the operator.
//!
//! Pure.

use super::schema;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status is the observed state of the installation.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MultusServiceConfigStatus {
    /// observedGeneration is the most recent generation of this object that the operator has fully processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// conditions is a list of conditions and their status. Available: Services on secondary networks work. Progressing: operands are
    /// being rolled out or removed. Degraded: a failure has lasted for two minutes; the message names it. Upgradeable: the operator may
    /// be upgraded; if False, the message names what to do first. OperandImageOverridden: an image is set in spec and does not follow
    /// the operator's version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// operatorVersion is the version of the operator that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,

    /// targetVersion is the version that the operator rolls out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,

    /// observedVersion is the version that the controller and every proxy run. It differs from targetVersion during an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_version: Option<String>,

    /// controller is the status of the controller Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerStatus>,

    /// proxy is the status of the proxy DaemonSet and its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyStatus>,

    /// rollout is the progress of the current rollout; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,

    /// failures is a list of present failures. A failure that lasts for two minutes sets Degraded. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub failures: Vec<Failure>,

    /// relatedObjects is a list of objects that the operator applied, for must-gather and for removal. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub related_objects: Vec<RelatedObject>,
}

/// Status of the controller Deployment.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// replicas is the number of desired pods.
    #[serde(default)]
    pub replicas: i32,
    /// updated is the number of pods that have the desired template.
    #[serde(default)]
    pub updated: i32,
    /// ready is the number of pods with a Ready condition.
    #[serde(default)]
    pub ready: i32,
    /// available is the number of available pods (ready for at least minReadySeconds).
    #[serde(default)]
    pub available: i32,
    /// image is the container image in the pod template.
    #[serde(default)]
    pub image: String,
}

/// Status of the proxy DaemonSet and its pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// desired is the total number of nodes that should be running the proxy pod.
    #[serde(default)]
    pub desired: i32,
    /// current is the number of nodes that are running at least one proxy pod and are supposed to.
    #[serde(default)]
    pub current: i32,
    /// updated is the total number of nodes that are running an updated proxy pod.
    #[serde(default)]
    pub updated: i32,
    /// ready is the number of nodes that should be running the proxy pod and have one with a Ready condition.
    #[serde(default)]
    pub ready: i32,
    /// available is the number of nodes that should be running the proxy pod and have one available (ready for at least
    /// minReadySeconds).
    #[serde(default)]
    pub available: i32,
    /// unavailable is the number of nodes that should be running the proxy pod and have none available.
    #[serde(default)]
    pub unavailable: i32,
    /// image is the container image in the pod template.
    #[serde(default)]
    pub image: String,
    /// backends is the number of nodes per backend, the most used first. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub backends: Vec<BackendNodes>,
    /// unhealthyNodes is a list of the first 10 nodes by name whose proxy does not work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub unhealthy_nodes: Vec<UnhealthyNode>,
    /// unhealthyNodeCount is the total number of nodes whose proxy does not work.
    #[serde(default)]
    pub unhealthy_node_count: i32,
    /// causes is a list of the reasons for which proxies do not work, the one on most nodes first. At most 10: where there are more
    /// reasons, the last entry has the reason Other and sums up all that are not listed. The nodes of all entries add up to
    /// unhealthyNodeCount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub causes: Vec<ProxyCause>,
}

/// Number of nodes that use a backend.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendNodes {
    /// name is the name of the backend, such as IPTables.
    #[schemars(length(max = 64))]
    pub name: String,
    /// nodes is the number of nodes that use it.
    pub nodes: i32,
}

/// A node whose proxy does not work.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnhealthyNode {
    /// name is the name of the node; empty when the pod could not be created, so that its node is not known.
    #[schemars(length(max = 253))]
    pub name: String,
    /// reason is a machine readable explanation, such as CrashLoopBackOff or ImagePullBackOff.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// message is a human readable explanation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A reason for which proxies do not work, and the nodes that it affects.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyCause {
    /// reason is a machine readable explanation, as in unhealthyNodes, or Other.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// nodes is the number of nodes with this reason. A proxy whose node is not known counts as one node.
    pub nodes: i32,
    /// names is a list of the first 5 of these nodes by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(max = 253)))]
    pub names: Vec<String>,
}

/// Progress of a rollout. It is stored so that it survives a restart of the operator.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// progress is the last observed progress.
    #[schemars(length(max = 1024))]
    pub progress: String,
    /// lastProgressTime is the last time progress changed. A rollout without progress for ten minutes sets Degraded.
    pub last_progress_time: Time,
}

/// A present failure.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// reason is the reason of the failure, as in the condition Degraded.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// since is the time since when the failure has been present without interruption.
    pub since: Time,
}

/// A reference to an object that the operator applied.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelatedObject {
    /// group is the API group; empty for the core group.
    pub group: String,
    /// resource is the plural resource name, in lower case.
    pub resource: String,
    /// namespace is the namespace; empty for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// name is the name of the object.
    pub name: String,
}
