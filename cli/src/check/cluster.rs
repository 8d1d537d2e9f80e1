//! Checks of the cluster: versions, Multus, nodes.
//!
//! Pure.

use super::Line;
use crate::facts::{Installation, Read, ReadError};
use std::collections::BTreeMap;

/// The minimum minor version of Kubernetes 1: ValidatingAdmissionPolicy v1.
const OLDEST: u32 = 30;

/// The API server's version.
pub(super) fn version(version: &Read<String>) -> Line {
    const GROUP: &str = "kubernetes";
    let text = match version {
        Ok(text) => text,
        Err(read_error) => return Line::unknown(GROUP, "version", read_error),
    };
    match minor(text) {
        Some(minor) if minor < OLDEST => Line::broken(
            GROUP,
            format!("Kubernetes is {text}"),
            format!("update to 1.{OLDEST} or newer"),
        ),
        Some(_) => Line::good(GROUP, format!("Kubernetes is {text}")),
        None => Line::warning(
            GROUP,
            format!("version {text:?} cannot be read"),
            format!("make sure that it is 1.{OLDEST} or newer"),
        ),
    }
}

fn minor(text: &str) -> Option<u32> {
    let (major, rest) = text.trim_start_matches('v').split_once('.')?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (major == "1").then_some(())?;
    digits.parse().ok()
}

/// Checks whether the ranges of ClusterIPs are known.
pub(super) fn ranges(facts: &Installation) -> Line {
    const GROUP: &str = "kubernetes";
    if let Err(read_error) = &facts.cluster.ranges {
        return Line::unknown(GROUP, "ranges of ClusterIPs", read_error);
    }
    let ranges = crate::settings::of_controller(&facts.cluster).service_cidrs;
    if ranges.is_empty() {
        let remedy = "set spec.serviceCIDRs of MultusServiceConfig cluster to kube-apiserver's --service-cluster-ip-range";
        return Line::warning(
            GROUP,
            "nothing names the ranges of ClusterIPs: endpoints are not checked against them",
            remedy,
        );
    }
    let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    Line::good(GROUP, format!("ClusterIPs are from {}", ranges.join(", ")))
}

/// Checks the kind of Multus and its networks.
pub(super) fn multus(facts: &Installation) -> Line {
    const GROUP: &str = "multus";
    match &facts.networks {
        Err(ReadError::NoKind(_)) => Line::broken(
            GROUP,
            "the cluster has no kind NetworkAttachmentDefinition",
            "install Multus: https://github.com/k8snetworkplumbingwg/multus-cni",
        ),
        Err(read_error) => Line::unknown(GROUP, "network-attachment-definitions", read_error),
        Ok(networks) => {
            let part = networks
                .only_in
                .as_ref()
                .map(|only_in| format!(" in {}", only_in.join(", ")));
            let count = networks.found.len();
            Line::good(
                GROUP,
                format!(
                    "{count} network-attachment-definitions{}",
                    part.unwrap_or_default()
                ),
            )
        }
    }
}

/// Checks nodes by runtime and kernel. Only the proxy on a node knows the features of its kernel: its condition names missing ones.
pub(super) fn nodes(facts: &Installation) -> Vec<Line> {
    const GROUP: &str = "nodes";
    let nodes = match &facts.cluster.nodes {
        Err(read_error) => return vec![Line::unknown(GROUP, "runtimes and kernels", read_error)],
        Ok(nodes) => nodes,
    };
    let mut alike: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    for node in nodes {
        let info = node
            .status
            .as_ref()
            .and_then(|status| status.node_info.clone())
            .unwrap_or_default();
        let kind = (
            info.container_runtime_version,
            info.kernel_version,
            info.operating_system,
        );
        alike
            .entry(kind)
            .or_default()
            .push(node.metadata.name.clone().unwrap_or_default());
    }
    alike
        .into_iter()
        .map(|((runtime, kernel, system), names)| {
            let many = names.len();
            let shown: Vec<String> = names.into_iter().take(3).collect();
            let more = if many > shown.len() { ", ..." } else { "" };
            let who = format!("{many} nodes ({}{more})", shown.join(", "));
            let is_known = ["containerd://", "cri-o://"]
                .iter()
                .any(|known| runtime.starts_with(known));
            if system == "windows" {
                Line::warning(
                    GROUP,
                    format!("{who} run Windows"),
                    "pods there are not served: keep clients on Linux",
                )
            } else if is_known {
                Line::good(GROUP, format!("{who}: {runtime}, kernel {kernel}"))
            } else if runtime.is_empty() {
                Line::warning(
                    GROUP,
                    format!("{who}: no runtime is reported"),
                    "look at the kubelet",
                )
            } else {
                Line::warning(
                    GROUP,
                    format!("{who}: {runtime} is not one of the runtimes that are tested"),
                    "use containerd or CRI-O, or set spec.proxy.containerRuntimeEndpoint",
                )
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::State;
    use rstest::rstest;

    #[rstest]
    #[case("v1.33.1", State::Good)]
    #[case("v1.30.0-rc.1+abc", State::Good)]
    #[case("v1.30", State::Good)]
    #[case("v1.29.9", State::Broken)]
    #[case("v2.0.0", State::Warning)]
    #[case("", State::Warning)]
    fn the_version_must_be_new_enough(#[case] text: &str, #[case] want: State) {
        assert_eq!(version(&Ok(text.to_owned())).state, want);
    }
}
