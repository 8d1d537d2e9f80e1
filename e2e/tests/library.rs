//! What the test bed offers to tests: traffic with a count of failures, failures on purpose, DNS in pods, the audit log. And what
//! the product makes of such failures: nobody notices.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::demo::{installed, scenario};
use e2e::traffic::Traffic;
use e2e::{audit, cluster, wait};

const PER_SECOND: u32 = 50;

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a1_restarted_kubelets_and_runtimes_break_no_connection() -> Result<()> {
    installed()?;
    let (client, vip) = (
        scenario::client()?,
        SocketAddr::new(scenario::cluster_ip("web")?, 80),
    );
    let traffic = Traffic::start(&client, vip, PER_SECOND)?;
    for node in ["node1", "node2"] {
        cluster::restart_kubelet(node)?;
        cluster::restart_runtime(node)?;
    }
    let report = traffic.stop()?;
    eprintln!("{report}");
    ensure!(report.failed == 0, "{report}");
    let servers: BTreeSet<_> = scenario::servers()?
        .iter()
        .map(|pod| format!("server {}, client {}", pod.pod, client.address))
        .collect();
    ensure!(
        report.answers.keys().cloned().collect::<BTreeSet<_>>() == servers,
        "{report}"
    );
    ensure!(
        cluster::status()?.iter().all(|line| line.good),
        "{:?}",
        cluster::status()?
    );
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a2_traffic_to_a_dead_end_does_not_start() -> Result<()> {
    installed()?;
    let vip = scenario::cluster_ip("web")?;
    let Err(error) = Traffic::start(&scenario::client()?, SocketAddr::new(vip, 81), PER_SECOND) else {
        anyhow::bail!("port 81 answers");
    };
    ensure!(format!("{error:#}").contains("refused"), "{error:#}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a3_names_resolve_in_pods() -> Result<()> {
    installed()?;
    let want = BTreeSet::from([scenario::cluster_ip("web")?]);
    for name in ["web", "web.demo.svc.cluster.local."] {
        let found = scenario::resolve("client", name, scenario::Record::A)?;
        ensure!(found == want, "{name} resolves to {found:?}, not to {want:?}");
    }
    ensure!(scenario::resolve("client", "no-such-service", scenario::Record::A)?.is_empty());
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a4_the_audit_log_tells_who_wrote() -> Result<()> {
    installed()?;
    let log = audit::Log::from_now(cluster::audit_log())?;
    cluster::kubectl(&[
        "-n",
        scenario::NAMESPACE,
        "annotate",
        "service/web",
        "--overwrite",
        "example.com/touched=yes",
    ])?;
    wait::until(Duration::from_secs(30), "the write to be logged", || {
        let of_admin = log
            .requests()?
            .into_iter()
            .filter(|request| request.user == "admin" && request.is_write());
        let patches: Vec<_> = of_admin
            .map(|request| (request.verb, request.resource, request.name))
            .collect();
        Ok(patches == [("patch".to_owned(), "services".to_owned(), "web".to_owned())])
    })?;
    cluster::kubectl(&[
        "-n",
        scenario::NAMESPACE,
        "annotate",
        "service/web",
        "example.com/touched-",
    ])?;
    Ok(())
}

/// The hardest case last: every process of the node dies, and `/run` with all network namespaces is gone.
#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn b1_a_rebooted_node_serves_again() -> Result<()> {
    let narrator = installed()?;
    let node = scenario::client()?.node;
    cluster::reboot(&node, &|line| eprintln!("{line}"))?;
    wait::until(
        Duration::from_mins(5),
        "the pods of the rebooted node to run again",
        || {
            let ready = "jsonpath={range .items[*]}{.status.phase} {.status.conditions[?(@.type=='Ready')].status};{end}";
            let pods = cluster::kubectl(&["-n", scenario::NAMESPACE, "get", "pods", "-o", ready])?;
            Ok(pods.split_terminator(';').all(|pod| pod == "Running True"))
        },
    )?;
    e2e::demo::proof::slices_hold_second_network_addresses(narrator)?;
    e2e::demo::proof::both_servers_answer_over_net1(narrator)
}
