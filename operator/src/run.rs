//! Lifecycle of the operator: acquire the Lease, reconcile while holding it.

use crate::controller;
use crate::events::EventRecorder;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::reconcile::Context;
use api::names::OPERATOR;
use futures::StreamExt;
use kube::Client;
use process::events::{self, Publisher};
use process::lease::{self, LeaseOptions};
use process::{Health, Process};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// OpenShift's numbers (library-go): a lease of 137 s, renewed every 26 s, survives an API server that is away for 78 s.
const LEASE: Duration = Duration::from_secs(137);
const RETRY: Duration = Duration::from_secs(26);
const BEAT: Duration = Duration::from_secs(10);

/// Runs until shutdown or the loss of the Lease.
pub async fn run(process: Process, options: Options, metrics: Metrics) -> Result<(), lease::Error> {
    let Process {
        client,
        health,
        log_filter,
        shutdown,
    } = process;
    // A replica that waits for the Lease is ready.
    health.set_ready(true);
    let lease = LeaseOptions {
        namespace: options.namespace.clone(),
        name: OPERATOR.to_owned(),
        holder: options.holder.clone(),
        duration: LEASE,
        renew_before: LEASE.saturating_sub(RETRY),
    };
    let (sender, writer) = events::channel();
    let publisher = Publisher::new(client.clone(), OPERATOR, &options.holder);
    let lead = lease::lead(client.clone(), lease, shutdown, |shutdown| {
        let namespace = options.namespace.clone();
        let context = Context::new(client.clone(), options, EventRecorder::new(sender))
            .with_log_filter(log_filter)
            .with_metrics(metrics);
        reconciles(client, namespace, context, shutdown)
    });
    // Around the Lease: Events that cannot be written do not delay its release.
    let lead = writer.run_beside(publisher, lead);
    tokio::select! {
        ended = lead => ended,
        never = beats(health) => match never {},
    }
}

async fn reconciles(
    client: Client,
    namespace: String,
    context: Context,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut reconciles = pin!(controller::reconciles(&client, &namespace, context, shutdown));
    while reconciles.next().await.is_some() {}
    Ok(())
}

/// Reports the process as alive while the runtime schedules this task; a reconcile that hangs has its own timeout.
async fn beats(health: Health) -> Infallible {
    let mut ticks = tokio::time::interval(BEAT);
    loop {
        ticks.tick().await;
        health.heartbeat();
    }
}
