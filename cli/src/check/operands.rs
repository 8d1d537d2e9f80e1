//! Checks of the installation: configuration, operator, operands, versions, admission policies, Services.
//!
//! Pure.

use super::Line;
use crate::chain::{Link, State};
use crate::explain::{leader, of_cluster};
use crate::facts::{Cluster, Installation, Workload};
use crate::situations::Values;
use crate::status::status;
use api::config::ServiceValidation;
use api::names::{CONTROLLER, OPERATOR, PROXY};

/// The admission policies that confine accounts.
const POLICIES: [&str; 6] = [
    "multus-service-controller-endpointslices",
    "multus-service-controller-status",
    "multus-service-endpointslices",
    "multus-service-events",
    "multus-service-operator-nodes",
    "multus-service-proxy-status",
];

/// The admission policies that validate Services and pods, unless `spec.serviceValidation` is Off.
const VALIDATION: [&str; 3] = [
    "multus-service-pod-networks",
    "multus-service-service-warnings",
    "multus-service-services",
];

/// Checks all objects of the operator.
pub(super) fn operands(facts: &Installation) -> Vec<Line> {
    let cluster = &facts.cluster;
    let namespace = Cluster::namespace(cluster.config());
    let values = Values::default().and("operands", &namespace);
    let mut lines = vec![
        of_link("installation", of_cluster(cluster, &values)),
        of_link("installation", leader(cluster, &values)),
    ];
    lines.extend(workloads(facts, &namespace));
    lines.extend(versions(facts));
    lines.push(policies(facts));
    lines.extend(nodes(facts));
    lines
}

fn of_link(group: &'static str, link: Link) -> Line {
    let remedy = link.remedy.map(|remedy| {
        let commands = remedy.commands.join("; ");
        if commands.is_empty() {
            remedy.text
        } else {
            format!("{}: {commands}", remedy.text)
        }
    });
    Line {
        group,
        state: link.state,
        says: link.says,
        remedy,
    }
}

fn workloads(facts: &Installation, namespace: &str) -> Vec<Line> {
    const GROUP: &str = "operands";
    // A missing permission is reported once, with the legacy proxy.
    let Ok(all) = &facts.workloads else {
        return Vec::new();
    };
    let wanted = [
        ("Deployment", OPERATOR),
        ("Deployment", CONTROLLER),
        ("DaemonSet", PROXY),
    ];
    wanted
        .iter()
        .map(|(kind, name)| {
            let found = all
                .iter()
                .find(|one| one.kind == *kind && one.namespace == namespace && one.name == *name);
            match found {
                None => Line::broken(
                    GROUP,
                    format!("{kind} {namespace}/{name} does not exist"),
                    format!(
                        "kubectl -n {namespace} get deployments,daemonsets; kubectl describe msc cluster"
                    ),
                ),
                Some(Workload { desired, ready, .. }) if ready < desired => Line::broken(
                    GROUP,
                    format!("{kind} {namespace}/{name} has {ready} of {desired} pods ready"),
                    format!("kubectl -n {namespace} get pods -l app.kubernetes.io/name={name} -o wide"),
                ),
                Some(Workload { desired: 0, .. }) => Line::warning(
                    GROUP,
                    format!("{kind} {namespace}/{name} has no pod to run"),
                    "look at the placement in MultusServiceConfig cluster",
                ),
                Some(Workload { ready, .. }) => {
                    Line::good(GROUP, format!("{kind} {namespace}/{name} has {ready} pods ready"))
                }
            }
        })
        .collect()
}

/// Checks version skew between operator, operands and this plugin.
fn versions(facts: &Installation) -> Option<Line> {
    const GROUP: &str = "versions";
    let status = facts.cluster.config()?.status.as_ref()?;
    let observed = status.observed_version.as_deref()?;
    let operator = status.operator_version.as_deref().unwrap_or(observed);
    let plugin = env!("CARGO_PKG_VERSION");
    Some(if observed != operator {
        Line::warning(
            GROUP,
            format!("operands run {observed}, the operator is {operator}"),
            "wait for the roll-out: kubectl describe msc cluster",
        )
    } else if plugin != observed {
        Line::warning(
            GROUP,
            format!("operands run {observed}, this plugin is {plugin}: what it explains may differ"),
            format!("use the plugin of version {observed}"),
        )
    } else {
        Line::good(GROUP, format!("operator, operands and plugin are {observed}"))
    })
}

