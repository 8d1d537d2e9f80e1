//! Metrics over HTTPS of the shipped binary, under its shipped role, with a real API server for tokens, rights and authorities.

use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::apiserver::Apiserver;
use testbed::pki::{Ca, Usage};
use testbed::scrape::Scraper;
use testbed::wait;

const SOON: Duration = Duration::from_mins(1);

/// The binary. Without a container runtime it touches no pod and is not ready; metrics do not depend on that. Killed on drop.
struct Proxy {
    child: Child,
    metrics: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    async fn start(server: &Apiserver) -> Result<Self> {
        let kubeconfig = server
            .service_account_kubeconfig("multus-service", "multus-service-proxy")
            .await?;
        let [http, metrics] =
            [testbed::ports::free()?, testbed::ports::free()?].map(|port| format!("127.0.0.1:{port}"));
        let [certificate, key] = certificate_files(server.folder());
        let child = Command::new(env!("CARGO_BIN_EXE_multus-service-proxy"))
            .args([
                "--node-name",
                "scraped",
                "--container-runtime-endpoint",
                "/run/no/such.sock",
            ])
            .args([
                "--health-probe-bind-address",
                &http,
                "--metrics-bind-address",
                &metrics,
            ])
            .arg("--tls-cert-file")
            .arg(certificate)
            .arg("--tls-private-key-file")
            .arg(key)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(server.folder().join("proxy.log"))?)
            .spawn()?;
        let proxy = Self { child, metrics };
        wait::until(SOON, "the proxy to listen", || {
            Ok(TcpStream::connect(&proxy.metrics).is_ok())
        })?;
        Ok(proxy)
    }

    fn until(&self, status: u16, scraper: &Scraper) -> Result<()> {
        wait::until(SOON, &format!("status {status}"), || {
            Ok(self.status(scraper).is_ok_and(|found| found == status))
        })
    }

    fn until_rejected(&self, scraper: &Scraper) -> Result<()> {
        wait::until(SOON, "a failed handshake", || Ok(self.status(scraper).is_err()))
    }

    /// CPU time so far, to 10 ms.
    fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which may hold spaces: field 3 and on; utime and stime are 14 and 15 (proc(5)), in ticks of 10 ms.
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let ticks: u64 = fields
            .split(' ')
            .skip(14 - 3)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<_, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    fn status(&self, scraper: &Scraper) -> Result<u16> {
        Ok(scraper.get(&self.metrics, "/metrics")?.0)
    }
}

fn certificate_files(folder: &Path) -> [PathBuf; 2] {
    ["tls.crt", "tls.key"].map(|file| folder.join(file))
}

/// Writes a certificate of a new authority, as the kubelet writes a changed Secret. Returns the authority's file.
fn replace_certificate(folder: &Path, name: &str) -> Result<PathBuf> {
    let ca = Ca::new(name)?;
    let identity = ca.issue("metrics", None, Usage::Server, &["127.0.0.1"])?;
    let [certificate, key] = certificate_files(folder);
    std::fs::write(certificate, identity.certificate)?;
    std::fs::write(key, identity.key)?;
    let file = folder.join(name);
    std::fs::write(&file, ca.certificate())?;
    Ok(file)
}

