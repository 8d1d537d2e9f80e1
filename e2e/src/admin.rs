//! What an administrator does on the two-node cluster: applies objects, and configures the product.
//!
//! Writes: the objects.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::{cluster, command, tools};

/// Applies an object.
pub fn apply(object: &Value) -> Result<()> {
    let mut kubectl = cluster::kubectl_command(&tools::ensure(&[&tools::KUBECTL], &|_| {})?)?;
    command::run_with_input(
        kubectl.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]),
        &object.to_string(),
    )?;
    Ok(())
}

/// Changes the fields of the configuration that `spec` has; a null removes one.
pub fn set_spec(spec: &Value) -> Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    cluster::kubectl(&["patch", "msc", "cluster", "--type=merge", "-p", &patch])?;
    Ok(())
}
