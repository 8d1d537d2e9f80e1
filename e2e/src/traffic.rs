//! Steady HTTP traffic from a pod with the result of each connection, for tests of uninterrupted service.
//!
//! Writes: packets, inside the pod's network namespace. The connections are made by this process, from a thread that has
//! entered that namespace: no program in the pod is needed, and the pod's own limits do not count.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use e2e::{demo::scenario, traffic::Traffic};
//! use testbed::cluster;
//! let vip = std::net::SocketAddr::new(scenario::cluster_ip("web")?, 80);
//! let traffic = Traffic::start(&scenario::client()?, vip, 200)?; // 200 new connections a second
//! cluster::restart_kubelet("node1")?;
//! let report = traffic.stop()?;
//! report.ensure_unnoticed()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Traffic::with_streams`] keeps long-lived connections open beside the new ones.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::CloneFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::demo::scenario::Attached;
use testbed::cluster;

/// A connection that takes longer has failed. A lost SYN is sent again after 1 s, and that counts as a failure here.
const LIMIT: Duration = Duration::from_millis(900);
/// Longest that the first answer may take.
const START: Duration = Duration::from_secs(30);
/// Pause between two requests on a long-lived connection. nginx takes 1,000 of them.
const STREAM_PAUSE: Duration = Duration::from_millis(500);
/// Longest that an answer on a long-lived connection may take: what is lost is sent again, and that is how TCP lives.
const STREAM_LIMIT: Duration = Duration::from_secs(10);
/// More failures than these are counted but not described.
const DESCRIBED: usize = 20;

/// Running traffic. Dropped without [`Traffic::stop`], it ends too, without a result.
#[derive(Debug)]
pub struct Traffic {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Report>>>,
}

/// Results of the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections begun.
    pub attempts: usize,
    /// Connections that were rejected, broken, or not answered within 900 ms.
    pub failed: usize,
    /// The first 20 of them: when after the start, and why.
    pub failures: Vec<(Duration, String)>,
    /// Answers by body, such as `server web-a, client 10.1.0.3`.
    pub answers: BTreeMap<String, usize>,
    /// The longest that an answered connection took, from SYN to the last byte.
    pub slowest: Duration,
    /// Connections a second that were asked for.
    pub per_second: u32,
    /// From the first answer to the stop.
    pub lasted: Duration,
    /// Long-lived connections.
    pub streams: usize,
    /// Requests that were answered on them.
    pub exchanges: usize,
    /// Those of them that ended before the stop: when after the start, and why.
    pub broken: Vec<(Duration, String)>,
}

impl Traffic {
    /// Begins `per_second` connections a second from `pod` to an HTTP server at `target`; returns after the first answer.
    pub fn start(pod: &Attached, target: SocketAddr, per_second: u32) -> Result<Self> {
        Self::with_streams(pod, target, per_second, 0)
    }

    /// The same, and so many connections that stay open and ask twice a second.
    pub fn with_streams(pod: &Attached, target: SocketAddr, per_second: u32, streams: usize) -> Result<Self> {
        ensure!(
            (1..=1000).contains(&per_second),
            "{per_second} connections a second are not between 1 and 1000"
        );
        let namespace = open_namespace(&pod.node, pod.cluster_address)?;
        let (stop, stopped) = oneshot::channel();
        let (first, answered) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("traffic".to_owned())
            .spawn(move || {
                enter(&namespace)?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let plan = Plan {
                    target,
                    per_second,
                    streams,
                };
                runtime.block_on(run(plan, stopped, &first))
            })?;
        let traffic = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        let (deadline, mut last) = (Instant::now() + START, anyhow!("no output"));
        loop {
            match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Ok(())) => return Ok(traffic),
                Ok(Err(error)) => last = error,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(
                        last.context(format!("no connection to {target} was answered within {START:?}"))
                    );
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(traffic.stop().err().unwrap_or(last));
                }
            }
        }
    }

    /// Begins no more connections, waits for those that are on their way, and says what became of all.
    pub fn stop(mut self) -> Result<Report> {
        drop(self.stop.take());
        let thread = self.thread.take().context("traffic is stopped once")?;
        thread
            .join()
            .map_err(|_| anyhow!("the traffic thread panicked"))?
    }
}

/// The request.
#[derive(Clone, Copy)]
struct Plan {
    target: SocketAddr,
    per_second: u32,
    streams: usize,
}

async fn run(
    plan: Plan,
    mut stopped: oneshot::Receiver<()>,
    first: &mpsc::Sender<Result<()>>,
) -> Result<Report> {
    let Plan {
        target,
        per_second,
        streams,
    } = plan;
    // What is not there yet is no failure of what is tested.
    while let Err(error) = get(target).await {
        let _ = first.send(Err(error));
        if !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            return Ok(Report::default());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _ = first.send(Ok(()));
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    // On a busy machine what was missed is left out: a burst would be another test.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut report = Report {
        per_second,
        streams,
        ..Report::default()
    };
    let mut running = JoinSet::new();
    let (ending, ends) = watch::channel(false);
    let mut streaming = JoinSet::new();
    for _ in 0..streams {
        streaming.spawn(stream(start, target, ends.clone()));
    }
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {
                report.attempts += 1;
                running.spawn(connection(start, target));
            }
            Some(done) = running.join_next() => report.add(done?),
        }
    }
    report.lasted = start.elapsed();
    ending.send_replace(true);
    while let Some(done) = running.join_next().await {
        report.add(done?);
    }
    while let Some(done) = streaming.join_next().await {
        let (exchanges, broken) = done?;
        report.exchanges += exchanges;
        report.broken.extend(broken);
    }
    Ok(report)
}

