//! The connection to the API server, configured as for kubectl.

use crate::args::Global;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Error of [`connect`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig is invalid.
    #[error("failed to load the kubeconfig; set --kubeconfig or $KUBECONFIG")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// Certificates or proxies are invalid.
    #[error("failed to set up the connection to the API server")]
    Connect(#[source] kube::Error),
}

/// Returns the client and the default namespace.
pub async fn connect(global: &Global) -> Result<(Client, String), Error> {
    // The only error is that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = KubeConfigOptions {
        context: global.context.clone(),
        ..KubeConfigOptions::default()
    };
    let found = match &global.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    // In a pod, as `oc adm must-gather` starts it, there is a service account instead of a configuration.
    let is_configured =
        global.kubeconfig.is_some() || global.context.is_some() || std::env::var_os("KUBECONFIG").is_some();
    let in_cluster = || Config::incluster().ok().filter(|_| !is_configured);
    let mut config = match found {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(Error::Kubeconfig)?,
        Err(error) => in_cluster().ok_or(Error::Kubeconfig(error))?,
    };
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
