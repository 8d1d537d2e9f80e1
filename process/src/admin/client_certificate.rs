//! The user of a client certificate.
//!
//! Pure. The handshake has verified the certificate.

use super::authorization::User;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Returns the user as Kubernetes reads it: the common name, with the organizations as groups. None where there is no common name.
pub(crate) fn user(certificate: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization();
    (!name.is_empty()).then(|| User {
        name: name.to_owned(),
        groups: groups
            .filter_map(|group| Some(group.as_str().ok()?.to_owned()))
            .collect(),
        ..User::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(subject: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate.der().to_vec()
    }

    #[test]
    fn the_user_is_the_common_name_and_groups_are_organizations() {
        let subject = [
            (DnType::CommonName, "system:serviceaccount:a:b"),
            (DnType::OrganizationName, "ops"),
        ];
        let expected = User {
            name: "system:serviceaccount:a:b".to_owned(),
            groups: vec!["ops".to_owned()],
            ..User::default()
        };
        assert_eq!(user(&certificate(&subject)), Some(expected));
    }

    #[test]
    fn a_certificate_without_a_common_name_is_of_no_user() {
        assert_eq!(user(&certificate(&[(DnType::OrganizationName, "ops")])), None);
        assert_eq!(user(&certificate(&[(DnType::CommonName, "")])), None);
        assert_eq!(user(b"not a certificate"), None);
    }
}
