//! The Kubernetes client of a process.

use crate::args::ProcessArgs;
use crate::metrics::CountRequests;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

/// Error of [`connect`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of `--kubeconfig` or `$KUBECONFIG` is not a valid kubeconfig.
    #[error("failed to load kubeconfig {path:?}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Its error.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// There is no kubeconfig and no service account of a pod.
    #[error("failed to load the in-cluster configuration; set --kubeconfig or $KUBECONFIG outside a pod")]
    InCluster(#[source] kube::config::InClusterError),
    /// The configuration has certificates or proxies that cannot be set up.
    #[error("failed to set up the connection to the API server")]
    Connect(#[source] kube::Error),
}

/// Loads the configuration and creates the client; does not contact the API server yet.
pub async fn connect(args: &ProcessArgs) -> Result<Client, Error> {
    // The only error is that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match &args.kubeconfig {
        Some(path) => from_file(path).await.map_err(|source| Error::Kubeconfig {
            path: path.clone(),
            source,
        })?,
        None => Config::incluster().map_err(Error::InCluster)?,
    };
    // The API server answers a watch at once and then keeps it open; a peer that vanished must not hang the process.
    config.connect_timeout = Some(Duration::from_secs(10));
    // Longer than the 290 s a watch is asked to last, so that a quiet watch is not taken for a dead one.
    config.read_timeout = Some(Duration::from_secs(295));
    config.write_timeout = Some(Duration::from_secs(30));
    // Every caller retries with a backoff of its own and can do other work meanwhile. Retries in here would turn a throttled request
    // into up to fifteen, end as a timeout, and hide Retry-After from the caller.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(Error::Connect)?;
    Ok(builder.with_layer(&CountRequests).build())
}

async fn from_file(path: &PathBuf) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

/// Whether the API server is busy or not ready yet: the same request may succeed in a moment.
pub(crate) fn is_busy(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 429 | 503 | 504))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const BUSY: &[u8] =
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

    /// A server that rejects every request with 429: its port and the number of requests.
    fn busy_server() -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                seen.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(BUSY);
            }
        });
        (port, count)
    }

    #[tokio::test]
    async fn a_throttled_request_is_not_retried() {
        let (port, count) = busy_server();
        let file = std::env::temp_dir().join(format!("multus-service-busy-{}-{port}", std::process::id()));
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        );
        std::fs::write(&file, config).unwrap();
        let args = ProcessArgs {
            kubeconfig: Some(file.clone()),
            ..ProcessArgs::default()
        };
        let client = connect(&args).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        // A client with retries sends the request again every second, for most of a minute.
        let answer = tokio::time::timeout(Duration::from_secs(5), client.apiserver_version()).await;
        assert_eq!(count.load(Ordering::Relaxed), 1, "retried without its caller");
        let error = answer.expect("an answer is passed on at once").unwrap_err();
        assert!(is_busy(&error), "{error}");
    }
}
