//! Where each pod of this node stands: at work, waiting for its next attempt, or done.
//!
//! Writes: nothing itself. One attempt per pod at a time; a change during it leads to one more afterwards.

use super::Context;
use super::attempt::{Error, Place, attempt};
use super::backoff;
use super::flow_cleanup::{Cleaned, Cleanups, Deferred};
use super::kernel_events::{Overrun, SETTLE};
use super::poll_interval::Backoff;
use super::ruleset_poll::Rounds;
use crate::backend::Held;
use crate::index::{HOST_UID, Index, LocalPod};
use crate::netlink::monitor::NamespaceId;
use crate::netns::apply::Applied;
use crate::netns::failure::chain;
use crate::netns::host_network::Parents;
use crate::report::event_throttle::{self, Told};
use crate::report::pod_events::{self, Notice, Notices};
use futures::{FutureExt, StreamExt};
use rules::Shortcoming;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;
use tracing::{debug, info, warn};

/// How often a pod that has rules is looked at though nothing changed: routes go when a link goes down.
/// What nobody tells of is mended within 30 s by that.
const LOOK_AGAIN: Duration = Duration::from_secs(25);

/// The same when the kernel tells of changes: against what could not be told.
const LOOK_AGAIN_THOUGH_TOLD: Duration = Duration::from_mins(5);

/// When a pod whose rules were rebuilt unread is looked at again: if the rules hold, the report ends.
const REBUILT: Duration = Duration::from_secs(5);

/// All pods the driver knows.
pub(super) struct Pods {
    pub(super) context: Arc<Context>,
    pub(super) by_uid: BTreeMap<String, Pod>,
    pub(super) jobs: JoinSet<Done>,
    pub(super) cleanups: Cleanups,
    pub(super) due: DelayQueue<String>,
    /// Pods of the first list that nothing was tried for yet.
    untried: BTreeSet<String>,
    /// While nothing may be written: the pods to start afterwards.
    pub(super) held_back: Option<BTreeSet<String>>,
    /// Whether anything happened since the last verdict.
    pub(super) changed: bool,
    pub(super) by_nsid: BTreeMap<NamespaceId, String>,
    /// Whether the kernel tells of changes by others.
    pub(super) is_told: bool,
    pub(super) overrun: Overrun,
    pub(super) rounds: Rounds,
    /// Pods in whose namespaces the work does not end.
    hung: mpsc::UnboundedReceiver<String>,
    /// What is known of interfaces of the node that pods' are on.
    parents: Parents,
}

#[derive(Default)]
pub(super) struct Pod {
    pub(super) name: String,
    /// `None` while at work.
    pub(super) place: Option<Place>,
    pub(super) again: bool,
    /// Since when others may have changed routes without our having looked.
    pub(super) routes_suspect: Option<Instant>,
    /// Whether others changed rules, ours perhaps, since they were looked at.
    pub(super) rules_suspect: bool,
    /// When to look at them.
    pub(super) backoff: Backoff,
    /// Shared with the thread that asks for the generation of its rules.
    pub(super) asking: Arc<()>,
    pub(super) failures: u32,
    /// When the first of these failures began.
    failing_since: Option<Instant>,
    pub(super) due: Option<Key>,
    /// If `due` is about a change by others: when that is.
    pub(super) looks_at: Option<Instant>,
    sandbox_mark: String,
    /// The sandbox in which it was served in full.
    settled_in: Option<String>,
    pub(super) has_rules: bool,
    /// What it was told, so that it is not repeated.
    pub(super) told_owner: Told,
    /// Flows that are still to be ended.
    pub(super) deferred: Option<Deferred>,
    /// When that was done last.
    pub(super) cleaned: Option<Instant>,
    /// Set when the pod is gone, for the attempt under way.
    is_abandoned: Arc<AtomicBool>,
    /// Why the last attempt failed.
    pub(super) failure: Option<String>,
    /// What the runtime did not do at the last attempt.
    pub(super) runtime_failure: Option<String>,
}

/// Work in a pod's namespace that ended.
pub(super) enum Done {
    Wrote(Finished),
    Cleaned(Cleaned),
}

/// An attempt that ended. Flows may still have to be ended.
pub(super) struct Finished {
    pod: LocalPod,
    place: Place,
    outcome: Outcome,
}

