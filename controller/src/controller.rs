//! The driver: passes watch events to the index, due Services to the decision, and decisions to the writer.
//!
//! One loop owns all state; only writes run beside it, several Services at once, one attempt per Service at a time. A replica that does
//! not lead keeps its index up to date and writes nothing.

use crate::apply::{WriteRequest, WriteResult, Writer};
use crate::endpointslice::{SlicePlan, TriggerTimes};
use crate::index::{Change, Index};
use crate::manual::Scope;
use crate::metrics::sample::Sample;
use crate::metrics::{Metrics, Verdict};
use crate::observe::{Observed, observe};
use crate::reconcile::{Decision, reconcile};
use crate::service_status::notifier::{Notifier, ServiceStatus};
use crate::service_status::orphaned_slices::{self, ListResult, OrphanedSlices};
use crate::trace;
use crate::triggers;
use crate::work_queue::{Outcome, WorkQueue};
use api::ObjectName;
use kube::Client;
use process::traces::{Span, Traces};
use process::{Health, error_chain};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Services whose writes are in progress at once.
const MAX_WRITES: usize = 32;
/// Services whose orphaned slices are listed at the same time.
const MAX_LISTS: usize = 4;
/// Longest time between two iterations of the loop, for the liveness probe.
const TICK: Duration = Duration::from_secs(10);

/// Errors that stop the driver.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All watches ended.
    #[error("watches exited unexpectedly")]
    Watches,
    /// A write panicked.
    #[error("write panicked")]
    Write(#[source] tokio::task::JoinError),
}

/// Leadership of this replica: only a leader writes.
#[derive(Debug)]
pub struct Leadership {
    /// Cancelled when this replica leads.
    pub granted: CancellationToken,
    /// Cancelled when it must stop.
    pub shutdown: CancellationToken,
}

struct Attempt {
    key: ObjectName,
    trigger_times: Option<TriggerTimes>,
    sample: Sample,
    done: WriteResult,
}

/// State of the controller.
pub struct Driver {
    index: Index,
    queue: WorkQueue,
    trigger_times: HashMap<ObjectName, TriggerTimes>,
    notifier: Notifier,
    writer: Writer,
    writes: JoinSet<Attempt>,
    orphaned: OrphanedSlices,
    lists: JoinSet<(ObjectName, ListResult)>,
    list_queue: VecDeque<ObjectName>,
    client: Client,
    /// The Services whose manual slices are to be watched.
    scope: watch::Sender<Scope>,
    metrics: Metrics,
    traces: Traces,
    health: Health,
    is_leading: bool,
    was_synced: bool,
}

impl Driver {
    /// Returns a driver with an empty index.
    pub fn new(
        client: Client,
        index: Index,
        writer: Writer,
        scope: watch::Sender<Scope>,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        Self {
            index,
            queue: WorkQueue::default(),
            trigger_times: HashMap::new(),
            notifier: Notifier::new(writer.clone(), metrics.clone()),
            writer,
            writes: JoinSet::new(),
            orphaned: OrphanedSlices::default(),
            lists: JoinSet::new(),
            list_queue: VecDeque::new(),
            client,
            scope,
            metrics,
            traces: Traces::default(),
            health,
            is_leading: false,
            was_synced: false,
        }
    }

    /// Sets the traces.
    #[must_use]
    pub fn with_traces(mut self, traces: Traces) -> Self {
        self.traces = traces;
        self
    }

    /// Runs until shutdown; then finishes the writes in progress.
    pub async fn run(mut self, mut changes: Receiver<Change>, leadership: Leadership) -> Result<(), Error> {
        loop {
            self.start_due();
            self.start_rest();
            self.health.heartbeat();
            let wake_at = self.next_due();
            tokio::select! {
                change = changes.recv() => self.on_change(change.ok_or(Error::Watches)?),
                Some(attempt) = self.writes.join_next() => self.on_written(attempt.map_err(Error::Write)?),
                Some(publication) = self.notifier.join_next() => self.notifier.finish(publication.map_err(Error::Write)?, jitter()),
                Some(list) = self.lists.join_next() => self.on_listed(list.map_err(Error::Write)?),
                () = leadership.granted.cancelled(), if !self.is_leading => self.lead(),
                () = leadership.shutdown.cancelled() => break,
                () = sleep_until(wake_at) => {}
            }
        }
        while let Some(attempt) = self.writes.join_next().await {
            self.on_written(attempt.map_err(Error::Write)?);
        }
        while let Some(publication) = self.notifier.join_next().await {
            self.notifier.finish(publication.map_err(Error::Write)?, jitter());
        }
        Ok(())
    }

