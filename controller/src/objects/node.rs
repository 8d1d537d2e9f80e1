//! The fields of a Node that decisions read.
//!
//! Pure. Heartbeats, images and conditions other than Ready are dropped while parsing, so that they enqueue no Service.

use super::Labels;
use super::metadata::metadata;
use k8s_openapi::api::core::v1::Node as FullNode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const CONTROL_PLANE_LABELS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// The fields of a Node that are parsed.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = FullNode)]
pub struct NodeObject {
    #[serde(default, deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Clone, Debug, Default)]
struct Status {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    allocatable: BTreeMap<String, String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Clone, Debug)]
struct Address {
    address: String,
}

#[derive(Deserialize, Clone, Debug)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

/// The part of a Node that decisions read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// True if the node counts for proportional topology hints: it is ready and not of the control plane.
    pub takes_traffic: bool,
    /// Allocatable CPU in thousandths of a core; 0 when unknown.
    pub millicores: u64,
    /// Its own addresses: never an endpoint.
    pub addresses: Vec<IpAddr>,
}

impl From<NodeObject> for Node {
    fn from(object: NodeObject) -> Self {
        let NodeObject { metadata, status } = object;
        let labels = Labels::from(metadata.labels);
        let is_ready = status
            .conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        let is_control_plane = CONTROL_PLANE_LABELS
            .iter()
            .any(|label| labels.get(label).is_some());
        Self {
            name: metadata.name.unwrap_or_default(),
            zone: labels
                .get(ZONE_LABEL)
                .filter(|zone| !zone.is_empty())
                .map(str::to_owned),
            takes_traffic: is_ready && !is_control_plane,
            millicores: status.allocatable.get("cpu").map_or(0, |cpu| millicores(cpu)),
            addresses: status
                .addresses
                .iter()
                .filter_map(|a| a.address.parse().ok())
                .collect(),
        }
    }
}

/// All Nodes, by name.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    by_name: BTreeMap<String, Node>,
    /// Number of nodes that have an address.
    addresses: BTreeMap<IpAddr, usize>,
}

impl Nodes {
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.by_name.get(name)
    }

    /// Every Node, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.by_name.values()
    }

    /// Returns true if a Node has this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// Adds or replaces a Node; the one before is returned.
    pub fn insert(&mut self, node: Node) -> Option<Node> {
        let before = self.remove(&node.name);
        for address in &node.addresses {
            *self.addresses.entry(*address).or_default() += 1;
        }
        self.by_name.insert(node.name.clone(), node);
        before
    }

    pub fn remove(&mut self, name: &str) -> Option<Node> {
        let node = self.by_name.remove(name)?;
        for address in &node.addresses {
            if let Some(count) = self.addresses.get_mut(address) {
                *count -= 1;
            }
        }
        self.addresses.retain(|_, count| *count > 0);
        Some(node)
    }
}

impl FromIterator<Node> for Nodes {
    fn from_iter<I: IntoIterator<Item = Node>>(nodes: I) -> Self {
        let mut all = Self::default();
        for node in nodes {
            all.insert(node);
        }
        all
    }
}

/// The two forms in which a kubelet writes CPU: whole cores, or thousandths with `m`.
fn millicores(quantity: &str) -> u64 {
    match quantity.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().unwrap_or(0),
        None => quantity
            .parse::<u64>()
            .map_or(0, |cores| cores.saturating_mul(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn node(object: serde_json::Value) -> Node {
        serde_json::from_value::<NodeObject>(object).unwrap().into()
    }

    #[test]
    fn a_node_keeps_zone_capacity_and_addresses() {
        let parsed = node(json!({
            "metadata": {"name": "node-1", "labels": {ZONE_LABEL: "us-central1-a"}},
            "status": {
                "addresses": [{"type": "Hostname", "address": "node-1"}, {"type": "InternalIP", "address": "192.168.0.11"}],
                "allocatable": {"cpu": "3920m", "memory": "1Gi"},
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            },
        }));
        assert_eq!(
            parsed,
            Node {
                name: "node-1".into(),
                zone: Some("us-central1-a".into()),
                takes_traffic: true,
                millicores: 3920,
                addresses: vec!["192.168.0.11".parse().unwrap()],
            }
        );
    }

    #[test]
    fn a_heartbeat_changes_nothing() {
        let at = |time: &str| {
            node(
                json!({"metadata": {"name": "node-1", "resourceVersion": time}, "status": {
                "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": time}]}}),
            )
        };
        assert_eq!(at("1"), at("2"));
    }

    #[test]
    fn an_address_belongs_to_nodes_as_long_as_one_has_it() {
        let with = |name: &str| Node {
            name: name.into(),
            addresses: vec!["192.168.0.11".parse().unwrap()],
            ..Node::default()
        };
        let mut nodes: Nodes = [with("a"), with("b")].into_iter().collect();
        nodes.insert(with("a"));
        let address = "192.168.0.11".parse().unwrap();
        nodes.remove("a");
        assert!(nodes.has_address(address));
        nodes.remove("b");
        assert!(!nodes.has_address(address));
    }

    #[rstest]
    #[case::cores("4", 4000)]
    #[case::thousandths("250m", 250)]
    #[case::nonsense("lots", 0)]
    fn cpu_is_read_as_a_kubelet_writes_it(#[case] quantity: &str, #[case] want: u64) {
        assert_eq!(millicores(quantity), want);
    }

    #[rstest]
    #[case::not_ready(json!({}), "False", false)]
    #[case::control_plane(json!({"node-role.kubernetes.io/control-plane": ""}), "True", false)]
    #[case::worker(json!({}), "True", true)]
    fn only_ready_workers_take_traffic(
        #[case] labels: serde_json::Value,
        #[case] ready: &str,
        #[case] want: bool,
    ) {
        let parsed = node(json!({"metadata": {"name": "node-1", "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}));
        assert_eq!(parsed.takes_traffic, want);
    }
}
