//! Faults of an installation, and their repair.

use anyhow::{Context as _, Result};
use api::names::{CONTROLLER, NAMESPACE};
use e2e::admin::{apply, set_spec};
use e2e::demo::scenario::Attached;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(3);
/// Table of the proxy's nftables backend.
const TABLE: &str = "multus-proxy";

/// The operator rolls out proxies of an image that no node can pull.
pub(crate) fn break_the_image() -> Result<()> {
    set_image(&json!("registry.invalid/proxy:none"))
}

/// The operator rolls out its own image again.
pub(crate) fn repair_the_image() -> Result<()> {
    set_image(&Value::Null)
}

fn set_image(image: &Value) -> Result<()> {
    set_spec(&json!({ "proxy": { "image": image } }))
}

/// A `ClusterRole` that was edited, as in an upgrade that applied only half of the files.
pub(crate) struct Rights {
    role: Value,
}

impl Rights {
    /// Leaves the controller the rights by which it authenticates its scrapers, and restarts it.
    pub(crate) fn withdraw() -> Result<Self> {
        let role = cluster::kubectl(&["get", "clusterrole", CONTROLLER, "-o", "json"])?;
        let mut role: Value = serde_json::from_str(&role)?;
        if let Some(metadata) = role["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
        }
        let mut less = role.clone();
        let rules = less["rules"].as_array_mut().context("a role without rules")?;
        rules.retain(|rule| {
            ["tokenreviews", "subjectaccessreviews", "configmaps"]
                .contains(&rule["resources"][0].as_str().unwrap_or_default())
        });
        apply(&less)?;
        restart_controller()?;
        Ok(Self { role })
    }

    /// Applies the role as it was.
    pub(crate) fn restore(&self) -> Result<()> {
        apply(&self.role)
    }
}

fn restart_controller() -> Result<()> {
    let selector = format!("app.kubernetes.io/name={CONTROLLER}");
    cluster::kubectl(&["-n", NAMESPACE, "delete", "pods", "-l", &selector, "--wait=false"])?;
    Ok(())
}

/// The proxy's table in a pod, in the possession of another process: the kernel rejects every change of the proxy (`NFT_TABLE_F_OWNER`,
/// Linux 5.12).
pub(crate) struct OwnedTable {
    nft: Child,
}

impl OwnedTable {
    /// Takes the table as long as the process lives.
    pub(crate) fn take(pod: &Attached) -> Result<Self> {
        let netns = format!("--net={}", cluster::netns(&pod.node, pod.cluster_address)?);
        let mut nft = cluster::node_command(&pod.node, &["nsenter", &netns, "nft", "-i"])?
            .stdin(Stdio::piped())
            .spawn()?;
        let script = format!("delete table ip {TABLE}; add table ip {TABLE} {{ flags owner; }}\n");
        nft.stdin
            .as_mut()
            .context("no standard input")?
            .write_all(script.as_bytes())?;
        let table = Self { nft };
        wait::until(PATIENCE, "another process to own the table", || {
            let list = ["nsenter", &netns, "nft", "list", "table", "ip", TABLE];
            Ok(cluster::node_exec(&pod.node, &list)?.contains("flags owner"))
        })?;
        Ok(table)
    }

    /// Ends the process; the kernel deletes its table.
    pub(crate) fn give_back(mut self) -> Result<()> {
        drop(self.nft.stdin.take());
        self.nft.wait()?;
        Ok(())
    }
}