    fn next_due(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let writes = self.queue.next_due().filter(|_| self.may_write());
        let publications = self.notifier.next_due().filter(|_| self.is_idle());
        writes.into_iter().chain(publications).fold(tick, Instant::min)
    }

    /// Returns true if no Service is due: then status and orphaned slices are handled.
    fn is_idle(&self) -> bool {
        let now = Instant::now();
        self.is_leading && self.was_synced && self.queue.next_due().is_none_or(|due| due > now)
    }

    fn start_rest(&mut self) {
        if self.is_idle() {
            self.notifier.start(&self.index);
            self.start_lists();
        }
    }

    fn may_write(&self) -> bool {
        self.is_leading && self.was_synced && self.writes.len() < MAX_WRITES
    }

    fn lead(&mut self) {
        self.is_leading = true;
        self.metrics.leader.set(1);
        self.enqueue_all();
    }

    /// Before the first complete lists a plan would delete slices of Services that are not listed yet; and a standby keeps no queue.
    fn enqueue_all(&mut self) {
        if self.is_leading && self.was_synced {
            let keys = self.index.all_keys();
            info!(services = keys.len(), "Reconciling all Services");
            self.enqueue(keys);
        }
    }

    fn enqueue(&mut self, keys: impl IntoIterator<Item = ObjectName>) {
        let now = Instant::now();
        keys.into_iter().for_each(|key| self.queue.enqueue(key, now));
    }

    fn recheck(&mut self, keys: impl IntoIterator<Item = ObjectName>) {
        let now = Instant::now();
        keys.into_iter().for_each(|key| self.queue.recheck(key, now));
    }

    fn on_change(&mut self, change: Change) {
        let is_slice = matches!(change, Change::Slice(_));
        let update = self.index.update(change);
        let affected = triggers::affected(&self.index, update);
        self.follow_scope();
        if !self.was_synced && self.index.is_synced() {
            self.was_synced = true;
            self.health.set_ready(true);
            self.enqueue_all();
        } else if self.is_leading && self.was_synced {
            if is_slice {
                self.recheck(affected);
            } else {
                self.enqueue(affected);
            }
        }
    }

    fn follow_scope(&mut self) {
        let wanted = self.index.manual.scope();
        self.scope.send_if_modified(|scope| {
            let is_other = !Arc::ptr_eq(scope, wanted) && scope != wanted;
            if is_other {
                *scope = Arc::clone(wanted);
            }
            is_other
        });
    }

    fn start_due(&mut self) {
        while self.may_write() {
            let Some((key, waited)) = self.queue.pop_timed(Instant::now()) else {
                break;
            };
            self.metrics.queue_latency.observe(waited.as_secs_f64());
            self.start(key);
        }
        self.metrics
            .queue_depth
            .set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
    }

    fn start(&mut self, key: ObjectName) {
        let started = Instant::now();
        let observed = observe(&self.index, &self.orphaned, &key);
        if observed.is_pending() {
            self.queue.done(&key, Outcome::Unchanged, Instant::now(), 0.0);
            return;
        }
        self.note_selectorless(&key, &observed);
        let known = self.trigger_times.get(&key);
        let decision = reconcile(&observed, &self.index.nodes, self.index.settings(), known);
        let Decision {
            slices,
            problems,
            condition,
            verdict,
            triggered,
            trigger_times,
        } = decision;
        let service = observed.service.as_ref().map(|entry| &entry.service);
        // A managed Service without one cannot be decoded.
        let verdict = verdict.unwrap_or(Verdict::Rejected);
        if !observed.is_unreadable {
            let uid = service.and_then(|service| service.metadata.uid.clone());
            self.notifier.set_status(
                &key,
                ServiceStatus {
                    uid,
                    former_uid: observed.former_uid().map(str::to_owned),
                    problems,
                    condition,
                },
                started,
            );
        }
        let attempt = Attempt {
            sample: Sample::new(service, (slices.counts, verdict), slices.writes(), started),
            trigger_times,
            done: WriteResult::default(),
            key: key.clone(),
        };
        if slices.is_empty() {
            self.finish(attempt);
        } else {
            let span = trace::start(&self.traces, &observed, triggered, slices.counts);
            self.spawn(WriteRequest { key, slices }, attempt, span);
        }
    }

