//! Features of the test bed: traffic with a count of failures, failures on purpose, DNS in pods, the audit log. And what
//! the product makes of such failures: no client is affected.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::demo::{installed, scenario};
use e2e::traffic::Traffic;
use testbed::{cluster, wait};

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
    for node in cluster::NODES {
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
    ensure!(format!("{error:#}").contains("Connection refused"), "{error:#}");
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
fn a4_the_audit_log_names_the_writer() -> Result<()> {
    installed()?;
    let log = cluster::audit_log().from_now()?;
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

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a5_pods_have_both_families_and_nodes_reach_each_other_by_both() -> Result<()> {
    installed()?;
    if std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|off| off.trim() != "0")
    {
        eprintln!("SKIPPED: this kernel has IPv6 switched off, so dual-stack was not tested");
        return Ok(());
    }
    let list = "jsonpath={range .items[*]}{.status.podIPs[*].ip};{end}";
    let pods = cluster::kubectl(&[
        "-n",
        scenario::NAMESPACE,
        "get",
        "pods",
        "-l",
        scenario::SERVERS,
        "-o",
        list,
    ])?;
    let pods: Vec<Vec<IpAddr>> = pods
        .split_terminator(';')
        .map(|addresses| {
            addresses
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()
        })
        .collect::<Result<_, _>>()?;
    ensure!(pods.len() == 2, "{pods:?}");
    for addresses in pods {
        ensure!(
            addresses.len() == 2 && addresses[0].is_ipv4() && addresses[1].is_ipv6(),
            "{addresses:?}"
        );
        for address in addresses {
            let url = format!("http://{}/", SocketAddr::new(address, 80));
            let curl = [
                "-n",
                scenario::NAMESPACE,
                "exec",
                "client",
                "--",
                "curl",
                "-sS",
                "--max-time",
                "10",
                &url,
            ];
            let answer = cluster::kubectl(&curl)?;
            ensure!(answer.starts_with("server web-"), "{address} answers {answer:?}");
        }
    }
    Ok(())
}

/// Node authorizer and NodeRestriction: a kubelet reads and writes what concerns its own node.
#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a6_a_node_may_do_no_more_than_a_node() -> Result<()> {
    installed()?;
    let identity = format!(
        "--kubeconfig={}",
        cluster::layout::pki().join("node1.kubeconfig").display()
    );
    let as_node1 = |args: &[&str]| cluster::kubectl(&[&[identity.as_str()], args].concat());
    as_node1(&["get", "node", "node1"])?;
    as_node1(&["label", "node", "node1", "example.com/touched=yes", "--overwrite"])?;
    as_node1(&["label", "node", "node1", "example.com/touched-"])?;
    for forbidden in [
        &["get", "secrets", "-A"][..],
        &["label", "node", "node2", "example.com/touched=yes"],
        &[
            "label",
            "node",
            "node1",
            "node-restriction.kubernetes.io/touched=yes",
        ],
    ] {
        let Err(error) = as_node1(forbidden) else {
            anyhow::bail!("node1 may {forbidden:?}")
        };
        ensure!(format!("{error:#}").contains("orbidden"), "{error:#}");
    }
    Ok(())
}

/// The hardest case last: every process of the node dies, and `/run` with all network namespaces is gone.
#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn b1_a_rebooted_node_serves_again() -> Result<()> {
    let narrator = installed()?;
    let node = scenario::client()?.node;
    let before = pods()?;
    let progressing = progressing()?;
    cluster::reboot(&node, &|line| eprintln!("{line}"))?;
    wait::until(
        Duration::from_mins(5),
        "the pods of the rebooted node to run again",
        || {
            let pods = pods()?;
            // Until the kubelet has looked at them, they are Running and Ready as before the reboot, with the addresses of then.
            let is_recreated = |pod: &Pod| {
                pod.node != node
                    || before
                        .iter()
                        .all(|old| old.name != pod.name || old.restarts < pod.restarts)
            };
            Ok(pods.len() == before.len() && pods.iter().all(|pod| pod.runs && is_recreated(pod)))
        },
    )?;
    e2e::demo::checks::slices_hold_second_network_addresses(narrator)?;
    e2e::demo::checks::both_servers_answer_over_net1(narrator)?;
    let now = self::progressing()?;
    ensure!(
        now == progressing && now.starts_with("False"),
        "a reboot is no roll-out: {now}, before: {progressing}"
    );
    Ok(())
}

/// Status of the configuration's Progressing, and since when.
fn progressing() -> Result<String> {
    let field = |name: &str| format!("{{.status.conditions[?(@.type=='Progressing')].{name}}}");
    let columns = format!("jsonpath={} {}", field("status"), field("lastTransitionTime"));
    cluster::kubectl(&["get", "msc", "cluster", "-o", &columns])
}

/// A pod of the scenario.
struct Pod {
    name: String,
    node: String,
    restarts: u64,
    /// Running and Ready.
    runs: bool,
}

fn pods() -> Result<Vec<Pod>> {
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.containerStatuses[0].restartCount} \
                   {.status.phase} {.status.conditions[?(@.type=='Ready')].status};{end}";
    let printed = cluster::kubectl(&["-n", scenario::NAMESPACE, "get", "pods", "-o", columns])?;
    printed
        .split_terminator(';')
        .map(|line| {
            let columns: Vec<_> = line.split(' ').filter(|column| !column.is_empty()).collect();
            let &[name, node, restarts, phase, ready] = columns.as_slice() else {
                anyhow::bail!("a pod without a status: {line:?}");
            };
            Ok(Pod {
                name: name.to_owned(),
                node: node.to_owned(),
                restarts: restarts.parse()?,
                runs: phase == "Running" && ready == "True",
            })
        })
        .collect()
}
