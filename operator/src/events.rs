//! Events about the configuration.
//!
//! Writes: Events. A failed write is logged only: the conditions carry the same information.

use api::MultusServiceConfig;
use api::names::OPERATOR;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use process::error_chain;
use tracing::warn;

/// Limit of Events about nodes in one removal.
const MAX_NODES: usize = 50;
/// Longest action and longest reason that the API takes.
const MAX_LENGTH: usize = 128;

/// Publishes Events.
#[derive(Clone)]
pub struct EventRecorder(Recorder);

impl EventRecorder {
    /// Publishes in the name of this replica.
    pub fn new(client: Client, holder: String) -> Self {
        let reporter = Reporter {
            controller: OPERATOR.to_owned(),
            instance: Some(holder),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Publishes condition transitions.
    pub async fn conditions_changed(
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
            if let Some(event) = transition(was, condition) {
                self.publish(event, config).await;
            }
        }
    }

    /// Publishes that every operand runs another version.
    pub async fn version_changed(&self, config: &MultusServiceConfig, before: &str, after: &str) {
        let note = format!("Operands changed from version {before} to {after}");
        self.publish(
            event(EventType::Normal, "OperatorVersionChanged", "Upgrade", note),
            config,
        )
        .await;
    }

    /// Publishes that an object was deleted because an immutable field differed.
    pub async fn recreated(&self, config: &MultusServiceConfig, kind: &str, name: &str) {
        let note = format!("Recreated {kind}/{name}: an immutable field differed");
        let action: String = format!("Recreate{kind}/{name}")
            .chars()
            .take(MAX_LENGTH)
            .collect();
        self.publish(
            // The recorder aggregates events with equal action and reason.
            event(EventType::Warning, "OperandRecreated", &action, note),
            config,
        )
        .await;
    }

    /// Publishes the nodes whose cleanup timed out.
    pub async fn cleanup_timed_out(&self, config: &MultusServiceConfig, nodes: &[String]) {
        for node in nodes.iter().take(MAX_NODES) {
            let note = format!(
                "Cleanup timed out on {node}; pods there may keep multus-service routes and rules until they are restarted"
            );
            let mut event = event(EventType::Warning, "NodeNotCleaned", "Cleanup", note);
            let mut object = Node::default();
            object.metadata.name = Some(node.clone());
            event.secondary = Some(object.object_ref(&()));
            self.publish(event, config).await;
        }
    }

    async fn publish(&self, event: Event, config: &MultusServiceConfig) {
        if let Err(error) = self.0.publish(&event, &config.object_ref(&())).await {
            warn!(error = %error_chain(&error), "Failed to publish Event");
        }
    }
}

/// Builds the Event of a condition whose previous status is `was`; none for a condition that starts as expected.
fn transition(was: &str, condition: &Condition) -> Option<Event> {
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
    // The recorder aggregates events with equal action and reason, and keeps the first note.
    let reason: String = reason.chars().take(MAX_LENGTH).collect();
    Some(event(kind, &reason, &format!("Set{type_}{status}"), note))
}

fn event(type_: EventType, reason: &str, action: &str, mut note: String) -> Event {
    // The API takes at most 1,024 bytes.
    while note.len() > 1_000 {
        note.pop();
    }
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    }
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
        let event = transition(was, &condition);
        assert_eq!(
            event
                .as_ref()
                .map(|event| format!("{:?}", event.type_))
                .as_deref(),
            want
        );
        assert!(event.is_none_or(|event| event.note.unwrap().len() <= 1_024));
    }
}
