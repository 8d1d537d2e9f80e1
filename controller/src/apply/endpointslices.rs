//! Writes: EndpointSlices, in the order create, update, delete.
//!
//! A slice is deleted only when all that replaces it is written: endpoints are never missing in between. What replaces it is of its own
//! address type, so a write that fails keeps no slice of another type from being deleted.

use super::{Error, WriteRequest, bounded, is_gone, slice_key};
use api::names::CONTROLLER_FIELD_MANAGER;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::info;

/// Slices after the writes.
#[derive(Debug, Default)]
pub struct WrittenSlices {
    pub created: Vec<EndpointSlice>,
    pub updated: Vec<EndpointSlice>,
    pub deleted: Vec<Arc<EndpointSlice>>,
    /// Not found by their update.
    pub vanished: Vec<EndpointSlice>,
}

impl WrittenSlices {
    /// Number of writes.
    pub fn count(&self) -> usize {
        self.created.len() + self.updated.len() + self.deleted.len()
    }
}

/// Writes what was planned. One failure does not keep the other creates and updates from being written, nor deletes of another address
/// type.
pub(super) async fn write(client: &Client, work: &WriteRequest) -> (WrittenSlices, Option<Error>) {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &work.key.namespace);
    let mut written = WrittenSlices::default();
    let mut failed = None;
    let mut unwritten = BTreeSet::new();
    for slice in &work.slices.create {
        match create(&api, slice, work).await {
            Ok(slice) => written.created.extend(slice),
            Err(error) => {
                unwritten.insert(slice.address_type.as_str());
                failed = failed.or(Some(error));
            }
        }
    }
    for slice in &work.slices.update {
        match update(&api, slice).await {
            Ok(Some(slice)) => written.updated.push(slice),
            Ok(None) => {
                // What it was to hold is nowhere until the next plan.
                unwritten.insert(slice.address_type.as_str());
                written.vanished.push(slice.clone());
            }
            Err(error) => {
                unwritten.insert(slice.address_type.as_str());
                failed = failed.or(Some(error));
            }
        }
    }
    let replaced = |slice: &&Arc<EndpointSlice>| !unwritten.contains(slice.address_type.as_str());
    for slice in work.slices.delete.iter().filter(replaced) {
        match delete(&api, slice).await {
            Ok(()) => written.deleted.push(Arc::clone(slice)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if written.count() > 0 {
        let (created, updated, deleted) = (
            written.created.len(),
            written.updated.len(),
            written.deleted.len(),
        );
        info!(service = %work.key, created, updated, deleted, endpoints = work.slices.counts.endpoints, "Wrote EndpointSlices");
    }
    (written, failed)
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Returns `None` if the namespace is terminating and accepts no new objects.
async fn create(
    api: &Api<EndpointSlice>,
    slice: &EndpointSlice,
    work: &WriteRequest,
) -> Result<Option<EndpointSlice>, Error> {
    let failed = |source| Error::Create {
        service: work.key.clone(),
        source,
    };
    match bounded(api.create(&parameters(), slice), failed).await {
        Err(Error::Create { source, .. }) if is_terminating(&source) => Ok(None),
        answer => answer.map(Some),
    }
}

fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

/// Returns `None` if the slice does not exist; the next plan will see that.
async fn update(api: &Api<EndpointSlice>, slice: &EndpointSlice) -> Result<Option<EndpointSlice>, Error> {
    let key = slice_key(slice);
    let failed = |source| Error::Update {
        slice: key.clone(),
        source,
    };
    match bounded(api.replace(&key.name, &parameters(), slice), failed).await {
        Err(Error::Update { source, .. }) if is_gone(&source) => Ok(None),
        answer => answer.map(Some),
    }
}

async fn delete(api: &Api<EndpointSlice>, slice: &EndpointSlice) -> Result<(), Error> {
    let key = slice_key(slice);
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: slice.metadata.uid.clone(),
            resource_version: slice.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    let failed = |source| Error::Delete {
        slice: key.clone(),
        source,
    };
    match bounded(api.delete(&key.name, &parameters), failed).await {
        Err(Error::Delete { source, .. }) if is_gone(&source) => Ok(()),
        answer => answer.map(drop),
    }
}
