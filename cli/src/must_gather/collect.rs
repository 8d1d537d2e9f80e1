//! Reads the objects and logs of a bug report, and hands them to the folder one list at a time.
//!
//! Reads: with the rights of the user. What cannot be read is noted and keeps nothing else out.

use super::contents::{Objects, Place, contents};
use super::reduce::reduce;
use super::{Error, Folder, Gathered};
use crate::facts::{Cluster, Known as _, Read, ReadError, Reader, installation};
use crate::render::Report as _;
use crate::{check, status};
use api::names::PART_OF;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::LogParams;
use serde_json::{Value, json};
use std::time::Duration;

/// Last lines of a container's log.
const MAX_LINES: i64 = 50_000;
/// Size of these lines in bytes; the API server cuts the rest.
const MAX_LOG: i64 = 16 * 1024 * 1024;

/// Options of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Age of the oldest line of a log.
    pub since: Option<Duration>,
    /// Time of the oldest line of a log.
    pub since_time: Option<jiff::Timestamp>,
}

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
    let facts = installation(reader, namespace).await;
    // Without the API server everything else would fail in the same way, one timeout after the other.
    if let Err(error @ ReadError::Failed { .. }) = &facts.version {
        return Err(Error::Nothing(error.clone()));
    }
    let (status, check) = (status::status(&facts), check::check(&facts));
    folder.write("reports/status.txt", &plain(&status.text()))?;
    folder.write("reports/check.txt", &plain(&check.text()))?;
    if let Some(version) = facts.version.known() {
        folder.write("cluster-scoped-resources/version.txt", &format!("{version}\n"))?;
    }
    let operands = Cluster::namespace(facts.cluster.config());
    for objects in contents() {
        list(reader, &operands, &objects, &mut folder).await?;
    }
    logs(reader, &operands, options, &mut folder).await?;
    folder.finish()
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// Writes a list, one file for each namespace.
async fn list(reader: &Reader, operands: &str, objects: &Objects, folder: &mut Folder) -> Result<(), Error> {
    let namespace = (objects.place == Place::Operands).then_some(operands);
    let found = reader.list_kind(&objects.resource, namespace, &objects.labels, &objects.fields);
    let items = match found.await {
        Ok(items) => items,
        // The cluster has no OpenShift, no OLM, no Multus.
        Err(ReadError::NoKind(_)) => return Ok(()),
        Err(error) => {
            folder.miss(error.to_string());
            return Ok(());
        }
    };
    let mut by_file = std::collections::BTreeMap::<String, Vec<Value>>::new();
    for item in items {
        let file = file(objects, item.namespace().as_deref());
        let value = serde_json::to_value(item).unwrap_or_default();
        by_file
            .entry(file)
            .or_default()
            .extend(reduce(value, objects.part));
    }
    for (file, items) in by_file {
        if !items.is_empty() {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
            let text = serde_saphyr::to_string(&list).unwrap_or_else(|_| list.to_string());
            folder.write(&file, &text)?;
        }
    }
    Ok(())
}

/// As `oc adm inspect`: `core` is the group without a name.
fn file(objects: &Objects, namespace: Option<&str>) -> String {
    let group = match objects.resource.group.as_str() {
        "" => "core",
        group => group,
    };
    // Events of several reporters and pods of two kinds of lists are in one namespace.
    let reporter = objects
        .fields
        .rsplit_once('=')
        .map(|(_, reporter)| format!("-of-{reporter}"))
        .unwrap_or_default();
    let of = match objects.place {
        Place::Everywhere if objects.fields.is_empty() => "-on-networks",
        _ => "",
    };
    let name = format!("{group}/{}{of}{reporter}.yaml", objects.resource.plural);
    match namespace {
        Some(namespace) => format!("namespaces/{namespace}/{name}"),
        None => format!("cluster-scoped-resources/{name}"),
    }
}

/// Writes the logs of the product's containers, of the previous ones too.
async fn logs(reader: &Reader, namespace: &str, options: &Options, folder: &mut Folder) -> Result<(), Error> {
    let pods: Read<Vec<Pod>> = reader
        .list(namespace, &format!("app.kubernetes.io/part-of={PART_OF}"))
        .await;
    let pods = match pods {
        Ok(pods) => pods,
        Err(error) => {
            folder.miss(error.to_string());
            return Ok(());
        }
    };
    for pod in &pods {
        for (container, has_restarted) in containers(pod) {
            for previous in [false, true]
                .into_iter()
                .filter(|previous| !previous || has_restarted)
            {
                log(reader, pod, &container, previous, options, folder).await?;
            }
        }
    }
    Ok(())
}

/// The containers of a pod that have started, and whether an earlier one has a log.
fn containers(pod: &Pod) -> Vec<(String, bool)> {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter(|container| container.container_id.is_some())
        .map(|container| (container.name.clone(), container.restart_count > 0))
        .collect()
}

async fn log(
    reader: &Reader,
    pod: &Pod,
    container: &str,
    previous: bool,
    options: &Options,
    folder: &mut Folder,
) -> Result<(), Error> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let parameters = LogParams {
        container: Some(container.to_owned()),
        previous,
        timestamps: true,
        tail_lines: Some(MAX_LINES),
        limit_bytes: Some(
            MAX_LOG
                .min(i64::try_from(folder.left()).unwrap_or(MAX_LOG))
                .max(1),
        ),
        since_seconds: options
            .since
            .and_then(|since| i64::try_from(since.as_secs()).ok()),
        since_time: options.since_time,
        ..LogParams::default()
    };
    let which = if previous { "previous" } else { "current" };
    match reader.log(&namespace, &name, &parameters).await {
        Ok(text) => folder.write(
            &format!("namespaces/{namespace}/pods/{name}/{container}/{container}/logs/{which}.log"),
            &text,
        ),
        Err(error) => {
            folder.miss(format!("{which} log of {name}/{container}: {error}"));
            Ok(())
        }
    }
}
