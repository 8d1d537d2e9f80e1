//! One object: apply it unless it is as it should be, delete it unless it is wanted.
//!
//! Writes: the object.

use super::{Error, drift};
use api::names::OPERATOR_FIELD_MANAGER;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use tracing::info;

/// What this process applied last, by kind and name.
///
/// A live object that holds every value we want may still hold one that we wanted earlier. Only an apply takes that away, so an
/// object is left alone only when it was applied with this very content before.
#[derive(Debug, Default)]
pub(super) struct Applied(Mutex<BTreeMap<(String, String), Value>>);

impl Applied {
    /// Makes every desired object exist as desired; returns all live objects as they are then.
    pub(super) async fn converge<K>(&self, api: &Api<K>, desired: &[K], live: &[K]) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let wanted = |found: &&K| desired.iter().any(|object| object.name_any() == found.name_any());
        let mut converged: Vec<_> = live.iter().filter(|found| !wanted(found)).cloned().collect();
        for object in desired {
            let found = live.iter().find(|found| found.name_any() == object.name_any());
            converged.push(match found {
                Some(found) if self.is_settled(object, found) => found.clone(),
                _ => self.apply(api, &object.name_any(), object).await?,
            });
        }
        Ok(converged)
    }

    fn is_settled<K: Resource<DynamicType = ()> + Serialize>(&self, desired: &K, live: &K) -> bool {
        let desired_value = value(desired);
        let applied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        applied.get(&key(desired)) == Some(&desired_value) && drift::covers(&value(live), &desired_value)
    }

    async fn apply<K>(&self, api: &Api<K>, name: &str, object: &K) -> Result<K, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let applied = api
            .patch(name, &params, &Patch::Apply(object))
            .await
            .map_err(|source| Error::Apply {
                kind: K::kind(&()).into_owned(),
                name: name.to_owned(),
                source,
            })?;
        info!(kind = %K::kind(&()), name, "Applied");
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key(object), value(object));
        Ok(applied)
    }
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
            delete(api, &name, object).await?;
        }
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    // Background: a pod on a node that is away must not hold the object, and with it the removal, up for ever.
    // The UID: another object that took the name meanwhile was not judged.
    let preconditions = Preconditions {
        uid: object.uid(),
        resource_version: None,
    };
    match api
        .delete(name, &DeleteParams::background().preconditions(preconditions))
        .await
    {
        Ok(_) => info!(kind = %K::kind(&()), name, "Deleted"),
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
