//! One object: apply it unless it is as it should be, delete it unless it is wanted.
//!
//! Writes: the object.

use super::{Error, drift, other_managers};
use api::names::OPERATOR_FIELD_MANAGER;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use tracing::{info, warn};

/// Fields that Kubernetes never changes in an object that exists.
const IMMUTABLE: &[(&str, &str)] = &[
    ("Deployment", "/spec/selector"),
    ("DaemonSet", "/spec/selector"),
    ("RoleBinding", "/roleRef"),
    ("ClusterRoleBinding", "/roleRef"),
];

/// What the API server says to a dry_run when a webhook cannot take part in one.
const DRY_RUN_UNSUPPORTED: &str = "does not support dry run";

/// What this process applied last, by kind and name: as it requested, and as the API server wrote it down.
///
/// A live object that holds every value we want may still hold one that we wanted earlier. Only an apply takes that away, so an
/// object is left alone only when it was applied with this very content before. The API server spells some values its own way
/// ("1000m" is "1"): what it persisted is what is compared. Then what others added is taken out; what cannot be (the API server puts
/// the same value there again) is remembered, so that it is tried once.
#[derive(Debug, Default)]
pub(super) struct AppliedObjects(Mutex<BTreeMap<(String, String), AppliedState>>);

#[derive(Debug)]
struct AppliedState {
    requested: Value,
    persisted: Value,
    foreign_fields: Option<Value>,
}

/// Objects that were in the way of what is wanted and have been deleted.
pub(super) type Recreated = Vec<(String, String)>;

impl AppliedObjects {
    /// Asks the API server whether it would take the objects; nothing is written. A configuration is applied whole or not at all.
    pub(super) async fn dry_run<K>(&self, api: &Api<K>, desired: &[K], live: &[K]) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        for object in desired {
            let found = live.iter().find(|found| found.name_any() == object.name_any());
            if found.is_some_and(|found| {
                self.is_up_to_date(object, found) || has_immutable_difference(object, found)
            }) {
                continue;
            }
            let name = object.name_any();
            let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force().dry_run();
            match apply_patch(api, object, found, &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    return Err(Error::Rejected(status.message.clone()));
                }
                // The webhook judges when it counts.
                Err(kube::Error::Api(status)) if status.message.contains(DRY_RUN_UNSUPPORTED) => {}
                Err(source) => return Err(not_applied::<K>(&name, source)),
            }
        }
        Ok(())
    }

    /// Whether the object was applied as it is desired now, whatever others have made of it since.
    pub(super) fn is_applied<K: Resource<DynamicType = ()> + Serialize>(&self, desired: &K) -> bool {
        let applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = applied.get(&key(desired));
        state.is_some_and(|state| state.requested == value(desired))
    }

    /// Makes every desired object exist as desired; returns all live objects as they are then.
    pub(super) async fn converge<K>(
        &self,
        api: &Api<K>,
        desired: &[K],
        live: &[K],
        recreated: &mut Recreated,
    ) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let wanted = |found: &&K| desired.iter().any(|object| object.name_any() == found.name_any());
        let mut converged: Vec<_> = live.iter().filter(|found| !wanted(found)).cloned().collect();
        for object in desired {
            let name = object.name_any();
            let found = live.iter().find(|found| found.name_any() == name);
            converged.push(match found {
                Some(found) if self.is_up_to_date(object, found) => found.clone(),
                // Its pods go first; its end is an event that starts another turn.
                Some(found) if found.meta().deletion_timestamp.is_some() => found.clone(),
                Some(found) if has_immutable_difference(object, found) => {
                    warn!(kind = %K::kind(&()), name, "Recreating object: immutable field differs");
                    delete(api, &name, found, PropagationPolicy::Foreground).await?;
                    recreated.push((K::kind(&()).into_owned(), name));
                    found.clone()
                }
                _ => self.apply(api, object, found).await?,
            });
        }
        Ok(converged)
    }

    fn is_up_to_date<K: Resource<DynamicType = ()> + Serialize>(&self, desired: &K, live: &K) -> bool {
        let applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        applied.get(&key(desired)).is_some_and(|state| {
            state.requested == value(desired)
                && drift::covers(&value(live), &state.persisted)
                && state.foreign_fields == other_managers::removal_patch(live)
        })
    }

    async fn apply<K>(&self, api: &Api<K>, object: &K, found: Option<&K>) -> Result<K, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let name = object.name_any();
        let failed = |source| not_applied::<K>(&name, source);
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let applied = apply_patch(api, object, found, &params).await.map_err(failed)?;
        info!(kind = %K::kind(&()), name, "Applied object");
        let applied = remove_foreign_fields(api, applied).await.map_err(failed)?;
        let requested = value(object);
        let state = AppliedState {
            persisted: drift::persisted(&requested, &value(&applied)),
            foreign_fields: other_managers::removal_patch(&applied),
            requested,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key(object), state);
        Ok(applied)
    }
}

