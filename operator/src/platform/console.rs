//! Kinds of OpenShift's web console; clusters without the console lack them.
//!
//! Pure. Their content is passed on undecoded, so that a new field in the console's schema needs no change here.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A quick start that creates a first Service.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "console.openshift.io",
    version = "v1",
    kind = "ConsoleQuickStart",
    derive = "PartialEq",
    schema = "disabled"
)]
pub struct ConsoleQuickStartSpec {
    /// The fields of the YAML file.
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
    /// The fields of the YAML file.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