/// Sends requests on one connection until stopped. Returns the number of responses, and the time and error of a failure.
async fn stream(
    start: Instant,
    target: SocketAddr,
    mut ends: watch::Receiver<bool>,
) -> (usize, Option<(Duration, String)>) {
    let mut exchanges = 0;
    let asked = async {
        let mut stream = TcpStream::connect(target).await?;
        loop {
            tokio::time::timeout(STREAM_LIMIT, exchange(&mut stream, target))
                .await
                .map_err(|_| anyhow!("no answer within {STREAM_LIMIT:?}"))??;
            exchanges += 1;
            // The sender lives longer than this.
            if tokio::time::timeout(STREAM_PAUSE, ends.wait_for(|ends| *ends))
                .await
                .is_ok()
            {
                return Ok::<_, anyhow::Error>(());
            }
        }
    };
    let broken = asked.await.err();
    (exchanges, broken.map(|why| (start.elapsed(), format!("{why:#}"))))
}

/// One request on a connection that stays open.
async fn exchange(stream: &mut TcpStream, target: SocketAddr) -> Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", target.ip());
    stream.write_all(request.as_bytes()).await?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    loop {
        let read = stream.read(&mut part).await?;
        ensure!(read > 0, "the connection was closed after {} bytes", answer.len());
        answer.extend_from_slice(&part[..read]);
        if let Some((head, body)) = String::from_utf8_lossy(&answer).split_once("\r\n\r\n") {
            ensure!(head.starts_with("HTTP/1.1 200"), "the answer is {head:?}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.context("the answer has no length")?.parse()?;
            if body.len() >= length {
                return Ok(());
            }
        }
    }
}

/// Result of one connection.
struct Outcome {
    begun: Duration,
    took: Duration,
    answer: Result<String>,
}

async fn connection(start: Instant, target: SocketAddr) -> Outcome {
    let (begun, since) = (start.elapsed(), Instant::now());
    let answer = get(target).await;
    Outcome {
        begun,
        took: since.elapsed(),
        answer,
    }
}

async fn get(target: SocketAddr) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(target).await?;
        let request = format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", target.ip());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is cut off")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "the answer is {head:?}");
        Ok(body.trim().to_owned())
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| anyhow!("no answer within {LIMIT:?}"))?
}

impl Report {
    /// That no connection failed and none broke, although there were as many as asked for, but for what a busy machine misses.
    pub fn ensure_unnoticed(&self) -> Result<()> {
        ensure!(self.failed == 0 && self.broken.is_empty(), "{self}");
        let due = u128::from(self.per_second) * self.lasted.as_millis();
        ensure!(
            self.attempts as u128 * 10_000 >= due * 8,
            "fewer than 80 % of {} connections a second were begun: nothing is proved\n{self}",
            self.per_second
        );
        ensure!(self.exchanges >= self.streams, "no stream asked anything\n{self}");
        Ok(())
    }

    fn add(&mut self, Outcome { begun, took, answer }: Outcome) {
        match answer {
            Ok(body) => {
                *self.answers.entry(body).or_default() += 1;
                self.slowest = self.slowest.max(took);
            }
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < DESCRIBED {
                    self.failures.push((begun, format!("{error:#}")));
                }
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} connections failed", self.failed, self.attempts)?;
        for (begun, why) in &self.failures {
            write!(f, "\n  after {begun:.1?}: {why}")?;
        }
        for (body, count) in &self.answers {
            write!(f, "\n  {count} answered: {body}")?;
        }
        if self.streams > 0 {
            let (broken, exchanges) = (self.broken.len(), self.exchanges);
            write!(
                f,
                "\n  {broken} of {} streams broke, {exchanges} requests were answered on them",
                self.streams
            )?;
        }
        for (after, why) in &self.broken {
            write!(f, "\n  after {after:.1?} a stream broke: {why}")?;
        }
        write!(f, "\n  the slowest answer took {:.0?}", self.slowest)
    }
}

/// The network namespace that has this address, opened from outside the node.
fn open_namespace(node: &str, address: IpAddr) -> Result<File> {
    let inside = cluster::netns(node, address)?;
    let path = format!("/proc/{}/root{inside}", cluster::node_pid(node)?);
    File::open(&path).with_context(|| format!("cannot open the network namespace {path}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread was made for it and ends in that namespace"
)]
fn enter(namespace: &File) -> Result<()> {
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the pod's network namespace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_the_first_are_described() {
        let mut report = Report {
            attempts: 31,
            ..Report::default()
        };
        let outcome = |answer| Outcome {
            begun: Duration::from_secs(2),
            took: Duration::from_millis(3),
            answer,
        };
        report.add(outcome(Ok("server a".to_owned())));
        for _ in 0..30 {
            report.add(outcome(Err(anyhow!("rejected"))));
        }
        assert_eq!((report.failed, report.failures.len()), (30, DESCRIBED));
        let text = report.to_string();
        assert!(
            text.starts_with("30 of 31 connections failed\n  after 2.0s: rejected"),
            "{text}"
        );
        assert!(
            text.ends_with("1 answered: server a\n  the slowest answer took 3ms"),
            "{text}"
        );
    }

    #[test]
    fn little_traffic_and_broken_streams_prove_nothing() {
        let good = Report {
            attempts: 1600,
            per_second: 200,
            lasted: Duration::from_secs(10),
            streams: 2,
            exchanges: 40,
            ..Report::default()
        };
        assert!(good.ensure_unnoticed().is_ok());
        let few = Report {
            attempts: 1599,
            ..good.clone()
        };
        let broken = Report {
            broken: vec![(Duration::from_secs(3), "reset".to_owned())],
            ..good.clone()
        };
        let lost = Report { failed: 1, ..good };
        for bad in [few, broken, lost] {
            assert!(bad.ensure_unnoticed().is_err(), "{bad}");
        }
    }
}
