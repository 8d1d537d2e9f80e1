//! Counts what an API server sends, at the socket: TLS and HTTP framing included, for every client alike.

use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Passes connections on until it is dropped.
pub(crate) struct Relay {
    pub(crate) url: http::Uri,
    received: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(server: &str) -> Result<Self> {
        let uri: http::Uri = server.parse()?;
        let port = uri.port_u16().context("the API server's URL has no port")?;
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://127.0.0.1:{}", listener.local_addr()?.port());
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let accepting = tokio::spawn(async move {
            // Dropped with this task.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, to, Arc::clone(&counter)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            url: url.parse()?,
            received,
            accepting,
        })
    }

    /// Bytes that the API server has sent.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, to: SocketAddr, received: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(to).await else {
        return;
    };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let requests = tokio::io::copy(&mut from_client, &mut to_server);
    let responses = async {
        let mut piece = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            received.fetch_add(length as u64, Ordering::Relaxed);
            if to_client.write_all(&piece[..length]).await.is_err() {
                break;
            }
        }
    };
    // Either end closes both.
    tokio::select! {
        _ = requests => {}
        () = responses => {}
    }
}
