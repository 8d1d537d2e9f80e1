//! Logs of the product's containers, of the previous ones too.

use super::{Error, Folder};
use crate::facts::{Read, Reader};
use api::names::PART_OF;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::LogParams;
use std::time::Duration;

/// Longest log of a container in bytes: its end counts.
const MAX_LOG: usize = 16 * 1024 * 1024;

/// Options of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Age of the oldest line of a log.
    pub since: Option<Duration>,
    /// Time of the oldest line of a log; it has priority over `since`.
    pub since_time: Option<jiff::Timestamp>,
}

/// Writes the logs.
pub(super) async fn write_logs(
    reader: &Reader,
    namespace: &str,
    options: &Options,
    folder: &mut Folder,
) -> Result<(), Error> {
    let ours = format!("app.kubernetes.io/part-of={PART_OF}");
    let pods: Read<Vec<Pod>> = reader.list(namespace, &ours).await;
    let pods = match pods {
        Ok(pods) => pods,
        Err(error) => {
            folder.miss(error.to_string());
            return Ok(());
        }
    };
    if pods.is_empty() {
        folder.miss(format!("logs: namespace {namespace} has no pods of the product"));
    }
    for pod in &pods {
        for (container, has_restarted) in containers(pod) {
            for previous in [false, true]
                .into_iter()
                .filter(|previous| !previous || has_restarted)
            {
                write_log(reader, pod, &container, previous, options, folder).await?;
            }
        }
    }
    Ok(())
}

/// The containers of a pod that have started, and whether an earlier one has a log.
fn containers(pod: &Pod) -> Vec<(String, bool)> {
    let status = pod.status.iter();
    let statuses = status.flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter(|container| container.container_id.is_some())
        .map(|container| (container.name.clone(), container.restart_count > 0))
        .collect()
}

async fn write_log(
    reader: &Reader,
    pod: &Pod,
    container: &str,
    previous: bool,
    options: &Options,
    folder: &mut Folder,
) -> Result<(), Error> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let which = if previous { "previous" } else { "current" };
    let file = format!("namespaces/{namespace}/pods/{name}/{container}/{container}/logs/{which}.log");
    match reader
        .log(
            &namespace,
            &name,
            &parameters(container, previous, options),
            MAX_LOG,
        )
        .await
    {
        Ok((text, is_cut)) => {
            if is_cut {
                folder.miss(format!("{file}: all but the last {MAX_LOG} bytes"));
            }
            folder.write(&file, &text)
        }
        Err(error) => {
            folder.miss(format!("{file}: {error}"));
            Ok(())
        }
    }
}

fn parameters(container: &str, previous: bool, options: &Options) -> LogParams {
    // The client sends the age alone when both are set.
    let since = options.since.filter(|_| options.since_time.is_none());
    LogParams {
        container: Some(container.to_owned()),
        previous,
        timestamps: true,
        since_seconds: since.and_then(|since| i64::try_from(since.as_secs().max(1)).ok()),
        since_time: options.since_time,
        ..LogParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_has_priority_over_the_age() {
        let age = Some(Duration::from_mins(5));
        let time = "2026-11-30T08:00:00Z".parse().ok();
        let sent = |since, since_time| {
            let sent = parameters("a", false, &Options { since, since_time });
            (sent.since_seconds, sent.since_time)
        };
        assert_eq!(sent(age, None), (Some(300), None));
        assert_eq!(sent(age, time), (None, time));
        assert_eq!(sent(None, None), (None, None));
    }
}
