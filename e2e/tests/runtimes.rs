//! The Service on nodes with the other runtimes: the default is containerd 1.6 beside CRI-O.

#[path = "lifecycle/discovery.rs"]
mod discovery;
#[path = "lifecycle/proxy.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the life cycle, which use more of it"
)]
mod proxy;

use anyhow::{Result, ensure};
use e2e::demo::{checks, installed};
use testbed::cluster::{self, Runtime, UpOptions};

#[test]
#[ignore = "needs root, starts a cluster: make test-e2e"]
fn containerd_2_serves_a_node() -> Result<()> {
    let options = UpOptions {
        runtimes: Some([Runtime::Containerd2, Runtime::Containerd1]),
        fresh: true,
    };
    cluster::up(&options, &|line| eprintln!("{line}"))?;
    let narrator = installed()?;
    let versions =
        "jsonpath={range .items[*]}{.metadata.name}={.status.nodeInfo.containerRuntimeVersion} {end}";
    let versions = cluster::kubectl(&["get", "nodes", "-o", versions])?;
    ensure!(
        versions.contains("node1=containerd://2.") && versions.contains("node2=containerd://1.6."),
        "{versions}"
    );
    checks::slices_hold_second_network_addresses(narrator)?;
    checks::both_servers_answer_over_net1(narrator)?;
    checks::readiness_is_followed(narrator)?;
    discovery::pods_are_found("node1")
}
