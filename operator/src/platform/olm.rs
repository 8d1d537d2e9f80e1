//! The Operator Lifecycle Manager's `OperatorCondition`, which reports whether OLM may upgrade this operator.
//!
//! Writes: the condition Upgradeable in `spec.conditions` of the object that `OPERATOR_CONDITION_NAME` names. OLM v1 has no such
//! object, and other installations do not set the variable. Errors are logged and do not fail the reconcile.

use api::MultusServiceConfigStatus;
use api::names::OPERATOR_FIELD_MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use process::error_chain;
use serde_json::{Value, json};
use tracing::{info, warn};

/// Reports the Upgradeable condition of the status to OLM.
pub(crate) async fn report_upgradeable(
    client: &Client,
    namespace: &str,
    name: &str,
    status: &MultusServiceConfigStatus,
) {
    let upgradeable = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Upgradeable");
    let Some(upgradeable) = upgradeable else { return };
    let kind = GroupVersionKind::gvk("operators.coreos.com", "v2", "OperatorCondition");
    let resource = ApiResource::from_gvk_with_plural(&kind, "operatorconditions");
    let conditions: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    match write(&conditions, name, upgradeable).await {
        Ok(false) => {}
        Ok(true) => info!(name, upgradeable = %upgradeable.status, "Updated OperatorCondition"),
        Err(error) => warn!(name, error = %error_chain(&error), "Failed to update OperatorCondition"),
    }
}

/// Returns true when the object was written.
async fn write(conditions: &Api<DynamicObject>, name: &str, upgradeable: &Condition) -> kube::Result<bool> {
    let found = match conditions.get(name).await {
        Ok(found) => found,
        // Also when the API is absent.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(wanted) = merged(found.data.pointer("/spec/conditions"), upgradeable) else {
        return Ok(false);
    };
    let patch = json!({
        "metadata": { "resourceVersion": found.metadata.resource_version },
        "spec": { "conditions": wanted },
    });
    let params = PatchParams {
        field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    conditions.patch(name, &params, &Patch::Merge(patch)).await?;
    Ok(true)
}

/// Merges our condition into the list; `None` when the list is up to date.
fn merged(found: Option<&Value>, upgradeable: &Condition) -> Option<Vec<Value>> {
    let condition = json!({
        "type": upgradeable.type_,
        "status": upgradeable.status,
        "reason": upgradeable.reason,
        "message": upgradeable.message,
        "lastTransitionTime": upgradeable.last_transition_time,
    });
    let mut list = found.and_then(Value::as_array).cloned().unwrap_or_default();
    let same = |one: &Value| {
        ["status", "reason", "message"]
            .iter()
            .all(|field| one[field] == condition[field])
    };
    let place = list.iter().position(|one| one["type"] == condition["type"]);
    match place {
        Some(place) if same(&list[place]) => return None,
        Some(place) => list[place] = condition,
        None => list.push(condition),
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn upgradeable(status: &str) -> Condition {
        Condition {
            type_: "Upgradeable".to_owned(),
            status: status.to_owned(),
            reason: "Why".to_owned(),
            message: "because".to_owned(),
            observed_generation: Some(7),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn other_conditions_are_kept_and_equal_ones_are_not_written() {
        let foreign = json!([{ "type": "Other", "status": "True" }]);
        let written = merged(Some(&foreign), &upgradeable("False")).unwrap();
        assert_eq!((written.len(), &written[0]), (2, &foreign[0]));
        assert_eq!(merged(Some(&json!(written)), &upgradeable("False")), None);
        let changed = merged(Some(&json!(written)), &upgradeable("True")).unwrap();
        assert_eq!((changed.len(), &changed[1]["status"]), (2, &json!("True")));
    }
}
