//! Status of the pods of this node: one line for the condition, and in full for `/state`.
//!
//! Pure.

use super::{Pod, Pods};
use crate::backend::KnownRules;
use crate::debug_state::{self, PodState, Progress};
use crate::index::{Index, LocalPod};
use crate::report::node_condition::NodeCondition;
use crate::report::pod_events;
use crate::sync::netns_state::NetnsState;
use api::rules_applied::Reason;

impl Pods {
    /// Returns the condition of this node; `None`: nothing changed since the last call. Walks all pods: called once for all that has ended
    /// meanwhile.
    pub(in crate::sync) fn condition(&mut self, index: &Index) -> Option<NodeCondition> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let mut failing = self.by_uid.values().filter(|pod| pod.failures().are_lasting());
        if let Some(why) = failing.find_map(|pod| pod.failures().runtime_error()) {
            return Some(NodeCondition::not_applied(
                Reason::ContainerRuntimeUnavailable,
                why,
            ));
        }
        let served = self.by_uid.values().filter(|pod| pod.has_rules()).count();
        let degraded = |pod: &Pod| {
            let fault = pod.event().filter(|notice| !notice.is_hint())?;
            Some(format!("pod {}: {}", pod.name(), fault.note))
        };
        let mut wrong: Vec<_> = self.by_uid.values().filter_map(degraded).collect();
        let impostors = index.impostors().values();
        wrong.extend(impostors.map(|name| format!("pod {name}: {}", pod_events::impostor(name).note)));
        wrong.sort_unstable();
        wrong.extend(index.without_affinity().map(|(_, why)| why));
        Some(NodeCondition::applied(self.shared.backend.name(), served, &wrong))
    }

    /// Returns the status of every pod.
    pub(in crate::sync) fn state(&self, index: &Index) -> Vec<PodState> {
        index.pods().map(|local| self.state_of(local, index)).collect()
    }

    fn state_of(&self, local: &LocalPod, index: &Index) -> PodState {
        let pod = self.by_uid.get(&local.uid);
        let netns_state = pod.and_then(Pod::netns_state);
        let held = netns_state.and_then(|netns_state| match &netns_state.held {
            KnownRules::Exactly(rules) => Some(rules),
            KnownRules::Nothing | KnownRules::Unknown => None,
        });
        let (services, left_over) = debug_state::services(&index.plan(local).0, held);
        let progress = match pod {
            None => Progress::Working,
            Some(pod) if pod.netns_state().is_none() => Progress::Working,
            Some(pod) if pod.failures().count() > 0 => Progress::Failing,
            Some(pod) if pod.event().is_some_and(|notice| !notice.is_hint()) => Progress::Incomplete,
            Some(_) if services.is_empty() => Progress::Idle,
            Some(_) => Progress::Applied,
        };
        PodState {
            pod: local.name.to_string(),
            uid: local.uid.clone(),
            sandbox: netns_state.and_then(NetnsState::sandbox_id).map(str::to_owned),
            progress,
            failures: pod.map_or(0, |pod| pod.failures().count()),
            why: pod.and_then(why),
            services,
            left_over,
        }
    }
}

/// Returns the current event of a pod, or else the error of its last attempt.
fn why(pod: &Pod) -> Option<String> {
    let event = pod.event().map(|event| event.note.clone());
    event.or_else(|| pod.failures().error().map(str::to_owned))
}
