//! Destination of a packet: `172.30.0.10:80`, `[fd00::10]:53/udp`, `service/web:http`, `web.shop:80`.
//!
//! Pure.

use api::ObjectName;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use rules::{Origin, Packet, Port, Protocol};
use std::net::IpAddr;
use std::str::FromStr;

/// An address, or a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// A Service's ClusterIPs.
    Service {
        /// Its namespace; `None`: the client's.
        namespace: Option<String>,
        name: String,
    },
}

/// A port by number or by its name in the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortName {
    Number(u16),
    Name(String),
}

/// Destination of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address or Service.
    pub host: Host,
    pub port: PortName,
    /// Protocol; `None`: that of the named port, else TCP.
    pub protocol: Option<Protocol>,
}

/// Error of a malformed destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDestination {
    #[error("{0:?} has no port: write ADDRESS:PORT, [IPV6]:PORT or service/NAME:PORT")]
    NoPort(String),
    /// An invalid port.
    #[error("{0:?} is neither a port from 1 to 65535 nor the name of one")]
    Port(String),
    /// An unsupported protocol.
    #[error("{0:?} is no protocol: write tcp, udp or sctp")]
    Protocol(String),
    /// Neither an address nor a name.
    #[error("{0:?} is neither an address nor the name of a Service")]
    Host(String),
}

impl FromStr for Destination {
    type Err = ParseDestination;

    fn from_str(text: &str) -> Result<Self, ParseDestination> {
        let (head, port) = text
            .rsplit_once(':')
            .ok_or_else(|| ParseDestination::NoPort(text.to_owned()))?;
        if head.contains(':') && !head.starts_with('[') {
            return Err(ParseDestination::NoPort(text.to_owned()));
        }
        let (port, protocol) = match port.split_once('/') {
            None => (port, None),
            Some((port, name)) => {
                let parsed = Protocol::parse(Some(&name.to_uppercase())).filter(|_| !name.is_empty());
                let protocol = parsed.ok_or_else(|| ParseDestination::Protocol(name.to_owned()))?;
                (port, Some(protocol))
            }
        };
        Ok(Self {
            host: host(head)?,
            port: port_name(port)?,
            protocol,
        })
    }
}

fn port_name(text: &str) -> Result<PortName, ParseDestination> {
    let bad = || ParseDestination::Port(text.to_owned());
    if text.bytes().all(|c| c.is_ascii_digit()) {
        let number = text.parse().ok().filter(|number| *number > 0);
        return number.map(PortName::Number).ok_or_else(bad);
    }
    if is_name(text) {
        Ok(PortName::Name(text.to_owned()))
    } else {
        Err(bad())
    }
}

