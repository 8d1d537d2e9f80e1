//! Certificates of the server: parsed from the files of a Secret, or self-made.
//!
//! Pure but for the key generator.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Validity of a self-made certificate.
const VALIDITY: Duration = Duration::from_hours(30 * 24);

/// Age at which a self-made certificate is replaced.
const ROTATION: Duration = Duration::from_hours(20 * 24);

/// How much earlier than now a self-made certificate begins: clocks of clients differ.
const SKEW: Duration = Duration::from_hours(1);

/// Error of a certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not PEM, or has no certificate or no key.
    #[error("failed to parse the {what}")]
    Pem {
        /// Certificate or private key.
        what: &'static str,
        /// Where it is not PEM.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("failed to find a certificate")]
    Empty,
    /// The kind of key is not supported, or the key is not that of the certificate.
    #[error("failed to use the private key with the certificate")]
    Key(#[source] rustls::Error),
    /// The key generator failed.
    #[error("failed to make a certificate")]
    Made(#[from] rcgen::Error),
}

/// Returns the certificate chain with its key. Fails while a Secret is written: one of two files is of the earlier pair.
pub(crate) fn parse(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem {
            what: "certificate",
            source,
        })?;
    if chain.is_empty() {
        return Err(Error::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| Error::Pem {
        what: "private key",
        source,
    })?;
    certified(chain, &key)
}

/// A self-made certificate.
#[derive(Clone, Debug)]
pub(crate) struct SelfMade {
    /// Certificate and key.
    pub(crate) certified: Arc<CertifiedKey>,
    made: SystemTime,
}

impl SelfMade {
    /// Makes one for the DNS name `name`, valid for 30 days.
    pub(crate) fn new(name: &str, at: SystemTime) -> Result<Self, Error> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = (at - SKEW).into();
        params.not_after = (at + VALIDITY).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let chain = vec![params.self_signed(&key)?.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = certified(chain, &key)?;
        Ok(Self { certified, made: at })
    }

    /// Whether it is time for another one. A clock that was set back does not end it.
    pub(crate) fn is_due(&self, at: SystemTime) -> bool {
        at.duration_since(self.made).is_ok_and(|age| age >= ROTATION)
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> Result<Arc<CertifiedKey>, Error> {
    let certified = CertifiedKey::new(chain, any_supported_type(key).map_err(Error::Key)?);
    certified.keys_match().map_err(Error::Key)?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        assert!(parse(certificate.as_bytes(), key.as_bytes()).is_ok());
        let mixed = parse(certificate.as_bytes(), other.as_bytes());
        assert!(matches!(mixed, Err(Error::Key(_))), "{mixed:?}");
        assert!(matches!(parse(b"", key.as_bytes()), Err(Error::Empty)));
        assert!(matches!(
            parse(certificate.as_bytes(), b""),
            Err(Error::Pem {
                what: "private key",
                ..
            })
        ));
    }

    #[test]
    fn a_self_made_certificate_is_replaced_before_it_expires() {
        let now = SystemTime::now();
        let made = SelfMade::new("proxy", now).unwrap();
        let (_, read) = X509Certificate::from_der(&made.certified.cert[0]).unwrap();
        let expires = Duration::from_secs(read.validity().not_after.timestamp().try_into().unwrap());
        let expires = SystemTime::UNIX_EPOCH + expires;
        assert!(!made.is_due(now));
        assert!(!made.is_due(now - VALIDITY), "the clock was set back");
        assert!(made.is_due(expires - Duration::from_hours(9 * 24)));
    }
}
