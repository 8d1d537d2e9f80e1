//! The `network-status` annotation: which addresses a pod has on which network.
//!
//! Pure. Multus writes it, but whoever may patch the pod can write anything there: every malformed form is an error value.

use crate::NetworkRef;
use serde::Deserialize;
use std::net::IpAddr;

/// Most interfaces read from one pod; a hostile annotation cannot make us hold more.
pub const MAX_INTERFACES: usize = 64;
/// Most addresses read from one interface.
pub const MAX_ADDRESSES: usize = 64;

/// Longest name of a network: a namespace, a slash, an object's name. Nothing can refer to a longer one.
const MAX_NAME: usize = 63 + 1 + 253;
/// Longest excerpt of the parser's complaint.
const MAX_COMPLAINT: usize = 200;

/// One interface of a pod, as Multus reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkStatus {
    /// `namespace/name` of the network attachment; the cluster network has another form.
    pub network: String,
    /// Name of the interface in the pod (`net1`); empty when the plugin reports none.
    pub interface: String,
    /// Its addresses, in the plugin's order. None for a layer-2 attachment.
    pub addresses: Vec<IpAddr>,
}

/// Why a `network-status` annotation cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParseNetworkStatus {
    /// Not JSON of the specified shape.
    #[error("annotation k8s.v1.cni.cncf.io/network-status is not the JSON list that Multus writes: {0}")]
    Json(
        /// What the parser says, cut to 200 characters: it quotes the text, which may be all of the annotation.
        String,
    ),
    /// An entry of `ips` that is no address.
    #[error(
        "annotation k8s.v1.cni.cncf.io/network-status: {address:?} of network {network:?} is not an IP address"
    )]
    Address {
        /// The network it is reported for.
        network: String,
        /// The text found, cut to 64 characters.
        address: String,
    },
    /// More entries than any pod has.
    #[error(
        "annotation k8s.v1.cni.cncf.io/network-status: more than {0} interfaces, or addresses on one interface"
    )]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    interface: Option<String>,
    #[serde(default)]
    ips: Option<Vec<String>>,
}

/// Reads the annotation's text.
pub fn parse(text: &str) -> Result<Vec<NetworkStatus>, ParseNetworkStatus> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| complaint(&error))?;
    if entries.len() > MAX_INTERFACES {
        return Err(ParseNetworkStatus::TooMany(MAX_INTERFACES));
    }
    let nameable = entries.into_iter().filter(|entry| entry.name.len() <= MAX_NAME);
    nameable.map(interface).collect()
}

fn complaint(error: &serde_json::Error) -> ParseNetworkStatus {
    ParseNetworkStatus::Json(error.to_string().chars().take(MAX_COMPLAINT).collect())
}

/// The interfaces of `statuses` that are attached to `network`, in the plugin's order.
pub fn on<'a>(
    statuses: &'a [NetworkStatus],
    network: &NetworkRef,
) -> impl Iterator<Item = &'a NetworkStatus> {
    statuses
        .iter()
        .filter(move |status| network.is_named(&status.network))
}

fn interface(entry: Entry) -> Result<NetworkStatus, ParseNetworkStatus> {
    let Entry { name, interface, ips } = entry;
    let ips = ips.unwrap_or_default();
    if ips.len() > MAX_ADDRESSES {
        return Err(ParseNetworkStatus::TooMany(MAX_ADDRESSES));
    }
    let addresses = ips
        .iter()
        .map(|ip| address(&name, ip))
        .collect::<Result<_, _>>()?;
    Ok(NetworkStatus {
        network: name,
        interface: interface
            .filter(|interface| interface.len() <= MAX_NAME)
            .unwrap_or_default(),
        addresses,
    })
}

fn address(network: &str, text: &str) -> Result<IpAddr, ParseNetworkStatus> {
    text.trim().parse().map_err(|_| ParseNetworkStatus::Address {
        network: network.chars().take(64).collect(),
        address: text.chars().take(64).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const TYPICAL: &str = r#"[
        {"name": "ovn-kubernetes", "interface": "eth0", "ips": ["10.128.0.7"], "default": true, "dns": {}},
        {"name": "web/macvlan1", "interface": "net1", "ips": ["10.1.0.2", "fd00:1::2"], "mac": "02:00:00:00:00:02", "dns": {}},
        {"name": "web/layer2", "interface": "net2", "dns": {}}
    ]"#;

    #[test]
    fn reads_what_multus_writes() {
        let statuses = parse(TYPICAL).unwrap();
        let network = NetworkRef::parse("macvlan1", "web").unwrap();
        let attached: Vec<_> = on(&statuses, &network).collect();
        assert_eq!(statuses.len(), 3);
        assert_eq!(attached.len(), 1);
        assert_eq!(attached[0].interface, "net1");
        assert_eq!(
            attached[0].addresses,
            [
                "10.1.0.2".parse::<IpAddr>().unwrap(),
                "fd00:1::2".parse().unwrap()
            ]
        );
    }

    #[test]
    fn an_interface_without_addresses_is_read() {
        assert!(parse(TYPICAL).unwrap()[2].addresses.is_empty());
        assert!(
            parse(r#"[{"name":"a/b","ips":null}]"#).unwrap()[0]
                .addresses
                .is_empty()
        );
    }

    #[rstest]
    #[case::not_json("{{{")]
    #[case::empty("")]
    #[case::object(r#"{"name": "a/b"}"#)]
    #[case::name_is_a_number(r#"[{"name": 7}]"#)]
    #[case::ips_is_a_string(r#"[{"name": "a/b", "ips": "10.1.0.2"}]"#)]
    #[case::bad_address(r#"[{"name": "a/b", "ips": ["10.1.0.300"]}]"#)]
    #[case::prefix(r#"[{"name": "a/b", "ips": ["10.1.0.2/24"]}]"#)]
    #[case::deep(&"[".repeat(100_000))]
    fn a_malformed_annotation_is_an_error(#[case] text: &str) {
        assert!(!parse(text).unwrap_err().to_string().is_empty());
    }

    #[test]
    fn a_hostile_number_of_interfaces_is_refused() {
        let text = format!("[{}]", vec![r#"{"name":"a/b"}"#; MAX_INTERFACES + 1].join(","));
        assert!(matches!(parse(&text), Err(ParseNetworkStatus::TooMany(_))));
    }

    /// Whoever may patch a pod writes up to 256 KiB, and what is kept of them is kept of every pod.
    #[test]
    fn of_a_huge_text_little_is_kept() {
        let huge = "x".repeat(1 << 20);
        for text in [
            format!("[{huge:?}]"),
            format!(r#"[{{"name": "a/b", "ips": ["{huge}"]}}]"#),
            format!(r#"[{{"name": "a/b", "ips": "{huge}"}}]"#),
        ] {
            let complaint = parse(&text).unwrap_err().to_string();
            assert!(complaint.len() < 400, "{}", complaint.len());
        }
        let text = format!(r#"[{{"name": "{huge}"}}, {{"name": "a/b", "interface": "{huge}"}}]"#);
        let statuses = parse(&text).unwrap();
        assert_eq!(statuses.len(), 1, "no Service can name the other");
        assert_eq!(statuses[0].interface, "");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_an_error(text in ".*") {
            let _ = parse(&text);
        }
    }
}
