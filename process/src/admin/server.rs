//! An HTTP/1.1 server for untrusted clients: memory, descriptors and time per connection are bounded, and a new connection is always
//! accepted.

use super::connections::Connections;
use crate::error_chain;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Request line and headers of one request. A longer one is answered with 431.
const HEADER_BYTES: usize = 16 * 1024;

/// Receive buffer of a connection. Set explicitly, because otherwise the kernel lets it grow to megabytes.
const RECEIVE_BUFFER: u32 = 32 * 1024;

/// Connections that the kernel completes and holds until they are accepted.
const BACKLOG: u32 = 1024;

/// Closed connections whose tasks the runtime has yet to drop.
const CLOSING: usize = 64;

/// EAFNOSUPPORT: booted with `ipv6.disable=1`.
const NO_FAMILY: i32 = 97;

/// Pause after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of open connections. A further one closes another: see [`Connections`].
    pub(crate) connections: usize,
    /// From the connection to the end of the request's headers.
    pub(crate) header: Duration,
    /// From the connection to the last byte of the answer.
    pub(crate) connection: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header: Duration::from_secs(5),
            connection: Duration::from_secs(15),
        }
    }
}

/// Layer between TCP and HTTP: none, or TLS.
pub(crate) trait Transport: Clone + Send + Sync + 'static {
    /// Stream that carries HTTP.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Prepares an accepted connection. It counts towards [`Limits::connection`].
    fn accept(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Returns the certificate (DER) by which the client authenticated itself.
    fn client_certificate(_stream: &Self::Stream) -> Option<Vec<u8>> {
        None
    }
}

/// Extension of each request of a client with a certificate, which the transport has verified: the certificate (DER).
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate(pub(crate) Arc<[u8]>);

/// HTTP on TCP itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

impl Transport for Plain {
    type Stream = TcpStream;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// Binds before the work starts, so that a port in use fails the start.
///
/// `[::]` takes IPv4 connections, too (`net.ipv6.bindv6only` is 0 in every new network namespace), and falls back to `0.0.0.0` where the
/// kernel has no IPv6.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match listen(address) {
        Err(error)
            if error.raw_os_error() == Some(NO_FAMILY)
                && address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) =>
        {
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        listener => listener,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the returned future is dropped, which closes all connections.
pub(crate) async fn serve<T: Transport>(
    listener: TcpListener,
    transport: T,
    router: Router,
    limits: Limits,
) -> Infallible {
    let mut connections = Connections::<AbortHandle>::default();
    let mut tasks = JoinSet::new();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            // Ended tasks first: they make room.
            biased;
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                connections.remove(|connection| connection.id() == id);
                continue;
            }
            accepted = listener.accept(), if tasks.len() < limits.connections + CLOSING => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                is_failing = false;
                make_room(&mut connections, limits.connections);
                let task = tasks.spawn(connection(stream, transport.clone(), router.clone(), limits));
                connections.insert(peer.ip(), task);
            }
            // The peer closed the connection after the handshake.
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                if !is_failing {
                    warn!(error = %error_chain(&error), connections = connections.len(), "Failed to accept HTTP connections, closing half of the open ones");
                }
                is_failing = true;
                // Most likely EMFILE, ENFILE or ENOMEM.
                let half = connections.len() / 2;
                make_room(&mut connections, half);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes connections until fewer than `limit` are open.
fn make_room(connections: &mut Connections<AbortHandle>, limit: usize) {
    while connections.len() >= limit {
        let Some(victim) = connections.take_victim() else {
            return;
        };
        victim.abort();
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Serves one request. An error affects only this client.
async fn connection<T: Transport>(stream: TcpStream, transport: T, router: Router, limits: Limits) {
    let served = async {
        let Ok(stream) = transport.accept(stream).await else {
            return;
        };
        let router = match T::client_certificate(&stream) {
            Some(certificate) => router.layer(Extension(ClientCertificate(certificate.into()))),
            None => router,
        };
        let answered = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header)
            .max_buf_size(HEADER_BYTES)
            // A scrape or probe connects again; an idle connection would only take the place of another. No request body is read then.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let _ = answered.await;
    };
    let _ = timeout(limits.connection, served).await;
}

#[cfg(test)]
mod tests;
