//! `/livez`, `/readyz` and `/metrics`.

#[cfg_attr(not(test), expect(dead_code, reason = "not wired yet"))]
mod access;
mod authorization;
mod certificate;
mod client_certificate;
mod connections;
mod review_cache;
#[cfg_attr(not(test), expect(dead_code, reason = "not wired yet"))]
mod reviews;
mod server;
#[expect(dead_code, reason = "not wired yet")]
mod settings;
mod single;
#[cfg(test)]
mod testing;
mod tls;
mod tls_profile;

use crate::Health;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use server::{Limits, Plain};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;

pub(crate) use server::bind;

#[derive(Clone)]
struct Shared {
    health: Health,
    registry: Arc<Registry>,
}

/// Serves until the returned future is dropped. An error of a connection does not end it.
pub(crate) async fn serve(
    listener: TcpListener,
    health: Health,
    registry: Registry,
    more: Router,
) -> Infallible {
    let shared = Shared {
        health,
        registry: Arc::new(registry),
    };
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared)
        .merge(more);
    server::serve(listener, Plain, router, Limits::default()).await
}

async fn livez(State(shared): State<Shared>) -> impl IntoResponse {
    probe_response(shared.health.is_alive(), "main loop stalled for 60s")
}

async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    probe_response(shared.health.is_ready(), "not ready")
}

fn probe_response(is_good: bool, failure: &'static str) -> (StatusCode, &'static str) {
    if is_good {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failure)
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_answer() {
        let (health, mut registry) = (Health::new(), Registry::default());
        let counter = Counter::<u64>::default();
        registry.register("syncs", "Number of syncs", counter.clone());
        counter.inc();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, health.clone(), registry, Router::new()));

        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        health.set_ready(true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("syncs_total 1"));
        assert!(get(address, "/else").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }
}
