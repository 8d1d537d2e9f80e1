//! `AppliedRules`: the rules and routes of a network namespace, as the proxy prints them for the kubectl plugin.
//!
//! Pure. The fields are an interface between versions: they are added, never changed.

use crate::{KernelState, Places, Port, Protocol, Translated};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What the proxy has in a network namespace, read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRules {
    /// Backends with rules there: `nftables`, `iptables-nft`, `iptables-legacy`.
    pub backends: Vec<String>,
    /// Routes to ClusterIPs.
    pub routes: Vec<AppliedRoute>,
    /// ClusterIPs with rules, in the order of their addresses.
    pub cluster_ips: Vec<AppliedClusterIp>,
    /// Objects that differ from the proxy's layout, and objects that were not read.
    pub damage: Vec<String>,
}

/// A route to a ClusterIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRoute {
    /// ClusterIP.
    pub cluster_ip: IpAddr,
    /// Name of the interface; its index when it has none any more.
    pub interface: String,
    /// Source address of the pod's own flows.
    pub source: Option<IpAddr>,
}

/// Rules of a ClusterIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedClusterIp {
    /// ClusterIP.
    pub cluster_ip: IpAddr,
    /// Packets that are not translated are rejected.
    pub rejects: bool,
    /// Rejected UDP packets of the pod itself end at its loopback address.
    pub rejects_udp: bool,
    /// Source address to which the pod's own flows are translated.
    pub source: Option<IpAddr>,
    /// Translated ports.
    pub ports: Vec<AppliedPort>,
}

/// A translated port of a ClusterIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Port number.
    pub port: u16,
    /// Endpoints of new flows, each with equal weight.
    pub endpoints: Vec<SocketAddr>,
    /// Session affinity timeout in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u64>,
}

/// A protocol or a list of endpoints that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not known to this version")]
pub struct UnknownRule(String);

impl AppliedRules {
    /// Converts what was read.
    pub fn new(backends: Vec<String>, state: &KernelState, routes: Vec<AppliedRoute>) -> Self {
        let ports = state.translated.keys().map(|(cluster_ip, _)| *cluster_ip);
        let addresses = state
            .rejected
            .iter()
            .chain(&state.rejected_udp)
            .chain(state.sources.keys());
        let mut all: BTreeMap<IpAddr, Vec<AppliedPort>> = addresses
            .copied()
            .chain(ports)
            .map(|address| (address, Vec::new()))
            .collect();
        for ((cluster_ip, port), translated) in &state.translated {
            all.entry(*cluster_ip)
                .or_default()
                .push(AppliedPort::new(*port, translated));
        }
        let cluster_ips = all.into_iter().map(|(cluster_ip, ports)| AppliedClusterIp {
            cluster_ip,
            rejects: state.rejected.contains(&cluster_ip),
            rejects_udp: state.rejected_udp.contains(&cluster_ip),
            source: state.sources.get(&cluster_ip).copied(),
            ports,
        });
        Self {
            backends,
            routes,
            cluster_ips: cluster_ips.collect(),
            damage: state.damage.iter().chain(&state.unread).cloned().collect(),
        }
    }

    /// Converts it back, for a comparison with a plan. Descriptions of unread objects count as damage.
    ///
    /// # Errors
    /// A newer proxy wrote something that this version does not know.
    pub fn kernel_state(&self) -> Result<KernelState, UnknownRule> {
        let mut state = KernelState {
            damage: self.damage.iter().cloned().collect(),
            ..KernelState::default()
        };
        for one in &self.cluster_ips {
            let address = one.cluster_ip;
            state.rejected.extend(one.rejects.then_some(address));
            state.rejected_udp.extend(one.rejects_udp.then_some(address));
            state.sources.extend(one.source.map(|source| (address, source)));
            for port in &one.ports {
                let (port, translated) = port.parse()?;
                state.translated.insert((address, port), translated);
            }
        }
        Ok(state)
    }
}

impl AppliedPort {
    fn new(port: Port, translated: &Translated) -> Self {
        Self {
            protocol: port.protocol.to_string(),
            port: port.number,
            endpoints: translated.endpoints.iter().copied().collect(),
            affinity_seconds: translated.affinity.map(|time| time.as_secs()),
        }
    }

    fn parse(&self) -> Result<(Port, Translated), UnknownRule> {
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.to_string() == self.protocol)
            .ok_or_else(|| UnknownRule(self.protocol.clone()))?;
        let endpoints = Places::of(self.endpoints.clone())
            .ok_or_else(|| UnknownRule(format!("two equal endpoints of port {}", self.port)))?;
        let port = Port {
            protocol,
            number: self.port,
        };
        let translated = Translated {
            endpoints,
            affinity: self.affinity_seconds.map(Duration::from_secs),
        };
        Ok((port, translated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> KernelState {
        let vip = |last| IpAddr::from([172, 30, 0, last]);
        let port = |protocol, number| Port { protocol, number };
        let endpoints = ["10.1.0.3:8080", "10.1.0.2:8080"].map(|endpoint| endpoint.parse().unwrap());
        let translated = Translated {
            endpoints: Places::of(endpoints.to_vec()).unwrap(),
            affinity: Some(Duration::from_mins(1)),
        };
        KernelState {
            rejected: [vip(1), vip(2)].into(),
            rejected_udp: [vip(2)].into(),
            sources: [(vip(1), IpAddr::from([10, 1, 0, 9]))].into(),
            translated: [
                ((vip(1), port(Protocol::Tcp, 80)), translated.clone()),
                ((vip(1), port(Protocol::Sctp, 80)), translated),
            ]
            .into(),
            damage: ["a hook is missing".to_owned()].into(),
            ..KernelState::default()
        }
    }

    #[test]
    fn rules_that_are_printed_and_read_are_the_same() {
        let applied = AppliedRules::new(vec!["nftables".to_owned()], &state(), Vec::new());
        let text = serde_json::to_string(&applied).unwrap();
        let read: AppliedRules = serde_json::from_str(&text).unwrap();
        assert_eq!(read, applied);
        assert_eq!(read.kernel_state(), Ok(state()));
    }

    #[test]
    fn unknown_rules_of_another_version_are_an_error_and_unknown_fields_are_not() {
        let with = |protocol: &str| {
            let text = format!(
                r#"{{"backends":[],"routes":[],"damage":[],"later":1,"clusterIps":[{{"clusterIp":"172.30.0.1","rejects":true,
                "rejectsUdp":false,"source":null,"ports":[{{"protocol":"{protocol}","port":80,"endpoints":["10.1.0.2:80"]}}]}}]}}"#
            );
            serde_json::from_str::<AppliedRules>(&text)
                .unwrap()
                .kernel_state()
        };
        assert!(with("tcp").is_ok());
        assert_eq!(with("quic"), Err(UnknownRule("quic".to_owned())));
    }
}
