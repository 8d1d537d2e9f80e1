//! Events about the configuration.
//!
//! Writes: nothing. Events are queued for the writer of [`process::events`]; one that is lost is logged only: the conditions carry the same
//! information.

use api::MultusServiceConfig;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use process::events::{Event, EventSender, EventType};
use tracing::warn;

/// Limit of Events about nodes in one removal; fewer than the queue holds.
const MAX_NODES: usize = 50;

/// Queues Events.
#[derive(Clone, Debug)]
pub struct EventRecorder(EventSender);

impl EventRecorder {
    /// Creates a recorder for the queue of `sender`.
    pub fn new(sender: EventSender) -> Self {
        Self(sender)
    }

    /// Publishes condition transitions.
    pub fn conditions_changed(
        &self,
        config: &MultusServiceConfig,
        before: &[Condition],
        after: &[Condition],
    ) {
        for condition in after {
            let was = before
                .iter()
                .find(|before| before.type_ == condition.type_)
                .map_or("Unknown", |before| before.status.as_str());
            if let Some(event) = transition(config.object_ref(&()), was, condition) {
                self.send(event);
            }
        }
    }

    /// Publishes that every operand runs another version.
    pub fn version_changed(&self, config: &MultusServiceConfig, before: &str, after: &str) {
        let note = format!("Operands changed from version {before} to {after}");
        let config = config.object_ref(&());
        self.send(Event::new(
            config,
            EventType::Normal,
            "OperatorVersionChanged",
            "Upgrade",
            note,
        ));
    }

    /// Publishes that an object was deleted because an immutable field differed.
    pub fn recreated(&self, config: &MultusServiceConfig, kind: &str, name: &str) {
        let note = format!("Recreated {kind}/{name}: an immutable field differed");
        // Events of equal action and reason are one series.
        let action = format!("Recreate{kind}/{name}");
        let config = config.object_ref(&());
        self.send(Event::new(
            config,
            EventType::Warning,
            "OperandRecreated",
            &action,
            note,
        ));
    }

    /// Publishes the nodes whose cleanup timed out.
    pub fn cleanup_timed_out(&self, config: &MultusServiceConfig, nodes: &[String]) {
        for node in nodes.iter().take(MAX_NODES) {
            let note = format!(
                "Cleanup timed out on {node}; pods there may keep multus-service routes and rules until they are restarted"
            );
            let mut object = Node::default();
            object.metadata.name = Some(node.clone());
            let config = config.object_ref(&());
            self.send(Event {
                related: Some(object.object_ref(&())),
                ..Event::new(config, EventType::Warning, "NodeNotCleaned", "Cleanup", note)
            });
        }
    }

    fn send(&self, event: Event) {
        let reason = event.reason.clone();
        if !self.0.send(event) {
            warn!(reason, "Dropped an Event: the queue is full");
        }
    }
}

/// Builds the Event of a condition whose previous status is `was`; none for a condition that starts as expected.
fn transition(config: ObjectReference, was: &str, condition: &Condition) -> Option<Event> {
    let Condition {
        type_,
        status,
        reason,
        message,
        ..
    } = condition;
    let is_good = (status == "True") == ["Available", "Upgradeable"].contains(&type_.as_str());
    if was == status || was == "Unknown" && (is_good || type_ == "Available") {
        return None;
    }
    let is_alarming =
        !is_good && ["Available", "Degraded", "OperandImageOverridden"].contains(&type_.as_str());
    let kind = if is_alarming {
        EventType::Warning
    } else {
        EventType::Normal
    };
    let note = format!("{type_} changed from {was} to {status}: {reason}: {message}");
    // Events of equal action and reason are one series, with the first note.
    Some(Event::new(
        config,
        kind,
        reason,
        &format!("Set{type_}{status}"),
        note,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use rstest::rstest;

    #[rstest]
    #[case::no_fault_from_the_start("Degraded", "Unknown", "False", None)]
    #[case::unavailable_from_the_start("Available", "Unknown", "False", None)]
    #[case::installation_starts("Progressing", "Unknown", "True", Some("Normal"))]
    #[case::fault_occurs("Degraded", "False", "True", Some("Warning"))]
    #[case::fault_is_repaired("Degraded", "True", "False", Some("Normal"))]
    #[case::operands_become_unavailable("Available", "True", "False", Some("Warning"))]
    #[case::image_is_overridden("OperandImageOverridden", "False", "True", Some("Warning"))]
    #[case::status_is_unchanged("Degraded", "True", "True", None)]
    fn condition_transition_is_published(
        #[case] type_: &str,
        #[case] was: &str,
        #[case] is: &str,
        #[case] want: Option<&str>,
    ) {
        let condition = Condition {
            type_: type_.to_owned(),
            status: is.to_owned(),
            reason: "Why".to_owned(),
            message: "x".repeat(2_000),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let event = transition(ObjectReference::default(), was, &condition);
        assert_eq!(
            event
                .as_ref()
                .map(|event| format!("{:?}", event.type_))
                .as_deref(),
            want
        );
        assert!(event.is_none_or(|event| event.note.len() <= 1_024));
    }
}
