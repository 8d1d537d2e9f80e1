//! The rules in force in attached pods, one file for each.

use super::{Error, Folder};
use crate::facts::{Cluster, PodRules, Reader, applied, node_of};
use crate::render::{Report as _, plain};
use api::ObjectName;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;

/// Pods whose rules are read.
const MAX_PODS: usize = 500;
/// Pods whose rules are read at the same time.
const AT_ONCE: usize = 8;

/// Writes the rules of these pods.
pub(super) async fn write_rules(
    reader: &Reader,
    cluster: &Cluster,
    attached: &[Pod],
    folder: &mut Folder,
) -> Result<(), Error> {
    let more = attached.len().saturating_sub(MAX_PODS);
    if more > 0 {
        folder.miss(format!("rules of {more} pods: those of {MAX_PODS} are gathered"));
    }
    let read = stream::iter(attached.iter().take(MAX_PODS)).map(|pod| async move {
        PodRules {
            pod: ObjectName::of(pod),
            node: node_of(pod).map(str::to_owned),
            applied: applied(reader, cluster, Some(pod)).await,
        }
    });
    let mut read = read.buffered(AT_ONCE);
    while let Some(rules) = read.next().await {
        let ObjectName { namespace, name } = &rules.pod;
        match &rules.applied {
            Ok(_) => {
                let text = plain(&rules.text());
                folder.write(&format!("namespaces/{namespace}/rules/{name}.txt"), &text)?;
            }
            Err(error) => folder.miss(format!("rules of pod {namespace}/{name}: {error}")),
        }
    }
    Ok(())
}
