//! Attacks on the port for probes and metrics of a running program, and whether its probes answer meanwhile.
//!
//! Writes: connections, and the limit of descriptors of the attacked process.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::command;

/// `timeoutSeconds` of the probes in the manifests: no probe may take longer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for nine of ten probes; the tenth may meet a busy machine.
const FAST: Duration = Duration::from_secs(1);

const UNFINISHED: usize = 1_000;
const HEADER_BYTES: usize = 350 * 1024;
const IDLE: usize = 20_000;
/// Descriptors of the attacked process while connections idle: fewer than there are connections.
const DESCRIPTORS: usize = 8_192;
/// Descriptors of this process that are not for connections.
const OWN_DESCRIPTORS: usize = 1_000;
/// Limit of the additional peak memory of the attacked process.
const GROWTH_MIB: u64 = 24;

/// Attacks process `pid`, which serves on `address`, first by long headers that do not end, then by idle connections.
pub async fn attack(pid: u32, address: SocketAddr) -> Result<()> {
    probe(address, "/livez").context("before the attack")?;
    let before = memory(pid, "VmRSS")?;
    // Resets the peak: proc_pid_clear_refs(5).
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;

    let (unfinished, probes) = while_probing(address, open(address, UNFINISHED, HEADER_BYTES)).await;
    report(pid, before, "unfinished headers", &unfinished, &probes?)?;
    drop(unfinished);

    command::run(
        "prlimit",
        &["--pid", &pid.to_string(), &format!("--nofile={DESCRIPTORS}")],
    )?;
    let idle = IDLE.min(own_descriptors()?.saturating_sub(OWN_DESCRIPTORS));
    ensure!(
        idle > DESCRIPTORS,
        "this process may open too few files: raise `ulimit -n`"
    );
    let (idle, probes) = while_probing(address, open(address, idle, 0)).await;
    report(pid, before, "idle connections", &idle, &probes?)
}

/// Raises the limit of this process as far as it may.
fn own_descriptors() -> Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1));
    let hard = hard.context("no limit of descriptors")?;
    command::run(
        "prlimit",
        &[
            "--pid",
            &std::process::id().to_string(),
            &format!("--nofile={hard}"),
        ],
    )?;
    Ok(hard.parse()?)
}

/// Opens connections that each send `bytes` of a header and do not end it. Returned are those that could be opened.
async fn open(address: SocketAddr, count: usize, bytes: usize) -> Vec<TcpStream> {
    let header = ["GET / HTTP/1.1\r\nX: ", &"x".repeat(bytes)].concat();
    let header = &header.as_bytes()[..if bytes == 0 { 0 } else { header.len() }];
    // Several at a time, and not so many that the kernel itself drops them.
    let workers = (0..16).map(|worker| async move {
        let mut held = Vec::new();
        for _ in (worker..count).step_by(16) {
            let connecting = timeout(PROBE_TIMEOUT, TcpStream::connect(address));
            if let Ok(Ok(mut stream)) = connecting.await {
                // Until the server takes no more.
                let _ = timeout(Duration::from_millis(200), stream.write_all(header)).await;
                held.push(stream);
            }
        }
        held
    });
    join_all(workers).await.into_iter().flatten().collect()
}

/// Probes from the same address while `attack` goes on, and for two seconds after it.
///
/// The probes have a thread of their own, as the kubelet is a process of its own: a client that waits for its turn behind the attackers
/// between its connection and its request is rejected for its own slowness.
async fn while_probing<T>(
    address: SocketAddr,
    attack: impl Future<Output = T>,
) -> (T, Result<Vec<Duration>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let probes = std::thread::spawn(move || {
        let mut took = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            for path in ["/livez", "/readyz"] {
                took.push(probe(address, path)?);
                std::thread::sleep(Duration::from_millis(25));
            }
        }
        Ok(took)
    });
    let done = attack.await;
    sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let probes = tokio::task::spawn_blocking(|| probes.join()).await;
    let probes = match probes {
        Ok(Ok(probes)) => probes,
        Ok(Err(_)) | Err(_) => Err(anyhow!("the thread of the probes panicked")),
    };
    (done, probes)
}

fn report(pid: u32, before: u64, what: &str, held: &[TcpStream], probes: &[Duration]) -> Result<()> {
    let growth = memory(pid, "VmHWM")?.saturating_sub(before) >> 10;
    let slow = probes.iter().filter(|took| **took > FAST).count();
    let slowest = probes.iter().max().copied().unwrap_or_default();
    let (held, all) = (held.len(), probes.len());
    eprintln!("{held} {what}: {growth} MiB more, {all} probes, {slow} over 1 s, the slowest {slowest:.1?}");
    ensure!(growth <= GROWTH_MIB, "{held} {what}: memory grew by {growth} MiB");
    ensure!(
        all >= 10 && slow * 10 <= all,
        "{held} {what}: {slow} of {all} probes took over 1 s"
    );
    Ok(())
}

/// Returns the duration of a probe. Any status is a response.
fn probe(address: SocketAddr, path: &str) -> Result<Duration> {
    let began = Instant::now();
    let probed = || -> Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = probed().with_context(|| format!("{path} after {:.1?}", began.elapsed()))?;
    let took = began.elapsed();
    ensure!(answer.starts_with("HTTP/1.1 "), "{path} answered {answer:?}");
    ensure!(took <= PROBE_TIMEOUT, "{path} answered after {took:.1?}");
    Ok(took)
}

/// A line of proc_pid_status(5) in KiB.
fn memory(pid: u32, line: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let value = value.context("no such line of memory")?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
