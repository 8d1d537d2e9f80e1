//! The shipped binary as a child of the test process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::scrape::Scraper;
use testbed::wait;

use super::child_process::Child;

const SOON: Duration = Duration::from_secs(20);

/// A running controller; it ends with this value and with the test process.
pub(crate) struct Controller {
    pub(crate) child: Child,
    pub(crate) http: String,
    pub(crate) metrics: String,
    monitoring: Scraper,
    pub(crate) log: PathBuf,
}

impl Controller {
    /// Starts the shipped binary as `name` with a kubeconfig.
    pub(crate) fn start(kubeconfig: &Path, folder: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let http = format!("127.0.0.1:{}", testbed::ports::free()?);
        let metrics = format!("127.0.0.1:{}", testbed::ports::free()?);
        let log = folder.join(format!("{name}.log"));
        let kubeconfig = kubeconfig.to_string_lossy();
        let own = [
            "--kubeconfig",
            &kubeconfig,
            "--pod-name",
            name,
            "--health-probe-bind-address",
            &http,
            "--metrics-bind-address",
            &metrics,
            "--log-level",
            "info,controller=debug",
        ];
        let program = Path::new(env!("CARGO_BIN_EXE_multus-service-controller"));
        let child = Child::start(program, own.into_iter().chain(more.iter().copied()), &log)?;
        Ok(Self {
            child,
            http,
            metrics,
            monitoring: Scraper::monitoring(folder),
            log,
        })
    }

    /// Waits until /readyz succeeds.
    pub(crate) async fn wait_ready(&self) -> Result<()> {
        wait::eventually(SOON, "the controller to become ready", async || {
            let ok = self
                .get("/readyz")
                .await
                .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
            Ok(ok.then_some(()))
        })
        .await
        .with_context(|| testbed::command::tail(&self.log, 20))
    }

    /// Its metrics, as OpenShift's monitoring gets them; the API server is not asked.
    pub(crate) async fn metrics(&self) -> Result<String> {
        wait::eventually(
            SOON,
            "the controller to know the authority of clients",
            async || {
                let (status, page) = self.monitoring.get(&self.metrics, "/metrics")?;
                Ok((status == 200).then_some(page))
            },
        )
        .await
    }

    /// A page of its HTTP endpoints, headers included.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&self.http).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Returns true if its metrics report that it leads.
    pub(crate) async fn is_leader(&self) -> Result<bool> {
        let page = self.metrics().await?;
        Ok(page
            .lines()
            .any(|line| line == "multus_service_controller_leader 1"))
    }

    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        self.child.signal(signal)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.child.has_ended()
    }
}
