//! The settings of controller and proxy, as far as the user may read them.
//!
//! Pure. Derived from the arguments of the controller's Deployment; where they cannot be read, from the configuration; else the defaults
//! of the binaries.

use crate::facts::{Cluster, Known as _};
use api::address::ReservedAddresses;
use api::config::NetworkNamespaceIsolation;
use api::{MultusServiceConfig, NamespaceIsolation};
use controller::objects::{Node, NodeObject};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as FullNode;

/// Returns the networks that a Service may name, by the configuration.
pub fn isolation(config: Option<&MultusServiceConfig>) -> NamespaceIsolation {
    let spec = config.map(|config| &config.spec);
    let mode = spec
        .and_then(|spec| spec.network_namespace_isolation)
        .unwrap_or_default();
    if mode == NetworkNamespaceIsolation::Disabled {
        return NamespaceIsolation::Open;
    }
    spec.and_then(|spec| spec.global_namespaces.clone())
        .map_or_else(NamespaceIsolation::default, NamespaceIsolation::isolated)
}

pub fn of_controller(cluster: &Cluster) -> controller::settings::Settings {
    let arguments = arguments(cluster);
    let argument = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
    let config = cluster.config();
    let isolation = match (
        argument("--network-namespace-isolation="),
        argument("--global-namespaces="),
    ) {
        (Some("false"), _) => NamespaceIsolation::Open,
        (_, Some(names)) => NamespaceIsolation::isolated(names.split(',')),
        _ => isolation(config),
    };
    let given = argument("--service-cidrs=").map(|ranges| ranges.split(',').map(str::to_owned).collect());
    let given: Vec<String> = given
        .or_else(|| config.and_then(|config| config.spec.service_cidrs.clone()))
        .unwrap_or_default();
    let given = given.iter().filter_map(|range| range.parse::<IpNet>().ok());
    let found = cluster
        .ranges
        .iter()
        .flatten()
        .flat_map(api::service_cidr::ranges);
    let mut service_cidrs: Vec<IpNet> = given.chain(found).collect();
    service_cidrs.sort();
    service_cidrs.dedup();
    controller::settings::Settings {
        isolation,
        service_cidrs,
        ..controller::settings::Settings::default()
    }
}

/// Returns the settings of the proxy on `node`.
pub fn of_proxy(cluster: &Cluster, node: &str) -> rules::Settings {
    let settings = of_controller(cluster);
    let own = cluster
        .nodes
        .iter()
        .flatten()
        .map(as_node)
        .find(|own| own.name == node);
    rules::Settings {
        node: rules::Node {
            name: node.to_owned(),
            zone: own.as_ref().and_then(|own| own.zone.clone()),
        },
        isolation: settings.isolation,
        reserved: ReservedAddresses {
            service_cidrs: settings.service_cidrs,
            // A proxy only knows its own node; the controller rejects addresses of the others.
            node_addresses: own.into_iter().flat_map(|own| own.addresses).collect(),
        },
        lacks_affinity: false,
    }
}

/// Converts a node to the controller's type.
pub fn as_node(node: &FullNode) -> Node {
    let read = serde_json::to_value(node).and_then(serde_json::from_value::<NodeObject>);
    read.map(Node::from).unwrap_or_default()
}

fn arguments(cluster: &Cluster) -> Vec<String> {
    let deployment = cluster.controller.known().and_then(Option::as_ref);
    let pod = deployment.and_then(|deployment| deployment.spec.as_ref()?.template.spec.as_ref());
    let containers = pod.iter().flat_map(|pod| &pod.containers);
    containers
        .flat_map(|container| container.args.clone().unwrap_or_default())
        .collect()
}
