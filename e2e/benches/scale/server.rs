//! Counters of the API server, from its `/metrics`.

use anyhow::{Context as _, Result};
use kube::Client;

/// Counters since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// `process_cpu_seconds_total`
    pub(crate) cpu: f64,
    /// `apiserver_watch_events_total`, of all kinds and watchers
    pub(crate) events: f64,
}

pub(crate) async fn counters(client: &Client) -> Result<Counters> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let page = client.request_text(request).await?;
    Ok(Counters {
        cpu: sum(&page, "process_cpu_seconds_total").context("no process_cpu_seconds_total")?,
        events: sum(&page, "apiserver_watch_events_total").unwrap_or_default(),
    })
}

/// The sum of all samples of a metric.
fn sum(page: &str, metric: &str) -> Option<f64> {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            let is_it = rest.starts_with([' ', '{']);
            is_it.then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
        })
        .reduce(|sum, value| sum + value)
}
