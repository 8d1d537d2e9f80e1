//! One bug report after the other part: reports, the installation, its logs, all namespaces, the rules in force.
//!
//! Reads: with the rights of the user. What cannot be read is noted and keeps nothing else out.

use super::contents::{everywhere, installation};
use super::lists::write_list;
use super::logs::{Options, write_logs};
use super::pod_rules::write_rules;
use super::{Error, Folder, Gathered};
use crate::facts::{self, Cluster, Installation, Known as _, ReadError, Reader, phase_of};
use crate::render::{Report as _, plain};
use crate::{check, status};
use api::names::{NETWORK_STATUS_ANNOTATION, OPERATOR};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Gathers everything; `version` is that of this program.
///
/// # Errors
/// The folder cannot be written, or nothing can be read.
pub async fn gather(
    reader: &Reader,
    namespace: &str,
    options: &Options,
    mut folder: Folder,
    version: &str,
) -> Result<Gathered, Error> {
    folder.write("version", &format!("multus-service/must-gather\n{version}\n"))?;
    let facts = facts::installation(reader, namespace).await;
    // Without the API server everything else would fail in the same way, one timeout after the other.
    if let Err(error @ ReadError::Failed { .. }) = &facts.version {
        return Err(Error::Nothing(error.clone()));
    }
    reports(&facts, &mut folder)?;
    let operands = namespace_of_operands(&facts);
    let Installation { cluster, pods, .. } = facts;
    let attached = attached(pods.unwrap_or_default());
    for objects in installation() {
        write_list(reader, &operands, &objects, &mut folder).await?;
    }
    write_logs(reader, &operands, options, &mut folder).await?;
    for objects in everywhere() {
        write_list(reader, &operands, &objects, &mut folder).await?;
    }
    write_rules(reader, &cluster, &attached, &mut folder).await?;
    folder.finish()
}

fn reports(facts: &Installation, folder: &mut Folder) -> Result<(), Error> {
    let (status, check) = (status::status(facts), check::check(facts));
    folder.write("reports/status.txt", &plain(&status.text()))?;
    folder.write("reports/check.txt", &plain(&check.text()))?;
    if let Some(version) = facts.version.known() {
        folder.write("cluster-scoped-resources/version.txt", &format!("{version}\n"))?;
    }
    Ok(())
}

/// Where the operator runs, also when it has not written a status yet.
fn namespace_of_operands(facts: &Installation) -> String {
    let mut workloads = facts.workloads.iter().flatten();
    let operator = workloads.find(|workload| workload.name == OPERATOR);
    operator.map_or_else(
        || Cluster::namespace(facts.cluster.config()),
        |operator| operator.namespace.clone(),
    )
}

/// A pod that has ended or is about to be deleted has no rules.
fn has_sandbox(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase_of(pod), Some("Succeeded" | "Failed"))
}

/// Pods with networks, without what the rules do not need: there may be many.
fn attached(pods: Vec<Pod>) -> Vec<Pod> {
    let mut attached = pods;
    attached.retain(|pod| pod.annotations().contains_key(NETWORK_STATUS_ANNOTATION) && has_sandbox(pod));
    for pod in &mut attached {
        pod.status = None;
        if let Some(spec) = &mut pod.spec {
            spec.containers.clear();
            spec.volumes = None;
        }
    }
    attached
}
