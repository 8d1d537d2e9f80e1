//! The program of a client pod: makes the checks and returns their results.

mod probe;

use super::SERVICE_PORT;
use super::result::{Check, CheckResult};
use probe::{Answer, payload, rejected, tcp, udp};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};

/// Requests of a check. That two of two servers answer is certain but for one in 2^39 runs.
const REQUESTS: usize = 40;
/// Failed requests after which a check ends.
const MAX_FAILED: usize = 3;
/// Connections to a Service without endpoints.
const REJECTIONS: usize = 10;
/// Payloads until each server has echoed one: one in 2^15 runs does not reach both.
const PAYLOADS: usize = 16;
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
    /// Names that the servers answer with
    #[arg(long = "server", required = true)]
    pub servers: Vec<String>,
    /// Name of the Service with servers
    #[arg(long)]
    pub name: String,
    /// Name of the headless Service with the same servers
    #[arg(long)]
    pub headless_name: String,
    /// Addresses of the servers on the network
    #[arg(long = "endpoint", required = true)]
    pub endpoints: Vec<IpAddr>,
    /// Seconds until the first request of every check must be answered
    #[arg(long)]
    pub patience: u64,
}

/// Makes all checks, one after the other, and passes each result on at once.
pub async fn run(plan: &Plan, mut each: impl FnMut(CheckResult)) {
    // One deadline for all: with a network that drops everything, each later check makes one attempt.
    let end = Instant::now() + Duration::from_secs(plan.patience);
    let servers: BTreeSet<String> = plan.servers.iter().cloned().collect();
    for vip in &plan.vips {
        let to = SocketAddr::new(*vip, SERVICE_PORT);
        let name = to.to_string();
        let over_tcp = requests(end, &servers, || tcp(to)).await;
        let over_udp = requests(end, &servers, || udp(to)).await;
        let balance = balance(&servers, over_tcp.as_ref().ok(), over_udp.as_ref().ok());
        each(result(Check::Tcp, &name, over_tcp.map(|_| ())));
        each(result(Check::Udp, &name, over_udp.map(|_| ())));
        each(result(Check::Balance, &name, balance));
        each(result(Check::Payload, &name, payloads(&servers, to).await));
    }
    for vip in &plan.empty_vips {
        let to = SocketAddr::new(*vip, SERVICE_PORT);
        each(result(Check::Reject, to.to_string(), rejections(end, to).await));
    }
    let of_service = until(end, || resolves(&plan.name, &plan.vips, false)).await;
    each(result(Check::Dns, &plan.name, of_service));
    let of_servers = until(end, || resolves(&plan.headless_name, &plan.endpoints, true)).await;
    each(result(Check::Dns, &plan.headless_name, of_servers));
}

fn result(check: Check, destination: impl Into<String>, outcome: Result<(), String>) -> CheckResult {
    CheckResult {
        check,
        destination: destination.into(),
        problem: outcome.err(),
    }
}

/// Repeats an attempt until it succeeds or the time is over; rules of a new pod take some milliseconds.
async fn until<T>(end: Instant, attempt: impl AsyncFn() -> Result<T, String>) -> Result<T, String> {
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(problem) if Instant::now() >= end => return Err(problem),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Other programs of the network, or other pods with the address of a server, may answer.
fn known(servers: &BTreeSet<String>, answer: io::Result<Answer>) -> Result<Answer, String> {
    let name = answer.map_err(|error| error.to_string())?;
    if servers.contains(&name) {
        Ok(name)
    } else {
        Err(
            "something that is no server of this test answered: is its address used twice on the network?"
                .to_owned(),
        )
    }
}

/// Requests after the first answered one, all of which must be answered; how often each server did.
async fn requests(
    end: Instant,
    servers: &BTreeSet<String>,
    request: impl AsyncFn() -> io::Result<Answer>,
) -> Result<BTreeMap<String, usize>, String> {
    let request = async || known(servers, request().await);
    let mut counts = BTreeMap::from([(until(end, &request).await?, 1)]);
    let mut failed = Vec::new();
    for number in 2..=REQUESTS {
        match request().await {
            Ok(server) => *counts.entry(server).or_default() += 1,
            Err(error) => failed.push(error),
        }
        if failed.len() == MAX_FAILED || number == REQUESTS && !failed.is_empty() {
            return Err(format!(
                "{} of {number} requests failed: {}",
                failed.len(),
                failed[0]
            ));
        }
    }
    Ok(counts)
}

fn balance(
    servers: &BTreeSet<String>,
    tcp: Option<&BTreeMap<String, usize>>,
    udp: Option<&BTreeMap<String, usize>>,
) -> Result<(), String> {
    let counts = [("TCP", tcp), ("UDP", udp)];
    let counts = counts
        .iter()
        .filter_map(|(protocol, counts)| Some((protocol, (*counts)?)));
    for (protocol, counts) in counts.clone() {
        if counts.len() != servers.len() {
            let shares = counts.iter().map(|(server, times)| format!("{server} {times}"));
            let shares: Vec<String> = shares.collect();
            return Err(format!("{protocol} requests by server: {}", shares.join(", ")));
        }
    }
    match counts.count() {
        0 => Err("no requests were answered".to_owned()),
        _ => Ok(()),
    }
}

/// Large payloads until each server has echoed one.
async fn payloads(servers: &BTreeSet<String>, to: SocketAddr) -> Result<(), String> {
    let mut echoed = BTreeSet::new();
    for _ in 0..PAYLOADS {
        echoed.insert(known(servers, payload(to).await)?);
        if echoed.len() == servers.len() {
            return Ok(());
        }
    }
    let missing: Vec<_> = servers.difference(&echoed).cloned().collect();
    Err(format!("no payload reached {}", missing.join(", ")))
}

/// Every connection after the first rejected one must be rejected.
async fn rejections(end: Instant, to: SocketAddr) -> Result<(), String> {
    until(end, || rejected(to)).await?;
    for _ in 1..REJECTIONS {
        rejected(to).await?;
    }
    Ok(())
}

/// A name has these addresses; `only`: and no other.
async fn resolves(name: &str, wanted: &[IpAddr], only: bool) -> Result<(), String> {
    let found = lookup_host((name, SERVICE_PORT)).await;
    let found = found.map_err(|error| error.to_string())?;
    let found: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
    let wanted: BTreeSet<IpAddr> = wanted.iter().copied().collect();
    if found == wanted || !only && wanted.is_subset(&found) {
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
