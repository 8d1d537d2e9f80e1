//! Requests over HTTPS.

use super::*;
use crate::admin::server::{Limits, bind, serve};
use crate::admin::settings::Settings;
use crate::admin::testing::{ApiServer, Ca, Https};
use crate::admin::tls::Tls;
use axum::Router;
use axum::routing::get;
use std::net::SocketAddr;
use std::time::Duration;

const MONITORING: &str = "system:serviceaccount:openshift-monitoring:prometheus-k8s";
const HOUR: Duration = Duration::from_hours(1);

fn start(api_server: &ApiServer, ca: &Ca) -> SocketAddr {
    let mut settings = Settings::new("server", None).unwrap();
    settings.set_client_ca(ca.pem());
    let reviews = Arc::new(api_server.reviews());
    let router = Router::new()
        .route("/metrics", get(|| async { "syncs_total 1\n" }))
        .route("/state", get(|| async { "{}" }))
        .route_layer(axum::middleware::from_fn_with_state(reviews, require));
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        Tls(settings.subscribe()),
        router,
        Limits::default(),
    ));
    address
}

#[tokio::test]
async fn a_request_needs_a_valid_token_with_the_right() {
    let (api_server, ca) = (ApiServer::default(), Ca::new());
    let server = start(&api_server, &ca);
    let status = async |client: Https, path| client.status(server, path).await.unwrap();
    assert_eq!(status(Https::default(), "/metrics").await, 401);
    assert_eq!(status(Https::with_token("wrong"), "/metrics").await, 401);
    assert_eq!(status(Https::with_token("other"), "/metrics").await, 403);
    assert_eq!(status(Https::with_token("valid"), "/metrics").await, 200);
    assert_eq!(status(Https::with_token("other"), "/state").await, 403);
    assert_eq!(status(Https::with_token("valid"), "/else").await, 404);
    let (answer, _) = Https::default().get(server, "/metrics").await.unwrap();
    assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
    assert!(
        answer.ends_with("unauthorized\n") && !answer.contains("syncs"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_cluster_monitoring_scrapes_while_the_api_server_is_away() {
    let (api_server, ca) = (ApiServer::default(), Ca::new());
    api_server.set_away(true);
    let server = start(&api_server, &ca);
    let monitoring = || Https::with_certificate(ca.issue(MONITORING, Ok(HOUR)));
    assert_eq!(monitoring().status(server, "/metrics").await.unwrap(), 200);
    assert_eq!(api_server.questions(), 0, "no question was necessary");
    // Everything else needs an answer.
    assert_eq!(monitoring().status(server, "/state").await.unwrap(), 503);
    assert_eq!(
        Https::with_token("valid")
            .status(server, "/metrics")
            .await
            .unwrap(),
        503
    );
}

#[tokio::test]
async fn another_client_certificate_needs_the_right() {
    let (api_server, ca) = (ApiServer::default(), Ca::new());
    let server = start(&api_server, &ca);
    let certificate = |user| Https::with_certificate(ca.issue(user, Ok(HOUR)));
    assert_eq!(certificate("a").status(server, "/metrics").await.unwrap(), 200);
    assert_eq!(certificate("b").status(server, "/metrics").await.unwrap(), 403);
    // The right of a token does not extend that of a certificate.
    let both = Https {
        token: Some("valid".to_owned()),
        ..certificate("b")
    };
    assert_eq!(both.status(server, "/metrics").await.unwrap(), 403);
}
