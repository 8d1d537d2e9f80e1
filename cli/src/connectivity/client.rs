//! The program of a client pod: makes the checks and returns their results.

mod probe;

use super::result::{Check, CheckResult};
use super::{SERVERS, SERVICE_PORT};
use probe::{Answer, payload, rejected, tcp, udp};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};

/// Requests of a check. That two of two servers answer is certain but for one in 2^39 runs.
const REQUESTS: usize = 40;
/// Interval of requests until the first is answered.
const PAUSE: Duration = Duration::from_millis(100);

/// Destinations of a client.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// ClusterIPs of the Service with servers
    #[arg(long = "vip", required = true)]
    pub vips: Vec<IpAddr>,
    /// ClusterIPs of the Service without endpoints
    #[arg(long = "empty-vip", required = true)]
    pub empty_vips: Vec<IpAddr>,
    /// Name of the Service with servers
    #[arg(long)]
    pub name: String,
    /// Name of the headless Service with the same servers
    #[arg(long)]
    pub headless_name: String,
    /// Addresses of the servers on the network
    #[arg(long = "endpoint", required = true)]
    pub endpoints: Vec<IpAddr>,
    /// Seconds until the first request of a check must be answered
    #[arg(long)]
    pub patience: u64,
}

/// Makes all checks, one after the other.
pub async fn run(plan: &Plan) -> Vec<CheckResult> {
    let patience = Duration::from_secs(plan.patience);
    let mut results = Vec::new();
    for vip in &plan.vips {
        let to = SocketAddr::new(*vip, SERVICE_PORT);
        let name = to.to_string();
        let over_tcp = requests(patience, || tcp(to)).await;
        let over_udp = requests(patience, || udp(to)).await;
        let balance = balance(over_tcp.as_ref().ok(), over_udp.as_ref().ok());
        results.extend([
            result(Check::Tcp, &name, over_tcp.map(|_| ())),
            result(Check::Udp, &name, over_udp.map(|_| ())),
            result(Check::Balance, &name, balance),
            result(Check::Payload, &name, payload(to).await),
        ]);
    }
    for vip in &plan.empty_vips {
        let to = SocketAddr::new(*vip, SERVICE_PORT);
        let rejected = until(patience, || rejected(to)).await;
        results.push(result(Check::Reject, to.to_string(), rejected));
    }
    for (name, addresses) in [(&plan.name, &plan.vips), (&plan.headless_name, &plan.endpoints)] {
        let resolved = until(patience, || resolves(name, addresses)).await;
        results.push(result(Check::Dns, name, resolved));
    }
    results
}

fn result(check: Check, destination: impl Into<String>, outcome: Result<(), String>) -> CheckResult {
    CheckResult {
        check,
        destination: destination.into(),
        problem: outcome.err(),
    }
}

/// Repeats an attempt until it succeeds or the time is over; rules of a new pod take some milliseconds.
async fn until<T>(patience: Duration, attempt: impl AsyncFn() -> Result<T, String>) -> Result<T, String> {
    let end = Instant::now() + patience;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(problem) if Instant::now() >= end => return Err(problem),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Requests after the first answered one, all of which must be answered; how often each server did.
async fn requests(
    patience: Duration,
    request: impl AsyncFn() -> io::Result<Answer>,
) -> Result<BTreeMap<String, usize>, String> {
    let first = until(patience, async || {
        request().await.map_err(|error| error.to_string())
    });
    let mut servers = BTreeMap::from([(first.await?, 1)]);
    let mut failed: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 1..REQUESTS {
        match request().await {
            Ok(server) => *servers.entry(server).or_default() += 1,
            Err(error) => *failed.entry(error.to_string()).or_default() += 1,
        }
    }
    let Some((error, _)) = failed.iter().max_by_key(|(_, times)| **times) else {
        return Ok(servers);
    };
    let times: usize = failed.values().sum();
    Err(format!("{times} of {REQUESTS} requests failed: {error}"))
}

fn balance(
    tcp: Option<&BTreeMap<String, usize>>,
    udp: Option<&BTreeMap<String, usize>>,
) -> Result<(), String> {
    let counts = [("TCP", tcp), ("UDP", udp)];
    for (protocol, servers) in counts
        .iter()
        .filter_map(|(protocol, servers)| Some((protocol, (*servers)?)))
    {
        if servers.len() != SERVERS {
            let shares = servers.iter().map(|(server, times)| format!("{server} {times}"));
            let shares: Vec<String> = shares.collect();
            return Err(format!("{protocol} requests by server: {}", shares.join(", ")));
        }
    }
    match (tcp, udp) {
        (None, None) => Err("no requests were answered".to_owned()),
        _ => Ok(()),
    }
}

async fn resolves(name: &str, wanted: &[IpAddr]) -> Result<(), String> {
    let found = lookup_host((name, SERVICE_PORT)).await;
    let found = found.map_err(|error| error.to_string())?;
    let found: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
    let wanted: BTreeSet<IpAddr> = wanted.iter().copied().collect();
    if wanted.is_subset(&found) {
        return Ok(());
    }
    let list = |addresses: &BTreeSet<IpAddr>| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        addresses.join(", ")
    };
    Err(format!(
        "it resolves to {}, not to {}",
        list(&found),
        list(&wanted)
    ))
}

#[cfg(test)]
mod tests;
