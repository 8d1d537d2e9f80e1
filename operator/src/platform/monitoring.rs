//! Kinds of prometheus-operator; clusters without it lack them.
//!
//! Pure. Their content is passed on undecoded, as that of [`super::console`].

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Targets that Prometheus scrapes: the endpoints of Services.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "ServiceMonitor",
    namespaced,
    derive = "PartialEq",
    schema = "disabled"
)]
pub struct ServiceMonitorSpec {
    /// The fields of the YAML file.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Groups of alerts.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "PrometheusRule",
    namespaced,
    derive = "PartialEq",
    schema = "disabled"
)]
pub struct PrometheusRuleSpec {
    /// The fields of the YAML file.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
