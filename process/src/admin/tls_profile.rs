//! The TLS profile of an OpenShift cluster as protocol versions and cipher suites of rustls.
//!
//! Pure. Source: `apiservers.config.openshift.io` "cluster", fields `spec.tlsAdherence` and `spec.tlsSecurityProfile`. A value that this release
//! does not know is taken for the strictest one.

mod suites;

use rustls::{CipherSuite, ProtocolVersion};
use serde::Deserialize;

/// The part of `spec` of an `APIServer` that is about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TlsSpec {
    /// Whether all components follow the profile.
    pub(crate) tls_adherence: Option<String>,
    /// The profile of the cluster.
    pub(crate) tls_security_profile: Option<SecurityProfile>,
}

/// `spec.tlsSecurityProfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SecurityProfile {
    /// `Old`, `Intermediate`, `Modern` or `Custom`.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// Values of the type `Custom`.
    pub(crate) custom: Option<CustomProfile>,
}

/// `spec.tlsSecurityProfile.custom`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CustomProfile {
    /// Names of OpenSSL or of IANA.
    pub(crate) ciphers: Vec<String>,
    /// `VersionTLS10` to `VersionTLS13`.
    #[serde(rename = "minTLSVersion")]
    pub(crate) min_tls_version: Option<String>,
}

/// What a server offers. There is at least one suite of TLS 1.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsProfile {
    /// TLS 1.2 or 1.3.
    pub(crate) minimum: ProtocolVersion,
    /// Suites of all offered versions.
    pub(crate) suites: Vec<CipherSuite>,
    /// Differences from the configured profile, as sentences for a log line.
    pub(crate) notes: Vec<String>,
}

impl Default for TlsProfile {
    /// `Intermediate`, the default of OpenShift.
    fn default() -> Self {
        Self::from_version(ProtocolVersion::TLSv1_2)
    }
}

impl TlsProfile {
    /// Returns the profile to serve with. The own default (`Intermediate`) holds while the cluster leaves the profile to components.
    pub(crate) fn of(spec: &TlsSpec) -> Self {
        match spec.tls_adherence.as_deref() {
            None | Some("" | "LegacyAdheringComponentsOnly") => Self::default(),
            Some("StrictAllComponents") => Self::configured(spec.tls_security_profile.as_ref()),
            Some(unknown) => Self::configured(spec.tls_security_profile.as_ref()).with_note(format!(
                "spec.tlsAdherence {unknown:?} is unknown: the profile is followed as with StrictAllComponents."
            )),
        }
    }

    /// TLS 1.3 only: while nothing is known.
    pub(crate) fn strictest() -> Self {
        Self::from_version(ProtocolVersion::TLSv1_3)
    }

    /// TLS 1.3 only: the object exists and does not have the known form.
    pub(crate) fn unreadable(error: &str) -> Self {
        Self::strict(&format!(
            "The APIServer cannot be read: only TLS 1.3 is served ({error})."
        ))
    }

    fn configured(profile: Option<&SecurityProfile>) -> Self {
        let Some(profile) = profile else {
            return Self::default();
        };
        match profile.kind.as_deref() {
            None | Some("" | "Intermediate") => Self::default(),
            Some("Modern") => Self::from_version(ProtocolVersion::TLSv1_3),
            Some("Old") => Self::default().with_note(
                "Profile Old allows TLS 1.0 and 1.1, which this program does not have: it serves TLS 1.2 and newer.".to_owned(),
            ),
            Some("Custom") => profile.custom.as_ref().map_or_else(
                || Self::strict("spec.tlsSecurityProfile.custom is missing: only TLS 1.3 is served."),
                Self::custom,
            ),
            Some(unknown) => Self::strict(&format!(
                "spec.tlsSecurityProfile.type {unknown:?} is unknown: only TLS 1.3 is served."
            )),
        }
    }

    fn custom(custom: &CustomProfile) -> Self {
        let minimum = custom.min_tls_version.as_deref().unwrap_or_default();
        match minimum {
            // The list of ciphers has no effect then.
            "VersionTLS13" => Self::from_version(ProtocolVersion::TLSv1_3),
            "VersionTLS12" => Self::with_ciphers(&custom.ciphers),
            "VersionTLS10" | "VersionTLS11" => Self::with_ciphers(&custom.ciphers).with_note(format!(
                "minTLSVersion {minimum} is not supported: this program serves TLS 1.2 and newer."
            )),
            unknown => Self::strict(&format!(
                "minTLSVersion {unknown:?} is unknown: only TLS 1.3 is served."
            )),
        }
    }

    /// TLS 1.2 with the listed suites, and TLS 1.3 with the listed ones, or with all where none of TLS 1.3 is listed, as in Go.
    fn with_ciphers(ciphers: &[String]) -> Self {
        let listed: Vec<CipherSuite> = ciphers.iter().filter_map(|name| suites::by_name(name)).collect();
        let mut tls13: Vec<_> = suites::of(ProtocolVersion::TLSv1_3).collect();
        if tls13.iter().any(|suite| listed.contains(suite)) {
            tls13.retain(|suite| listed.contains(suite));
        }
        let tls12: Vec<_> = suites::of(ProtocolVersion::TLSv1_2)
            .filter(|suite| listed.contains(suite))
            .collect();
        if tls12.is_empty() {
            let note = "No cipher of the profile for TLS 1.2 is supported: only TLS 1.3 is served.";
            return Self {
                minimum: ProtocolVersion::TLSv1_3,
                suites: tls13,
                notes: vec![note.to_owned()],
            };
        }
        Self {
            minimum: ProtocolVersion::TLSv1_2,
            suites: [tls13, tls12].concat(),
            notes: Vec::new(),
        }
    }

    fn from_version(minimum: ProtocolVersion) -> Self {
        let mut suites: Vec<_> = suites::of(ProtocolVersion::TLSv1_3).collect();
        if minimum == ProtocolVersion::TLSv1_2 {
            suites.extend(suites::of(ProtocolVersion::TLSv1_2));
        }
        Self {
            minimum,
            suites,
            notes: Vec::new(),
        }
    }

    fn strict(note: &str) -> Self {
        Self::from_version(ProtocolVersion::TLSv1_3).with_note(note.to_owned())
    }

    fn with_note(mut self, note: String) -> Self {
        self.notes.insert(0, note);
        self
    }
}

#[cfg(test)]
mod tests;
