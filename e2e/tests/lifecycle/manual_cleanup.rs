//! Cleaning nodes with the binary, when neither an operator nor a DaemonSet is left to do it.

use crate::operator::{scale, until_rules, until_settled};
use crate::proxy::Proxy;
use anyhow::{Result, ensure};
use api::names::{NAMESPACE, OPERATOR, PROXY};
use e2e::demo::scenario;
use testbed::cluster;

/// Path of the binary on a node during the test.
const BINARY: &str = "/run/multus-service-proxy";

pub(crate) fn the_binary_cleans_up_nodes_without_the_operator() -> Result<()> {
    let mut pods = scenario::servers()?;
    pods.push(scenario::client()?);
    for node in cluster::NODES {
        let running = format!("/proc/{}/exe", Proxy::on(node)?.pid()?);
        cluster::node_exec(node, &["cp", &running, BINARY])?;
    }
    scale(0)?;
    let kubectl = |args: &[&str]| cluster::kubectl(&[&["-n", NAMESPACE], args].concat());
    let operator = format!("app.kubernetes.io/name={OPERATOR}");
    kubectl(&["wait", "pods", "-l", &operator, "--for=delete", "--timeout=60s"])?;
    kubectl(&[
        "delete",
        "daemonset",
        PROXY,
        "--cascade=foreground",
        "--timeout=60s",
    ])?;
    for pod in &pods {
        ensure!(
            !pod.rules()?.is_empty(),
            "{} lost its rules with the proxy",
            pod.pod
        );
    }
    for node in cluster::NODES {
        cluster::node_exec(node, &[BINARY, "cleanup"])?;
        cluster::node_exec(node, &["rm", BINARY])?;
    }
    for pod in &pods {
        let left = pod.rules()?;
        ensure!(left.is_empty(), "left in {}: {left:#?}", pod.pod);
    }
    scale(1)?;
    until_settled()?;
    pods.iter().try_for_each(|pod| until_rules(pod, true))
}
