//! Writes: Events on Services (`events.k8s.io/v1`).
//!
//! An Event's name is a hash of its content. Repeating it, also by another replica or after a restart, finds the first one and
//! increments its count instead of adding another.

use super::{Error, bounded};
use crate::service_status::problem::Problem;
use api::ObjectName;
use api::names::CONTROLLER;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::hash::{DefaultHasher, Hash, Hasher};

pub(super) async fn publish(
    client: &Client,
    instance: &str,
    regarding: ObjectReference,
    problem: &Problem,
    service: &ObjectName,
) -> Result<(), Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), &service.namespace);
    let failed = |source| Error::Event {
        service: service.clone(),
        reason: problem.reason.as_str(),
        source,
    };
    let event = event(instance, regarding, problem, Timestamp::now());
    match bounded(api.create(&PostParams::default(), &event), failed).await {
        Err(Error::Event { source, .. }) if is_conflict(&source) => {
            increment_count(&api, &event, failed).await
        }
        answer => answer.map(drop),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Increments the count of a repeated Event. The API server returns the whole object for a patch, so an empty patch reads it without the
/// verb `get`.
async fn increment_count(
    api: &Api<Event>,
    event: &Event,
    failed: impl Fn(Box<kube::Error>) -> Error,
) -> Result<(), Error> {
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let patch = async |change: serde_json::Value| {
        bounded(
            api.patch(name, &PatchParams::default(), &Patch::Merge(&change)),
            &failed,
        )
        .await
    };
    let before = patch(json!({})).await?.series.map_or(1, |series| series.count);
    let series = json!({"series": {"count": before.saturating_add(1), "lastObservedTime": event.event_time}});
    patch(series).await.map(drop)
}

fn event(instance: &str, regarding: ObjectReference, problem: &Problem, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name(&regarding, problem)),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(problem.reason.as_str().to_owned()),
        note: Some(problem.text()),
        action: Some("ReconcileEndpoints".to_owned()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        regarding: Some(regarding),
        ..Event::default()
    }
}

fn name(regarding: &ObjectReference, problem: &Problem) -> String {
    let mut hasher = DefaultHasher::new();
    (&regarding.uid, problem.reason.as_str(), &problem.message).hash(&mut hasher);
    format!(
        "{}.{:016x}",
        regarding.name.as_deref().unwrap_or_default(),
        hasher.finish()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_status::problem::Reason;

    fn named(uid: &str, message: &str) -> String {
        let regarding = ObjectReference {
            name: Some("web".into()),
            uid: Some(uid.into()),
            ..ObjectReference::default()
        };
        name(&regarding, &Problem::new(Reason::InvalidNetwork, message))
    }

    #[test]
    fn a_repeated_event_has_the_same_name() {
        assert_eq!(named("u1", "bad"), named("u1", "bad"));
        assert_ne!(named("u1", "bad"), named("u1", "worse"));
        assert_ne!(
            named("u1", "bad"),
            named("u2", "bad"),
            "another Service of the same name"
        );
        assert!(named("u1", "bad").starts_with("web."));
    }
}
