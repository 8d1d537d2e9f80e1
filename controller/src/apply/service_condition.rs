//! Writes: the Accepted condition in a Service's status, by server-side apply, so that only this condition is ours.

use super::{Error, bounded, is_gone};
use crate::objects::ObjectKey;
use crate::service_status::condition::current;
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
    key: &ObjectKey,
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

/// Takes the condition off a Service that is ours no longer. It may be gone, or of another UID: then there is nothing to take off.
pub(super) async fn remove(client: &Client, uid: &str, key: &ObjectKey) -> Result<(), Error> {
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

/// Gone, or another Service of the same name; 403: somebody's policy keeps us off Services without our label. The shipped one lets us
/// take the condition off.
fn is_rejected(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 404 | 409 | 422))
}

fn transition_time(service: &Service, wanted: &Condition) -> Time {
    match current(service) {
        Some(current) if current.status == wanted.status => current.last_transition_time.clone(),
        _ => Time(Timestamp::now()),
    }
}
