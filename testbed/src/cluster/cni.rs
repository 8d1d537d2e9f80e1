//! A node's CNI configuration: Multus in front of a bridge, whereabouts for secondary networks.
//!
//! Pure.

use serde_json::{Value, json};

use super::layout::{self, Families, Machine, Node};

/// The files of /etc/cni/net.d: path below it, content.
pub(super) fn files(node: Node, families: Families, multus_kubeconfig: &str) -> Vec<(&'static str, String)> {
    vec![
        ("00-multus.conf", pretty(&multus(node))),
        ("10-default.conf", pretty(&default_network(node, families))),
        ("multus.d/multus.kubeconfig", multus_kubeconfig.to_owned()),
        ("whereabouts.d/whereabouts.conf", pretty(&whereabouts())),
        (
            "whereabouts.d/whereabouts.kubeconfig",
            multus_kubeconfig.to_owned(),
        ),
    ]
}

fn multus(node: Node) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "multus",
        "type": "multus",
        "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
        // One plugin, not a list: Multus 4.2.4 loses the plugins' own fields of a list in its cache, and then every DEL
        // fails with "no IP ranges specified" and leaks the pod's address.
        "clusterNetwork": "/etc/cni/net.d/10-default.conf",
        "logLevel": "verbose",
        "logFile": layout::logs(Machine::Node(node)).join("multus.log"),
    })
}

fn default_network(node: Node, families: Families) -> Value {
    let mut ranges = vec![json!([{ "subnet": node.pods() }])];
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if families == Families::Dual {
        ranges.push(json!([{ "subnet": node.pods_v6() }]));
        routes.push(json!({ "dst": "::/0" }));
    }
    json!({
        "cniVersion": "1.0.0",
        "name": "default",
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
    })
}

fn whereabouts() -> Value {
    json!({
        "datastore": "kubernetes",
        "kubernetes": { "kubeconfig": "/etc/cni/net.d/whereabouts.d/whereabouts.kubeconfig" },
        "reconciler_cron_expression": "30 4 * * *",
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_pods_get_an_address_of_each_family() {
        let network = default_network(Node::ALL[1], Families::Dual);
        assert_eq!(network["ipam"]["ranges"][0][0]["subnet"], "10.128.2.0/24");
        assert_eq!(network["ipam"]["ranges"][1][0]["subnet"], "fd00:128:0:2::/64");
        let network = default_network(Node::ALL[1], Families::Ipv4);
        assert_eq!(network["ipam"]["ranges"].as_array().unwrap().len(), 1);
    }
}
