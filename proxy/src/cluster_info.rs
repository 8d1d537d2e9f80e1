//! Own node and Service ranges of the cluster, and the [`Settings`] that follow from them.
//!
//! Pure: updated by watches. An object that cannot be decoded keeps its last state.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use process::watch::Change;
use rules::Settings;
use std::collections::BTreeMap;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A Node, trimmed to what rules depend on: heartbeats start no work. Its addresses are of no interest: the controller rejects them as
/// endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    zone: Option<String>,
}

impl NodeInfo {
    /// Parses the metadata of a Node.
    pub fn parse(metadata: &ObjectMeta) -> Self {
        let labels = metadata.labels.iter().flatten();
        let mut zones = labels.filter(|(label, zone)| *label == ZONE_LABEL && !zone.is_empty());
        Self {
            zone: zones.next().map(|(_, zone)| zone.clone()),
        }
    }
}

/// Cluster state that settings depend on.
#[derive(Clone, Debug, Default)]
pub struct ClusterInfo {
    given: Settings,
    nodes: ObjectsByName<NodeInfo>,
    service_cidrs: ObjectsByName<Vec<IpNet>>,
}

impl ClusterInfo {
    /// Creates it with the settings of the command line: name of the node, namespace isolation, and Service ranges if given.
    pub fn new(given: Settings) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    /// Applies a change of a Node; returns true when it may change settings.
    pub fn node(&mut self, change: Change<(String, Option<NodeInfo>), String>) -> bool {
        self.nodes.apply(change)
    }

    /// Applies a change of a `ServiceCIDR`; returns true when it may change settings.
    pub fn service_cidr(&mut self, change: Change<(String, Option<Vec<IpNet>>), String>) -> bool {
        self.service_cidrs.apply(change)
    }

    /// Returns the settings.
    pub fn settings(&self) -> Settings {
        let mut settings = self.given.clone();
        let own = self.nodes.0.get(&settings.node.name);
        settings.node.zone = own.and_then(|node| node.zone.clone());
        let ranges = self.service_cidrs.0.values().flatten();
        settings.reserved.service_cidrs.extend(ranges);
        settings
    }
}

/// Objects by name.
#[derive(Clone, Debug)]
struct ObjectsByName<T>(BTreeMap<String, T>);

impl<T> Default for ObjectsByName<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone + PartialEq> ObjectsByName<T> {
    /// Applies a change; returns true when it changed an object.
    fn apply(&mut self, change: Change<(String, Option<T>), String>) -> bool {
        match change {
            Change::Apply((name, Some(object))) => {
                let differs = self.0.get(&name) != Some(&object);
                self.0.insert(name, object);
                differs
            }
            Change::Apply((_, None)) => false,
            Change::Delete(name) => self.0.remove(&name).is_some(),
            Change::Reset(listed) => {
                let mut now = BTreeMap::new();
                for (name, object) in listed {
                    let object = object.or_else(|| self.0.get(&name).cloned());
                    now.extend(object.map(|object| (name, object)));
                }
                std::mem::replace(&mut self.0, now) != self.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::service_cidr::ranges;
    use k8s_openapi::api::networking::v1::ServiceCIDR;
    use serde_json::{Value, json};

    fn node(zone: &Value, heartbeat: &str) -> (String, Option<NodeInfo>) {
        let metadata: ObjectMeta = serde_json::from_value(
            json!({"name": "node-a", "resourceVersion": heartbeat, "labels": {ZONE_LABEL: zone}}),
        )
        .unwrap();
        ("node-a".to_owned(), Some(NodeInfo::parse(&metadata)))
    }

    fn here() -> ClusterInfo {
        let node = rules::Node {
            name: "node-a".to_owned(),
            zone: None,
        };
        ClusterInfo::new(Settings {
            node,
            ..Settings::default()
        })
    }

    #[test]
    fn the_own_nodes_zone_becomes_a_setting() {
        let mut known = here();
        assert!(known.node(Change::Reset(vec![node(&json!("east"), "1")])));
        assert_eq!(known.settings().node.zone.as_deref(), Some("east"));
        assert!(known.node(Change::Delete("node-a".to_owned())));
        assert_eq!(known.settings().node.zone, None);
    }

    #[test]
    fn a_heartbeat_an_unreadable_node_and_an_empty_label_change_nothing() {
        let mut known = here();
        known.node(Change::Apply(node(&json!("east"), "1")));
        assert!(!known.node(Change::Apply(node(&json!("east"), "2"))));
        assert!(!known.node(Change::Apply(("node-a".to_owned(), None))));
        assert!(!known.node(Change::Reset(vec![("node-a".to_owned(), None)])));
        assert_eq!(known.settings().node.zone.as_deref(), Some("east"));
        known.node(Change::Apply(node(&json!(""), "3")));
        assert_eq!(known.settings().node.zone, None);
    }

    #[test]
    fn configured_and_watched_ranges_are_reserved() {
        let mut known = here();
        known.given.reserved.service_cidrs = vec!["172.30.0.0/16".parse().unwrap()];
        let object: ServiceCIDR =
            serde_json::from_value(json!({"spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112", "nonsense"]}}))
                .unwrap();
        assert!(known.service_cidr(Change::Apply(("kubernetes".to_owned(), Some(ranges(&object))))));
        let texts: Vec<_> = known
            .settings()
            .reserved
            .service_cidrs
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, ["172.30.0.0/16", "10.96.0.0/16", "fd00:96::/112"]);
    }
}
