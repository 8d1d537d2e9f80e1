//! The condition `multusservice.cni.cncf.io/RulesApplied` on the proxy's own Pod: the status of this node in one line.
//!
//! Writes: that condition, by one task, when it changes and at most every ten seconds. It is deleted with the Pod; the kubelet keeps
//! conditions that are not its own.

use api::names::RULES_APPLIED_CONDITION;
use api::rules_applied::Reason;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use process::error_chain;
use serde_json::json;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// Shortest time between two writes. The first change after a pause is written at once.
const PAUSE: Duration = Duration::from_secs(10);

/// Faults that the message names before it counts the rest, and the longest text of each.
const NAMED: usize = 3;
const MAX_NAME: usize = 250;

/// Content of the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCondition {
    /// Status.
    pub holds: bool,
    /// Reason.
    pub reason: Reason,
    /// Message.
    pub message: String,
}

impl NodeCondition {
    /// Returns status False for the node as a whole.
    pub fn not_applied(reason: Reason, why: &str) -> Self {
        Self {
            holds: false,
            reason,
            message: truncate(why),
        }
    }

    /// Returns the status of a node whose pods have rules; `wrong` lists pods and Services that are not served, or not completely. Pure.
    pub fn applied(backend: &str, served: usize, wrong: &[String]) -> Self {
        let pods = if served == 1 { "pod" } else { "pods" };
        let mut message = format!("Rules are applied in {served} {pods} (backend {backend})");
        if !wrong.is_empty() {
            // Writing into a String cannot fail.
            let _ = write!(message, "; {} degraded: ", wrong.len());
            let named: Vec<_> = wrong.iter().take(NAMED).map(|wrong| truncate(wrong)).collect();
            message.push_str(&named.join("; "));
            if wrong.len() > NAMED {
                let _ = write!(message, "; and {} more", wrong.len() - NAMED);
            }
        }
        Self {
            holds: wrong.is_empty(),
            reason: if wrong.is_empty() {
                Reason::Applied
            } else {
                Reason::PartiallyApplied
            },
            message,
        }
    }
}

fn truncate(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}

/// The Pod of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Sets the condition. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reporter(watch::Sender<NodeCondition>);

/// Writes the condition to the API server.
#[derive(Debug)]
pub struct Writer(watch::Receiver<NodeCondition>);

/// Creates a reporter and its writer.
pub fn channel() -> (Reporter, Writer) {
    let starting =
        NodeCondition::not_applied(Reason::Starting, "Waiting for the first lists of the API server");
    let (sender, receiver) = watch::channel(starting);
    (Reporter(sender), Writer(receiver))
}

impl Reporter {
    /// Sets the condition.
    pub fn report(&self, wanted: NodeCondition) {
        self.0.send_if_modified(|current| {
            let differs = *current != wanted;
            *current = wanted;
            differs
        });
    }

    /// Returns the condition that was set last.
    pub fn current(&self) -> NodeCondition {
        self.0.borrow().clone()
    }
}

impl Writer {
    /// Keeps the condition of `own` up to date until every reporter is dropped. Without a Pod, as in a manual run, it is only logged.
    pub async fn run(mut self, client: Client, own: Option<OwnPod>) {
        let mut published = None;
        loop {
            let wanted = self.0.borrow_and_update().clone();
            log(&wanted);
            if let Some(own) = &own {
                match write(&client, own, &wanted, published.as_ref()).await {
                    Ok(written) => published = Some(written),
                    // Retried with the next change, or after the pause.
                    Err(error) => {
                        warn!(pod = own.name, error = %error_chain(&error), "Failed to update the condition of the own Pod");
                        published = None;
                        self.0.mark_changed();
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    // No further change can follow.
                    () = all_dropped(&self.0) => return,
                }
            }
            if self.0.changed().await.is_err() {
                return;
            }
        }
    }
}

async fn all_dropped(conditions: &watch::Receiver<NodeCondition>) {
    let mut conditions = conditions.clone();
    while conditions.changed().await.is_ok() {}
}

fn log(wanted: &NodeCondition) {
    let NodeCondition {
        holds,
        reason,
        message,
    } = wanted;
    info!(status = holds, %reason, detail = message, "Node condition changed");
}

/// Writes the condition unless the Pod has it already, and returns it.
async fn write(
    client: &Client,
    own: &OwnPod,
    wanted: &NodeCondition,
    published: Option<&PodCondition>,
) -> kube::Result<PodCondition> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &own.namespace);
    let read;
    let before = if published.is_some() {
        published
    } else {
        // A list of one object needs no permission beyond watching pods. After a crash, an earlier process of this Pod may have written.
        let only = ListParams::default().fields(&format!("metadata.name={}", own.name));
        let listed = pods.list(&only).await?.items.into_iter().next();
        read = listed.and_then(|pod| published_condition(&pod));
        read.as_ref()
    };
    let condition = condition(wanted, before, Timestamp::now());
    if before != Some(&condition) {
        // Strategic merge: conditions are merged by type, so those of the kubelet stay.
        let patch = json!({ "status": { "conditions": [condition] } });
        pods.patch_status(&own.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
    }
    Ok(condition)
}

