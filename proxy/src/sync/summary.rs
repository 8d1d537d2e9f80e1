//! How the pods of this node stand: in one line for the condition, and in full.
//!
//! Pure.

use super::attempt::Place;
use super::pod_state::{Pod, Pods};
use crate::backend::Held;
use crate::debug_state::{self, PodState, Progress};
use crate::index::{Index, LocalPod};
use crate::report::node_condition::Verdict;
use crate::report::pod_events;
use api::rules_applied::Reason;

impl Pods {
    /// The verdict on this node; `None`: nothing happened since the last one.
    pub(super) fn verdict(&mut self, index: &Index) -> Option<Verdict> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut failing = self.by_uid.values().filter(|pod| pod.fails_lastingly());
        if let Some(why) = failing.find_map(|pod| pod.runtime_failure.as_deref()) {
            return Some(Verdict::of_the_node(Reason::ContainerRuntimeUnavailable, why));
        }
        let served = self.by_uid.values().filter(|pod| pod.has_rules).count();
        let said = |pod: &Pod| {
            let fault = pod.told_owner.now().filter(|notice| !notice.is_hint())?;
            Some(format!("pod {}: {}", pod.name, fault.note))
        };
        let mut wrong: Vec<_> = self.by_uid.values().filter_map(said).collect();
        let impostors = index.impostors().values();
        wrong.extend(impostors.map(|name| format!("pod {name}: {}", pod_events::impostor(name).note)));
        wrong.sort_unstable();
        wrong.extend(index.without_affinity().map(|(_, why)| why));
        Some(Verdict::of_the_pods(self.context.backend.name(), served, &wrong))
    }

    /// Each pod, in full.
    pub(super) fn state(&self, index: &Index) -> Vec<PodState> {
        index.pods().map(|local| self.state_of(local, index)).collect()
    }

    fn state_of(&self, local: &LocalPod, index: &Index) -> PodState {
        let pod = self.by_uid.get(&local.uid);
        let place = pod.and_then(|pod| pod.place.as_ref());
        let held = place.and_then(|place| match &place.held {
            Held::Exactly(rules) => Some(rules),
            Held::Nothing | Held::Unknown => None,
        });
        let (services, left_over) = debug_state::services(&index.plan(local).0, held);
        let progress = match pod {
            None => Progress::Working,
            Some(pod) if pod.place.is_none() => Progress::Working,
            Some(pod) if pod.failures > 0 => Progress::Failing,
            Some(pod) if pod.told_owner.now().is_some_and(|notice| !notice.is_hint()) => Progress::Incomplete,
            Some(_) if services.is_empty() => Progress::Idle,
            Some(_) => Progress::Applied,
        };
        PodState {
            pod: local.name.to_string(),
            uid: local.uid.clone(),
            sandbox: place.and_then(Place::sandbox_id).map(str::to_owned),
            progress,
            failures: pod.map_or(0, |pod| pod.failures),
            why: pod.and_then(why),
            services,
            left_over,
        }
    }
}

/// What it was told, or what there is to tell if it lasts.
fn why(pod: &Pod) -> Option<String> {
    let told = pod.told_owner.now().map(|told| told.note.clone());
    told.or_else(|| pod.failure.clone())
}