/// A client certificate of an authority that the cluster does not know.
fn foreign(folder: &Path) -> Result<Scraper> {
    let user = "system:serviceaccount:openshift-monitoring:prometheus-k8s";
    let identity = Ca::new("foreign")?.issue(user, None, Usage::Client, &[])?;
    let [certificate, key] = ["foreign.crt", "foreign.key"].map(|file| folder.join(file));
    std::fs::write(&certificate, identity.certificate)?;
    std::fs::write(&key, identity.key)?;
    Ok(Scraper::with_certificate(&certificate, &key))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn metrics_need_the_right_and_the_monitoring_needs_no_api_server() -> Result<()> {
    let mut server = super::cluster::server_with_roles().await?;
    server.allow_metrics("allowed").await?;
    let [allowed, other] = [server.token("allowed").await?, server.token("other").await?];
    let proxy = Proxy::start(&server).await?;
    let [allowed, other] = [allowed, other].map(|token| Scraper::with_token(&token));

    proxy.until(401, &Scraper::default())?;
    proxy.until(401, &Scraper::with_token("wrong"))?;
    proxy.until(403, &other)?;
    proxy.until(200, &allowed)?;
    let (_, page) = allowed.get(&proxy.metrics, "/metrics")?;
    ensure!(page.contains("multus_service_proxy_"), "{page}");
    ensure!(!page.contains("# EOF"), "the text format has no end: {page}");
    let prometheus = allowed
        .clone()
        .arg("--header", "Accept: application/openmetrics-text;version=1.0.0");
    let (_, page) = prometheus.get(&proxy.metrics, "/metrics")?;
    ensure!(page.trim_end().ends_with("# EOF"), "OpenMetrics: {page}");
    ensure!(
        allowed.get(&proxy.metrics, "/state")?.0 == 403,
        "a right on another path"
    );
    let monitoring = Scraper::monitoring(server.folder());
    proxy.until(200, &monitoring)?;
    proxy.until_rejected(&foreign(server.folder())?)?;

    random_tokens_are_bounded(&server, &proxy, &allowed)?;
    server.stop_apiserver();
    ensure!(proxy.status(&monitoring)? == 200, "without the API server");
    ensure!(proxy.status(&Scraper::with_token("unknown"))? == 503);
    Ok(())
}

/// An idle node is scraped every 10 s for less than 0.2 % of a core: 20 ms of CPU time each. TLS is part of it: a connection serves one
/// request. The tests' binary is not optimized and needs more than a release.
const SCRAPE_BUDGET: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_scrape_costs_less_than_a_five_hundredth_of_its_interval() -> Result<()> {
    const SCRAPES: u32 = 30;
    let server = super::cluster::server_with_roles().await?;
    server.allow_metrics("allowed").await?;
    let allowed = Scraper::with_token(&server.token("allowed").await?);
    let proxy = Proxy::start(&server).await?;
    // Token and right are known, as they are to a proxy that is scraped regularly.
    proxy.until(200, &allowed)?;
    let before = proxy.cpu_time()?;
    for _ in 0..SCRAPES {
        ensure!(proxy.status(&allowed)? == 200);
    }
    let scrape = proxy.cpu_time()?.saturating_sub(before) / SCRAPES;
    println!("a scrape costs {scrape:.1?} of CPU time");
    ensure!(scrape < SCRAPE_BUDGET, "{scrape:?}");
    Ok(())
}

fn random_tokens_are_bounded(server: &Apiserver, proxy: &Proxy, allowed: &Scraper) -> Result<()> {
    let reviews = || -> Result<usize> {
        let requests = server.audit_log().requests()?;
        Ok(requests
            .iter()
            .filter(|request| request.resource == "tokenreviews")
            .count())
    };
    let (before, began) = (reviews()?, std::time::Instant::now());
    // Idle connections, which hold a place until a newer one needs it.
    let idle: Vec<_> = (0..500)
        .filter_map(|_| TcpStream::connect(&proxy.metrics).ok())
        .collect();
    for n in 0..200 {
        let status = proxy.status(&Scraper::with_token(&format!("random-{n}")))?;
        ensure!([401, 503].contains(&status), "{status}");
    }
    ensure!(
        proxy.status(allowed)? == 200,
        "a known token during the flood of {}",
        idle.len()
    );
    // A burst of 20, then five a second.
    let bound = 20 + 5 * usize::try_from(began.elapsed().as_secs() + 1)?;
    let asked = reviews()? - before;
    ensure!(asked <= bound && asked < 200, "{asked} reviews, at most {bound}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn certificate_and_tls_profile_change_without_a_restart() -> Result<()> {
    let server = super::cluster::server_with_roles().await?;
    let first = replace_certificate(server.folder(), "first")?;
    let proxy = Proxy::start(&server).await?;
    let anyone = Scraper::default();
    let is_of = |ca: &Path| Ok(anyone.get_verified(ca, &proxy.metrics, "/metrics").is_ok());
    wait::until(SOON, "the certificate of the file", || is_of(&first))?;
    let second = replace_certificate(server.folder(), "second")?;
    wait::until(SOON, "the changed certificate", || is_of(&second))?;
    ensure!(!is_of(&first)?);

    let tls12 = Scraper::default().arg("--tls-max", "1.2");
    proxy.until(401, &tls12)?;
    server.set_tls_profile("Modern").await?;
    proxy.until_rejected(&tls12)?;
    ensure!(proxy.status(&anyone)? == 401, "TLS 1.3");
    server.set_tls_profile("Old").await?;
    proxy.until(401, &tls12)?;

    // The rights of the role that serving metrics needs, and no other.
    proxy.until(401, &Scraper::with_token("wrong"))?;
    server.allow_metrics("allowed").await?;
    let token = server.token("allowed").await?;
    proxy.until(200, &Scraper::with_token(&token))?;
    let used = used(&server)?;
    let unused: Vec<_> = SERVING.iter().filter(|right| !used.contains(**right)).collect();
    ensure!(unused.is_empty(), "{unused:?} of {used:?}");
    Ok(())
}

/// Verb and resource of the rules for serving metrics in `config/rbac/proxy_role.yaml`.
pub(crate) const SERVING: [&str; 8] = [
    "create tokenreviews",
    "create subjectaccessreviews",
    "list configmaps",
    "watch configmaps",
    "list apiservers",
    "watch apiservers",
    "list customresourcedefinitions",
    "watch customresourcedefinitions",
];

/// Verb and resource of each request of the proxy; none was forbidden.
fn used(server: &Apiserver) -> Result<BTreeSet<String>> {
    let mut requests = server.audit_log().requests()?;
    requests.retain(|request| request.user == super::cluster::ACCOUNT);
    let forbidden = requests.iter().find(|request| request.is_forbidden());
    ensure!(forbidden.is_none(), "{forbidden:?}");
    let used = requests
        .into_iter()
        .map(|request| format!("{} {}", request.verb, request.resource));
    Ok(used.collect())
}
