//! Certificates, HTTPS clients and an API server of the tests.

mod api_server;

pub(super) use api_server::ApiServer;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion, version,
};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(super) static TLS12: [&SupportedProtocolVersion; 1] = [&version::TLS12];
pub(super) static TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// An authority.
pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "clients");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key (DER) of `user`, which expires `validity` from now, or expired that long ago.
    pub(super) fn issue(&self, user: &str, validity: Result<Duration, Duration>) -> (Vec<u8>, Vec<u8>) {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (now - Duration::from_hours(48)).into();
        params.not_after = validity.map_or_else(|ago| now - ago, |left| now + left).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().to_vec(), key.serialize_der())
    }
}

/// A client with one protocol version, and with or without a certificate.
pub(super) struct Https {
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) token: Option<String>,
    /// Header `Accept`.
    pub(super) accept: &'static str,
}

impl Default for Https {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS,
            certificate: None,
            token: None,
            accept: "*/*",
        }
    }
}

impl Https {
    pub(super) fn with_certificate(certificate: (Vec<u8>, Vec<u8>)) -> Self {
        Self {
            certificate: Some(certificate),
            ..Self::default()
        }
    }

    pub(super) fn with_token(token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn tls12() -> Self {
        Self {
            versions: &TLS12,
            ..Self::default()
        }
    }

    fn config(&self) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
        match self.certificate.clone() {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from(certificate)];
                let key = PrivatePkcs8KeyDer::from(key).into();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        }
    }

    /// The answer, and the certificate of the server.
    pub(super) async fn get(&self, server: SocketAddr, path: &str) -> io::Result<(String, Vec<u8>)> {
        let connector = TlsConnector::from(Arc::new(self.config()));
        let stream = TcpStream::connect(server).await?;
        let name = ServerName::try_from("server").unwrap();
        let mut stream = connector.connect(name, stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let token = self.token.as_ref();
        let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let accept = self.accept;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n{token}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        // A rejected certificate of TLS 1.3 is known only when something is read. A server may close without close_notify after the answer.
        if answer.is_empty() {
            read?;
        }
        Ok((String::from_utf8_lossy(&answer).into_owned(), certificate))
    }

    /// The status of the answer.
    pub(super) async fn status(&self, server: SocketAddr, path: &str) -> io::Result<u16> {
        let (answer, _) = self.get(server, path).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| io::Error::other(answer))
    }
}

/// Accepts every server: these tests are about clients.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