fn published_condition(pod: &Pod) -> Option<PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ours = |condition: &&PodCondition| condition.type_ == RULES_APPLIED_CONDITION;
    conditions.iter().find(ours).cloned()
}

/// Builds the condition; lastTransitionTime changes only with the status. Pure.
fn condition(wanted: &NodeCondition, before: Option<&PodCondition>, now: Timestamp) -> PodCondition {
    let status = if wanted.holds { "True" } else { "False" };
    let since = before
        .filter(|before| before.status == status)
        .and_then(|before| before.last_transition_time.clone());
    // Whole seconds, as Kubernetes stores times: a condition that is read must equal the written one.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    PodCondition {
        type_: RULES_APPLIED_CONDITION.to_owned(),
        status: status.to_owned(),
        reason: Some(wanted.reason.to_string()),
        message: Some(wanted.message.clone()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_counts_all_faults_and_names_the_first() {
        let all_well = NodeCondition::applied("nftables", 12, &[]);
        assert_eq!(
            (all_well.holds, all_well.reason, all_well.message.as_str()),
            (
                true,
                Reason::Applied,
                "Rules are applied in 12 pods (backend nftables)"
            )
        );
        let wrong = ["a: x", "b: y", "c: z", "d: z"].map(str::to_owned);
        let some = NodeCondition::applied("iptables-nft", 1, &wrong);
        assert_eq!(
            (some.holds, some.reason, some.message.as_str()),
            (
                false,
                Reason::PartiallyApplied,
                "Rules are applied in 1 pod (backend iptables-nft); 4 degraded: a: x; b: y; c: z; and 1 more"
            )
        );
    }

    /// The operator counts nodes by backend: what it parses is what is written here.
    #[test]
    fn the_operator_finds_the_backend_in_the_message() {
        let wrong = ["web/iptables-legacy: x".to_owned()];
        for (backend, counted) in [
            ("nftables", "NFTables"),
            ("iptables-nft", "IPTables"),
            ("iptables-legacy", "IPTables"),
        ] {
            for wrong in [&[][..], &wrong] {
                let condition = NodeCondition::applied(backend, 3, wrong);
                let found = api::rules_applied::backend(condition.reason.as_str(), &condition.message);
                assert_eq!(found, Some(counted), "{}", condition.message);
            }
        }
    }

    #[test]
    fn the_length_of_a_message_is_bounded() {
        let wrong = vec!["x".repeat(100_000); 1000];
        assert!(NodeCondition::applied("nftables", 1, &wrong).message.len() < 1000);
        assert!(
            NodeCondition::not_applied(Reason::ContainerRuntimeUnavailable, &wrong[0])
                .message
                .len()
                < 1000
        );
    }

    #[test]
    fn the_time_changes_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let well = NodeCondition::applied("nftables", 1, &[]);
        let first = condition(&well, None, at(100));
        let more = condition(&NodeCondition::applied("nftables", 2, &[]), Some(&first), at(200));
        let worse = condition(
            &NodeCondition::not_applied(Reason::ContainerRuntimeUnavailable, "gone"),
            Some(&more),
            at(300),
        );
        let times = [&first, &more, &worse].map(|condition| condition.last_transition_time.clone());
        assert_eq!(times, [100, 100, 300].map(|second| Some(Time(at(second)))));
        assert_eq!(condition(&well, Some(&first), at(400)), first);
    }

    /// The only use of the wall clock in the proxy; all waits use the monotonic clock.
    #[test]
    fn a_clock_that_jumps_changes_no_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let well = NodeCondition::applied("nftables", 1, &[]);
        let first = condition(&well, None, at(1_000_000));
        for now in [0, 1, 999_999, 1_000_001, 253_402_207_200] {
            assert_eq!(condition(&well, Some(&first), at(now)), first);
        }
    }
}