fn host(text: &str) -> Result<Host, ParseDestination> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse() {
        return Ok(Host::Address(address));
    }
    let name = ["service/", "services/", "svc/"]
        .iter()
        .find_map(|kind| text.strip_prefix(kind))
        .unwrap_or(text);
    let mut labels = name.split('.');
    let name = labels
        .next()
        .filter(|name| is_name(name))
        .ok_or_else(|| ParseDestination::Host(text.to_owned()))?;
    let namespace = labels.next();
    let is_fine = namespace.is_none_or(is_name) && labels.next().is_none_or(|third| third == "svc");
    if !is_fine {
        return Err(ParseDestination::Host(text.to_owned()));
    }
    Ok(Host::Service {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

impl Destination {
    /// Returns the namespace of the Service.
    pub fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        match &self.host {
            Host::Service {
                namespace: Some(namespace),
                ..
            } => namespace,
            _ => own,
        }
    }

    /// Returns the first packet to each address of the destination.
    pub(super) fn packets(&self, services: &[Service], own: &str) -> Result<Vec<Packet>, String> {
        let service = match &self.host {
            Host::Address(address) => super::with_address(services, *address),
            Host::Service { name, .. } => {
                let key = ObjectName::new(self.namespace(own), name);
                let found = services.iter().find(|service| ObjectName::of(*service) == key);
                let missing = || {
                    format!(
                        "no Service {key} with label service.kubernetes.io/service-proxy-name=multus-proxy was found: kubectl multus-service explain service/{name} -n {}",
                        key.namespace
                    )
                };
                Some(found.ok_or_else(missing)?)
            }
        };
        let port = self.port_of(service)?;
        let addresses: Vec<IpAddr> = match (&self.host, service) {
            (Host::Address(address), _) => vec![*address],
            (Host::Service { .. }, service) => {
                let ips = service.and_then(|service| service.spec.as_ref()?.cluster_ips.clone());
                ips.unwrap_or_default()
                    .iter()
                    .filter_map(|ip| ip.parse().ok())
                    .collect()
            }
        };
        if addresses.is_empty() {
            return Err(
                "the Service has no ClusterIP: DNS answers its endpoints, and nothing is translated"
                    .to_owned(),
            );
        }
        let packet = |destination| Packet {
            origin: Origin::Pod,
            destination,
            port: Some(port),
        };
        Ok(addresses.into_iter().map(packet).collect())
    }

    fn port_of(&self, service: Option<&Service>) -> Result<Port, String> {
        let name = match &self.port {
            PortName::Number(number) => {
                let protocol = self.protocol.unwrap_or(Protocol::Tcp);
                return Ok(Port {
                    protocol,
                    number: *number,
                });
            }
            PortName::Name(name) => name,
        };
        let ports = service.and_then(|service| service.spec.as_ref()?.ports.as_ref());
        let is_named = |port: &&ServicePort| port.name.as_deref() == Some(name);
        let port = ports.and_then(|ports| ports.iter().find(is_named));
        let port = port.ok_or_else(|| format!("no port is named {name:?} there"))?;
        Ok(Port {
            protocol: Protocol::parse(port.protocol.as_deref()).unwrap_or(Protocol::Tcp),
            number: u16::try_from(port.port).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn service(namespace: Option<&str>, name: &str) -> Host {
        Host::Service {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    #[rstest]
    #[case("172.30.0.10:80", Host::Address("172.30.0.10".parse().unwrap()), PortName::Number(80), None)]
    #[case("[fd00::10]:53/udp", Host::Address("fd00::10".parse().unwrap()), PortName::Number(53), Some(Protocol::Udp))]
    #[case("service/web:http", service(None, "web"), PortName::Name("http".into()), None)]
    #[case(
        "web.shop:80/SCTP",
        service(Some("shop"), "web"),
        PortName::Number(80),
        Some(Protocol::Sctp)
    )]
    #[case(
        "web.shop.svc.cluster.local:80",
        service(Some("shop"), "web"),
        PortName::Number(80),
        None
    )]
    fn reads(
        #[case] text: &str,
        #[case] host: Host,
        #[case] port: PortName,
        #[case] protocol: Option<Protocol>,
    ) {
        assert_eq!(text.parse(), Ok(Destination { host, port, protocol }));
    }

    #[rstest]
    #[case("web", ParseDestination::NoPort("web".into()))]
    #[case("fd00::10:53", ParseDestination::NoPort("fd00::10:53".into()))]
    #[case("web:0", ParseDestination::Port("0".into()))]
    #[case("web:70000", ParseDestination::Port("70000".into()))]
    #[case("web:", ParseDestination::Port(String::new()))]
    #[case("web:80/icmp", ParseDestination::Protocol("icmp".into()))]
    #[case("web:80/", ParseDestination::Protocol(String::new()))]
    #[case("We_b:80", ParseDestination::Host("We_b".into()))]
    #[case("web.shop.cluster:80", ParseDestination::Host("web.shop.cluster".into()))]
    fn rejects(#[case] text: &str, #[case] error: ParseDestination) {
        assert_eq!(text.parse::<Destination>(), Err(error));
    }

    proptest! {
        #[test]
        fn any_text_is_a_destination_or_an_error(text in ".*") {
            let _ = text.parse::<Destination>();
        }
    }
}
