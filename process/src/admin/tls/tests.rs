//! Real handshakes on real sockets.

use super::super::certificate::SelfMade;
use super::super::client_certificate;
use super::super::server::{ClientCertificate, Limits, bind, serve};
use super::super::testing::{Ca, Https, TLS12, TLS13};
use super::*;
use axum::routing::get;
use axum::{Extension, Router};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HOUR: Duration = Duration::from_hours(1);

struct Server {
    address: SocketAddr,
    settings: watch::Sender<Arc<ServerConfig>>,
    certified: Arc<CertifiedKey>,
}

impl Server {
    fn start(client_ca: &str) -> Self {
        let certified = SelfMade::new("server", SystemTime::now()).unwrap().certified;
        let config = server_config(&TlsProfile::default(), &certified, client_ca).unwrap();
        let (settings, receiver) = watch::channel(config);
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/user", get(user));
        tokio::spawn(serve(listener, Tls(receiver), router, Limits::default()));
        Self {
            address,
            settings,
            certified,
        }
    }

    fn change(&self, profile: &TlsProfile) {
        let config = server_config(profile, &self.certified, "").unwrap();
        self.settings.send_replace(config);
    }
}

async fn user(certificate: Option<Extension<ClientCertificate>>) -> String {
    let user = certificate.and_then(|Extension(certificate)| client_certificate::user(&certificate.0));
    user.map_or_else(|| "no user".to_owned(), |user| format!("user {}", user.name))
}

#[tokio::test]
async fn a_client_certificate_of_the_authority_names_the_user() {
    let ca = Ca::new();
    let server = Server::start(&ca.pem());
    for versions in [&TLS12[..], &TLS13] {
        let client = Https {
            versions,
            ..Https::with_certificate(ca.issue("prometheus", Ok(HOUR)))
        };
        let (answer, _) = client.get(server.address, "/user").await.unwrap();
        assert!(answer.ends_with("user prometheus"), "{answer}");
    }
    let (answer, _) = Https::default().get(server.address, "/user").await.unwrap();
    assert!(answer.ends_with("no user"), "{answer}");
}

#[tokio::test]
async fn expired_and_foreign_client_certificates_are_rejected() {
    let ca = Ca::new();
    let server = Server::start(&ca.pem());
    let expired = Https::with_certificate(ca.issue("prometheus", Err(HOUR)));
    assert!(expired.get(server.address, "/user").await.is_err());
    let foreign = Https::with_certificate(Ca::new().issue("prometheus", Ok(HOUR)));
    assert!(foreign.get(server.address, "/user").await.is_err());
}

#[tokio::test]
async fn an_unusable_authority_does_not_invalidate_the_others() {
    let ca = Ca::new();
    let broken = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";
    let server = Server::start(&format!("{broken}{}", ca.pem()));
    let client = Https::with_certificate(ca.issue("prometheus", Ok(HOUR)));
    assert_eq!(client.status(server.address, "/user").await.unwrap(), 200);
}

#[tokio::test]
async fn a_changed_profile_rejects_the_old_protocol_without_a_restart() {
    let server = Server::start("");
    assert_eq!(Https::tls12().status(server.address, "/user").await.unwrap(), 200);
    server.change(&TlsProfile::strictest());
    assert!(Https::tls12().get(server.address, "/user").await.is_err());
    assert_eq!(
        Https::default().status(server.address, "/user").await.unwrap(),
        200
    );
}

#[tokio::test]
async fn only_suites_of_the_profile_are_negotiated() {
    let server = Server::start("");
    // The certificate is ECDSA: with suites for RSA alone there is no TLS 1.2.
    let rsa = TlsProfile::default()
        .suites
        .into_iter()
        .filter(|suite| !format!("{suite:?}").contains("ECDSA"));
    server.change(&TlsProfile {
        suites: rsa.collect(),
        ..TlsProfile::default()
    });
    assert!(Https::tls12().get(server.address, "/user").await.is_err());
    assert_eq!(
        Https::default().status(server.address, "/user").await.unwrap(),
        200
    );
}

#[tokio::test]
async fn plain_http_is_not_answered() {
    let server = Server::start("");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /user HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP/1.1"),
        "{answer:?}"
    );
}
