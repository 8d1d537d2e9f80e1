//! Leftovers after removal, and the commands of docs/admin/install.md that remove them.

use super::PATIENCE;
use super::subscription::everything_of_ours;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::Path;
use testbed::{cluster, command, tools, wait};

/// The commands (`$ oc ...`) of a section of docs/admin/install.md, up to its first subsection.
pub(crate) fn documented(section: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root().join("docs/admin/install.md"))?;
    let start = text
        .find(&format!("\n{section}\n"))
        .with_context(|| format!("docs/admin/install.md has no {section:?}"))?;
    let section = &text[start..];
    let end = section.find("\n### ").unwrap_or(section.len());
    let commands = section[..end]
        .lines()
        .filter_map(|line| line.trim().strip_prefix("$ oc "));
    Ok(commands
        .map(|command| command.split(" #").next().unwrap_or_default().trim().to_owned())
        .collect())
}

/// Runs such a command as an administrator, in the checkout.
pub(crate) fn run(command: &str) -> Result<()> {
    let mut args: Vec<String> = command
        .split_whitespace()
        .map(|word| match word.strip_prefix("config/") {
            Some(_) => root().join(word).display().to_string(),
            None => word.to_owned(),
        })
        .collect();
    ensure!(
        args.iter().any(|word| word == "delete"),
        "this would not remove anything: {command}"
    );
    args.push("--timeout=300s".to_owned());
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    cluster::kubectl(&args)?;
    Ok(())
}

/// Deletes an object, if it is there.
pub(crate) fn delete(object: &Value) -> Result<()> {
    let mut kubectl = cluster::kubectl_command(&tools::ensure(&[&tools::KUBECTL], &|_| {})?)?;
    let args = ["delete", "--ignore-not-found", "--timeout=120s", "-f", "-"];
    command::run_with_input(kubectl.args(args), &object.to_string())?;
    Ok(())
}

/// Waits for the garbage collector, too.
pub(crate) fn wait_until_nothing_is_left() -> Result<()> {
    wait::until(PATIENCE, "no managed objects to be left", || {
        let left = everything_of_ours()?;
        ensure!(left.is_empty(), "left on the cluster: {left:#?}");
        Ok(true)
    })
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
