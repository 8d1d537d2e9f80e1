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
    // Whoever asks also asks again, with a backoff of its own, and knows what else could be done meanwhile. Repeated in here, a
    // throttled request would be up to fifteen, end as a timeout, and hide from its caller how long the server wants it to wait.
    config.default_retry = false;
    Client::try_from(config).map_err(Error::Connect)
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

    /// A server that turns everybody away: its port, and how many it turned away.
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
    async fn a_throttled_request_is_one_request_and_says_so() {
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
        // A client that asks again comes back after a second each time, for most of a minute.
        let answer = tokio::time::timeout(Duration::from_secs(5), client.apiserver_version()).await;
        assert_eq!(
            count.load(Ordering::Relaxed),
            1,
            "asked again behind its caller's back"
        );
        let error = answer.expect("an answer is passed on at once").unwrap_err();
        assert!(is_busy(&error), "{error}");
    }
}
