//! Events on pods that are not served, or not completely.
//!
//! Pure, but for [`EventSender`], which logs and queues. A full queue delays an Event rather than rules, which do not wait for the API
//! server.

use crate::index::LocalPod;
use crate::netns::apply::Applied;
use api::ObjectName;
use k8s_openapi::api::core::v1::ObjectReference;
use process::events::{Event, EventType, Repeats};
use rules::{Shortcoming, Unreachable};
use std::collections::BTreeSet;
use std::net::IpAddr;
use tracing::{debug, warn};

/// Endpoints that a note names before it counts the rest.
const NAMED: usize = 3;

/// Longest note of an Event; the API server allows 1024 bytes.
const MAX_NOTE: usize = 1000;

/// Reason of an Event that reports no fault: every network of the pod is served.
const HINT: &str = "ServicesOnOtherNetwork";

/// An Event on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// CamelCase reason.
    pub reason: &'static str,
    /// Human-readable note.
    pub note: String,
}

impl PodEvent {
    /// Returns true for an Event of type Normal, which does not degrade the node.
    pub fn is_hint(&self) -> bool {
        self.reason == HINT
    }

    /// Returns the Event on the object `pod`. The series is by reason: a note names endpoints, which change all the time.
    fn on(self, pod: ObjectReference) -> Event {
        let type_ = if self.is_hint() {
            EventType::Normal
        } else {
            EventType::Warning
        };
        Event::new(pod, type_, self.reason, "ApplyRules", self.note)
    }
}

impl Repeats for PodEvent {
    fn repeats(&self, earlier: &Self) -> bool {
        self == earlier
    }
}

/// Returns the event for a network-status that cannot be parsed; it takes precedence over all others. Pure.
pub fn malformed_status(pod: &LocalPod) -> Option<PodEvent> {
    let why = pod.attachments.as_ref().err()?;
    event("InvalidNetworkStatus", std::slice::from_ref(why))
}

/// Returns the event for a pod in which no rules were ever written. Pure.
pub fn nothing_written(pod: &LocalPod, shortcomings: &BTreeSet<Shortcoming>) -> Option<PodEvent> {
    malformed_status(pod).or_else(|| incomplete_rules(shortcomings, Vec::new(), &BTreeSet::new()))
}

/// Combines what a plan lacks, what the attempt found, and what was replaced unread.
fn incomplete_rules(
    shortcomings: &BTreeSet<Shortcoming>,
    found: Vec<String>,
    unread: &BTreeSet<String>,
) -> Option<PodEvent> {
    let is_hint = |shortcoming: &&Shortcoming| matches!(shortcoming, Shortcoming::OtherNamespace { .. });
    let (hints, faults): (Vec<_>, Vec<_>) = shortcomings.iter().partition(is_hint);
    let reason = if !faults.is_empty() || !found.is_empty() {
        "ServiceRulesIncomplete"
    } else if !unread.is_empty() {
        "ServiceRulesRebuilt"
    } else {
        HINT
    };
    let [faults, hints] = [faults, hints].map(|of| of.into_iter().map(ToString::to_string));
    let notes: Vec<String> = faults.chain(found).chain(rebuilt(unread)).chain(hints).collect();
    event(reason, &notes)
}

/// Describes what an attempt could not apply, no matter for how long. Pure.
pub fn incomplete(applied: &Applied) -> Option<String> {
    let found = broken(applied);
    (!found.is_empty()).then(|| found.join("; "))
}

fn broken(applied: &Applied) -> Vec<String> {
    let absent = applied.absent.iter().map(ToString::to_string);
    let failures = applied.failures.iter().map(ToString::to_string);
    let stuck = applied.conntrack.iter().map(|why| {
        format!(
            "failed to delete conntrack entries: {why}; UDP and SCTP flows may continue to removed endpoints"
        )
    });
    absent.chain(failures).chain(stuck).collect()
}

