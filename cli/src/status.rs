//! Status of the installation: problems first.
//!
//! Pure.

mod networks;
mod nodes;

pub use networks::NetworkLine;
pub use nodes::NodeLine;

use crate::chain::State;
use crate::explain::{condition, leader};
use crate::facts::{Installation, Known as _};
use crate::situations::Values;
use api::ObjectName;
use api::config::ManagementState;
use k8s_openapi::api::core::v1::Service;
use serde::Serialize;

/// A Service with a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLine {
    /// namespace/name.
    pub service: String,
    /// Whether it is served: the status of its condition Accepted, `Unknown` without one.
    pub accepted: String,
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

/// Status of the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Problems, one per line.
    pub problems: Vec<String>,
    /// Warnings, one per line.
    pub warnings: Vec<String>,
    /// spec.managementState; `None`: not installed, or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_state: Option<String>,
    /// Version of all operands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
    /// Leader of the controller.
    pub controller: String,
    /// Proxies by node.
    pub nodes: Vec<NodeLine>,
    /// Networks that Services or clients use.
    pub networks: Vec<NetworkLine>,
    /// Services that are not served, or with warnings.
    pub services: Vec<ServiceLine>,
    /// Number of Services.
    pub service_count: usize,
    /// Failed reads.
    pub missing: Vec<String>,
}

pub fn status(facts: &Installation) -> Status {
    let cluster = &facts.cluster;
    let config = cluster.config();
    let values = Values::default().and("operands", crate::facts::Cluster::namespace(config));
    let leader = leader(cluster, &values);
    let nodes = nodes::nodes(cluster);
    let services = services(facts);
    let mut status = Status {
        problems: Vec::new(),
        warnings: Vec::new(),
        management_state: config.map(|config| format!("{:?}", config.spec.management_state)),
        version: config.and_then(|config| config.status.as_ref()?.observed_version.clone()),
        operator_version: config.and_then(|config| config.status.as_ref()?.operator_version.clone()),
        controller: leader.says.clone(),
        networks: networks::networks(facts),
        service_count: facts.services.iter().flatten().count(),
        missing: facts.read_errors().iter().map(ToString::to_string).collect(),
        services,
        nodes,
    };
    status.of_config(facts);
    if leader.state == State::Broken && config.is_some() {
        status.problems.push(leader.says);
    }
    status.of_parts();
    status
}

impl Status {
    /// Whether there are no problems.
    pub fn is_well(&self) -> bool {
        self.problems.is_empty()
    }

    fn of_config(&mut self, facts: &Installation) {
        let config = match &facts.cluster.config {
            Err(_) => return,
            Ok(None) => {
                let text = "there is no MultusServiceConfig cluster: multus-service is not installed";
                return self.problems.push(text.to_owned());
            }
            Ok(Some(config)) => config,
        };
        for (type_, bad) in [("Available", "False"), ("Degraded", "True")] {
            let found = condition(config, type_).filter(|found| found.status == bad);
            let line = found.map(|found| format!("{type_}={bad} ({}): {}", found.reason, found.message));
            self.problems.extend(line);
        }
        for (type_, notable) in [("Progressing", "True"), ("Upgradeable", "False")] {
            let found = condition(config, type_).filter(|found| found.status == notable);
            let line = found.map(|found| format!("{type_}={notable} ({}): {}", found.reason, found.message));
            self.warnings.extend(line);
        }
        match config.spec.management_state {
            ManagementState::Managed => {}
            ManagementState::Unmanaged => {
                self.warnings.push(
                    "managementState is Unmanaged: the operator repairs and updates nothing".to_owned(),
                );
            }
            ManagementState::Removed => {
                self.problems
                    .push("managementState is Removed: nothing is served".to_owned());
            }
        }
    }

    fn of_parts(&mut self) {
        for node in &self.nodes {
            match (&node.problem, node.is_node_level) {
                (Some(problem), true) => self.problems.push(format!("node {}: {problem}", node.node)),
                (Some(problem), false) => self.warnings.push(format!("node {}: {problem}", node.node)),
                (None, _) => {}
            }
        }
        for network in self
            .networks
            .iter()
            .filter(|network| network.exists == Some(false))
        {
            let text = format!(
                "network {} does not exist, and {} Services name it",
                network.network, network.services
            );
            self.problems.push(text);
        }
        for service in &self.services {
            // The rest is the remedy, which `explain` prints.
            let message = service.message.split("; ").next().unwrap_or_default();
            let line = format!("Service {}: {}: {message}", service.service, service.reason);
            let is_served = service.accepted == "True";
            let list = if is_served {
                &mut self.warnings
            } else {
                &mut self.problems
            };
            list.push(line);
        }
    }
}

/// Returns Services that are not served, or with warnings, by their condition.
fn services(facts: &Installation) -> Vec<ServiceLine> {
    let services = facts.services.known().into_iter().flatten();
    services.filter_map(service_line).collect()
}

fn service_line(service: &Service) -> Option<ServiceLine> {
    let condition = controller::service_status::condition::current(service);
    let (accepted, reason, message) = match condition {
        None => ("Unknown", "NoCondition", "no controller has looked at it yet"),
        Some(condition) if condition.status == "True" && condition.reason != "AcceptedWithWarnings" => {
            return None;
        }
        Some(condition) => (&*condition.status, &*condition.reason, &*condition.message),
    };
    Some(ServiceLine {
        service: ObjectName::of(service).to_string(),
        accepted: accepted.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests;
