//! Files as the kubelet writes them, objects as the API server has them.

use super::super::server::{Limits, bind, serve};
use super::super::testing::{Ca, Https};
use super::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::ProtocolVersion;
use serde_json::{Value, json};
use std::net::SocketAddr;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("multus-service-tls-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// PEM of a certificate and its key.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn start(settings: &Settings) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "ok\n" }));
    tokio::spawn(serve(
        listener,
        tls::Tls(settings.subscribe()),
        router,
        Limits::default(),
    ));
    address
}

/// The certificate that a client sees.
async fn served(address: SocketAddr) -> Vec<u8> {
    Https::default().get(address, "/").await.unwrap().1
}

#[tokio::test]
async fn a_replaced_certificate_file_is_served_without_a_restart() {
    let folder = folder("replaced");
    let files = Files {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    let mut settings = Settings::new("server", Some(files.clone())).unwrap();
    let address = start(&settings);
    settings.look_at_certificate();
    let self_made = served(address).await;

    let ((certificate, key), (later, later_key)) = (pair(), pair());
    std::fs::write(&files.certificate, &certificate).unwrap();
    std::fs::write(&files.key, &key).unwrap();
    settings.look_at_certificate();
    let first = served(address).await;
    assert_ne!(first, self_made);

    std::fs::write(&files.certificate, &later).unwrap();
    settings.look_at_certificate();
    assert_eq!(served(address).await, first, "half of a pair is not used");
    std::fs::write(&files.key, &later_key).unwrap();
    settings.look_at_certificate();
    let second = served(address).await;
    assert_ne!(second, first);

    std::fs::remove_dir_all(&folder).unwrap();
    settings.look_at_certificate();
    assert_eq!(served(address).await, second, "a deleted Secret does not end it");
}

#[tokio::test]
async fn a_self_made_certificate_is_rotated_in_time() {
    let mut settings = Settings::new("server", None).unwrap();
    let address = start(&settings);
    let first = served(address).await;
    settings.look_at_certificate();
    assert_eq!(served(address).await, first);
    let past = SystemTime::now() - Duration::from_hours(21 * 24);
    settings.self_made = SelfMade::new("server", past).unwrap();
    settings.look_at_certificate();
    assert_ne!(served(address).await, first);
}

#[tokio::test]
async fn nothing_older_than_tls_1_3_is_served_until_the_profile_is_known() {
    let mut settings = Settings::new("server", None).unwrap();
    let address = start(&settings);
    assert!(Https::tls12().get(address, "/").await.is_err());
    settings.set_profile(TlsProfile::default());
    assert_eq!(Https::tls12().status(address, "/").await.unwrap(), 200);
}

#[tokio::test]
async fn an_authority_that_is_withdrawn_is_not_trusted_any_more() {
    let ca = Ca::new();
    let mut settings = Settings::new("server", None).unwrap();
    let address = start(&settings);
    let foreign = || Https::with_certificate(Ca::new().issue("a", Ok(Duration::from_hours(1))));
    assert_eq!(
        foreign().status(address, "/").await.unwrap(),
        200,
        "it is not asked for"
    );
    settings.set_client_ca(ca.pem());
    assert!(foreign().get(address, "/").await.is_err());
    settings.set_client_ca(String::new());
    assert_eq!(foreign().status(address, "/").await.unwrap(), 200);
}

#[test]
fn authorities_are_read_from_the_config_map() {
    let map: ConfigMap =
        serde_json::from_value(json!({"data": {"client-ca-file": "PEM", "other": "x"}})).unwrap();
    assert_eq!(client_ca(Single::Present(map)), "PEM");
    assert_eq!(client_ca(Single::Present(ConfigMap::default())), "");
    assert_eq!(client_ca(Single::Absent), "");
}

#[test]
fn a_profile_is_read_from_the_api_server_object() {
    let found = |spec: Value| {
        let object = json!({"apiVersion": "config.openshift.io/v1", "kind": "APIServer", "metadata": {"name": "cluster"}, "spec": spec});
        profile(Single::Present(serde_json::from_value(object).unwrap())).minimum
    };
    let modern = json!({"tlsAdherence": "StrictAllComponents", "tlsSecurityProfile": {"type": "Modern"}});
    assert_eq!(found(modern), ProtocolVersion::TLSv1_3);
    assert_eq!(found(json!({})), ProtocolVersion::TLSv1_2);
    assert_eq!(found(Value::Null), ProtocolVersion::TLSv1_2);
    assert_eq!(
        found(json!({"tlsSecurityProfile": "Modern"})),
        ProtocolVersion::TLSv1_3,
        "unreadable"
    );
    assert_eq!(profile(Single::Absent), TlsProfile::default());
}
