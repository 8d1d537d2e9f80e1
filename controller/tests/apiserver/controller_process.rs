//! The shipped binary as a child of the test process.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::wait;

const SOON: Duration = Duration::from_secs(20);

/// A running controller; it ends with this value and with the test process.
pub(crate) struct Controller {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) pid: u32,
    pub(crate) http: String,
    pub(crate) log: PathBuf,
}

impl Controller {
    /// Starts the shipped binary as `name` with a kubeconfig.
    pub(crate) fn start(kubeconfig: &Path, folder: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let http = format!(
            "127.0.0.1:{}",
            TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()
        );
        let log = folder.join(format!("{name}.log"));
        // The kernel kills the child with the *thread* that started it, so it gets a thread that lives as long as it.
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                env!("CARGO_BIN_EXE_multus-service-controller"),
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args([
                "--pod-name",
                name,
                "--http-address",
                &http,
                "--log-level",
                "info,controller=debug",
            ])
            .args(more)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(child.id()));
            while matches!(
                stopped.recv_timeout(Duration::from_millis(50)),
                Err(mpsc::RecvTimeoutError::Timeout)
            ) {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        });
        let pid = start.recv()??;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            pid,
            http,
            log,
        })
    }

    /// Waits until /readyz says yes.
    pub(crate) async fn wait_ready(&self) -> Result<()> {
        wait::eventually(SOON, "the controller to become ready", async || {
            let ok = self
                .get("/readyz")
                .await
                .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
            Ok(ok.then_some(()))
        })
        .await
        .with_context(|| e2e::command::tail(&self.log, 20))
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

    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.pid.to_string()])
            .status()?;
        anyhow::ensure!(sent.success(), "signal {signal} could not be sent");
        Ok(())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
