//! `MultusServiceConfig`: the cluster-scoped singleton by which an administrator installs and configures everything.
//!
//! Pure. Field documentation is what `kubectl explain msc` prints; `config/crd` is generated from these types. A field can never
//! be removed once released, so only what something honours is here.

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives on a private copy of the struct"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Desired state of Services on secondary networks in this cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
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
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Progressing", type_ = "string", json_path = ".status.conditions[?(@.type=='Progressing')].status"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type=='Degraded')].status"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.conditions[?(@.type=='Available')].lastTransitionTime"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Available')].message"),
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

    /// The endpoint controller, which writes EndpointSlices with secondary-network addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerSpec>,

    /// The proxy, which programs routes and NAT rules inside the network namespaces of attached pods, on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
}

/// Settings of the endpoint controller.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerSpec {
    /// Container image of the controller, by tag or digest. When omitted, the image that belongs to the operator's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pull_spec")]
    pub image: Option<String>,
}

/// Settings of the proxy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProxySpec {
    /// Container image of the proxy, by tag or digest. When omitted, the image that belongs to the operator's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pull_spec")]
    pub image: Option<String>,

    /// See [`Backend`]: the schema describes an optional enum by the enum's documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
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

/// Observed state.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MultusServiceConfigStatus {
    /// The generation of this object that was fully processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Available: Services on secondary networks work. Progressing: something is being rolled out or removed. Degraded: something
    /// has been wrong for a while; its message says what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,

    /// What the operator applied on behalf of this object, for must-gather and for removal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub related_objects: Vec<RelatedObject>,
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

/// A container image by tag or digest.
fn pull_spec(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "nullable": true,
        "minLength": 1,
        "maxLength": 512,
        "pattern": r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$",
    })
}

/// A list-map of metav1.Condition, so that several writers could own conditions of their own.
fn conditions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": generator.subschema_for::<Condition>(),
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// The CustomResourceDefinition, as `config/crd` holds it.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = MultusServiceConfig::crd();
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(spec) = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("spec")) {
            // `kubectl apply` of an object without a spec is the simplest install.
            spec.default = Some(JSON(serde_json::json!({})));
        }
    }
    crd
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{CONFIG_NAME, GROUP};

    fn schema() -> serde_json::Value {
        serde_json::to_value(&crd().spec.versions[0].schema).unwrap()["openAPIV3Schema"].clone()
    }

    #[test]
    fn the_crd_is_what_the_names_say() {
        let crd = crd();
        assert_eq!(
            (crd.spec.group.as_str(), crd.spec.scope.as_str()),
            (GROUP, "Cluster")
        );
        assert_eq!(crd.spec.names.short_names, Some(vec!["msc".to_owned()]));
        assert!(
            schema()["x-kubernetes-validations"][0]["rule"]
                .as_str()
                .unwrap()
                .contains(CONFIG_NAME)
        );
    }

    #[test]
    fn an_object_without_a_spec_is_a_managed_one() {
        assert_eq!(schema()["properties"]["spec"]["default"], serde_json::json!({}));
        let config: MultusServiceConfig = serde_json::from_value(serde_json::json!({
            "apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig", "metadata": {"name": CONFIG_NAME}, "spec": {}
        }))
        .unwrap();
        assert_eq!(config.spec.management_state, ManagementState::Managed);
    }

    #[test]
    fn every_field_is_documented() {
        fn undocumented(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if field["description"].as_str().is_none_or(str::is_empty) {
                    found.push(path.clone());
                }
                undocumented(&path, field, found);
                undocumented(&path, &field["items"], found);
            }
        }
        let mut found = Vec::new();
        for part in ["spec", "status"] {
            undocumented(part, &schema()["properties"][part], &mut found);
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
