//! Objects as OpenShift has them.

use super::*;
use rstest::rstest;
use serde_json::{Value, json};

fn profile(adherence: &str, profile: &Value) -> TlsProfile {
    let spec =
        json!({"tlsAdherence": adherence, "tlsSecurityProfile": profile, "audit": {"profile": "Default"}});
    TlsProfile::of(&serde_json::from_value(spec).unwrap())
}

fn custom(minimum: &str, ciphers: &[&str]) -> Value {
    json!({"type": "Custom", "custom": {"ciphers": ciphers, "minTLSVersion": minimum}})
}

const STRICT: &str = "StrictAllComponents";

#[rstest]
#[case::intermediate(STRICT, json!({"type": "Intermediate", "intermediate": {}}), ProtocolVersion::TLSv1_2, 9, "")]
#[case::no_profile(STRICT, Value::Null, ProtocolVersion::TLSv1_2, 9, "")]
#[case::modern(STRICT, json!({"type": "Modern", "modern": {}}), ProtocolVersion::TLSv1_3, 3, "")]
#[case::old(STRICT, json!({"type": "Old", "old": {}}), ProtocolVersion::TLSv1_2, 9, "serves TLS 1.2 and newer")]
#[case::unknown_type(STRICT, json!({"type": "Paranoid"}), ProtocolVersion::TLSv1_3, 3, "\"Paranoid\" is unknown")]
#[case::left_to_components("", json!({"type": "Modern"}), ProtocolVersion::TLSv1_2, 9, "")]
#[case::legacy("LegacyAdheringComponentsOnly", json!({"type": "Modern"}), ProtocolVersion::TLSv1_2, 9, "")]
#[case::unknown_adherence("Later", json!({"type": "Modern"}), ProtocolVersion::TLSv1_3, 3, "\"Later\" is unknown")]
#[case::custom_1_3(STRICT, custom("VersionTLS13", &["ECDHE-RSA-AES128-GCM-SHA256"]), ProtocolVersion::TLSv1_3, 3, "")]
#[case::custom_1_2(STRICT, custom("VersionTLS12", &["ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-SHA"]), ProtocolVersion::TLSv1_2, 4, "")]
#[case::custom_iana(STRICT, custom("VersionTLS12", &["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]), ProtocolVersion::TLSv1_2, 4, "")]
#[case::custom_one_of_1_3(STRICT, custom("VersionTLS12", &["TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"]), ProtocolVersion::TLSv1_2, 2, "")]
#[case::custom_1_0(STRICT, custom("VersionTLS10", &["ECDHE-RSA-AES128-GCM-SHA256"]), ProtocolVersion::TLSv1_2, 4, "VersionTLS10 is not supported")]
#[case::custom_unsupported(STRICT, custom("VersionTLS12", &["AES128-SHA"]), ProtocolVersion::TLSv1_3, 3, "only TLS 1.3 is served")]
#[case::custom_unknown(STRICT, custom("VersionTLS14", &["ECDHE-RSA-AES128-GCM-SHA256"]), ProtocolVersion::TLSv1_3, 3, "\"VersionTLS14\" is unknown")]
#[case::custom_missing(STRICT, json!({"type": "Custom"}), ProtocolVersion::TLSv1_3, 3, "custom is missing")]
fn a_profile_is_served(
    #[case] adherence: &str,
    #[case] configured: Value,
    #[case] minimum: ProtocolVersion,
    #[case] suites: usize,
    #[case] note: &str,
) {
    let profile = profile(adherence, &configured);
    assert_eq!((profile.minimum, profile.suites.len()), (minimum, suites));
    assert_eq!(profile.notes.is_empty(), note.is_empty(), "{:?}", profile.notes);
    assert!(profile.notes.concat().contains(note), "{:?}", profile.notes);
}

#[test]
fn only_listed_suites_of_tls_1_2_are_served() {
    let profile = profile(STRICT, &custom("VersionTLS12", &["ECDHE-RSA-AES128-GCM-SHA256"]));
    let suite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    assert_eq!(profile.suites.last(), Some(&suite));
    assert!(
        !profile
            .suites
            .contains(&CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)
    );
}
