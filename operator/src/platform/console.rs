//! What the web console of OpenShift shows of us: kinds that a cluster without the console lacks.
//!
//! Pure. Their content is YAML of ours, never looked into: a schema of the console's that grows changes nothing here.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A tour through a first Service.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "console.openshift.io",
    version = "v1",
    kind = "ConsoleQuickStart",
    derive = "PartialEq",
    schema = "disabled"
)]
pub struct ConsoleQuickStartSpec {
    /// As the YAML has it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// An object that the console's editor offers.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "console.openshift.io",
    version = "v1",
    kind = "ConsoleYAMLSample",
    root = "ConsoleYamlSample",
    derive = "PartialEq",
    schema = "disabled"
)]
pub struct ConsoleYamlSampleSpec {
    /// As the YAML has it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
