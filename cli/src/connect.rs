//! The connection to the API server, as kubectl makes it.

use crate::args::Global;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used; name another by --kubeconfig or $KUBECONFIG")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// Certificates or proxies cannot be set up.
    #[error("the connection to the API server cannot be set up")]
    Connect(#[source] kube::Error),
}

/// The client, and the namespace that is meant unless another is named.
pub async fn connect(global: &Global) -> Result<(Client, String), Error> {
    // An error only says that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = KubeConfigOptions {
        context: global.context.clone(),
        ..KubeConfigOptions::default()
    };
    let found = match &global.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = found.map_err(Error::Kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(Error::Kubeconfig)?;
    config.connect_timeout = Some(global.request_timeout);
    if global.impersonate.is_some() {
        config.auth_info.impersonate.clone_from(&global.impersonate);
    }
    let namespace = global
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(Error::Connect)?;
    Ok((client, namespace))
}
