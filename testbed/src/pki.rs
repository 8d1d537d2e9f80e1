//! Certificates and kubeconfig files of a throw-away cluster.
//!
//! Pure but for the key generator: values in, PEM and YAML text out. Keys are ECDSA P-256.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

/// A certificate authority that can issue.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key, both PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The PKCS#8 private key.
    pub key: String,
}

/// Usage of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A TLS client.
    Client,
    /// A TLS server.
    Server,
    /// Both, as a kubelet needs it.
    Both,
}

impl Ca {
    /// Makes a new authority called `common_name`.
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// The authority's private key, PEM.
    pub fn key(&self) -> String {
        self.0.key().serialize_pem()
    }

    /// Issues a certificate. Kubernetes reads `common_name` as the user and `group` as the group; `names` are DNS
    /// names and IP addresses a server is reached by.
    pub fn issue(
        &self,
        common_name: &str,
        group: Option<&str>,
        usage: Usage,
        names: &[&str],
    ) -> Result<Identity> {
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = distinguished_name(common_name, group);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = match usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        let key = KeyPair::generate()?;
        Ok(Identity {
            certificate: params.signed_by(&key, &self.0)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The key pair that signs service account tokens: (private, public), PEM.
pub fn service_account_keys() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Credentials of a kubeconfig's user.
pub enum Credentials<'a> {
    /// A client certificate.
    Certificate(&'a Identity),
    /// A bearer token.
    Token(&'a str),
}

/// A self-contained kubeconfig file for `server` ("https://HOST:PORT"), with `ca` (PEM) as the trust root.
pub fn kubeconfig(server: &str, ca: &str, user: &str, credentials: &Credentials<'_>) -> Result<String> {
    let secret = match credentials {
        Credentials::Certificate(identity) => json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }),
        Credentials::Token(token) => json!({ "token": token }),
    };
    Ok(serde_saphyr::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "bed", "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca) } }],
        "users": [{ "name": user, "user": secret }],
        "contexts": [{ "name": "bed", "context": { "cluster": "bed", "user": user } }],
        "current-context": "bed",
    }))?)
}

fn distinguished_name(common_name: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_what_the_client_library_reads() {
        let ca = Ca::new("test").unwrap();
        let admin = ca
            .issue("admin", Some("system:masters"), Usage::Client, &[])
            .unwrap();
        let text = kubeconfig(
            "https://127.0.0.1:1",
            &ca.certificate(),
            "admin",
            &Credentials::Certificate(&admin),
        )
        .unwrap();
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("bed"));
        let cluster = parsed.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:1"));
        assert_eq!(
            cluster.certificate_authority_data.as_deref(),
            Some(STANDARD.encode(ca.certificate()).as_str())
        );
        let user = parsed.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(
            user.client_certificate_data.as_deref(),
            Some(STANDARD.encode(&admin.certificate).as_str())
        );
    }
}
