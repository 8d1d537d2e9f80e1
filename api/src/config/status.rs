//! What the operator says of the installation.

use super::schema;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MultusServiceConfigStatus {
    /// The generation of this object that was fully processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Available: Services on secondary networks work. Progressing: something is being rolled out or removed. Degraded: something
    /// has been wrong for a while; its message says what. Upgradeable: the operator may be upgraded; otherwise its message says what
    /// to do first. OperandImageOverridden: an image is set in spec and does not follow the operator's version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// Version of the operator that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,

    /// Version that is being rolled out, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,

    /// Version that controller and every proxy run. Differs from targetVersion during an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_version: Option<String>,

    /// The controller's Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerStatus>,

    /// The proxy's DaemonSet and its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyStatus>,

    /// Where the current roll-out stands; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,

    /// What is wrong at the moment, and since when. What lasts for two minutes turns Degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub failures: Vec<Failure>,

    /// What the operator applied on behalf of this object, for must-gather and for removal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub related_objects: Vec<RelatedObject>,
}

/// State of the controller.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// Replicas that should run.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas that run the latest version and settings.
    #[serde(default)]
    pub updated: i32,
    /// Replicas that are ready.
    #[serde(default)]
    pub ready: i32,
    /// Replicas that are available.
    #[serde(default)]
    pub available: i32,
    /// Image they should run.
    #[serde(default)]
    pub image: String,
}

/// State of the proxies.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// Nodes that should run a proxy.
    #[serde(default)]
    pub desired: i32,
    /// Nodes that have a proxy's pod.
    #[serde(default)]
    pub current: i32,
    /// Nodes whose proxy has the latest version and settings.
    #[serde(default)]
    pub updated: i32,
    /// Nodes whose proxy is ready.
    #[serde(default)]
    pub ready: i32,
    /// Nodes whose proxy is available.
    #[serde(default)]
    pub available: i32,
    /// Nodes that should have an available proxy and have none.
    #[serde(default)]
    pub unavailable: i32,
    /// Image they should run.
    #[serde(default)]
    pub image: String,
    /// Ways in which rules are written, with the number of nodes that use each; the most used comes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub backends: Vec<BackendNodes>,
    /// Nodes whose proxy does not work, at most 10 by name, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub unhealthy_nodes: Vec<UnhealthyNode>,
    /// How many nodes there are whose proxy does not work.
    #[serde(default)]
    pub unhealthy_node_count: i32,
}

/// How many nodes write rules in one way.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendNodes {
    /// Name of the backend, such as IPTables.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Number of nodes that use it.
    pub nodes: i32,
}

/// A node whose proxy does not work.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnhealthyNode {
    /// Name of the node; empty when no pod could be created, so that no node is known.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Cause in one word, such as CrashLoopBackOff or ImagePullBackOff.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// Cause in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// How far a roll-out is. Kept here so that a restart of the operator forgets nothing.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// What was seen last.
    #[schemars(length(max = 1024))]
    pub progress: String,
    /// When that was first seen. A roll-out that stays where it is for ten minutes turns Degraded.
    pub last_progress_time: Time,
}

/// Something that is wrong.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What, as the reason of the condition Degraded spells it.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// Since when without a break.
    pub since: Time,
}

/// An object the operator applied.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelatedObject {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural resource name, lower case.
    pub resource: String,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}