fn policies(facts: &Installation) -> Line {
    const GROUP: &str = "admission";
    let found = match &facts.policies {
        Err(read_error) => return Line::unknown(GROUP, "ValidatingAdmissionPolicies", read_error),
        Ok(found) => found,
    };
    let validation = facts
        .cluster
        .config()
        .and_then(|config| config.spec.service_validation);
    let is_validated = validation != Some(ServiceValidation::Off);
    let wanted = || {
        POLICIES
            .into_iter()
            .chain(VALIDATION.into_iter().filter(move |_| is_validated))
    };
    let missing: Vec<&str> = wanted()
        .filter(|name| !found.iter().any(|one| one == name))
        .collect();
    if missing.is_empty() {
        return Line::good(
            GROUP,
            format!("all {} admission policies are there", wanted().count()),
        );
    }
    Line::broken(
        GROUP,
        format!("admission policies are missing: {}", missing.join(", ")),
        "the operator applies them: kubectl describe msc cluster",
    )
}

fn nodes(facts: &Installation) -> Vec<Line> {
    const GROUP: &str = "proxies";
    if let Err(read_error) = &facts.cluster.proxies {
        return vec![Line::unknown(GROUP, "proxies", read_error)];
    }
    let nodes = status(facts).nodes;
    let count = nodes.len();
    let bad: Vec<Line> = nodes
        .into_iter()
        .filter_map(|node| {
            let says = format!("node {}: {}", node.node, node.problem?);
            let remedy = format!(
                "kubectl -n {} logs {}",
                Cluster::namespace(facts.cluster.config()),
                node.proxy
            );
            Some(if node.is_node_level {
                Line::broken(GROUP, says, remedy)
            } else {
                Line::warning(GROUP, says, remedy)
            })
        })
        .collect();
    if bad.is_empty() {
        vec![Line::good(GROUP, format!("{count} proxies apply all rules"))]
    } else {
        bad
    }
}

/// Checks labeled Services that are not served.
pub(super) fn services(facts: &Installation) -> Vec<Line> {
    const GROUP: &str = "services";
    if let Err(read_error) = &facts.services {
        return vec![Line::unknown(GROUP, "Services", read_error)];
    }
    let status = status(facts);
    let mut lines: Vec<Line> = status
        .services
        .iter()
        .map(|line| {
            let (namespace, name) = line.service.split_once('/').unwrap_or_default();
            Line {
                group: GROUP,
                state: if line.accepted == "True" {
                    State::Warning
                } else {
                    State::Broken
                },
                says: format!("Service {}: {}", line.service, line.reason),
                remedy: Some(format!(
                    "kubectl multus-service explain service/{name} -n {namespace}"
                )),
            }
        })
        .collect();
    for network in status
        .networks
        .iter()
        .filter(|network| network.exists == Some(false))
    {
        lines.push(Line::broken(
            GROUP,
            format!(
                "network {} does not exist, and {} Services name it",
                network.network, network.services
            ),
            "create it, or correct the Services",
        ));
    }
    if lines.is_empty() {
        lines.push(Line::good(
            GROUP,
            format!("{} Services ask to be served, and all are", status.service_count),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{POLICIES, VALIDATION};

    #[test]
    fn the_policies_are_those_of_the_operator() {
        assert_eq!(in_files("admission-"), POLICIES.map(str::to_owned).into());
        assert_eq!(in_files("validation-"), VALIDATION.map(str::to_owned).into());
    }

    /// Names of the policies in the operator's manifests.
    fn in_files(prefix: &str) -> std::collections::BTreeSet<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/manifests");
        let mut names = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            {
                let text = std::fs::read_to_string(path).unwrap();
                let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
                names.extend(
                    documents
                        .iter()
                        .map(|document| document["metadata"]["name"].as_str().unwrap().to_owned()),
                );
            }
        }
        names
    }
}
