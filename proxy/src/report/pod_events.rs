//! Events on pods that cannot be served, or not fully: where a Kubernetes user looks.
//!
//! Writes: Events, by one task. A pod is malformed once until something else is to be said; a full queue puts a event off rather than
//! make rules wait for the API server.

use crate::index::LocalPod;
use crate::netns::apply::Applied;
use api::names::PROXY;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use rules::{ObjectName, Shortcoming, Unreachable};
use std::collections::BTreeSet;
use std::net::IpAddr;
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// EventSender waiting for the API server.
const QUEUE: usize = 256;

/// Endpoints that are named where there are many.
const NAMED: usize = 3;

/// Longest text of an Event.
const MAX_NOTE: usize = 1000;

/// Reason of an Event that is no fault of the pod's: all that it is attached to is served.
const HINT: &str = "ServicesOnOtherNetwork";

/// What a pod is malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// CamelCase word for programs.
    pub reason: &'static str,
    /// Sentence for people.
    pub note: String,
}

impl PodEvent {
    /// Whether nothing is wrong with the pod: a hint is an Event on it and no fault of the node.
    pub fn is_hint(&self) -> bool {
        self.reason == HINT
    }
}

/// What there is to tell about a pod whatever becomes of it. Pure.
pub fn malformed_status(pod: &LocalPod) -> Option<PodEvent> {
    let why = pod.attachments.as_ref().err()?;
    event("MalformedNetworkStatus", std::slice::from_ref(why))
}

/// What there is to tell about a pod into which nothing was ever written. Pure.
pub fn nothing_written(pod: &LocalPod, shortcomings: &BTreeSet<Shortcoming>) -> Option<PodEvent> {
    malformed_status(pod).or_else(|| incomplete_rules(shortcomings, Vec::new(), &BTreeSet::new()))
}

/// What a pod lacks, what was found besides, and what was replaced without being read.
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

/// Why a pod does not have all that is wanted, however long it lasts. Pure.
pub fn incomplete(applied: &Applied) -> Option<String> {
    let found = broken(applied);
    (!found.is_empty()).then(|| found.join("; "))
}

fn broken(applied: &Applied) -> Vec<String> {
    let absent = applied.absent.iter().map(ToString::to_string);
    let failures = applied.failures.iter().map(ToString::to_string);
    let stuck = applied.conntrack.iter().map(|why| {
        format!(
            "connection tracking entries cannot be deleted: {why}; UDP and SCTP flows may go on to endpoints that are gone"
        )
    });
    absent.chain(failures).chain(stuck).collect()
}

/// What there is to tell about an attempt. Pure. `is_lasting`: it failed for so long that it is not how pods start.
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
            "the pod has a route to ClusterIP {vip} of its own, which is left alone: flows may leave by another interface"
        )
    };
    notes.extend(applied.foreign_routes.iter().map(foreign));
    notes.extend(missing_routes(&applied.unreachable));
    incomplete_rules(shortcomings, notes, &applied.unread)
}

/// That the table or the chains of our rules held what is not ours.
fn rebuilt(unread: &BTreeSet<String>) -> Option<String> {
    let what = unread.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    (!what.is_empty()).then(|| {
        format!(
            "what holds this proxy's rules in the pod had been changed; it was not read but replaced: {what}"
        )
    })
}

/// The first few endpoints without a way, and how many there are.
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
        "no route by interface {:?} to endpoints {}{more}: they get no flows from this pod; give the pod routes in the IPAM of the network-attachment-definition",
        first.source.interface,
        named.join(", ")
    ))
}

/// What there is to tell when the work in a pod's namespace does not end. Pure.
pub fn stuck() -> Option<PodEvent> {
    let why = "the work in the pod's network namespace does not end; who holds it up there?";
    event("ServiceRulesNotApplied", &[why.to_owned()])
}

/// What there is to tell about a pod that looks like the archived multus-proxy and is not believed to be one. Pure.
pub fn impostor(name: &ObjectName) -> PodEvent {
    PodEvent {
        reason: "NotTheArchivedProxy",
        note: format!(
            "the pod looks like the archived multus-proxy but is not of a DaemonSet in one of spec.proxy.legacyProxyNamespaces: it is ignored and Services are served; if it really is that proxy, delete it or add namespace {:?} to that list",
            name.namespace
        ),
    }
}

fn event(reason: &'static str, notes: &[String]) -> Option<PodEvent> {
    let note: String = notes.join("; ").chars().take(MAX_NOTE).collect();
    (!note.is_empty()).then_some(PodEvent { reason, note })
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct EventSender(mpsc::Sender<(ObjectReference, PodEvent)>);

/// The end that writes Events.
#[derive(Debug)]
pub struct Writer(mpsc::Receiver<(ObjectReference, PodEvent)>);

/// Makes both ends.
pub fn channel() -> (EventSender, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (EventSender(sender), Writer(receiver))
}

impl EventSender {
    /// Queues a event for a pod; says whether there was room.
    pub fn send(&self, pod: &LocalPod, event: PodEvent) -> bool {
        if pod.is_host {
            warn!(pod = %pod.name, reason = event.reason, "{}", event.note);
            // Nothing to hang it on; the condition of the own Pod says it.
            return true;
        }
        self.send_to(&pod.name, &pod.uid, event)
    }

    /// The same for any pod.
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
        let is_queued = self.0.try_send((reference, event)).is_ok();
        if !is_queued {
            debug!(%pod, "Put off an event: the API server does not keep up");
        }
        is_queued
    }
}

impl Writer {
    /// Writes Events until every sender is gone.
    pub async fn run(mut self, client: Client, node_name: &str) {
        let reporter = Reporter {
            controller: PROXY.to_owned(),
            instance: Some(node_name.to_owned()),
        };
        let recorder = Recorder::new(client, reporter);
        while let Some((reference, event)) = self.0.recv().await {
            let type_ = if event.is_hint() {
                EventType::Normal
            } else {
                EventType::Warning
            };
            let PodEvent { reason, note } = event;
            let event = Event {
                type_,
                reason: reason.to_owned(),
                note: Some(note),
                action: "ApplyRules".to_owned(),
                secondary: None,
            };
            if let Err(error) = recorder.publish(&event, &reference).await {
                warn!(pod = ?reference.name, %error, "Could not write an event");
            }
        }
    }
}
