//! The slices that one Service should have, and the writes that lead to them from the present ones.
//!
//! Pure. Equal inputs give equal plans; a plan made from its own result writes nothing. The placement is that of Kubernetes'
//! EndpointSlice reconciler (`k8s.io/endpointslice`), so that a change to one endpoint rewrites one slice.

mod address;
mod endpoint;
mod endpoints;
mod family;
#[cfg(test)]
pub(crate) mod fixture;
mod hints;
#[cfg(test)]
mod legacy_proxy_tests;
mod manual;
mod packing;
mod ports;
mod proportional;
#[cfg(test)]
mod reconciler_tests;
mod slice;
mod trigger_time;
mod writes;

pub(crate) use hints::{Routing, routing};
pub(crate) use trigger_time::{TriggerTimes, is_written, trigger_time};

use crate::manual::ManualSlice;
use crate::objects::{Nodes, Pod, is_being_deleted};
use crate::service_status::problem::Problem;
use crate::settings::Settings;
use crate::validate::Binding;
use api::{Family, NetworkRef};
use hints::Hints;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use manual::Copied;
use ports::Groups;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Input of a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub service: &'a Service,
    /// Its network and selector.
    pub binding: &'a Binding,
    /// The pods its selector selects.
    pub pods: &'a [Arc<Pod>],
    /// The slices that carry its name and our managed-by value, in the order of names.
    pub slices: &'a [Arc<EndpointSlice>],
    pub nodes: &'a Nodes,
    /// Time of the change that leads to this plan.
    pub trigger_time: Option<Timestamp>,
    /// The administrator's settings.
    pub settings: &'a Settings,
}

impl<'a> Input<'a> {
    /// The part that does not depend on the source of the endpoints.
    fn target(&self) -> Target<'a> {
        Target {
            service: self.service,
            network: &self.binding.network,
            slices: self.slices,
            nodes: self.nodes,
            trigger_time: self.trigger_time,
            settings: self.settings,
            has_placeholder: true,
        }
    }
}

/// The Service whose slices are written; independent of the source of its endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub service: &'a Service,
    pub network: &'a NetworkRef,
    /// The slices that carry its name and our managed-by value, in the order of names.
    pub slices: &'a [Arc<EndpointSlice>],
    pub nodes: &'a Nodes,
    /// Time of the change that leads to this plan.
    pub trigger_time: Option<Timestamp>,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// True if a Service without endpoints gets an empty slice, as one with a selector does in Kubernetes.
    pub has_placeholder: bool,
}

/// Writes to make, in this order: creates, updates, deletes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlicePlan {
    /// New slices; the API server names them.
    pub create: Vec<EndpointSlice>,
    /// Slices to replace; each carries the UID and resourceVersion of what it replaces.
    pub update: Vec<EndpointSlice>,
    /// Slices to delete, as last seen.
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Sizes, for metrics.
    pub counts: Counts,
}

/// Sizes of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Endpoints that should exist.
    pub endpoints: usize,
    /// Endpoints that are new in this plan.
    pub added: usize,
    /// Endpoints that this plan removes.
    pub removed: usize,
    /// Slices that exist when the plan is done.
    pub slices: usize,
    /// Slices that would suffice if every one were full.
    pub desired_slices: usize,
}

impl SlicePlan {
    /// Returns true if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes() == 0
    }

    /// Number of writes.
    pub fn writes(&self) -> usize {
        self.create.len() + self.update.len() + self.delete.len()
    }

    /// A plan that only deletes.
    pub fn delete_all(mut slices: Vec<Arc<EndpointSlice>>) -> Self {
        slices.retain(|slice| !is_being_deleted(slice));
        Self {
            delete: slices,
            ..Self::default()
        }
    }
}

/// Plans the slices of a Service that is served.
pub(crate) fn plan(input: &Input<'_>) -> (SlicePlan, Vec<Problem>) {
    let (desired, problems) = endpoints::desired(input);
    place(&input.target(), desired, &Hints::new(), problems)
}

/// Plans the slices of a Service whose author wrote its endpoints.
pub(crate) fn plan_manual(target: &Target<'_>, written: &[Arc<ManualSlice>]) -> (SlicePlan, Vec<Problem>) {
    let Copied {
        desired,
        hints,
        problems,
    } = manual::copied(target, written);
    place(target, desired, &hints, problems)
}

/// From endpoints to writes.
fn place(
    target: &Target<'_>,
    desired: BTreeMap<Family, Groups>,
    own_hints: &Hints,
    mut problems: Vec<Problem>,
) -> (SlicePlan, Vec<Problem>) {
    let (by_family, mut stray) = writes::split(target);
    let mut plan = SlicePlan::default();
    for (family, groups) in desired {
        let existing = by_family.get(&family).map(Vec::as_slice).unwrap_or_default();
        let mut packed = packing::pack(target, existing, groups, &mut plan.counts);
        problems.extend(hints::assign(target, family, own_hints, &mut packed.drafts));
        writes::finish(target, family, packed, &mut plan);
    }
    plan.delete.append(&mut stray);
    problems.sort();
    (plan, problems)
}
