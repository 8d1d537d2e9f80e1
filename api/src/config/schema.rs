//! Parts of the schema that cannot be derived from types: patterns, bounds, rules (CEL), list types.
//!
//! Pure.

use super::MultusServiceConfig;
use crate::names;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Bound of lists and maps without a bound of their own (inside affinity).
const MAX_ITEMS: i64 = 64;

/// Returns the definition with every list and map bounded.
pub(super) fn crd() -> CustomResourceDefinition {
    let mut crd = MultusServiceConfig::crd();
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut());
        let Some(properties) = schema.and_then(|schema| schema.properties.as_mut()) else {
            continue;
        };
        properties.values_mut().for_each(bound);
        if let Some(spec) = properties.get_mut("spec") {
            // `kubectl apply` of an object without a spec is the simplest install.
            spec.default = Some(JSON(json!({})));
        }
    }
    crd
}

/// An unbounded list would let one object fill the API server's memory.
fn bound(schema: &mut JSONSchemaProps) {
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        schema.max_items = schema.max_items.or(Some(MAX_ITEMS));
        bound(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        schema.max_properties = schema.max_properties.or(Some(MAX_ITEMS));
        bound(values);
    }
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .for_each(bound);
}

/// `JSONSchemaProps` has its bounds as floating-point numbers, so `1` would be written `1.0`, which kustomize and the API server write as `1`.
pub(super) fn with_whole_numbers(value: Value) -> Value {
    match value {
        // Display writes no fraction where there is none.
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            let whole = float.and_then(|float| float.to_string().parse().ok());
            Value::Number(whole.unwrap_or(number))
        }
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (name, with_whole_numbers(field)))
            .collect(),
        other => other,
    }
}

pub(super) fn operator_log_level(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "nullable": true, "enum": ["Normal", "Debug", "Trace", "TraceAll"] })
}

/// A container image by tag or digest.
pub(super) fn pull_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "nullable": true,
        "minLength": 1,
        "maxLength": 512,
        "pattern": r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$",
    })
}

pub(super) fn pull_secrets(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<super::PullSecret>(),
        "maxItems": 10,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    })
}

pub(super) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "nullable": true,
        "items": { "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" },
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
    })
}

/// Ranges of addresses. CEL has no `isCIDR` before Kubernetes 1.31, and a `format` has no message of its own; the operator rejects
/// IPv6 ranges that the rule accepts and that are invalid. A range of all addresses would reject every endpoint.
pub(super) fn service_cidrs(_: &mut SchemaGenerator) -> Schema {
    let octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    let (ipv4, ipv6) = (
        format!("{octet}([.]{octet}){{3}}/([1-9]|[12][0-9]|3[0-2])"),
        "[0-9a-fA-F:]*:[0-9a-fA-F:]*/([1-9]|[1-9][0-9]|1[01][0-9]|12[0-8])",
    );
    json_schema!({
        "type": "array",
        "nullable": true,
        "items": {
            "type": "string",
            "minLength": 3,
            "maxLength": 43,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('^({ipv4}|{ipv6})$') && !self.contains(':::')"),
                "message": "serviceCIDRs are IPv4 or IPv6 ranges such as 172.30.0.0/16 or fd00:96::/112",
            }],
        },
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
    })
}

/// Name of an object.
pub(super) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "nullable": true,
        "minLength": 1,
        "maxLength": 253,
        "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    })
}

pub(super) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    label_values()
}

/// Labels of objects. Keys cannot be constrained by a schema; the operator checks them.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    label_values()
}

/// A map whose values are those of labels.
fn label_values() -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 16,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^([a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?)?$",
        },
        "x-kubernetes-map-type": "atomic",
    })
}

/// Kubernetes' own rules for tolerations, so that an invalid one is rejected here and not during a rollout.
pub(super) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "nullable": true,
        "maxItems": 32,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "description": "The pod this Toleration is attached to tolerates any taint that matches the triple <key,value,effect> using the matching operator <operator>.",
            "properties": {
                "key": {
                    "type": "string",
                    "maxLength": 317,
                    "description": "Key is the taint key that the toleration applies to. Empty means match all taint keys. If the key is empty, operator must be Exists; this combination means to match all values and all keys.",
                },
                "operator": {
                    "type": "string",
                    "enum": ["Exists", "Equal"],
                    "description": "Operator represents a key's relationship to the value. Valid operators are Exists and Equal. Defaults to Equal. Exists is equivalent to wildcard for value, so that a pod can tolerate all taints of a particular category.",
                },
                "value": {
                    "type": "string",
                    "maxLength": 63,
                    "description": "Value is the taint value the toleration matches to. If the operator is Exists, the value must be empty, otherwise just a regular string.",
                },
                "effect": {
                    "type": "string",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                    "description": "Effect indicates the taint effect to match. Empty means match all taint effects. When specified, allowed values are NoSchedule, PreferNoSchedule and NoExecute.",
                },
                "tolerationSeconds": {
                    "type": "integer",
                    "format": "int64",
                    "description": "TolerationSeconds represents the period of time the toleration (which must be of effect NoExecute) tolerates the taint. By default, it is not set, which means tolerate the taint forever (do not evict).",
                },
            },
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
                    "message": "a toleration with operator Exists has no value",
                },
                {
                    "rule": "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
                    "message": "a toleration without a key needs operator Exists",
                },
                {
                    "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                    "message": "tolerationSeconds needs effect NoExecute",
                },
            ],
        },
    })
}

/// One folder below /run: the folder is mounted into the proxy, which must not see more than the folder of the runtime.
pub(super) fn runtime_endpoint(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": 107,
        "pattern": r"^(unix://)?/(var/)?run/[^/.][^/]*/[^/]+\.sock$",
    })
}

/// A port of the nodes that needs no privilege. The proxy has another one, for probes.
pub(super) fn metrics_port(_: &mut SchemaGenerator) -> Schema {
    let other = names::PROXY_METRICS_PORT;
    json_schema!({
        "type": "integer",
        "format": "int32",
        "nullable": true,
        "minimum": 1024,
        "maximum": 65535,
        "x-kubernetes-validations": [{
            "rule": format!("self != {}", names::PROXY_HTTP_PORT),
            "message": format!("the proxy serves probes on port {}; choose another port, such as {other}", names::PROXY_HTTP_PORT),
        }],
    })
}

pub(super) fn host_networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "nullable": true,
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["network"],
        "items": {
            "type": "object",
            "description": "A network that nodes are attached to by an interface of their own.",
            "required": ["network", "interface"],
            "properties": {
                "network": {
                    "type": "string",
                    "maxLength": 317,
                    "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
                    "description": "network is the network-attachment-definition, as namespace/name.",
                },
                "interface": {
                    "type": "string",
                    "maxLength": 15,
                    "pattern": r"^[^\s/:=]+$",
                    "description": "interface is the interface of the node, such as ens4 or ens4.100.",
                },
            },
        },
    })
}

pub(super) fn max_unavailable(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": true,
        "maxLength": 8,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self >= 1 && self <= 2147483647 : self.matches('^([1-9][0-9]?|100)%$')",
            "message": "maxUnavailable is a number of at least 1, or a percentage from 1% to 100%",
        }],
    })
}

pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 8,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "pattern": r"^([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$",
        },
    })
}

/// A list-map of metav1.Condition, so that several writers can own conditions.
pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<Condition>(),
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
