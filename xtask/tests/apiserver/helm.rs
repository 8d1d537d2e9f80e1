//! Helm, with files of its own.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testbed::tools;

/// Helm for one API server, or for none.
pub(crate) struct Helm {
    program: PathBuf,
    folder: TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// Builds Helm when it is not cached.
    pub(crate) async fn new(kubeconfig: Option<PathBuf>) -> Result<Self> {
        let build = || tools::ensure(&[&tools::HELM], &|line| eprintln!("{line}"))?.main(&tools::HELM);
        Ok(Self {
            program: tokio::task::spawn_blocking(build).await??,
            folder: tempfile::tempdir()?,
            kubeconfig,
        })
    }

    /// Standard output; an error has all of the output.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.folder.path().join(name));
        }
        let nowhere = self.folder.path().join("no-kubeconfig");
        command.env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&nowhere));
        let output = command.output().context("cannot run helm")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            bail!("helm {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        }
        Ok(text(&output.stdout))
    }

    /// The objects of the chart in a namespace.
    pub(crate) fn template(&self, chart: &Path, namespace: &str, flags: &[&str]) -> Result<Vec<Value>> {
        let chart = chart.display().to_string();
        let mut args = vec!["template", "multus-service", &chart, "--namespace", namespace];
        args.extend(flags);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&self.run(&args)?)?;
        // A template without output is an empty document.
        Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
    }
}
