//! The `network-status` annotation: a pod's addresses per network.
//!
//! Pure. Multus writes it, but any client that may patch the pod can write anything there: every malformed form is an error value.

use crate::NetworkRef;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

/// Maximum number of interfaces per pod; bounds the memory that a hostile annotation can take.
pub const MAX_INTERFACES: usize = 64;
/// Maximum number of addresses per interface.
pub const MAX_ADDRESSES: usize = 64;

/// Maximum length of a network name: a namespace, a slash, an object's name. Nothing can refer to a longer one.
const MAX_NAME: usize = 63 + 1 + 253;
/// Maximum length of an excerpt of a parser error.
const MAX_PARSER_ERROR: usize = 200;
/// Maximum length of an excerpt of a name or an address.
const MAX_EXCERPT: usize = 64;
/// Maximum number of faults kept per annotation.
const MAX_FAULTS: usize = 8;

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

/// A parsed annotation and its faults. A malformed entry or address affects only itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The interfaces. A malformed entry that names its network is included without addresses.
    pub statuses: Vec<NetworkStatus>,
    /// Malformed parts, in order; at most [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
}

/// A malformed part of a `network-status` annotation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    /// An entry that is not an object of the specified shape.
    #[error(
        "annotation k8s.v1.cni.cncf.io/network-status: entry {number}{} cannot be read: {parser_error}",
        of_network(network)
    )]
    Entry {
        /// Position of the entry, from 1.
        number: usize,
        /// Network of the entry, truncated to 64 characters; empty when it names none.
        network: String,
        /// Error of the parser, truncated to 200 characters.
        parser_error: String,
    },
    /// An entry of `ips` that is not an address.
    #[error(
        "annotation k8s.v1.cni.cncf.io/network-status: {address:?} of network {network:?} is not an IP address"
    )]
    Address {
        /// Network of the address, truncated to 64 characters.
        network: String,
        /// Text of the address, truncated to 64 characters.
        address: String,
    },
}

impl Fault {
    /// Returns the truncated network of the fault; empty when it is not known.
    pub fn network(&self) -> &str {
        match self {
            Self::Entry { network, .. } | Self::Address { network, .. } => network,
        }
    }

    /// Whether the fault affects `network`, or may: a malformed entry may not even name its network.
    pub fn may_affect(&self, network: &NetworkRef) -> bool {
        self.network().is_empty() || self.network() == truncate(&network.to_string())
    }
}

fn of_network(network: &str) -> String {
    if network.is_empty() {
        String::new()
    } else {
        format!(" of network {network:?}")
    }
}

/// Error of a `network-status` annotation that cannot be parsed at all.
#[derive(Debug, thiserror::Error)]
pub enum ParseNetworkStatus {
    /// Not a JSON list.
    #[error("annotation k8s.v1.cni.cncf.io/network-status is not the JSON list that Multus writes: {0}")]
    Json(
        /// Error of the parser, truncated to 200 characters: it quotes the text, which may be all of the annotation.
        String,
    ),
    /// More entries than any pod has.
    #[error(
        "annotation k8s.v1.cni.cncf.io/network-status: more than {0} interfaces, or addresses on one interface"
    )]
    TooMany(usize),
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    interface: Option<String>,
    #[serde(default)]
    ips: Option<Vec<Value>>,
}

/// Parses the text of the annotation.
pub fn parse(text: &str) -> Result<Parsed, ParseNetworkStatus> {
    let entries: Vec<Value> =
        serde_json::from_str(text).map_err(|error| ParseNetworkStatus::Json(parser_error(&error)))?;
    if entries.len() > MAX_INTERFACES {
        return Err(ParseNetworkStatus::TooMany(MAX_INTERFACES));
    }
    let mut parsed = Parsed::default();
    for (number, entry) in (1..).zip(entries) {
        parsed.add(number, entry)?;
    }
    parsed.faults.truncate(MAX_FAULTS);
    Ok(parsed)
}

impl Parsed {
    fn add(&mut self, number: usize, entry: Value) -> Result<(), ParseNetworkStatus> {
        let name = entry.get("name").and_then(Value::as_str).map(str::to_owned);
        let read = serde_json::from_value(entry).unwrap_or_else(|error| {
            self.faults.push(Fault::Entry {
                number,
                network: name.as_deref().map(truncate).unwrap_or_default(),
                parser_error: parser_error(&error),
            });
            // The pod is attached to the network that the entry names: flows are rejected rather than routed elsewhere.
            let name = name.unwrap_or_default();
            Entry {
                name,
                ..Entry::default()
            }
        });
        let Entry { name, interface, ips } = read;
        if name.len() > MAX_NAME {
            return Ok(());
        }
        let ips = ips.unwrap_or_default();
        if ips.len() > MAX_ADDRESSES {
            return Err(ParseNetworkStatus::TooMany(MAX_ADDRESSES));
        }
        let mut addresses = Vec::new();
        for ip in ips {
            match address(&name, &ip) {
                Ok(address) => addresses.push(address),
                Err(fault) => self.faults.push(fault),
            }
        }
        self.statuses.push(NetworkStatus {
            network: name,
            interface: interface
                .filter(|interface| interface.len() <= MAX_NAME)
                .unwrap_or_default(),
            addresses,
        });
        Ok(())
    }
}

fn parser_error(error: &serde_json::Error) -> String {
    error.to_string().chars().take(MAX_PARSER_ERROR).collect()
}

fn truncate(text: &str) -> String {
    text.chars().take(MAX_EXCERPT).collect()
}

