//! Results of `connectivity-test`.
//!
//! Pure. [`CheckResult`] is also what a client pod prints, one JSON array for all.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A check of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Check {
    /// TCP connections to the ClusterIP.
    Tcp,
    /// UDP datagrams to the ClusterIP.
    Udp,
    /// Every server answers some of them.
    Balance,
    /// A large payload over TCP.
    Payload,
    /// A Service without endpoints rejects at once.
    Reject,
    /// The names of the Services resolve.
    Dns,
}

impl Check {
    /// All checks, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self::Tcp,
        Self::Udp,
        Self::Balance,
        Self::Payload,
        Self::Reject,
        Self::Dns,
    ];

    /// What to do when it fails.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Tcp => {
                "Look whether the nodes reach each other on this network: VLAN, firewall, policy of the switch"
            }
            Self::Udp => "TCP works if its check passed: look for a firewall on this network that drops UDP",
            Self::Balance => {
                "One server was never chosen: look at the proxy of the client's node with kubectl multus-service status"
            }
            Self::Payload => {
                "Small packets pass and large ones do not: compare the MTU of the interfaces with that of the switches"
            }
            Self::Reject => {
                "The rules of the client are not in force: look at its proxy with kubectl multus-service status"
            }
            Self::Dns => {
                "Look at the cluster DNS; the headless name has the addresses of the network's EndpointSlices"
            }
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Balance => "BALANCE",
            Self::Payload => "PAYLOAD",
            Self::Reject => "REJECT",
            Self::Dns => "DNS",
        })
    }
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    pub check: Check,
    /// Address and port, or name.
    pub destination: String,
    /// `None`: it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Results of the client on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeResult {
    pub node: String,
    pub checks: Vec<CheckResult>,
    /// Reason why there are no results, or what `explain` says about the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl NodeResult {
    /// A node without results.
    pub(super) fn failed(node: &str, problem: impl Into<String>) -> Self {
        Self {
            node: node.to_owned(),
            checks: Vec::new(),
            problem: Some(problem.into()),
        }
    }

    /// Whether all checks passed.
    pub fn is_well(&self) -> bool {
        self.problem.is_none()
            && Check::ALL
                .into_iter()
                .all(|check| self.passed(check) == Some(true))
    }

    /// Whether a check passed for every destination; `None`: it was not made.
    pub fn passed(&self, check: Check) -> Option<bool> {
        let mut results = self
            .checks
            .iter()
            .filter(|result| result.check == check)
            .peekable();
        results.peek()?;
        Some(results.all(|result| result.problem.is_none()))
    }
}

/// Results of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkResult {
    /// Namespace and name.
    pub network: String,
    pub nodes: Vec<NodeResult>,
    /// Nodes with a server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_nodes: Vec<String>,
    /// Reason why there are no results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// A namespace that could not be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

impl NetworkResult {
    /// The only node with servers, if a client was tested there alone: its packets did not leave the node.
    pub fn only_node(&self) -> Option<&str> {
        let [node] = self.server_nodes.as_slice() else {
            return None;
        };
        self.nodes
            .iter()
            .all(|client| client.node == *node)
            .then_some(node)
    }

    /// Results of a network whose name is not known here.
    pub(super) fn of(nodes: Vec<NodeResult>) -> Self {
        Self {
            network: String::new(),
            nodes,
            server_nodes: Vec::new(),
            problem: None,
            left: None,
        }
    }

    /// The same with the name of the network.
    pub(super) fn named(self, network: &api::ObjectName) -> Self {
        Self {
            network: network.to_string(),
            ..self
        }
    }

    /// A network without results.
    pub(super) fn failed(problem: impl Into<String>) -> Self {
        Self {
            problem: Some(problem.into()),
            ..Self::of(Vec::new())
        }
    }
}

/// Results of all networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connectivity {
    pub networks: Vec<NetworkResult>,
    /// Nodes without a proxy, which are not tested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes_without_proxy: Vec<String>,
    /// Whether a signal ended it.
    pub is_interrupted: bool,
}

impl Connectivity {
    /// Whether every check of every network passed.
    pub fn is_well(&self) -> bool {
        let is_well = |network: &NetworkResult| {
            network.problem.is_none()
                && network.left.is_none()
                && !network.nodes.is_empty()
                && network.nodes.iter().all(NodeResult::is_well)
        };
        !self.is_interrupted && !self.networks.is_empty() && self.networks.iter().all(is_well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(failed: Option<Check>) -> NodeResult {
        let checks = Check::ALL.map(|check| CheckResult {
            check,
            destination: "10.96.0.1:80".to_owned(),
            problem: (Some(check) == failed).then(|| "timed out".to_owned()),
        });
        NodeResult {
            node: "node-1".to_owned(),
            checks: checks.to_vec(),
            problem: None,
        }
    }

    fn of(nodes: Vec<NodeResult>) -> Connectivity {
        let network = NetworkResult {
            network: "shop/macvlan1".to_owned(),
            nodes,
            server_nodes: Vec::new(),
            problem: None,
            left: None,
        };
        Connectivity {
            networks: vec![network],
            nodes_without_proxy: Vec::new(),
            is_interrupted: false,
        }
    }

    #[test]
    fn one_failed_check_fails_the_test() {
        assert!(of(vec![node(None), node(None)]).is_well());
        for check in Check::ALL {
            assert!(!of(vec![node(None), node(Some(check))]).is_well(), "{check}");
        }
    }

    /// A client that ended early has not tested everything.
    #[test]
    fn a_check_that_was_not_made_fails_the_test() {
        for check in Check::ALL {
            let mut node = node(None);
            node.checks.retain(|result| result.check != check);
            assert!(!of(vec![node]).is_well(), "{check}");
        }
    }

    #[test]
    fn a_check_passes_if_it_passes_for_each_destination() {
        let mut node = node(None);
        node.checks.push(CheckResult {
            check: Check::Udp,
            destination: "[fd00::1]:80".to_owned(),
            problem: Some("timed out".to_owned()),
        });
        assert_eq!(node.passed(Check::Udp), Some(false));
        assert_eq!(node.passed(Check::Tcp), Some(true));
    }

    #[test]
    fn an_interrupted_test_is_not_passed() {
        let mut interrupted = of(vec![node(None)]);
        interrupted.is_interrupted = true;
        assert!(!interrupted.is_well());
        assert!(!of(vec![]).is_well(), "no node was tested");
    }
}
