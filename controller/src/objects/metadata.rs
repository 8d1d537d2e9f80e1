//! The metadata of Pods and Nodes: the fields that decisions read, and the version from which a watch continues.
//!
//! Pure. Managed fields are often half of an object, and annotations may be 256 KiB; both are skipped while parsing.

use api::names::NETWORK_STATUS_ANNOTATION;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

/// For `deserialize_with`.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Metadata {
        name,
        namespace,
        uid,
        resource_version,
        labels,
        annotations,
        creation_timestamp,
        deletion_timestamp,
    } = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        labels,
        annotations: annotations.and_then(|Annotations(read)| read),
        creation_timestamp,
        deletion_timestamp,
        ..ObjectMeta::default()
    })
}

/// The annotations that are read: none or one.
struct Annotations(Option<BTreeMap<String, String>>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Known)
    }
}

struct Known;

impl<'de> Visitor<'de> for Known {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut known = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == NETWORK_STATUS_ANNOTATION {
                known = Some(BTreeMap::from([(key, map.next_value()?)]));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Annotations(known))
    }
}
