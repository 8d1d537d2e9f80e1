//! What is tested: networks, nodes, and the image of the pods.

use super::options::{Error, Options};
use crate::facts::{Cluster, Known as _, Read, Reader, node_of};
use api::ObjectName;
use api::names::OPERATOR;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::core::DynamicObject;
use std::collections::BTreeSet;

/// Environment variable of the operator with the image of this release.
const IMAGE_VARIABLE: &str = "RELATED_IMAGE_TOOLS";
/// Image of this version, if the operator's cannot be read.
const DEFAULT_IMAGE: &str = concat!("quay.io/multus-service/tools:v", env!("CARGO_PKG_VERSION"));

/// Where pods run, and from which image.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) image: String,
    /// Nodes with a client.
    pub(super) nodes: Vec<String>,
    /// Nodes on which servers may run: all with a proxy, also when a client is tested on one alone.
    pub(super) server_nodes: Vec<String>,
    pub(super) nodes_without_proxy: Vec<String>,
}

/// Reads the network-attachment-definitions to test: those that are named, or all of the namespace.
pub(super) async fn networks(
    reader: &Reader,
    namespace: &str,
    named: &[ObjectName],
) -> Result<Vec<(ObjectName, Read<Option<DynamicObject>>)>, Error> {
    if named.is_empty() {
        let (api, right) = reader.networks("list", Some(namespace));
        let found = reader.list_from(&api, right, "").await?;
        if found.is_empty() {
            return Err(Error::NoNetworks(namespace.to_owned()));
        }
        let key = |network: &DynamicObject| ObjectName::of_metadata(&network.metadata);
        return Ok(found
            .into_iter()
            .map(|network| (key(&network), Ok(Some(network))))
            .collect());
    }
    let mut networks = Vec::new();
    for name in named {
        let (api, right) = reader.networks("get", Some(&name.namespace));
        let read = reader.get_from(&api, right, &name.name).await;
        networks.push((name.clone(), read));
    }
    Ok(networks)
}

/// Selects the nodes with a proxy, and the image.
pub(super) async fn select(
    reader: &Reader,
    cluster: &Cluster,
    options: &Options,
) -> Result<Selection, Error> {
    let config = cluster.config.as_ref().map_err(Clone::clone)?;
    config.as_ref().ok_or(Error::NotInstalled)?;
    let nodes = cluster.nodes.as_ref().map_err(Clone::clone)?;
    let proxies = cluster.proxies.known();
    let with_proxy: Option<BTreeSet<&str>> = proxies.map(|pods| pods.iter().filter_map(node_of).collect());
    let (server_nodes, _) = select_nodes(nodes, with_proxy.as_ref(), &[])?;
    let (nodes, nodes_without_proxy) = select_nodes(nodes, with_proxy.as_ref(), &options.nodes)?;
    let image = match &options.image {
        Some(image) => image.clone(),
        None => image(reader, &Cluster::namespace(config.as_ref())).await,
    };
    Ok(Selection {
        image,
        nodes,
        server_nodes,
        nodes_without_proxy,
    })
}

/// Returns nodes that can run pods, with and without a proxy. Of a node that is named, only its existence is required.
fn select_nodes(
    nodes: &[Node],
    with_proxy: Option<&BTreeSet<&str>>,
    named: &[String],
) -> Result<(Vec<String>, Vec<String>), Error> {
    let all: BTreeSet<String> = nodes.iter().map(kube::ResourceExt::name_any).collect();
    if let Some(unknown) = named.iter().find(|name| !all.contains(*name)) {
        return Err(Error::UnknownNode(unknown.clone()));
    }
    if !named.is_empty() {
        return Ok((named.to_vec(), Vec::new()));
    }
    let usable = nodes
        .iter()
        .filter(|node| is_usable(node))
        .map(kube::ResourceExt::name_any);
    let has_proxy = |name: &String| with_proxy.is_none_or(|proxies| proxies.contains(name.as_str()));
    let (with, without): (Vec<String>, Vec<String>) = usable.partition(has_proxy);
    if with.is_empty() {
        return Err(Error::NoNodes);
    }
    Ok((with, without))
}

fn is_usable(node: &Node) -> bool {
    let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let mut conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    !is_cordoned && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Returns the image that the operator's Deployment names: a mirror, or one by digest.
async fn image(reader: &Reader, namespace: &str) -> String {
    let operator = reader.get::<Deployment>(namespace, OPERATOR).await.ok().flatten();
    operator
        .as_ref()
        .and_then(image_of)
        .unwrap_or_else(|| DEFAULT_IMAGE.to_owned())
}

fn image_of(operator: &Deployment) -> Option<String> {
    let pod = operator.spec.as_ref()?.template.spec.as_ref()?;
    let mut variables = pod
        .containers
        .iter()
        .flat_map(|container| container.env.iter().flatten());
    variables
        .find(|variable| variable.name == IMAGE_VARIABLE)?
        .value
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ready: &str, is_cordoned: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"unschedulable": is_cordoned},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn nodes_that_cannot_run_pods_are_left_out() {
        let nodes = [
            node("good", "True", false),
            node("bare", "True", false),
            node("cordoned", "True", true),
            node("gone", "Unknown", false),
        ];
        let with_proxy = BTreeSet::from(["good", "cordoned", "gone"]);
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            select_nodes(&nodes, Some(&with_proxy), &[]).unwrap(),
            (own(&["good"]), own(&["bare"]))
        );
        assert_eq!(select_nodes(&nodes, None, &[]).unwrap().0, ["good", "bare"]);
        assert_eq!(
            select_nodes(&nodes, Some(&with_proxy), &own(&["cordoned"]))
                .unwrap()
                .0,
            ["cordoned"]
        );
        let unknown = select_nodes(&nodes, None, &own(&["node-9"])).unwrap_err();
        assert!(unknown.to_string().contains("node-9"), "{unknown}");
        assert!(matches!(
            select_nodes(&nodes, Some(&BTreeSet::new()), &[]),
            Err(Error::NoNodes)
        ));
    }

    #[test]
    fn the_image_is_that_of_the_operator() {
        let operator = json!({"spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "operator", "env": [
            {"name": "RELATED_IMAGE_PROXY", "value": "mirror/proxy@sha256:1"},
            {"name": IMAGE_VARIABLE, "value": "mirror/tools@sha256:2"},
        ]}]}}}});
        let operator: Deployment = serde_json::from_value(operator).unwrap();
        assert_eq!(image_of(&operator).as_deref(), Some("mirror/tools@sha256:2"));
        assert_eq!(image_of(&Deployment::default()), None);
    }
}
