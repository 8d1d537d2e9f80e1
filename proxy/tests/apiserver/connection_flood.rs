//! The port for probes and metrics is reachable from every process on the node.

use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::apiserver::{Apiserver, Options};
use testbed::flood;
use testbed::wait;

/// Kills the child on drop.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the binary itself. Without a container runtime it touches no pod and is not ready.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn connection_flood_on_the_http_port_does_not_block_probes() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let http: SocketAddr = (Ipv4Addr::LOCALHOST, testbed::ports::free()?).into();
    let proxy = Command::new(env!("CARGO_BIN_EXE_multus-service-proxy"))
        .args([
            "--node-name",
            "attacked",
            "--health-probe-bind-address",
            &http.to_string(),
            "--metrics-bind-address",
            "127.0.0.1:0",
        ])
        .args(["--container-runtime-endpoint", "/run/no/such.sock"])
        .arg("--kubeconfig")
        .arg(server.kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let proxy = KillOnDrop(proxy);
    wait::until(Duration::from_secs(20), "the proxy to listen", || {
        Ok(TcpStream::connect(http).is_ok())
    })?;
    flood::attack(proxy.0.id(), http).await
}
