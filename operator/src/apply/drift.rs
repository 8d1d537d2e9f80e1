//! Drift: applies an object unless it is up to date; deletes one that is not desired.
//!
//! Writes: the object.

use super::{Error, comparison, other_managers};
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

/// Fields that are immutable in Kubernetes.
const IMMUTABLE: &[(&str, &str)] = &[
    ("Deployment", "/spec/selector"),
    ("DaemonSet", "/spec/selector"),
    ("RoleBinding", "/roleRef"),
    ("ClusterRoleBinding", "/roleRef"),
];

/// Part of the API server's message when a webhook does not support dry run.
const DRY_RUN_UNSUPPORTED: &str = "does not support dry run";

/// The last applied state of each object, by kind and name: as requested, and as the API server persisted it.
///
/// A live object that holds every desired value may still hold a value that was desired earlier. Only an apply removes it, so an
/// object is up to date only when it was applied with this very content before. The API server normalizes some values ("1000m"
/// becomes "1"), so the persisted values are compared. Then fields of other managers are removed; those that cannot be removed (the
/// API server sets them again) are recorded, so that the removal is attempted once.
#[derive(Debug, Default)]
pub(super) struct AppliedObjects(Mutex<BTreeMap<(String, String), AppliedState>>);

#[derive(Debug)]
struct AppliedState {
    requested: Value,
    persisted: Value,
    foreign_fields: Option<Value>,
}

/// Objects that were deleted because an immutable field differed.
pub(super) type Recreated = Vec<(String, String)>;

impl AppliedObjects {
    /// Dry-runs the apply of the objects: a configuration is applied as a whole or not at all.
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
                // The webhook decides in the real apply.
                Err(kube::Error::Api(status)) if status.message.contains(DRY_RUN_UNSUPPORTED) => {}
                Err(source) => return Err(not_applied::<K>(&name, source)),
            }
        }
        Ok(())
    }

    /// True when the object was applied with the desired content, even if it has drifted since.
    pub(super) fn is_applied<K: Resource<DynamicType = ()> + Serialize>(&self, desired: &K) -> bool {
        let applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = applied.get(&key(desired));
        state.is_some_and(|state| state.requested == value(desired))
    }

    /// Applies every desired object that is not up to date; returns all live objects.
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
                // Its pods terminate first; the deletion event triggers another reconcile.
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
                && comparison::covers(&value(live), &state.persisted)
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
            persisted: comparison::persisted(&requested, &value(&applied)),
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

/// Applies the object. Fields of other managers can conflict with it: they are removed first.
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

/// Removes fields of other managers, which an apply keeps.
async fn remove_foreign_fields<K>(api: &Api<K>, found: K) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let Some(mut patch) = other_managers::removal_patch(&found) else {
        return Ok(found);
    };
    let name = found.name_any();
    warn!(kind = %K::kind(&()), name, %patch, "Removing fields set by other managers");
    // Lists are replaced as a whole: the resourceVersion makes a concurrent change a conflict.
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

/// True when an immutable field differs.
fn has_immutable_difference<K: Resource<DynamicType = ()> + Serialize>(desired: &K, live: &K) -> bool {
    let (desired, live) = (value(desired), value(live));
    let paths = IMMUTABLE.iter().filter(|(kind, _)| *kind == K::kind(&()));
    paths.into_iter().any(|(_, path)| {
        let (desired, live) = (desired.pointer(path), live.pointer(path));
        desired.zip(live).is_some_and(|(desired, live)| {
            !comparison::covers(live, desired) || !comparison::covers(desired, live)
        })
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
            // Background: a pod on an unreachable node must not block the deletion, and with it the removal, for ever.
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
        // The UID: another object may have taken the name meanwhile.
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
