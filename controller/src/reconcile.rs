//! The decision for one Service: writes to its slices, problems to report, its Accepted condition.
//!
//! Pure.

use crate::endpointslice::{Input, SlicePlan, Target, TriggerTimes, plan, plan_manual, trigger_time};
use crate::index::{AuthorSlices, ServiceEntry};
use crate::manual::MAX_SERVICES;
use crate::metrics::Verdict;
use crate::objects::Nodes;
use crate::observe::Observed;
use crate::service_status::condition::{Source, accepted, is_current, with_next_command};
use crate::service_status::orphaned_slices;
use crate::service_status::problem::{MAX_PROBLEMS, Problem, Reason};
use crate::settings::Settings;
use crate::validate::{Acceptance, Binding};
use api::names::{SELECTOR_ANNOTATION, SERVICE_NETWORK_ANNOTATION};
use api::{NetworkRef, ObjectName};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The decision for one Service.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Writes to its slices.
    pub slices: SlicePlan,
    /// All problems of the Service.
    pub problems: Vec<Problem>,
    /// Its Accepted condition, when that must be written.
    pub condition: Option<Condition>,
    /// Whether it is served, also when the condition is current; `None` for a Service that is not managed or cannot be decoded.
    pub verdict: Option<Verdict>,
    /// Time of the change that leads to the writes, if it has one.
    pub triggered: Option<Timestamp>,
    /// Recorded once the slices are written.
    pub trigger_times: Option<TriggerTimes>,
}

/// Decides what to write for one Service.
pub fn reconcile(
    observed: &Observed,
    nodes: &Nodes,
    settings: &Settings,
    known: Option<&TriggerTimes>,
) -> Decision {
    let Some(entry) = &observed.service else {
        // Not managed (any more), or deleted; but a Service that cannot be decoded still has its slices.
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
    let mut decision = match &entry.acceptance {
        Acceptance::Served(binding) => serve(observed, entry, binding, nodes, settings, known),
        Acceptance::Manual(network) => copy(observed, entry, network, nodes, settings, known),
        Acceptance::Rejected => Decision {
            slices: SlicePlan::delete_all(observed.slices.clone()),
            ..Decision::default()
        },
    };
    decision.problems.extend(missing_network(observed, entry));
    decision.problems.extend(entry.problems.iter().cloned());
    decision.problems.sort();
    decision.problems.dedup_by(|one, other| one.is_same(other));
    decision.problems.truncate(MAX_PROBLEMS);
    let condition = accepted(
        &entry.acceptance,
        source(observed, entry),
        &decision.problems,
        entry.service.metadata.generation,
    );
    let condition = with_next_command(condition, &entry.service);
    decision.verdict = Some(Verdict::of(&condition));
    if entry.service.metadata.deletion_timestamp.is_some() {
        // Clients reach it until its finalizers are removed, so its endpoints stay up to date (kubernetes/kubernetes#108779). No Event or
        // condition is written.
        decision.problems.clear();
        return decision;
    }
    decision.condition = Some(condition).filter(|condition| !is_current(&entry.service, condition));
    decision
}

fn source(observed: &Observed, entry: &ServiceEntry) -> Source {
    match (&entry.acceptance, &observed.written) {
        (Acceptance::Manual(_), None) => Source::Dns,
        (_, Some(AuthorSlices::Slices(slices))) if !slices.is_empty() => Source::Slices,
        (_, Some(_)) => Source::NoSlices,
        (_, None) => Source::Pods,
    }
}

fn missing_network(observed: &Observed, entry: &ServiceEntry) -> Option<Problem> {
    let network = entry
        .acceptance
        .network()
        .filter(|_| observed.has_network == Some(false))?;
    Some(Problem::new(
        Reason::NetworkNotFound,
        format!(
            "network-attachment-definition {network} does not exist; create it or correct annotation {SERVICE_NETWORK_ANNOTATION}; endpoints of running pods stay"
        ),
    ))
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
    let (slices, mut problems) = plan(&Input {
        service: &entry.service,
        binding,
        pods: &observed.pods,
        slices: &observed.slices,
        nodes,
        trigger_time,
        settings,
    });
    if !observed.orphaned_slices.is_empty() {
        problems.push(orphaned_slices::problem(
            &ObjectName::of(&entry.service),
            &observed.orphaned_slices,
        ));
    }
    Decision {
        slices,
        problems,
        triggered: trigger_time,
        trigger_times: Some(trigger_times),
        ..Decision::default()
    }
}

/// Without any selector the Service's author writes its EndpointSlices, manually or by another program. Their endpoints are checked and
/// copied into managed slices, the only ones that proxies read.
fn copy(
    observed: &Observed,
    entry: &ServiceEntry,
    network: &NetworkRef,
    nodes: &Nodes,
    settings: &Settings,
    known: Option<&TriggerTimes>,
) -> Decision {
    let written = match &observed.written {
        Some(AuthorSlices::Slices(slices)) => slices,
        // Nothing is decided before they are listed.
        Some(AuthorSlices::Unknown) => return Decision::default(),
        not_copied => {
            let too_many = matches!(not_copied, Some(AuthorSlices::NotWatched)).then(too_many);
            return Decision {
                slices: SlicePlan::delete_all(observed.slices.clone()),
                problems: too_many.into_iter().collect(),
                ..Decision::default()
            };
        }
    };
    let (trigger_time, trigger_times) = trigger_time(known, &entry.service, &[], &observed.slices);
    let target = Target {
        service: &entry.service,
        network,
        slices: &observed.slices,
        nodes,
        trigger_time,
        settings,
        has_placeholder: false,
    };
    let (slices, mut problems) = plan_manual(&target, written);
    let orphaned = written.iter().filter(|written| written.is_orphaned());
    let orphaned: Vec<_> = orphaned
        .filter_map(|written| written.slice.metadata.name.clone())
        .collect();
    if !orphaned.is_empty() {
        problems.push(orphaned_slices::orphaned_by_selector_removal(
            &ObjectName::of(&entry.service),
            &orphaned,
        ));
    }
    Decision {
        slices,
        problems,
        triggered: trigger_time,
        trigger_times: Some(trigger_times),
        ..Decision::default()
    }
}

fn too_many() -> Problem {
    Problem::new(
        Reason::TooManyServicesWithoutSelector,
        format!(
            "the EndpointSlices of at most {MAX_SERVICES} Services without selector are watched, and so many are older than this one; delete some of them, or let this one select pods by spec.selector or annotation {SELECTOR_ANNOTATION}"
        ),
    )
}
