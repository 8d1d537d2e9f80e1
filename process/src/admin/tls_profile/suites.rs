//! Cipher suites by the names that OpenShift uses: those of OpenSSL, and of IANA for TLS 1.3.
//!
//! Pure.

use rustls::{CipherSuite, ProtocolVersion};

use ProtocolVersion::{TLSv1_2, TLSv1_3};

/// Version, name of OpenSSL, name of IANA, suite: all that rustls has with the provider `ring`.
type Row = (ProtocolVersion, &'static str, &'static str, CipherSuite);

#[rustfmt::skip]
const SUITES: [Row; 9] = [
    (TLSv1_3, "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    (TLSv1_3, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    (TLSv1_3, "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    (TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    (TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    (TLSv1_2, "ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    (TLSv1_2, "ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    (TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Returns the supported suites of a version, in the order of preference.
pub(super) fn of(version: ProtocolVersion) -> impl Iterator<Item = CipherSuite> {
    let rows = SUITES.iter().filter(move |row| row.0 == version);
    rows.map(|row| row.3)
}

/// Returns the suite of that name, if it is supported.
pub(super) fn by_name(name: &str) -> Option<CipherSuite> {
    let row = SUITES.iter().find(|row| row.1 == name || row.2 == name)?;
    Some(row.3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_the_provider_has() {
        let mut ours: Vec<_> = SUITES.iter().map(|row| u16::from(row.3)).collect();
        let mut theirs: Vec<_> = rustls::crypto::ring::ALL_CIPHER_SUITES
            .iter()
            .map(|suite| u16::from(suite.suite()))
            .collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
    }
}
