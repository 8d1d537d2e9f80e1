//! Narrows the watches of slices to the networks of the pods of this node.
//!
//! Pure: takes changes of pods and slices, returns updates for the driver and the watches to run. A pod on a network whose slices are not
//! listed yet is held back until they are, because its rules would reject flows that are about to be served; at most for as long as an API
//! server may take to respond.

use super::scope::{Demand, Network, Scope, networks_of};
use super::slices::{ItemChange, Slices};
use crate::index::{NodePod, Update};
use process::watch::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Longest time for which a pod is held back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Change of the pods of this node.
pub(super) type PodChange = Change<(String, Option<NodePod>), String>;

/// Existence of slices without a network label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Not needed: all slices are watched, or none.
    Off,
    Asking,
    /// None exist; a new one would be reported.
    None,
}

/// Watches to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Id of the watch that feeds the driver.
    pub(super) current: Option<u64>,
    /// Watch that replaces it after its list.
    pub(super) next: Option<(u64, Scope)>,
    /// Watch for slices without a network label.
    pub(super) probe: bool,
}

/// State of the watches.
#[derive(Debug)]
pub(super) struct Narrow {
    demand: Demand,
    slices: Slices,
    are_pods_listed: bool,
    probe: Probe,
    current: Option<u64>,
    next: Option<(u64, Scope)>,
    last_id: u64,
    /// Pods that are held back, with the deadline.
    waiting: BTreeMap<String, (Instant, NodePod)>,
    /// Pods that were passed to the driver.
    passed: BTreeSet<String>,
}

impl Narrow {
    /// Creates the state of a node with the host networks `fixed`.
    pub(super) fn new(fixed: BTreeSet<Network>) -> Self {
        Self {
            demand: Demand::new(fixed),
            slices: Slices::default(),
            are_pods_listed: false,
            probe: Probe::Off,
            current: None,
            next: None,
            last_id: 0,
            waiting: BTreeMap::new(),
            passed: BTreeSet::new(),
        }
    }