/// Returns the event for the result of an attempt. Pure. `is_lasting`: the failure outlasts the startup of a pod.
pub fn of_attempt(
    pod: &LocalPod,
    shortcomings: &BTreeSet<Shortcoming>,
    result: Result<&Applied, String>,
    is_lasting: bool,
) -> Option<PodEvent> {
    let malformed = malformed_status(pod);
    let applied = match result {
        _ if malformed.is_some() => return malformed,
        Ok(applied) => applied,
        Err(why) => {
            return is_lasting
                .then(|| event("ServiceRulesNotApplied", &[why]))
                .flatten();
        }
    };
    let mut notes = if is_lasting { broken(applied) } else { Vec::new() };
    let foreign = |vip: &IpAddr| {
        format!(
            "the pod has a route to ClusterIP {vip} of its own, which is not changed: flows may leave by another interface"
        )
    };
    notes.extend(applied.foreign_routes.iter().map(foreign));
    notes.extend(missing_routes(&applied.unreachable));
    incomplete_rules(shortcomings, notes, &applied.unread)
}

/// Reports that another process changed the table or chains of our rules.
fn rebuilt(unread: &BTreeSet<String>) -> Option<String> {
    let what = unread.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    (!what.is_empty()).then(|| {
        format!(
            "another process changed the tables or chains of this proxy in the pod; their content was replaced without being read: {what}"
        )
    })
}

/// Names the first endpoints without a route, and counts the rest.
fn missing_routes(unreachable: &BTreeSet<Unreachable>) -> Option<String> {
    let first = unreachable.first()?;
    let named: Vec<String> = unreachable
        .iter()
        .take(NAMED)
        .map(|lost| lost.endpoint.to_string())
        .collect();
    let more = match unreachable.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "no route through interface {:?} to endpoints {}{more}, which get no flows from this pod; add routes to the IPAM of the network-attachment-definition",
        first.source.interface,
        named.join(", ")
    ))
}

/// Returns the event for work in a pod's network namespace that does not end. Pure.
pub fn stuck() -> Option<PodEvent> {
    let why = "the operation in the pod's network namespace is stuck; check the pod for processes that hold its xtables or RTNL lock";
    event("ServiceRulesNotApplied", &[why.to_owned()])
}

/// Returns the event for a pod that looks like the legacy proxy outside of the trusted namespaces. Pure.
pub fn impostor(name: &ObjectName) -> PodEvent {
    PodEvent {
        reason: "UntrustedLegacyProxy",
        note: format!(
            "the pod looks like the archived multus-service proxy, but does not belong to a DaemonSet in one of spec.proxy.legacyProxyNamespaces; it is ignored and Services are served; if it is that proxy, delete it or add namespace {:?} to the list",
            name.namespace
        ),
    }
}

fn event(reason: &'static str, notes: &[String]) -> Option<PodEvent> {
    let note: String = notes.join("; ").chars().take(MAX_NOTE).collect();
    (!note.is_empty()).then_some(PodEvent { reason, note })
}

/// Queues Events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSender(process::events::EventSender);

impl From<process::events::EventSender> for EventSender {
    fn from(sender: process::events::EventSender) -> Self {
        Self(sender)
    }
}

impl EventSender {
    /// Queues an Event on a pod; returns false when the queue is full.
    pub fn send(&self, pod: &LocalPod, event: PodEvent) -> bool {
        if pod.is_host {
            warn!(pod = %pod.name, reason = event.reason, "{}", event.note);
            // The node has no Pod for an Event; the condition of the own Pod reports it.
            return true;
        }
        self.send_to(&pod.name, &pod.uid, event)
    }

    /// Queues an Event on a pod by name and UID.
    pub fn send_to(&self, pod: &ObjectName, uid: &str, event: PodEvent) -> bool {
        warn!(%pod, reason = event.reason, "{}", event.note);
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let is_queued = self.0.send(event.on(reference));
        if !is_queued {
            debug!(%pod, "Delayed an Event: the queue is full");
        }
        is_queued
    }
}
