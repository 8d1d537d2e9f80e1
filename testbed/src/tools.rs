//! The programs of the cluster: pinned in `testbed/tools/*/go.mod`, built once, cached outside the checkout.
//!
//! Writes: only the cache, `${MULTUS_SERVICE_CACHE:-$HOME/.cache/multus-service}/tools/<tool>-<key>/`. A folder
//! with a tool's key is complete (it arrives there by rename); with every folder in place no compiler is needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

mod build;
mod recipe;

pub(crate) use recipe::hex;

pub use recipe::{
    ALL, CNI, CONTAINERD2, COREDNS, CRIO, ETCD, HELM, KREW, KUBE_APISERVER, KUBE_CONTROLLER_MANAGER,
    KUBE_PROXY, KUBE_SCHEDULER, KUBECONFORM, KUBECTL, KUBELET, MULTUS, OLM, OPENSHIFT, OTELCOL, PROMETHEUS,
    Tool, VALIDATORS, WHEREABOUTS,
};

/// Folder of built tools.
#[derive(Clone, Debug)]
pub struct ToolDir(BTreeMap<&'static str, PathBuf>);

impl ToolDir {
    /// The folder with the tool's programs.
    pub fn dir(&self, tool: &Tool) -> Result<&Path> {
        let dir = self.0.get(tool.name).map(PathBuf::as_path);
        dir.with_context(|| format!("{} was not among the tools asked for", tool.name))
    }

    /// The tool's program `file`.
    pub fn program(&self, tool: &Tool, file: &str) -> Result<PathBuf> {
        Ok(self.dir(tool)?.join(file))
    }

    /// The program of a tool that has one of its own name.
    pub fn main(&self, tool: &Tool) -> Result<PathBuf> {
        self.program(tool, tool.name)
    }
}

/// The folder of everything this project caches: `$MULTUS_SERVICE_CACHE`, else `~/.cache/multus-service`.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MULTUS_SERVICE_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::home_dir().context("neither $MULTUS_SERVICE_CACHE nor $HOME is set")?;
    Ok(home.join(".cache/multus-service"))
}

/// Returns true when all of `tools` are built, so that [`ensure`] needs no compiler.
pub fn are_built(tools: &[&'static Tool]) -> Result<bool> {
    Ok(wanted(tools)?.iter().all(|(_, dir)| dir.is_dir()))
}

/// Builds `tools` that are not cached. `say` receives a line per build.
///
/// Safe to call from several processes at once, and after a build was interrupted.
pub fn ensure(tools: &[&'static Tool], say: &dyn Fn(&str)) -> Result<ToolDir> {
    let wanted = wanted(tools)?;
    let missing: Vec<_> = wanted.iter().filter(|(_, dir)| !dir.is_dir()).collect();
    if !missing.is_empty() {
        build::check_compiler()?;
    }
    let started = Instant::now();
    for (built, (tool, dir)) in missing.iter().enumerate() {
        say(&format!(
            "{}: building, {} of {} tools",
            tool.name,
            built + 1,
            missing.len()
        ));
        build::build(tool, dir, say).with_context(|| format!("cannot build {}", tool.name))?;
    }
    if missing.len() > 1 {
        say(&format!(
            "{} tools: built in {:.0?}",
            missing.len(),
            started.elapsed()
        ));
    }
    Ok(ToolDir(
        wanted.into_iter().map(|(tool, dir)| (tool.name, dir)).collect(),
    ))
}

fn wanted(tools: &[&'static Tool]) -> Result<Vec<(&'static Tool, PathBuf)>> {
    let cache = cache()?.join("tools");
    tools
        .iter()
        .map(|&tool| Ok((tool, cache.join(format!("{}-{}", tool.name, tool.key()?)))))
        .collect()
}
