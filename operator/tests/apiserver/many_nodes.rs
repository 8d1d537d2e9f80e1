//! A cluster of a thousand nodes whose proxies all fail and recover: what the status says, and what the operator asks of the API
//! server for it.

use crate::failure_modes::age;
use crate::fixture::Fixture;
use crate::fixture::hollow_nodes::{self, HollowNodes};
use crate::rbac::{memory_kib, requests_in};
use anyhow::{Context as _, Result, ensure};
use api::config::{ProxyCause, ProxyStatus};
use api::rules_applied::Reason;
use std::time::{Duration, Instant};
use testbed::audit::{Log, Request};

const HOLLOW: usize = 1_000;
/// All nodes: the hollow ones, and those with the fake kubelet.
const ALL: i32 = 1_002;
/// Width of a line that can still be read.
const MAX_WIDTH: usize = 200;
/// Time from the last change to the status, on a machine that other tests use; it is 1 to 7 s.
const LATENCY: Duration = Duration::from_secs(30);
/// The operator's own memory in an unoptimized build.
const MAX_MEMORY_KIB: u64 = 60 * 1024;

/// Half of the nodes, three tenths, two tenths.
fn reason(index: usize) -> Reason {
    match index % 10 {
        0..5 => Reason::ContainerRuntimeUnavailable,
        5..8 => Reason::NoSupportedBackend,
        _ => Reason::LegacyProxyRunning,
    }
}

fn cause(reason: Reason, nodes: i32, indices: [usize; 5]) -> ProxyCause {
    ProxyCause {
        reason: reason.to_string(),
        nodes,
        names: indices.map(hollow_nodes::name).to_vec(),
    }
}

fn all_causes() -> [ProxyCause; 3] {
    [
        cause(Reason::ContainerRuntimeUnavailable, 500, [0, 1, 2, 3, 4]),
        cause(Reason::NoSupportedBackend, 300, [5, 6, 7, 15, 16]),
        cause(Reason::LegacyProxyRunning, 200, [8, 9, 18, 19, 28]),
    ]
}

async fn until_proxy(
    fixture: &Fixture,
    what: &str,
    is_so: impl Fn(&ProxyStatus) -> bool,
) -> Result<ProxyStatus> {
    fixture
        .eventually(what, async || {
            let status = fixture.config().await?.status.context("no status")?;
            let proxy = status.proxy.context("no proxy")?;
            ensure!(is_so(&proxy), "the status is {proxy:?}");
            Ok(Some(proxy))
        })
        .await
}

/// The operator's requests since a moment.
struct Storm {
    name: &'static str,
    log: Log,
    began: Instant,
}

impl Storm {
    fn begin(fixture: &Fixture, name: &'static str) -> Result<Self> {
        Ok(Self {
            name,
            log: fixture.server.audit_log().from_now()?,
            began: Instant::now(),
        })
    }

    /// Checks that the requests depend on the time that has passed, not on the number of changes.
    fn check(&self) -> Result<()> {
        let requests = requests_in(&self.log)?;
        let count = |is_so: &dyn Fn(&&Request) -> bool| requests.iter().filter(is_so).count();
        let writes = count(&|request| request.is_write() && request.resource != "leases");
        let lists = count(&|request| {
            request.verb == "list" && ["pods", "nodes"].contains(&request.resource.as_str())
        });
        let reconciles =
            count(&|request| request.verb == "get" && request.resource == "multusserviceconfigs");
        let took = self.began.elapsed();
        eprintln!(
            "{}: {took:.1?}, {} requests in {reconciles} reconciles, {writes} writes, {lists} lists of pods or nodes",
            self.name,
            requests.len()
        );
        // The first ones follow each other at once, then two a second.
        let limit = 7 + usize::try_from(took.as_millis() / 500)?;
        assert!(reconciles <= limit, "{reconciles} reconciles, more than {limit}");
        assert!(
            writes <= reconciles + 2,
            "{writes} writes in {reconciles} reconciles"
        );
        assert_eq!(lists, 0, "pods and nodes are watched");
        Ok(())
    }
}