    fn note_selectorless(&mut self, key: &ObjectName, observed: &Observed) {
        if !observed.is_selectorless() {
            self.orphaned.forget(key);
        } else if self.orphaned.is_new(key) {
            self.list_queue.push_back(key.clone());
        }
    }

    /// Lists orphaned slices, of a few Services at a time and after all writes.
    fn start_lists(&mut self) {
        self.list_queue.extend(self.orphaned.due(Instant::now()));
        while self.lists.len() < MAX_LISTS {
            let Some(key) = self.list_queue.pop_front() else {
                break;
            };
            self.lists.spawn(orphaned_slices::list(self.client.clone(), key));
        }
    }

    fn on_listed(&mut self, (key, found): (ObjectName, ListResult)) {
        if self.orphaned.record(&key, found, Instant::now()) {
            self.recheck([key]);
        }
    }

    fn spawn(&mut self, work: WriteRequest, attempt: Attempt, span: Option<Box<Span>>) {
        let SlicePlan {
            create,
            update,
            delete,
            ..
        } = &work.slices;
        debug!(service = %work.key, create = create.len(), update = update.len(), delete = delete.len(), "Planned EndpointSlice writes");
        let writer = self.writer.clone();
        self.index.slices.begin_writes();
        let traces = self.traces.clone();
        self.writes.spawn(async move {
            let done = writer.write(work).await;
            trace::end(&traces, span, &done);
            Attempt { done, ..attempt }
        });
    }

    fn on_written(&mut self, attempt: Attempt) {
        self.finish(attempt);
        self.index.slices.end_writes();
    }

    fn finish(&mut self, attempt: Attempt) {
        let Attempt {
            key,
            trigger_times,
            sample,
            done,
        } = attempt;
        let outcome = outcome(&key, &done);
        sample.record(&self.metrics, &key, &done);
        let wrote = done.slices;
        for slice in wrote.created.into_iter().chain(wrote.updated) {
            self.index.slices.record_written(slice);
        }
        wrote
            .deleted
            .iter()
            .for_each(|slice| self.index.slices.record_gone(slice));
        wrote
            .vanished
            .iter()
            .for_each(|slice| self.index.slices.record_gone(slice));
        // A slice that was deleted meanwhile was not written: the next plan creates it again, with the trigger time of the same change.
        if done.error.is_none() && wrote.vanished.is_empty() {
            match trigger_times {
                Some(times) => drop(self.trigger_times.insert(key.clone(), times)),
                None => drop(self.trigger_times.remove(&key)),
            }
        }
        self.queue.done(&key, outcome, Instant::now(), jitter());
        if !sample.is_managed() {
            self.queue.forget(&key, Instant::now());
        }
    }
}

fn outcome(key: &ObjectName, done: &WriteResult) -> Outcome {
    match &done.error {
        Some(error) => {
            warn!(service = %key, error = %error_chain(error), "Failed to reconcile Service, retrying");
            Outcome::Failed {
                retry_after: error.retry_after(),
            }
        }
        None if !done.slices.vanished.is_empty() => Outcome::Failed { retry_after: None },
        None if done.slices.count() > 0 => Outcome::Wrote,
        None => Outcome::Unchanged,
    }
}

/// Returns a number in 0..1 that spreads retries; its quality does not matter.
fn jitter() -> f64 {
    f64::from(jiff::Timestamp::now().subsec_nanosecond() % 1000) / 1000.0
}
