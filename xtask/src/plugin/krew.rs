//! The manifest by which krew installs the plugin.
//!
//! Pure. Its format: <https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/>.

use super::Archive;
use serde_json::{Value, json};

/// Name of the plugin: `kubectl krew install multus-service`.
pub const NAME: &str = "multus-service";
const DESCRIPTION: &str = "Says why a Kubernetes Service on a secondary network (Multus) works or does not: it follows a Service from
its label to the rules of a client, traces a packet, shows the rules in force in a pod, checks the installation, tests networks
with temporary pods, and writes bug reports.
";

/// Returns the manifest of a release whose archives are below `url`.
pub fn manifest(version: &str, homepage: &str, url: &str, archives: &[Archive]) -> Value {
    let platforms = archives.iter().map(|archive| {
        let name = archive.file.file_name().unwrap_or_default().to_string_lossy();
        json!({
            "selector": {"matchLabels": {"os": archive.platform.os, "arch": archive.platform.arch}},
            "uri": format!("{url}/{name}"),
            "sha256": archive.sha256,
            "bin": "kubectl-multus_service",
        })
    });
    json!({
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": NAME},
        "spec": {
            "version": format!("v{version}"),
            "homepage": homepage,
            "shortDescription": "Troubleshoot Services on secondary networks",
            "description": DESCRIPTION,
            "platforms": platforms.collect::<Vec<_>>(),
        },
    })
}
