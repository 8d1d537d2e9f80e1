//! Addons of the cluster: CRDs and RBAC of Multus and whereabouts, CoreDNS.
//!
//! Writes: these objects, by server-side apply.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::command;

const MANIFESTS: [&str; 4] = [
    include_str!("manifests/network-attachment-definition.yaml"),
    include_str!("manifests/whereabouts.yaml"),
    include_str!("manifests/multus.yaml"),
    include_str!("manifests/coredns.yaml"),
];

/// Applies all; `kubectl` is the admin's.
pub(super) fn apply(mut kubectl: Command) -> Result<()> {
    kubectl.args([
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=cluster-up",
        "-f",
        "-",
    ]);
    command::run_with_input(kubectl.stdin(Stdio::piped()), &MANIFESTS.join("\n---\n"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::layout::DNS;
    use crate::images::COREDNS;

    #[test]
    fn manifests_match_the_node_configuration() {
        let all = MANIFESTS.join("\n");
        assert!(all.contains(&format!("clusterIP: {DNS}")));
        assert!(all.contains(&format!("image: {COREDNS}")));
    }
}
