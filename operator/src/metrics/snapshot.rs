//! What one reconcile found, as gauges: conditions, versions of operands, nodes by state.
//!
//! Pure. All series are replaced at once, so that those of an object that is gone do not stay.

use crate::cleanup::node_labels::{CLEANUP_PENDING, LABEL, SKIPPED};
use crate::operands::{Operands, VERSION_LABEL};
use api::MultusServiceConfigStatus;
use api::config::{ControllerStatus, ProxyStatus};
use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// Every status that a condition may have.
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// Series of one reconcile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Type and status of each condition.
    pub(super) conditions: Vec<(String, String)>,
    /// Operand and version.
    pub(super) versions: Vec<(&'static str, String)>,
    /// Operand, state and number of nodes, of the controller of replicas.
    pub(super) rollout: Vec<(&'static str, &'static str, i32)>,
}

impl Snapshot {
    /// Collects the series. `live`: the operands after the reconcile.
    pub(crate) fn new(status: &MultusServiceConfigStatus, live: &Operands, nodes: &[Node]) -> Self {
        let conditions = status.conditions.iter();
        let versions = [
            ("controller", live.controller().and_then(version)),
            ("proxy", live.proxy().and_then(version)),
        ];
        let mut rollout = Vec::new();
        rollout.extend(status.controller.iter().flat_map(controller));
        rollout.extend(status.proxy.iter().flat_map(proxy));
        rollout.extend(cleanup(nodes));
        Self {
            conditions: conditions
                .map(|condition| (condition.type_.clone(), condition.status.clone()))
                .collect(),
            versions: versions
                .into_iter()
                .filter_map(|(operand, version)| Some((operand, version?)))
                .collect(),
            rollout,
        }
    }

    pub(super) fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_conditions(&mut encoder)?;
        self.encode_versions(&mut encoder)?;
        self.encode_rollout(&mut encoder)
    }

    fn encode_conditions(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "multus_service_condition",
            "Conditions of MultusServiceConfig: 1 for the status that each has, 0 for the others.",
            None,
            MetricType::Gauge,
        )?;
        for (type_, status) in &self.conditions {
            for other in STATUSES {
                let labels = [("type", type_.as_str()), ("status", other)];
                let value = ConstGauge::new(i64::from(status == other));
                value.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_versions(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "multus_service_operand_version",
            "Version of the operator that applied an operand.",
            None,
            MetricType::Info,
        )?;
        for (operand, version) in &self.versions {
            let labels = vec![("operand", *operand), ("version", version.as_str())];
            family.encode_info(&labels)?;
        }
        Ok(())
    }

    fn encode_rollout(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "multus_service_rollout_nodes",
            "Nodes of an operand by state, of the controller replicas; cleanup: nodes without a proxy that may hold rules.",
            None,
            MetricType::Gauge,
        )?;
        for (operand, state, nodes) in &self.rollout {
            let labels = [("operand", *operand), ("state", *state)];
            ConstGauge::new(i64::from(*nodes)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn version<K: Resource>(object: &K) -> Option<String> {
    object.labels().get(VERSION_LABEL).cloned()
}

fn controller(status: &ControllerStatus) -> [(&'static str, &'static str, i32); 5] {
    [
        ("controller", "desired", status.replicas),
        ("controller", "updated", status.updated),
        ("controller", "ready", status.ready),
        ("controller", "available", status.available),
        (
            "controller",
            "unavailable",
            (status.replicas - status.available).max(0),
        ),
    ]
}

fn proxy(status: &ProxyStatus) -> [(&'static str, &'static str, i32); 7] {
    [
        ("proxy", "desired", status.desired),
        ("proxy", "current", status.current),
        ("proxy", "updated", status.updated),
        ("proxy", "ready", status.ready),
        ("proxy", "available", status.available),
        ("proxy", "unavailable", status.unavailable),
        ("proxy", "unhealthy", status.unhealthy_node_count),
    ]
}

/// Nodes that may hold rules and have no proxy that updates them.
fn cleanup(nodes: &[Node]) -> [(&'static str, &'static str, i32); 2] {
    let count = |state: &str| {
        let with = nodes
            .iter()
            .filter(|node| node.labels().get(LABEL).map(String::as_str) == Some(state));
        i32::try_from(with.count()).unwrap_or(i32::MAX)
    };
    [
        ("cleanup", "pending", count(CLEANUP_PENDING)),
        ("cleanup", "skipped", count(SKIPPED)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn series_are_those_of_the_status_the_operands_and_the_nodes() {
        let status: MultusServiceConfigStatus = serde_json::from_value(json!({
            "conditions": [{
                "type": "Degraded", "status": "False", "reason": "AsExpected", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"
            }],
            "controller": { "replicas": 2, "updated": 2, "ready": 1, "available": 1, "image": "c" },
            "proxy": { "desired": 5, "ready": 4, "unavailable": 1, "unhealthyNodeCount": 1 },
        }))
        .unwrap();
        let live = Operands {
            daemon_sets: serde_json::from_value(json!([
                { "metadata": { "name": "multus-service-proxy", "labels": { VERSION_LABEL: "0.2.0" } } },
                { "metadata": { "name": "multus-service-cleanup" } },
            ]))
            .unwrap(),
            ..Operands::default()
        };
        let nodes: Vec<Node> = serde_json::from_value(json!([
            { "metadata": { "labels": { LABEL: "present" } } },
            { "metadata": { "labels": { LABEL: CLEANUP_PENDING } } },
            { "metadata": {} },
        ]))
        .unwrap();
        let found = Snapshot::new(&status, &live, &nodes);
        assert_eq!(found.conditions, [("Degraded".to_owned(), "False".to_owned())]);
        assert_eq!(found.versions, [("proxy", "0.2.0".to_owned())]);
        for series in [
            ("controller", "unavailable", 1),
            ("proxy", "desired", 5),
            ("proxy", "ready", 4),
            ("proxy", "unhealthy", 1),
            ("cleanup", "pending", 1),
            ("cleanup", "skipped", 0),
        ] {
            assert!(found.rollout.contains(&series), "{series:?} in {found:?}");
        }
        let empty = Snapshot::new(&MultusServiceConfigStatus::default(), &Operands::default(), &[]);
        assert_eq!(
            (empty.conditions.len(), empty.versions.len(), empty.rollout.len()),
            (0, 0, 2)
        );
    }
}