fn address(network: &str, ip: &Value) -> Result<IpAddr, Fault> {
    let text = ip.as_str().map_or_else(|| ip.to_string(), str::to_owned);
    text.trim().parse().map_err(|_| Fault::Address {
        network: truncate(network),
        address: truncate(&text),
    })
}

/// Returns the interfaces of `statuses` that are attached to `network`, in the plugin's order.
pub fn on<'a>(
    statuses: &'a [NetworkStatus],
    network: &NetworkRef,
) -> impl Iterator<Item = &'a NetworkStatus> {
    statuses
        .iter()
        .filter(move |status| network.is_named(&status.network))
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
    fn parses_an_annotation_of_multus() {
        let Parsed { statuses, faults } = parse(TYPICAL).unwrap();
        assert_eq!(faults, []);
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
        for (text, index) in [(TYPICAL, 2), (r#"[{"name":"a/b","ips":null}]"#, 0)] {
            let Parsed { statuses, faults } = parse(text).unwrap();
            assert!(statuses[index].addresses.is_empty() && faults.is_empty());
        }
    }

    #[rstest]
    #[case::not_json("{{{")]
    #[case::empty("")]
    #[case::object(r#"{"name": "a/b"}"#)]
    #[case::deep(&"[".repeat(100_000))]
    fn a_malformed_annotation_is_an_error(#[case] text: &str) {
        assert!(!parse(text).unwrap_err().to_string().is_empty());
    }

    /// Between two valid entries. `left`: number of addresses that the malformed entry keeps; `None`: it is not attached.
    #[rstest]
    #[case::name_is_a_number(
        r#"{"name": 7, "ips": ["10.1.0.3"]}"#,
        "entry 2 cannot be read: invalid type",
        None
    )]
    #[case::no_object("7", "entry 2 cannot be read", None)]
    #[case::ips_is_a_string(
        r#"{"name": "a/b", "ips": "10.1.0.2"}"#,
        "entry 2 of network \"a/b\" cannot be read",
        Some(0)
    )]
    #[case::interface_is_a_list(
        r#"{"name": "a/b", "interface": []}"#,
        "entry 2 of network \"a/b\" cannot be read",
        Some(0)
    )]
    #[case::bad_address(
        r#"{"name": "a/b", "ips": ["10.1.0.300", "10.1.0.3"]}"#,
        "\"10.1.0.300\" of network \"a/b\" is not an IP address",
        Some(1)
    )]
    #[case::nil(
        r#"{"name": "a/b", "ips": ["<nil>"]}"#,
        "\"<nil>\" of network \"a/b\"",
        Some(0)
    )]
    #[case::prefix(
        r#"{"name": "a/b", "ips": ["fd00::3", "10.1.0.2/24"]}"#,
        "\"10.1.0.2/24\"",
        Some(1)
    )]
    #[case::address_is_a_number(r#"{"name": "a/b", "ips": [7, "10.1.0.3"]}"#, "\"7\" of network", Some(1))]
    fn a_malformed_entry_or_address_affects_only_itself(
        #[case] bad: &str,
        #[case] fault: &str,
        #[case] left: Option<usize>,
    ) {
        let good = r#"{"name": "a/good", "interface": "net1", "ips": ["10.1.0.2"]}"#;
        let Parsed { statuses, faults } = parse(&format!("[{good}, {bad}, {good}]")).unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains(fault), "{}", faults[0]);
        let (of_good, of_bad): (Vec<_>, Vec<_>) =
            statuses.iter().partition(|status| status.network == "a/good");
        assert!(of_good.len() == 2 && of_good.iter().all(|status| status.addresses.len() == 1));
        let of_bad: Vec<_> = of_bad
            .iter()
            .map(|status| (&*status.network, status.addresses.len()))
            .collect();
        assert_eq!(of_bad, [left.map_or(("", 0), |left| ("a/b", left))]);
        assert_eq!(faults[0].network(), if left.is_some() { "a/b" } else { "" });
    }

    #[test]
    fn faults_are_bounded() {
        let text = format!("[{}]", vec!["7"; MAX_INTERFACES].join(","));
        assert_eq!(parse(&text).unwrap().faults.len(), MAX_FAULTS);
    }

    #[test]
    fn a_hostile_number_of_interfaces_is_rejected() {
        let text = format!("[{}]", vec![r#"{"name":"a/b"}"#; MAX_INTERFACES + 1].join(","));
        assert!(matches!(parse(&text), Err(ParseNetworkStatus::TooMany(_))));
    }

    /// An annotation has up to 256 KiB, and the parsed form of every pod's is kept.
    #[test]
    fn a_huge_annotation_is_truncated() {
        let huge = "x".repeat(1 << 20);
        for text in [
            format!("[{huge:?}]"),
            format!(r#"[{{"name": "a/b", "ips": ["{huge}"]}}]"#),
            format!(r#"[{{"name": "a/b", "ips": "{huge}"}}]"#),
        ] {
            let Parsed { statuses, faults } = parse(&text).unwrap();
            assert_eq!(faults.len(), 1);
            let parser_error = faults[0].to_string();
            assert!(parser_error.len() < 500, "{}", parser_error.len());
            assert!(statuses.iter().all(|status| status.network.len() < MAX_NAME));
        }
        let text = format!(r#"[{{"name": "{huge}"}}, {{"name": "a/b", "interface": "{huge}"}}]"#);
        let Parsed { statuses, .. } = parse(&text).unwrap();
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
