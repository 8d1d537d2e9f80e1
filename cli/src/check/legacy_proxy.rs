//! Check for workloads of the archived multus-service project, which would serve the same Services.
//!
//! Pure.

use super::Line;
use crate::facts::{Installation, Workload};

const GROUP: &str = "leftovers";

/// Returns its workloads, by the programs and images of its manifests.
pub(super) fn legacy_proxy(facts: &Installation) -> Vec<Line> {
    let workloads = match &facts.workloads {
        Err(read_error) => return vec![Line::unknown(GROUP, "Deployments and DaemonSets", read_error)],
        Ok(workloads) => workloads,
    };
    let found: Vec<Line> = workloads
        .iter()
        .filter(|one| is_legacy_proxy(one))
        .map(line)
        .collect();
    if found.is_empty() {
        return vec![Line::good(GROUP, "nothing of the archived multus-service runs")];
    }
    found
}

fn is_legacy_proxy(workload: &Workload) -> bool {
    let is_program = |command: &String| {
        let program = command.rsplit('/').next().unwrap_or_default();
        ["multus-proxy", "multus-service-controller"].contains(&program) && command.starts_with("/usr/bin/")
    };
    let is_image = |image: &String| image.contains("k8snetworkplumbingwg/multus-service");
    workload.name.starts_with("multus-proxy-ds")
        || workload.images.iter().any(is_image)
        || workload.commands.iter().any(is_program) && workload.namespace == "kube-system"
}

fn line(workload: &Workload) -> Line {
    let Workload {
        kind,
        namespace,
        name,
        ..
    } = workload;
    let kind = kind.to_lowercase();
    Line::broken(
        GROUP,
        format!("{} of the archived multus-service runs", workload.title()),
        format!("kubectl -n {namespace} delete {kind} {name}"),
    )
}
