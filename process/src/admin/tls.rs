//! HTTP on TLS: the settings may change with every connection.
//!
//! Pure but for the handshake.

use super::server::Transport;
use super::tls_profile::TlsProfile;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Error of the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// rustls rejects versions and suites.
    #[error("failed to use the TLS profile")]
    Profile(#[source] rustls::Error),
    /// The authorities of clients cannot be used.
    #[error("failed to use the authorities of client certificates")]
    Clients(#[source] rustls::server::VerifierBuilderError),
}

/// Settings of a server. `client_ca` is PEM: where it has no certificate, client certificates are not asked for.
pub(crate) fn server_config(
    profile: &TlsProfile,
    certified: &Arc<CertifiedKey>,
    client_ca: &str,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(provider(profile));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(profile))
        .map_err(Error::Profile)?;
    let roots = roots(client_ca);
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(Error::Clients)?;
        builder.with_client_cert_verifier(clients)
    };
    let resolver = SingleCertAndKey::from(Arc::clone(certified));
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    // A resumed session would outlive a certificate, an authority or a profile, and sessions take memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn provider(profile: &TlsProfile) -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider
        .cipher_suites
        .retain(|suite| profile.suites.contains(&suite.suite()));
    provider
}

static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
static SINCE_TLS12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

fn versions(profile: &TlsProfile) -> &'static [&'static SupportedProtocolVersion] {
    if profile.minimum == ProtocolVersion::TLSv1_3 {
        &ONLY_TLS13
    } else {
        &SINCE_TLS12
    }
}

/// A certificate that cannot be parsed is skipped: others of the bundle stay valid.
fn roots(client_ca: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(client_ca.as_bytes());
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    roots
}

/// Takes the settings of each connection from a channel.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) watch::Receiver<Arc<ServerConfig>>);

impl Transport for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn accept(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        let config = Arc::clone(&self.0.borrow());
        TlsAcceptor::from(config).accept(stream).await
    }

    fn client_certificate(stream: &Self::Stream) -> Option<Vec<u8>> {
        let chain = stream.get_ref().1.peer_certificates()?;
        Some(chain.first()?.to_vec())
    }
}

#[cfg(test)]
mod tests;
