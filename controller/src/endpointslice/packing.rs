//! Packing of endpoints into the slices of one family.
//!
//! Pure. Per port group, as Kubernetes' reconciler does it:
//! 1. wanted endpoints stay where they are; slices that lose or change one are rewritten, slices that lose all are deleted;
//! 2. new endpoints fill the slices that are rewritten anyway, the fullest first;
//! 3. the rest goes into the one unchanged slice it fits best, or into new slices.

use super::endpoint::{EndpointKey, is_equivalent};
use super::ports::{Group, Groups, PortGroup};
use super::slice::{has_network, mirrors_other_labels};
use super::{Counts, Target};
use crate::objects::is_owned_by;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A slice as it should be.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// The slice that it is now, if it exists.
    pub base: Option<Arc<EndpointSlice>>,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
    /// True if it must be written.
    pub is_changed: bool,
}

/// All slices of one family.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    /// Slices that should exist.
    pub drafts: Vec<Draft>,
    /// Slices that should not.
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Places the wanted endpoints of one family.
pub(super) fn pack(
    target: &Target<'_>,
    existing: &[Arc<EndpointSlice>],
    groups: Groups,
    counts: &mut Counts,
) -> Packed {
    let mut packed = Packed::default();
    let mut by_group: BTreeMap<PortGroup, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        if is_owned_by(slice, target.service) {
            let group = PortGroup::of(slice.ports.as_deref().unwrap_or_default());
            by_group.entry(group).or_default().push(Arc::clone(slice));
        } else {
            packed.delete.push(Arc::clone(slice));
        }
    }
    for (key, group) in groups {
        let slices = by_group.remove(&key).unwrap_or_default();
        pack_group(target, slices, group, &mut packed, counts);
    }
    packed.delete.extend(by_group.into_values().flatten());
    packed
}

fn pack_group(
    target: &Target<'_>,
    slices: Vec<Arc<EndpointSlice>>,
    group: Group,
    packed: &mut Packed,
    counts: &mut Counts,
) {
    let max = target.settings.max_endpoints_per_slice.max(1);
    let Group {
        ports,
        endpoints: mut wanted,
    } = group;
    counts.endpoints += wanted.len();
    counts.desired_slices += wanted.len().div_ceil(max);

    let mut drafts = Vec::new();
    for slice in slices {
        let kept = keep_wanted(target, &slice, &mut wanted, counts);
        match kept {
            Some(draft) => drafts.push(draft),
            None => packed.delete.push(slice),
        }
    }
    counts.added += wanted.len();
    fill_rewritten(&mut drafts, &mut wanted, max);
    place_rest(&mut drafts, &ports, wanted, max);
    packed.drafts.extend(drafts);
}

/// Step 1 for one slice. Returns `None` if none of its endpoints is wanted.
fn keep_wanted(
    target: &Target<'_>,
    slice: &Arc<EndpointSlice>,
    wanted: &mut BTreeMap<EndpointKey, Endpoint>,
    counts: &mut Counts,
) -> Option<Draft> {
    let mut is_changed = false;
    let mut kept = Vec::with_capacity(slice.endpoints.len());
    for endpoint in &slice.endpoints {
        // Removed from the wanted ones: an endpoint that is in two slices stays in the first only.
        match wanted.remove(&EndpointKey::of(endpoint)) {
            Some(fresh) if is_equivalent(&fresh, endpoint) => {
                kept.push(Endpoint {
                    hints: endpoint.hints.clone(),
                    ..fresh
                });
            }
            Some(fresh) => {
                is_changed = true;
                kept.push(fresh);
            }
            None => {}
        }
    }
    let removed = slice.endpoints.len() - kept.len();
    counts.removed += removed;
    is_changed |= removed > 0;
    if removed > 0 && kept.is_empty() {
        return None;
    }
    Some(Draft {
        ports: slice.ports.clone().unwrap_or_default(),
        endpoints: if is_changed { kept } else { slice.endpoints.clone() },
        is_changed: is_changed
            || mirrors_other_labels(slice, target.service)
            || !has_network(slice, target.network),
        base: Some(Arc::clone(slice)),
    })
}

/// Step 2.
fn fill_rewritten(drafts: &mut [Draft], wanted: &mut BTreeMap<EndpointKey, Endpoint>, max: usize) {
    let mut rewritten: Vec<_> = drafts.iter_mut().filter(|draft| draft.is_changed).collect();
    rewritten.sort_by_key(|draft| std::cmp::Reverse(draft.endpoints.len()));
    for draft in rewritten {
        fill(draft, wanted, max);
    }
}

/// Step 3.
fn place_rest(
    drafts: &mut Vec<Draft>,
    ports: &[EndpointPort],
    mut wanted: BTreeMap<EndpointKey, Endpoint>,
    max: usize,
) {
    while !wanted.is_empty() {
        if let Some(draft) = best_unchanged(drafts, wanted.len(), max) {
            fill(draft, &mut wanted, max);
            draft.is_changed = true;
        } else {
            let mut draft = Draft {
                base: None,
                ports: ports.to_vec(),
                endpoints: Vec::new(),
                is_changed: true,
            };
            fill(&mut draft, &mut wanted, max);
            drafts.push(draft);
        }
    }
}

/// The unchanged slice that ends closest to full when it takes all of `count`; what fits into none is not spread over several.
fn best_unchanged(drafts: &mut [Draft], count: usize, max: usize) -> Option<&mut Draft> {
    let room = |draft: &Draft| max.checked_sub(draft.endpoints.len() + count);
    drafts
        .iter_mut()
        .filter(|draft| !draft.is_changed && room(draft).is_some())
        .min_by_key(|draft| room(draft))
}

fn fill(draft: &mut Draft, wanted: &mut BTreeMap<EndpointKey, Endpoint>, max: usize) {
    while draft.endpoints.len() < max {
        let Some((_, endpoint)) = wanted.pop_first() else {
            return;
        };
        draft.endpoints.push(endpoint);
    }
}
