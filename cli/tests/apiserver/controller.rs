//! The controller's library in the test process, set up as its binary does it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use api::names;
use controller::metrics::Metrics;
use controller::settings::Settings;
use process::lease::LeaseOptions;
use process::traces::Traces;
use process::{Identity, ProcessArgs};
use prometheus_client::registry::Registry;

/// Starts it in a thread with a runtime of its own: tests come and go with theirs. It ends with the process.
pub(crate) fn start(kubeconfig: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    std::thread::spawn(move || runtime.block_on(run(kubeconfig)));
    Ok(())
}

async fn run(kubeconfig: PathBuf) {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let identity = Identity {
        name: names::CONTROLLER,
        version: env!("CARGO_PKG_VERSION"),
        commit: None,
        http: address,
        metrics: address,
    };
    let arguments = ProcessArgs {
        kubeconfig: Some(kubeconfig),
        log_level: "warn".to_owned(),
        ..ProcessArgs::default()
    };
    let lease = LeaseOptions {
        namespace: names::NAMESPACE.to_owned(),
        name: names::CONTROLLER.to_owned(),
        holder: "controller-1".to_owned(),
        duration: Duration::from_secs(15),
        renew_before: Duration::from_secs(5),
    };
    let work = async |process| {
        Box::pin(controller::run(
            process,
            Settings::default(),
            metrics,
            Traces::default(),
            "controller-1",
            Some(lease),
        ))
        .await
    };
    if let Err(error) = Box::pin(process::run(identity, &arguments, registry, work)).await {
        eprintln!("the controller ended: {error}");
    }
}
