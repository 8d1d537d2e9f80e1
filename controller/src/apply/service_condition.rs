//! Writes: the Accepted condition in a Service's status, by server-side apply, so that the controller owns only this condition.

use super::{Error, bounded, is_gone};
use crate::service_status::condition::current;
use api::ObjectName;
use api::names::CONTROLLER_FIELD_MANAGER;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

pub(super) async fn write(
    client: &Client,
    service: &Service,
    condition: &Condition,
    key: &ObjectName,
) -> Result<(), Error> {
    let api: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let mut condition = condition.clone();
    condition.last_transition_time = transition_time(service, &condition);
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Service",
        // The UID: never write on another Service of the same name.
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": service.metadata.uid},
        "status": {"conditions": [condition]},
    });
    let parameters = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
    let failed = |source| Error::Condition {
        service: key.clone(),
        source,
    };
    match bounded(
        api.patch_status(&key.name, &parameters, &Patch::Apply(&patch)),
        failed,
    )
    .await
    {
        Err(Error::Condition { source, .. }) if is_gone(&source) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Removes the condition from a Service that is no longer managed. If the Service does not exist or has another UID, nothing is done.
pub(super) async fn remove(client: &Client, uid: &str, key: &ObjectName) -> Result<(), Error> {
    let api: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
        "status": {},
    });
    let parameters = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
    let failed = |source| Error::Condition {
        service: key.clone(),
        source,
    };
    match bounded(
        api.patch_status(&key.name, &parameters, &Patch::Apply(&patch)),
        failed,
    )
    .await
    {
        Err(Error::Condition { source, .. }) if is_rejected(&source) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Matches a deleted Service (404), another one of the same name (409, 422), and an admission policy that forbids writes to Services
/// without the service-proxy-name label (403). The shipped policy allows to remove the condition.
fn is_rejected(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 404 | 409 | 422))
}

fn transition_time(service: &Service, wanted: &Condition) -> Time {
    match current(service) {
        Some(current) if current.status == wanted.status => current.last_transition_time.clone(),
        _ => Time(Timestamp::now()),
    }
}
