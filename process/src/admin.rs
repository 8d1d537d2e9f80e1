//! `/livez` and `/readyz` over HTTP; `/metrics` over HTTPS for authorized clients.

mod access;
mod authorization;
mod certificate;
mod client_certificate;
mod connections;
mod review_cache;
mod reviews;
mod server;
mod settings;
mod single;
#[cfg(test)]
mod testing;
mod tls;
mod tls_profile;

use crate::exposition::Format;
use crate::{Health, ProcessArgs};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use kube::Client;
use prometheus_client::registry::Registry;
use review_cache::CacheLimits;
use reviews::Reviews;
use server::{Limits, Plain};
use settings::{Files, Settings};
use std::convert::Infallible;
use std::sync::Arc;
use tls::Tls;
use tokio::net::TcpListener;

pub(crate) use server::bind;
pub(crate) use settings::Error as SettingsError;

/// Open connections for metrics. Each has buffers of TLS.
const SCRAPES: usize = 64;

/// Serves `/livez` and `/readyz` to everybody, until the returned future is dropped. An error of a connection does not end it.
pub(crate) async fn serve_probes(listener: TcpListener, health: Health) -> Infallible {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health);
    server::serve(listener, Plain, router, Limits::default()).await
}

/// TLS settings of the metrics, from the command line.
pub(crate) fn settings(name: &'static str, args: &ProcessArgs) -> Result<Settings, SettingsError> {
    let files = args.tls_cert_file.clone().zip(args.tls_private_key_file.clone());
    let files = files.map(|(certificate, key)| Files { certificate, key });
    Settings::new(name, files)
}

/// Serves `/metrics` and `more` over HTTPS to authorized clients, until the returned future is dropped.
pub(crate) async fn serve_metrics(
    listener: TcpListener,
    settings: Settings,
    client: Client,
    registry: Registry,
    more: Router,
) -> Infallible {
    let reviews = Arc::new(Reviews::new(client.clone(), CacheLimits::default()));
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::new(registry))
        .merge(more)
        .route_layer(from_fn_with_state(reviews, access::require));
    let limits = Limits {
        connections: SCRAPES,
        ..Limits::default()
    };
    let tls = Tls(settings.subscribe());
    tokio::select! {
        never = server::serve(listener, tls, router, limits) => never,
        never = settings.follow(client) => never,
    }
}

async fn livez(State(health): State<Health>) -> impl IntoResponse {
    probe_response(health.is_alive(), "main loop stalled for 60s")
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    probe_response(health.is_ready(), "not ready")
}

fn probe_response(is_good: bool, failure: &'static str) -> (StatusCode, &'static str) {
    if is_good {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failure)
    }
}

async fn metrics(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> impl IntoResponse {
    let format = accepted(&headers);
    match format.encode(&registry) {
        Ok(page) => {
            let kind = [(header::CONTENT_TYPE, format.content_type())];
            (StatusCode::OK, kind, page)
        }
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

/// Returns the format that the client prefers. A header may be given in several lines.
fn accepted(headers: &HeaderMap) -> Format {
    let lines = headers.get_all(header::ACCEPT).iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    Format::accepted(&lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::testing::{ApiServer, Https};
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
    async fn probes_answer_and_the_port_serves_nothing_else() {
        let health = Health::new();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_probes(listener, health.clone()));

        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        health.set_ready(true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        for path in ["/metrics", "/state", "/"] {
            assert!(get(address, path).await.starts_with("HTTP/1.1 404"), "{path}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn metrics_and_further_routes_answer_authorized_clients() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("syncs", "Number of syncs", counter.clone());
        counter.inc();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let settings = settings("server", &ProcessArgs::default()).unwrap();
        let more = Router::new().route("/state", axum::routing::get(|| async { "state" }));
        let client = ApiServer::default().client();
        let server = tokio::spawn(serve_metrics(listener, settings, client, registry, more));

        let (page, _) = Https::with_token("valid").get(address, "/metrics").await.unwrap();
        assert!(
            page.contains("# TYPE syncs_total counter\nsyncs_total 1")
                && page.contains("text/plain; version=0.0.4"),
            "{page}"
        );
        let prometheus = Https {
            accept: "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            ..Https::with_token("valid")
        };
        let (page, _) = prometheus.get(address, "/metrics").await.unwrap();
        assert!(
            page.contains("# TYPE syncs counter\nsyncs_total 1")
                && page.contains("application/openmetrics-text"),
            "{page}"
        );
        let (page, _) = Https::with_token("valid").get(address, "/state").await.unwrap();
        assert!(page.ends_with("state"), "{page}");
        assert_eq!(Https::default().status(address, "/metrics").await.unwrap(), 401);
        assert_eq!(Https::default().status(address, "/state").await.unwrap(), 401);
        server.abort();
    }
}
