//! Settings of traces.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Settings of the traces of changes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!self.endpoint.startsWith('https://') || (has(self.ca) && self.ca != null)",
        "message": "an https endpoint needs ca: the images contain no certificate authorities",
    },
    {
        "rule": "self.endpoint.startsWith('https://') || !has(self.ca) || self.ca == null",
        "message": "ca is only for an https endpoint",
    },
]))]
pub struct TracingSpec {
    /// endpoint is the receiver of the spans: OTLP over gRPC, with its port, such as http://127.0.0.1:4317 for a collector on each
    /// node or https://otel-collector.observability.svc:4317.
    #[schemars(schema_with = "endpoint")]
    pub endpoint: String,

    /// samplingRatePerMillion is the number of traces to sample per million, 0 to 1000000. A trace is sampled by controller and all
    /// proxies or by none. When omitted, this means no opinion and the platform is left to choose a reasonable default, which is
    /// subject to change over time. The current default is 1000000: all traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sampling_rate_per_million: Option<i32>,

    /// ca references the certificate authorities that sign the certificate of an https endpoint. Required with https, also as null,
    /// which is the same as omitted; not allowed with http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca")]
    pub ca: Option<CaReference>,
}

/// A key of a ConfigMap in the namespace of the operator.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CaReference {
    /// Name of the ConfigMap.
    pub name: String,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Scheme, host and port; a path belongs to OTLP over HTTP.
fn endpoint(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 512,
        "pattern": r"^https?://([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\]):[1-9][0-9]{0,4}$",
    })
}

/// Nullable, as every optional field: the rules treat a null as an absent value.
fn ca(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": 253,
                "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
                "description": "name is the name of a ConfigMap in the namespace of the operator. While it does not exist, spans are lost and counted; nothing else waits for it.",
            },
            "key": {
                "type": "string",
                "minLength": 1,
                "maxLength": 253,
                "pattern": r"^[-._a-zA-Z0-9]+$",
                "description": "key is the key of the ConfigMap whose value are the certificates, PEM. When omitted, this means no opinion and the platform is left to choose a reasonable default, which is subject to change over time. The current default is ca.crt.",
            },
        },
    })
}
