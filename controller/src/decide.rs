//! What is to be done for one Service: its slices, what its owner is told, its condition.
//!
//! Pure.

use crate::accept::{Acceptance, Binding};
use crate::condition::{accepted, stands};
use crate::gather::Observed;
use crate::index::ServiceEntry;
use crate::leftovers;
use crate::notice::{MAX_NOTICES, Notice, Reason};
use crate::objects::{Nodes, ObjectKey, is_owned_by};
use crate::plan::{Input, SlicePlan, TriggerTimes, generate_name, plan, trigger_time};
use crate::settings::Settings;
use api::names::SERVICE_NETWORK_ANNOTATION;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The decision for one Service.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Writes to its slices.
    pub slices: SlicePlan,
    /// Everything its owner should know.
    pub notices: Vec<Notice>,
    /// Its Accepted condition, when that must be written.
    pub condition: Option<Condition>,
    /// To be remembered once the slices are written.
    pub trigger_times: Option<TriggerTimes>,
}

/// Decides from what is known.
pub fn decide(
    observed: &Observed,
    nodes: &Nodes,
    settings: &Settings,
    known: Option<&TriggerTimes>,
) -> Decision {
    let Some(entry) = &observed.service else {
        // Not ours (any more), or gone; but a Service that cannot be read is still somebody's.
        let slices = if observed.is_unreadable {
            Vec::new()
        } else {
            observed.slices.clone()
        };
        return Decision {
            slices: SlicePlan::delete_all(slices),
            ..Decision::default()
        };
    };
    if entry.service.metadata.deletion_timestamp.is_some() {
        // The garbage collector takes the slices with it.
        return Decision::default();
    }
    let mut decision = match &entry.acceptance {
        Acceptance::Served(binding) => serve(observed, entry, binding, nodes, settings, known),
        Acceptance::Refused => Decision {
            slices: SlicePlan::delete_all(observed.slices.clone()),
            ..Decision::default()
        },
        Acceptance::Unselected => leave_to_author(observed, &entry.service),
    };
    decision.notices.extend(entry.notices.iter().cloned());
    decision.notices.sort();
    decision.notices.dedup_by(|one, other| one.is_same(other));
    decision.notices.truncate(MAX_NOTICES);
    let condition = accepted(
        &entry.acceptance,
        &decision.notices,
        entry.service.metadata.generation,
    );
    decision.condition = Some(condition).filter(|condition| !stands(&entry.service, condition));
    decision
}

fn serve(
    observed: &Observed,
    entry: &ServiceEntry,
    binding: &Binding,
    nodes: &Nodes,
    settings: &Settings,
    known: Option<&TriggerTimes>,
) -> Decision {
    let (trigger_time, trigger_times) = trigger_time(known, &entry.service, &observed.pods, &observed.slices);
    let (slices, mut notices) = plan(&Input {
        service: &entry.service,
        binding,
        pods: &observed.pods,
        slices: &observed.slices,
        nodes,
        trigger_time,
        settings,
    });
    if observed.has_network == Some(false) {
        notices.push(Notice::new(
            Reason::NetworkNotFound,
            format!(
                "network-attachment-definition {} does not exist; create it or correct annotation {SERVICE_NETWORK_ANNOTATION}; endpoints of running pods stay",
                binding.network
            ),
        ));
    }
    if !observed.leftovers.is_empty() {
        notices.push(leftovers::notice(
            &ObjectKey::of(&entry.service),
            &observed.leftovers,
        ));
    }
    Decision {
        slices,
        notices,
        trigger_times: Some(trigger_times),
        condition: None,
    }
}

/// Without any selector the Service's author writes its slices, by hand or by another program. Those that this controller made, for a
/// selector that was there before, go.
fn leave_to_author(observed: &Observed, service: &Service) -> Decision {
    let prefix = generate_name(service);
    let ours = observed.slices.iter().filter(|slice| {
        is_owned_by(slice, service) && slice.metadata.generate_name.as_deref() == Some(&prefix)
    });
    Decision {
        slices: SlicePlan::delete_all(ours.cloned().collect()),
        ..Decision::default()
    }
}