/// What an attempt came to.
pub(super) struct Outcome {
    shortcomings: BTreeSet<Shortcoming>,
    wants_rules: bool,
    /// Whether its namespace may have been read.
    was_unknown: bool,
    began: Instant,
    took: Duration,
    /// See [`Place::is_disturbed`].
    is_disturbed: bool,
    pub(super) result: Result<Applied, Error>,
}

impl Pods {
    pub(super) fn new(mut context: Context) -> Self {
        let hung = context.hung.take().expect("a context is used once");
        Self {
            context: Arc::new(context),
            by_uid: BTreeMap::new(),
            jobs: JoinSet::new(),
            cleanups: Cleanups::default(),
            due: DelayQueue::new(),
            untried: BTreeSet::new(),
            held_back: None,
            changed: true,
            by_nsid: BTreeMap::new(),
            is_told: false,
            overrun: Overrun::default(),
            rounds: Rounds::new(),
            hung,
            parents: Parents::default(),
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Another proxy writes: starts nothing until [`Self::go_on`].
    pub(super) fn hold(&mut self) {
        self.context.entered.share();
        self.held_back.get_or_insert_default();
    }

    /// Starts what was held back.
    pub(super) fn go_on(&mut self, index: &Index) {
        for uid in self.held_back.take().into_iter().flatten() {
            self.start(&uid, index);
        }
    }

    /// Pods that were there before us: looked at even if they need nothing, for an earlier proxy may have left something.
    pub(super) fn adopt(&mut self, uids: &BTreeSet<String>) {
        self.untried.clone_from(uids);
    }

    /// Whether each pod of the first list has been tried once.
    pub(super) fn tried_all(&self) -> bool {
        self.untried.is_empty()
    }

    /// Waits until an attempt ends or one is due, and acts on it.
    pub(super) async fn progress(&mut self, index: &mut Index) {
        let rules_are_written = self.jobs.len() > self.cleanups.running();
        tokio::select! {
            Some(finished) = self.jobs.join_next() => match finished {
                Ok(Done::Wrote(finished)) => self.finish(finished, index),
                Ok(Done::Cleaned(cleaned)) => self.cleaned(cleaned, index),
                Err(error) => warn!(%error, "An attempt ended without a result"),
            },
            Some(due) = self.due.next() => {
                let uid = due.into_inner();
                if let Some(pod) = self.by_uid.get_mut(&uid) {
                    pod.due = None;
                    pod.routes_suspect = Some(Instant::now());
                }
                self.start(&uid, index);
            }
            uid = self.cleanups.turn(rules_are_written) => self.start_cleanup(&uid, index),
            Some(uid) = self.hung.recv() => self.hangs(&uid, index),
            () = self.overrun.wait() => self.catch_up(),
            answer = self.rounds.next() => self.answered(answer),
        }
    }

    /// Lets work under way end, and ends flows that the next proxy could not know of.
    pub(super) async fn drain(&mut self, index: &mut Index) {
        loop {
            self.hurry_cleanups(index);
            match self.jobs.join_next().await {
                Some(Ok(Done::Wrote(finished))) => self.finish(finished, index),
                Some(Ok(Done::Cleaned(cleaned))) => self.cleaned(cleaned, index),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// Starts an attempt for a pod, now; or after the one under way.
    pub(super) fn start(&mut self, uid: &str, index: &Index) {
        if let Some(held_back) = &mut self.held_back {
            held_back.insert(uid.to_owned());
            return;
        }
        self.changed = true;
        let Some(local) = index.pod(uid) else {
            return self.forget(uid);
        };
        let pod = self
            .by_uid
            .entry(uid.to_owned())
            .or_insert_with(|| Pod::new(local.name.to_string()));
        if let Some(key) = pod.due.take() {
            self.due.remove(&key);
        }
        let Some(mut place) = pod.place.take() else {
            pod.again = true;
            return;
        };
        let is_told = pod.looks_at.take().is_some() | pod.routes_suspect.take().is_some();
        if pod.rules_suspect {
            place.held = Held::Unknown;
        }
        // However often endpoints change meanwhile.
        let look_again = if self.is_told && place.nsid.is_some() {
            LOOK_AGAIN_THOUGH_TOLD
        } else {
            LOOK_AGAIN
        };
        if is_told
            || place
                .last_look()
                .is_none_or(|looked| looked.elapsed() > look_again)
        {
            place.look_at_routes();
        }
        let (mut rules, mut shortcomings) = index.plan(local);
        if local.is_host {
            let (allowed, rejected) = self.parents.allowed(self.context.backend.as_ref(), rules, local);
            rules = allowed;
            shortcomings.extend(rejected);
        }
        if rules.is_empty() && place.is_untouched() && !self.untried.contains(uid) {
            pod.place = Some(place);
            let told = pod_events::nothing_written(local, &shortcomings);
            if !pod.tell(told, local, &self.context.telling.notices) {
                pod.due = Some(self.due.insert(local.uid.clone(), event_throttle::PAUSE));
            }
            return;
        }
        if pod.sandbox_mark != local.sandbox_mark {
            pod.sandbox_mark.clone_from(&local.sandbox_mark);
            place.sandbox = None;
        }
        let (context, local) = (Arc::clone(&self.context), local.clone());
        self.unqueue_cleanup(uid);
        self.jobs.spawn(async move {
            let was_unknown = !matches!(place.held, Held::Exactly(_));
            let (wants_rules, began) = (!rules.is_empty(), Instant::now());
            // A pod whose attempt panicked is tried again like any other; nothing is known about it then.
            let attempt = AssertUnwindSafe(attempt(&context, &local, rules, &mut place)).catch_unwind();
            let result = attempt.await.unwrap_or(Err(Error::Lost));
            let is_disturbed = place.is_disturbed;
            let outcome = Outcome {
                shortcomings,
                wants_rules,
                was_unknown,
                began,
                took: began.elapsed(),
                is_disturbed,
                result,
            };
            Done::Wrote(Finished {
                pod: local,
                place,
                outcome,
            })
        });
    }

    /// The work in its namespace does not end: it counts as tried, for nobody knows when it will.
    fn hangs(&mut self, uid: &str, index: &Index) {
        self.untried.remove(uid);
        let pod = self.by_uid.get_mut(uid).filter(|pod| pod.place.is_none());
        if let (Some(pod), Some(local)) = (pod, index.pod(uid)) {
            pod.tell(pod_events::hangs(), local, &self.context.telling.notices);
        }
        self.changed = true;
    }

    /// The namespace of a pod that is gone goes by itself.
    fn forget(&mut self, uid: &str) {
        self.untried.remove(uid);
        if let Some(pod) = self.by_uid.remove(uid) {
            pod.is_abandoned.store(true, Ordering::Release);
            if let Some(key) = pod.due {
                self.due.remove(&key);
            }
        }
        self.unqueue_cleanup(uid);
        self.by_nsid.retain(|_, of| of != uid);
        if self.parents.forget(uid) {
            self.look_at_the_node();
        }
        self.count();
    }

    fn finish(&mut self, finished: Finished, index: &mut Index) {
        let Finished {
            pod: local,
            mut place,
            outcome,
        } = finished;
        self.untried.remove(&local.uid);
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        if let Some(id) = place.nsid {
            // Ids are reused: the latest claim is the right one.
            let before = self.by_nsid.insert(id, local.uid.clone());
            if before.as_ref() != Some(&local.uid) {
                // What the kernel reported of this namespace until now was dropped: what was read of it may have changed.
                pod.routes_suspect.get_or_insert_with(Instant::now);
            }
        }
        if let (Held::Exactly(held), true) = (&mut place.held, outcome.was_unknown) {
            index.adopt(held);
        }
        let sandbox = place.sandbox_id().map(str::to_owned);
        pod.settled_in
            .take_if(|settled| sandbox.as_ref() != Some(settled));
        if std::mem::take(&mut pod.rules_suspect) | outcome.is_disturbed {
            let is_repaired = outcome.result.as_ref().is_ok_and(|applied| applied.written);
            pod.backoff.looked(is_repaired, place.took, Instant::now());
        }
        pod.place = Some(place);
        let shown = outcome.result.as_ref().map(|applied| &applied.parents);
        let is_news = shown.is_ok_and(|shown| self.parents.note(&local.uid, shown));
        if let Ok(applied) = &outcome.result {
            pod.has_rules = !applied.rules.is_empty();
            log_written(&local, applied);
        }
        let concluded = Deferred::after(&mut pod.deferred, outcome, sandbox.as_deref(), Instant::now());
        let is_deferred = concluded.is_none();
        if is_deferred && self.has_overdue_cleanup(&local.uid) {
            // Changes may follow each other without an end: the next attempt comes after it.
            self.start_cleanup(&local.uid, index);
        } else if is_deferred && self.takes_another_attempt(&local.uid) {
            self.start(&local.uid, index);
        } else if is_deferred {
            self.queue_cleanup(&local.uid);
        }
        if let Some(outcome) = concluded {
            self.conclude(&local, outcome, index);
        }
        if is_news {
            self.look_at_the_node();
        }
        self.count();
    }

    /// Whether something changed while it was at work.
    fn takes_another_attempt(&mut self, uid: &str) -> bool {
        let pod = self.by_uid.get_mut(uid);
        pod.is_some_and(|pod| std::mem::take(&mut pod.again))
    }

    /// A pod has its rules, and its flows are where they may be, or not: says so, and when to come back.
    pub(super) fn conclude(&mut self, local: &LocalPod, outcome: Outcome, index: &Index) {
        let Outcome {
            shortcomings,
            wants_rules,
            began,
            took,
            is_disturbed,
            result,
            ..
        } = outcome;
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        let sandbox = pod.place.as_ref().and_then(Place::sandbox_id).map(str::to_owned);
        pod.failure = match &result {
            Ok(applied) => pod_events::incomplete(applied),
            Err(error) => Some(chain(error)),
        };
        pod.runtime_failure = result.as_ref().err().and_then(Error::of_the_runtime);
        let look_again = if self.is_told && !local.is_host && self.context.backend.is_told_of_changes() {
            LOOK_AGAIN_THOUGH_TOLD
        } else {
            LOOK_AGAIN
        };
        let next = pod.judge(local, wants_rules, &result, look_again);
        if pod.failures == 0 && pod.has_rules {
            pod.settled_in = sandbox;
        }
        // Whoever makes us wait in his namespace waits longer himself.
        let is_slow = match &result {
            Ok(applied) => !applied.failures.is_empty(),
            Err(error) => error.is_of_the_namespace(),
        };
        let next = next.map(|next| if is_slow { backoff::after(next, took) } else { next });
        pod.failing_since = (pod.failures > 0).then(|| pod.failing_since.unwrap_or(began));
        log(local, pod.failures, &result);
        let is_rebuilt = result.as_ref().is_ok_and(|applied| !applied.unread.is_empty());
        let is_final = result.as_ref().is_err_and(Error::is_final);
        let fails = match &result {
            Ok(applied) => applied.conntrack.is_some() || !applied.failures.is_empty(),
            Err(_) => !is_final,
        };
        if fails {
            self.context.telling.metrics.failed();
        }
        let notice = pod_events::notice(
            local,
            &shortcomings,
            result.as_ref().map_err(|error| chain(error)),
            pod.fails_lastingly() || is_final && wants_rules,
        );
        let is_told = pod.tell(notice, local, &self.context.telling.notices);
        let next = if is_told {
            next
        } else {
            Some(next.unwrap_or(event_throttle::PAUSE))
        };
        if std::mem::take(&mut pod.again) {
            self.start(&local.uid, index);
        } else if let Some(next) = next {
            let soon = SETTLE.max(pod.backoff.wait(Instant::now()));
            let soon = if is_slow { backoff::after(soon, took) } else { soon };
            let next = if is_disturbed { next.min(soon) } else { next };
            let next = if is_rebuilt { next.min(REBUILT) } else { next };
            self.come_back(&local.uid, next);
        }
        self.count();
    }

    /// Starts an attempt after this time, unless one comes sooner.
    fn come_back(&mut self, uid: &str, wait: Duration) {
        let Some(pod) = self.by_uid.get_mut(uid) else {
            return;
        };
        if let Some(key) = pod.due.take() {
            if self.due.deadline(&key).into_std() <= Instant::now() + wait {
                pod.due = Some(key);
                return;
            }
            self.due.remove(&key);
        }
        pod.due = Some(self.due.insert(uid.to_owned(), wait));
    }

    /// Whether rules may be written there may be different now.
    fn look_at_the_node(&mut self) {
        let Some(node) = self.by_uid.get_mut(HOST_UID) else {
            return;
        };
        if node.place.is_none() {
            node.again = true;
        } else {
            self.look_within(HOST_UID, SETTLE);
        }
    }

    fn count(&mut self) {
        self.changed = true;
        let programmed = self.by_uid.values().filter(|pod| pod.has_rules).count();
        let failing = self.by_uid.values().filter(|pod| pod.fails_lastingly()).count();
        self.context.telling.metrics.pods(programmed, failing);
    }
}

impl Pod {
    fn new(name: String) -> Self {
        let place = Place::default();
        Self {
            name,
            is_abandoned: Arc::clone(&place.is_abandoned),
            place: Some(place),
            ..Self::default()
        }
    }

    /// Whether it fails for longer than a pod takes to start.
    pub(super) fn fails_lastingly(&self) -> bool {
        let lasting = self.failing_since.map(|since| since.elapsed());
        backoff::is_worth_telling(self.failures, lasting.unwrap_or_default())
    }

    /// Once more after the attempt under way, routes included.
    pub(super) fn look_after_this(&mut self) {
        self.again = true;
        self.routes_suspect = Some(Instant::now());
    }

    /// Says it unless it was the last thing said; returns whether all is said.
    fn tell(&mut self, notice: Option<Notice>, local: &LocalPod, notices: &Notices) -> bool {
        let send = |notice: &Notice| notices.send(local, notice.clone());
        self.told_owner.say(notice, Instant::now(), send);
        self.told_owner.is_said()
    }

    /// When to come back, if at all.
    fn judge(
        &mut self,
        local: &LocalPod,
        wants_rules: bool,
        result: &Result<Applied, Error>,
        look_again: Duration,
    ) -> Option<Duration> {
        match result {
            Ok(applied) => {
                self.has_rules = !applied.rules.is_empty();
                if applied.is_complete() {
                    self.failures = 0;
                    return self.has_rules.then_some(look_again);
                }
                Some(self.fail(true))
            }
            // Nothing is wanted of a namespace that is not there, or not known to be the pod's before it has an address.
            Err(error) if error.is_absence() && !wants_rules => None,
            Err(error) if error.is_about_identity() && !wants_rules && local.addresses.is_empty() => None,
            // A new sandbox, or another thing that is wanted, is an event.
            Err(error) if error.is_final() => None,
            Err(error) => {
                let next = self.fail(error.is_of_the_namespace());
                debug!(pod = %local.name, failures = self.failures, "Trying again");
                Some(next)
            }
        }
    }

    /// One more failure; says when to try again. Without its namespace the pod is starting again.
    fn fail(&mut self, is_of_the_namespace: bool) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if is_of_the_namespace && self.settled_in.is_some() {
            backoff::backoff(self.failures)
        } else {
            backoff::delay(self.failures)
        }
    }
}

fn log_written(pod: &LocalPod, applied: &Applied) {
    if !applied.failures.is_empty() {
        return;
    }
    if applied.written {
        info!(pod = %pod.name, vips = applied.rules.vip_count(), "Synced rules");
    } else {
        debug!(pod = %pod.name, "Rules are as wanted");
    }
}

fn log(pod: &LocalPod, failures: u32, result: &Result<Applied, Error>) {
    match result {
        Ok(Applied {
            conntrack: Some(why), ..
        }) => warn!(pod = %pod.name, failures, why, "Could not end flows to endpoints that are gone"),
        Ok(applied) if !applied.failures.is_empty() => {
            if failures == 1 || failures.is_multiple_of(50) {
                let why = applied.failures.iter().map(ToString::to_string);
                let why = why.collect::<Vec<_>>().join("; ");
                warn!(pod = %pod.name, failures, why, "Synced rules, but not all");
            }
        }
        Ok(_) => {}
        Err(error) if failures == 1 && !error.is_absence() || failures.is_multiple_of(50) => {
            warn!(pod = %pod.name, failures, error = error as &dyn std::error::Error, "Could not sync rules");
        }
        Err(error) => debug!(pod = %pod.name, failures, %error, "Could not sync rules"),
    }
}

#[cfg(test)]
mod tests;