/// Every line of `kubectl get msc -o wide`, and a word of the last one.
fn assert_readable(fixture: &Fixture, words: &[&str]) -> Result<()> {
    let table = fixture.kubectl(&["get", "msc", "-o", "wide"])?;
    eprintln!("{table}");
    let widths: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
    assert!(
        widths.len() == 2 && widths.iter().all(|width| *width <= MAX_WIDTH),
        "{widths:?}\n{table}"
    );
    for word in words {
        assert!(
            table.split_whitespace().any(|found| found == *word),
            "{word} in {table}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn thousand_failing_nodes_are_counted_by_cause_with_bounded_requests() -> Result<()> {
    // It would report nodes without a kubelet as lost.
    let fixture = Fixture::start_with(&["--controllers=*,-node-lifecycle-controller"]).await?;
    let fixture = fixture.install().await?;
    let pid = fixture.operator_pid()?;
    let before = memory_kib(pid, "RssAnon:")?;
    let began = Instant::now();
    let hollow = HollowNodes::add(&fixture, HOLLOW).await?;
    until_proxy(&fixture, "a thousand nodes to be served", |proxy| {
        (proxy.desired, proxy.ready) == (ALL, ALL)
            && proxy.backends.iter().any(|backend| backend.nodes == 1_000)
    })
    .await?;
    eprintln!("{HOLLOW} nodes joined in {:.1?}", began.elapsed());
    until_quiet(&fixture).await?;
    assert_readable(&fixture, &["NFTables", "1002"])?;

    let storm = Storm::begin(&fixture, "failures, by requests")?;
    hollow.patch_conditions(&fixture, reason).await?;
    let sent = Instant::now();
    let proxy = until_proxy(&fixture, "all causes", |proxy| proxy.causes == all_causes()).await?;
    eprintln!("right {:.1?} after the last change", sent.elapsed());
    assert!(sent.elapsed() < LATENCY);
    storm.check()?;
    assert_eq!(proxy.unhealthy_node_count, 1_000);
    let listed: Vec<_> = proxy
        .unhealthy_nodes
        .iter()
        .map(|node| node.name.clone())
        .collect();
    assert_eq!(listed, (0..10).map(hollow_nodes::name).collect::<Vec<_>>());

    age(&fixture, "failures").await?;
    fixture
        .until_conditions(&["Available=True/AsExpected", "Degraded=True/ProxyNotServing"])
        .await?;
    assert_readable(
        &fixture,
        &["1000", "ContainerRuntimeUnavailable", "ProxyNotServing"],
    )?;

    until_quiet(&fixture).await?;
    let storm = Storm::begin(&fixture, "recovery, at once")?;
    hollow.store_healthy_pods(&fixture).await?;
    let sent = Instant::now();
    until_proxy(&fixture, "no causes", |proxy| proxy.causes.is_empty()).await?;
    eprintln!("right {:.1?} after the last change", sent.elapsed());
    assert!(sent.elapsed() < LATENCY);
    fixture.until_installed().await?;
    storm.check()?;
    assert_readable(&fixture, &["1002", "AsExpected"])?;
    let after = memory_kib(pid, "RssAnon:")?;
    eprintln!("memory: {before} KiB with two nodes, {after} KiB with a thousand");
    assert!(after <= MAX_MEMORY_KIB, "{after} KiB of memory");
    Ok(())
}

/// Waits until no request of the operator was answered for two seconds.
async fn until_quiet(fixture: &Fixture) -> Result<()> {
    fixture
        .eventually("two seconds without a request of the operator", async || {
            let log = fixture.server.audit_log().from_now()?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(requests_in(&log)?.is_empty().then_some(()))
        })
        .await
}