    /// Watches to run.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            current: self.current,
            next: self.next.clone(),
            probe: self.probe != Probe::Off,
        }
    }

    /// Returns the time of the next [`Self::tick`].
    pub(super) fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.values().map(|(until, _)| *until);
        let times = waiting
            .chain(self.demand.due())
            .chain(self.slices.due(self.is_widening()));
        times.min()
    }

    /// Handles a change of a pod.
    pub(super) fn pod(&mut self, change: PodChange, now: Instant) -> Vec<Update> {
        let mut updates = Vec::new();
        match change {
            Change::Apply((uid, pod)) => {
                self.note(&uid, pod.as_ref(), now);
                updates.extend(
                    self.pass_or_keep(uid, pod, now)
                        .map(|pod| Update::Pod(Change::Apply(pod))),
                );
            }
            Change::Delete(uid) => {
                self.forget(&uid, now);
                updates.push(Update::Pod(Change::Delete(uid)));
            }
            Change::Reset(pods) => {
                self.are_pods_listed = true;
                let listed: BTreeSet<_> = pods.iter().map(|(uid, _)| uid.clone()).collect();
                let known: BTreeSet<_> = self
                    .demand
                    .uids()
                    .into_iter()
                    .chain(self.passed.iter().cloned())
                    .collect();
                for uid in known.difference(&listed) {
                    self.forget(uid, now);
                }
                for (uid, pod) in &pods {
                    self.note(uid, pod.as_ref(), now);
                }
                // The driver would treat a missing pod as deleted.
                let pass = |(uid, pod): (String, Option<NodePod>)| {
                    if self.passed.contains(&uid) {
                        self.waiting.remove(&uid);
                        Some((uid, pod))
                    } else {
                        self.pass_or_keep(uid, pod, now)
                    }
                };
                let pods = pods.into_iter().filter_map(pass).collect();
                updates.push(Update::Pod(Change::Reset(pods)));
            }
        }
        self.plan(now, updates)
    }

    /// Handles a change of a watch of slices; `version` is that of its last list.
    pub(super) fn slices(&mut self, id: u64, change: ItemChange, version: u64, now: Instant) -> Vec<Update> {
        let outputs = match change {
            Change::Reset(items) if self.next.as_ref().is_some_and(|(next, _)| *next == id) => {
                let (_, scope) = self.next.take().unwrap_or((0, Scope::Nothing));
                self.current = Some(id);
                self.slices.switch(scope, items, version)
            }
            change if self.current == Some(id) => self.slices.take(change, version, now),
            _ => Vec::new(),
        };
        if self.slices.has_unlabelled() {
            self.demand.saw_unlabelled(now);
        }
        self.plan(now, outputs.into_iter().map(Update::Slice).collect())
    }

    /// Existence of slices without a network label.
    pub(super) fn probed(&mut self, is_any: bool, now: Instant) -> Vec<Update> {
        if is_any {
            self.demand.saw_unlabelled(now);
            self.probe = Probe::Off;
        } else if self.probe == Probe::Asking {
            self.probe = Probe::None;
        }
        self.plan(now, Vec::new())
    }

    /// Handles deadlines.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Update> {
        if self.slices.has_unlabelled() {
            self.demand.saw_unlabelled(now);
        }
        let released = self.slices.release(self.is_widening(), now);
        self.plan(now, released.into_iter().map(Update::Slice).collect())
    }

    fn is_widening(&self) -> bool {
        matches!(self.next, Some((_, Scope::Everything)))
    }

    fn note(&mut self, uid: &str, pod: Option<&NodePod>, now: Instant) {
        if let Some(networks) = networks_of(pod) {
            self.demand.set(uid, networks, now);
        }
    }

    fn forget(&mut self, uid: &str, now: Instant) {
        self.demand.set(uid, BTreeSet::new(), now);
        self.waiting.remove(uid);
        self.passed.remove(uid);
    }

    /// Returns the pod if the driver may have it now. Before the first list of slices the driver does not use it.
    fn pass_or_keep(
        &mut self,
        uid: String,
        pod: Option<NodePod>,
        now: Instant,
    ) -> Option<(String, Option<NodePod>)> {
        let networks = networks_of(pod.as_ref()).unwrap_or_default();
        match pod {
            Some(pod) if self.slices.is_begun() && !self.slices.scope().covers_networks(&networks) => {
                let until = self.waiting.get(&uid).map_or(now + PATIENCE, |(until, _)| *until);
                self.waiting.insert(uid, (until, pod));
                None
            }
            pod => {
                self.waiting.remove(&uid);
                self.passed.insert(uid.clone());
                Some((uid, pod))
            }
        }
    }

    /// Decides which watches run, and passes on pods whose slices are listed.
    fn plan(&mut self, now: Instant, mut updates: Vec<Update>) -> Vec<Update> {
        if !self.are_pods_listed {
            return updates;
        }
        let wanted = self.demand.wanted(now);
        self.probe = match (&wanted, self.probe) {
            (Scope::Networks(_), Probe::Off) => Probe::Asking,
            (Scope::Networks(_), probe) => probe,
            (Scope::Nothing | Scope::Everything, _) => Probe::Off,
        };
        if wanted == Scope::Nothing {
            self.next = None;
            if self.current.take().is_some() || !self.slices.is_begun() {
                updates.extend(self.slices.clear().into_iter().map(Update::Slice));
            }
        } else if self.probe != Probe::Asking {
            self.begin(wanted);
        }
        updates.extend(self.let_pass(now));
        updates
    }

    /// An incomplete list continues as long as it covers all needed networks: churn of pods must not restart it forever.
    fn begin(&mut self, wanted: Scope) {
        let is_watched = self.current.is_some() && *self.slices.scope() == wanted;
        if is_watched {
            self.next = None;
            self.slices.none_begins();
        } else if !self.next.as_ref().is_some_and(|(_, scope)| scope.covers(&wanted)) {
            self.last_id += 1;
            self.next = Some((self.last_id, wanted));
            self.slices.another_begins();
        }
    }

    fn let_pass(&mut self, now: Instant) -> Vec<Update> {
        let scope = self.slices.scope();
        let may_pass = |_: &String, (until, pod): &mut (Instant, NodePod)| {
            let networks = networks_of(Some(pod)).unwrap_or_default();
            now >= *until || scope.covers_networks(&networks)
        };
        let passing: Vec<_> = self.waiting.extract_if(.., may_pass).collect();
        let passed = passing.into_iter().map(|(uid, (_, pod))| {
            self.passed.insert(uid.clone());
            Update::Pod(Change::Apply((uid, Some(pod))))
        });
        passed.collect()
    }
}

#[cfg(test)]
mod tests;
