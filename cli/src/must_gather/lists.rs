//! Lists of objects, one file for each namespace.

use super::contents::{Objects, Place};
use super::reduce::reduce;
use super::{Error, Folder};
use crate::facts::{ReadError, Reader};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Writes a list.
pub(super) async fn write_list(
    reader: &Reader,
    operands: &str,
    objects: &Objects,
    folder: &mut Folder,
) -> Result<(), Error> {
    let namespace = (objects.place == Place::Operands).then_some(operands);
    let mut by_file = BTreeMap::<String, Vec<Value>>::new();
    let mut add = |object: DynamicObject| {
        let file = file(objects, object.namespace().as_deref());
        if let Some(object) = reduce(with_kind(object, objects), objects.part) {
            by_file.entry(file).or_default().push(object);
        }
    };
    let selectors = (objects.labels.as_str(), objects.fields.as_str());
    match reader
        .list_kind(&objects.resource, namespace, selectors, &mut add)
        .await
    {
        // The cluster has no OpenShift, no OLM, no Multus.
        Ok(()) | Err(ReadError::NoKind(_)) => {}
        Err(error) => folder.miss(error.to_string()),
    }
    for (file, items) in by_file {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        let text = serde_saphyr::to_string(&list).unwrap_or_else(|_| list.to_string());
        folder.write(&file, &text)?;
    }
    Ok(())
}

/// The API server omits the kind of an object in a list of its kind.
fn with_kind(object: DynamicObject, objects: &Objects) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = json!(objects.resource.api_version);
    value["kind"] = json!(objects.resource.kind);
    value
}

/// As `oc adm inspect`: `core` is the group without a name.
fn file(objects: &Objects, namespace: Option<&str>) -> String {
    let group = match objects.resource.group.as_str() {
        "" => "core",
        group => group,
    };
    // Events of several reporters, and pods and Services of two lists, are in one namespace.
    let reporter = objects.fields.rsplit_once('=');
    let reporter = reporter
        .map(|(_, reporter)| format!("-of-{reporter}"))
        .unwrap_or_default();
    let of = match objects.place {
        Place::Everywhere if objects.fields.is_empty() => "-on-networks",
        _ => "",
    };
    let name = format!("{group}/{}{of}{reporter}.yaml", objects.resource.plural);
    match namespace {
        Some(namespace) => format!("namespaces/{namespace}/{name}"),
        None => format!("cluster-scoped-resources/{name}"),
    }
}