/// Applies the object. What others have added can be at odds with it: then that goes first.
async fn apply_patch<K>(api: &Api<K>, object: &K, found: Option<&K>, params: &PatchParams) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let name = object.name_any();
    let patch = Patch::Apply(object);
    match (api.patch(&name, params, &patch).await, found) {
        (Err(kube::Error::Api(status)), Some(found))
            if status.code == 422 && other_managers::removal_patch(found).is_some() =>
        {
            remove_foreign_fields(api, found.clone()).await?;
            api.patch(&name, params, &patch).await
        }
        (written, _) => written,
    }
}

/// Takes out what others have added, which an apply leaves.
async fn remove_foreign_fields<K>(api: &Api<K>, found: K) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let Some(mut patch) = other_managers::removal_patch(&found) else {
        return Ok(found);
    };
    let name = found.name_any();
    warn!(kind = %K::kind(&()), name, %patch, "Removing fields set by other managers");
    // Lists are replaced whole: of what was looked at, and of no other.
    patch["metadata"] = json!({ "resourceVersion": found.resource_version() });
    let params = PatchParams {
        field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(&name, &params, &Patch::Merge(patch)).await
}

fn not_applied<K: Resource<DynamicType = ()>>(name: &str, source: kube::Error) -> Error {
    Error::Apply {
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        source,
    }
}

/// Whether the live object can never become the desired one.
fn has_immutable_difference<K: Resource<DynamicType = ()> + Serialize>(desired: &K, live: &K) -> bool {
    let (desired, live) = (value(desired), value(live));
    let paths = IMMUTABLE.iter().filter(|(kind, _)| *kind == K::kind(&()));
    paths.into_iter().any(|(_, path)| {
        let (desired, live) = (desired.pointer(path), live.pointer(path));
        desired
            .zip(live)
            .is_some_and(|(desired, live)| !drift::covers(live, desired) || !drift::covers(desired, live))
    })
}

/// Deletes the live objects that are not desired.
pub(super) async fn prune<K>(api: &Api<K>, desired: &[K], live: &[K]) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let wanted = |name: &str| desired.iter().any(|object| object.name_any() == name);
    for object in live
        .iter()
        .filter(|object| object.meta().deletion_timestamp.is_none())
    {
        let name = object.name_any();
        if !wanted(&name) {
            // Background: a pod on a node that is away must not hold the object, and with it the removal, up for ever.
            delete(api, &name, object, PropagationPolicy::Background).await?;
        }
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str, object: &K, policy: PropagationPolicy) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let params = DeleteParams {
        propagation_policy: Some(policy),
        // The UID: another object that took the name meanwhile was not judged.
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await {
        Ok(_) => info!(kind = %K::kind(&()), name, "Deleted object"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(source) => {
            let kind = K::kind(&()).into_owned();
            return Err(Error::Delete {
                kind,
                name: name.to_owned(),
                source,
            });
        }
    }
    Ok(())
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> (String, String) {
    (K::kind(&()).into_owned(), object.name_any())
}

fn value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("typed objects are JSON")
}
