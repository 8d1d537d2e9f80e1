//! From placed endpoints to writes.
//!
//! Pure. A create beside a delete becomes an update of the slice to delete: one write less, and no time without either.

use super::packing::{Draft, Packed};
use super::slice::{blank, labels, mirrors_other_labels, set_network, set_trigger_time};
use super::{SlicePlan, Target, family};
use crate::objects::{is_being_deleted, is_owned_by};
use api::Family;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Slices as last seen.
type Existing = Vec<Arc<EndpointSlice>>;

/// The existing slices by family, and those of no family the Service has, which go. A slice that is being deleted is no slice any more:
/// its endpoints must be in another one before it is deleted.
pub(super) fn split(target: &Target<'_>) -> (BTreeMap<Family, Existing>, Existing) {
    let wanted = family::families(target.service);
    let mut by_family: BTreeMap<Family, Existing> = BTreeMap::new();
    let mut stray = Vec::new();
    let live = target.slices.iter().filter(|slice| !is_being_deleted(slice));
    for slice in live {
        match Family::parse(&slice.address_type).filter(|family| wanted.contains(family)) {
            Some(family) => by_family.entry(family).or_default().push(Arc::clone(slice)),
            None => stray.push(Arc::clone(slice)),
        }
    }
    (by_family, stray)
}

/// Adds the writes of one family to the plan.
pub(super) fn finish(target: &Target<'_>, family: Family, packed: Packed, plan: &mut SlicePlan) {
    let Packed { drafts, mut delete } = packed;
    let mut create = Vec::new();
    let mut update = Vec::new();
    plan.counts.slices += drafts.len();
    let is_bare = drafts.is_empty();
    for draft in drafts.into_iter().filter(|draft| draft.is_changed) {
        match &draft.base {
            Some(base) => update.push(replacement(target, base, &draft)),
            None => create.push(fresh(target, family, draft)),
        }
    }
    if is_bare && target.has_placeholder {
        plan.counts.slices += 1;
        let mut placeholder = blank(target.service, family, Vec::new());
        set_network(&mut placeholder, target.network);
        match &delete[..] {
            [only] if is_placeholder(target, only, &placeholder) => delete.clear(),
            _ => create.push(placeholder),
        }
    }
    let kept = reuse(target, &mut create, delete, &mut update);
    if target.service.metadata.deletion_timestamp.is_some() {
        // The garbage collector deletes this Service's slices; a slice created after its pass would remain.
        create.clear();
    }
    for slice in create.iter_mut().chain(&mut update) {
        set_trigger_time(slice, target.trigger_time);
        set_network(slice, target.network);
    }
    plan.create.append(&mut create);
    plan.update.append(&mut update);
    plan.delete.extend(kept);
}

fn fresh(target: &Target<'_>, family: Family, draft: Draft) -> EndpointSlice {
    EndpointSlice {
        endpoints: draft.endpoints,
        ..blank(target.service, family, draft.ports)
    }
}

fn replacement(target: &Target<'_>, base: &EndpointSlice, draft: &Draft) -> EndpointSlice {
    let mut slice = base.clone();
    slice.endpoints.clone_from(&draft.endpoints);
    slice.metadata.labels = Some(labels(target.service));
    slice
}

/// Returns true if the slice is an up-to-date placeholder: to delete and create it again would be a useless write.
fn is_placeholder(target: &Target<'_>, slice: &EndpointSlice, placeholder: &EndpointSlice) -> bool {
    is_owned_by(slice, target.service)
        && slice.endpoints.is_empty()
        && slice.ports.as_deref().unwrap_or_default().is_empty()
        && slice.address_type == placeholder.address_type
        && !mirrors_other_labels(slice, target.service)
        && slice.metadata.labels == placeholder.metadata.labels
}

/// Replaces creates by updates of slices that would be deleted; returns the slices still to delete. Slices of an earlier Service
/// of the same name are not reused: the garbage collector is about to delete them.
fn reuse(
    target: &Target<'_>,
    create: &mut Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
    update: &mut Vec<EndpointSlice>,
) -> Vec<Arc<EndpointSlice>> {
    let mut kept = Vec::new();
    for old in delete {
        match is_owned_by(&old, target.service).then(|| create.pop()).flatten() {
            Some(new) => update.push(in_place_of(&old, new)),
            None => kept.push(old),
        }
    }
    kept
}

/// The new slice under the old one's name, UID and resourceVersion.
fn in_place_of(old: &EndpointSlice, new: EndpointSlice) -> EndpointSlice {
    let mut metadata = old.metadata.clone();
    metadata.labels = new.metadata.labels;
    EndpointSlice {
        metadata,
        address_type: new.address_type,
        endpoints: new.endpoints,
        ports: new.ports,
    }
}
