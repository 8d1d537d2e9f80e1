//! The Kubernetes client of a process.

use crate::args::ProcessArgs;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file given by `--kubeconfig` or `$KUBECONFIG` is no usable kubeconfig.
    #[error("kubeconfig {path:?} cannot be used")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No kubeconfig was given and this is no pod.
    #[error("no --kubeconfig or $KUBECONFIG is given and this is not a pod with a service account")]
    InCluster(#[source] kube::config::InClusterError),
    /// The configuration names things that cannot be set up (certificates, proxies).
    #[error("the connection to the API server cannot be set up")]
    Connect(#[source] kube::Error),
}

/// Reads the configuration and makes the client; does not contact the API server yet.
pub async fn connect(args: &ProcessArgs) -> Result<Client, Error> {
    // An error only says that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match &args.kubeconfig {
        Some(path) => from_file(path).await.map_err(|source| Error::Kubeconfig {
            path: path.clone(),
            source,
        })?,
        None => Config::incluster().map_err(Error::InCluster)?,
    };
    // The API server answers a watch at once and then keeps it open; a peer that vanished must not hang us for ever.
    config.connect_timeout = Some(Duration::from_secs(10));
    // Longer than the 290 s a watch is asked to last, so that a quiet watch is not taken for a dead one.
    config.read_timeout = Some(Duration::from_secs(295));
    config.write_timeout = Some(Duration::from_secs(30));
    Client::try_from(config).map_err(Error::Connect)
}

async fn from_file(path: &PathBuf) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
