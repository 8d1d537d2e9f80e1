//! Lifecycle of the proxy on the two-node cluster: its failures affect no connection; it repairs drift; its status,
//! it says; idle, it does nothing.
//!
//! The tests share one cluster and one installation and run one at a time, in the order of their names.

#[path = "lifecycle/discovery.rs"]
mod discovery;
#[path = "lifecycle/endpoints.rs"]
mod endpoints;
#[path = "lifecycle/manual_cleanup.rs"]
mod manual_cleanup;
#[path = "lifecycle/operator.rs"]
mod operator;
#[path = "lifecycle/privileges.rs"]
mod privileges;
#[path = "lifecycle/proxy.rs"]
mod proxy;
#[path = "lifecycle/runtime_hang.rs"]
mod runtime_hang;
#[path = "lifecycle/upgrade.rs"]
mod upgrade;

use anyhow::{Result, ensure};
use api::names::{NAMESPACE, PROXY};
use e2e::demo::{install, installed, scenario};
use e2e::traffic::Traffic;
use proxy::Proxy;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use testbed::audit::service_account;
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(2);

/// Long-lived connections beside the new ones.
const STREAMS: usize = 10;

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a_the_node_status_is_reported() -> Result<()> {
    installed()?;
    let node = scenario::client()?.node;
    wait::until(PATIENCE, "the condition of the proxy's own pod", || {
        let [status, reason, message] = Proxy::on(&node)?.condition()?;
        let is_node_level =
            api::rules_applied::Reason::parse(&reason).is_none_or(api::rules_applied::Reason::is_node_level);
        let backend = api::rules_applied::backend(&reason, &message);
        Ok(status == "True" && !is_node_level && backend.is_some())
    })?;
    let state = Proxy::on(&node)?.state()?;
    let client = state["pods"].as_array().into_iter().flatten();
    let client: Vec<_> = client.filter(|pod| pod["pod"] == "demo/client").collect();
    ensure!(
        client.len() == 1
            && client[0]["progress"] == "Applied"
            && client[0]["services"][0]["applied"] == true,
        "{state:#}"
    );
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn b_drift_in_a_pod_is_repaired() -> Result<()> {
    installed()?;
    let client = scenario::client()?;
    let netns = cluster::netns(&client.node, client.cluster_address)?;
    let inside = |script: &str| {
        cluster::node_exec(
            &client.node,
            &["nsenter", &format!("--net={netns}"), "sh", "-c", script],
        )
    };
    let look = scenario::LIST_RULES;
    let count = |state: &str| state.lines().filter(|line| scenario::is_ours(line)).count();
    let written = || -> Result<usize> { Ok(count(&inside(look)?)) };
    let whole = written()?;
    ensure!(whole > 0, "there are no managed rules to break");
    for harm in [
        "nft flush ruleset",
        "ip route flush proto 77",
        "ip link set net1 down; ip link set net1 up",
    ] {
        let broken = inside(&format!("{harm}; {look}"))?;
        ensure!(count(&broken) < whole, "{harm:?} breaks nothing");
        let began = Instant::now();
        wait::until(
            Duration::from_secs(20),
            &format!("drift by {harm:?} to be repaired"),
            || Ok(written()? == whole),
        )?;
        println!("{harm}: repaired after {:.1?}", began.elapsed());
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn c_idle_it_does_nothing() -> Result<()> {
    installed()?;
    let node = scenario::client()?.node;
    let proxy = Proxy::on(&node)?;
    // A condition is written at most every ten seconds: earlier states have been reported by then.
    std::thread::sleep(Duration::from_secs(15));
    let log = cluster::audit_log().from_now()?;
    let before = proxy.usage()?;
    let held = proxy.resources()?;
    println!(
        "descriptors {}, threads {}, KiB {}",
        held.descriptors, held.threads, held.memory_kib
    );
    std::thread::sleep(Duration::from_secs(30));
    let after = proxy.usage()?;
    let own = after.own.saturating_sub(before.own);
    let writes = log.writes_per_user()?;
    let account = service_account(NAMESPACE, PROXY);
    println!("idle for 30 s: {own:?} of CPU");
    ensure!(!writes.contains_key(&account), "writes while idle: {writes:?}");
    ensure!(
        after.children_faults == before.children_faults,
        "programs were run while idle"
    );
    // 0.2 % of a core are 60 ms; clock ticks are 10 ms.
    ensure!(own <= Duration::from_millis(70), "{own:?} of CPU in 30 s");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn d_no_connection_notices_what_happens_to_the_proxy() -> Result<()> {
    installed()?;
    let client = scenario::client()?;
    let vip = SocketAddr::new(scenario::cluster_ip("web")?, 80);
    let traffic = Traffic::with_streams(&client, vip, 200, STREAMS)?;

    for round in 0..3 {
        let victim = Proxy::on(&client.node)?;
        victim.kill()?;
        println!("killed, round {round}");
        victim.wait_for_another(PATIENCE)?;
    }
    let pod = Proxy::on(&client.node)?;
    cluster::kubectl(&["-n", NAMESPACE, "delete", "pod", &pod.name])?;
    pod.wait_for_another(PATIENCE)?;
    println!("stopped and started");
    proxy::set_backend("IPTables")?;
    println!("rolled out with the other backend");
    for node in cluster::NODES {
        cluster::restart_kubelet(node)?;
        cluster::restart_runtime(node)?;
        println!("kubelet and container runtime of {node} restarted");
    }
    proxy::set_backend("Auto")?;
    println!("rolled back");

    let report = traffic.stop()?;
    println!("{report}");
    ensure!(report.attempts > 1000, "{report}");
    report.ensure_unnoticed()
}

/// Endpoints in a run of their own: connections to one that ends may break, new ones must not fail.
#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn d2_no_new_connection_notices_that_endpoints_flip() -> Result<()> {
    installed()?;
    endpoints::flip(&scenario::client()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn e_pods_are_found_on_both_runtimes() -> Result<()> {
    installed()?;
    discovery::pods_are_found("node1")?;
    discovery::pods_are_found("node2")
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn f_a_hanging_runtime_is_reported_and_blocks_only_pods_that_need_it() -> Result<()> {
    installed()?;
    runtime_hang::a_runtime_that_hangs(&scenario::client()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn g_no_connection_notices_that_the_apiserver_is_away() -> Result<()> {
    installed()?;
    runtime_hang::an_apiserver_that_is_away(&scenario::client()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn h_it_may_do_what_is_documented_and_nothing_else() -> Result<()> {
    installed()?;
    for node in cluster::NODES {
        let proxy = Proxy::on(node)?;
        privileges::are_as_documented(&proxy)?;
        privileges::nothing_is_written_to_a_disk(&proxy)?;
        privileges::it_listens_for_probes_and_metrics_alone(&proxy)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn i_no_connection_notices_an_upgrade_nor_a_downgrade() -> Result<()> {
    let narrator = installed()?;
    let before = upgrade::State::now()?;
    let objects = upgrade::objects()?;
    let client = scenario::client()?;
    let vip = SocketAddr::new(scenario::cluster_ip("web")?, 80);
    let traffic = Traffic::with_streams(&client, vip, 200, STREAMS)?;

    let steps = upgrade::follow("0.2.0-test", || {
        install::operator_of(narrator, "0.2.0-test")?;
        // In the middle of what it has begun.
        operator::crash()
    })?;
    upgrade::ensure_in_order(&before, &steps, "0.2.0-test")?;
    ensure!(
        upgrade::objects()? == objects,
        "the upgrade left something, or took something"
    );
    let version = before.observed.clone();
    let upgraded = upgrade::State::now()?;
    // The way back, with the operator killed as soon as it has begun.
    let steps = upgrade::follow(&version, || {
        install::operator(narrator)?;
        operator::kill_once_it_rolls_out(&version)
    })?;
    upgrade::ensure_in_order(&upgraded, &steps, &version)?;
    ensure!(steps.last() == Some(&before), "after the downgrade: {steps:#?}");
    ensure!(
        upgrade::objects()? == objects,
        "the downgrade left something, or took something"
    );

    let report = traffic.stop()?;
    println!("{report}");
    ensure!(report.attempts > 1000, "{report}");
    report.ensure_unnoticed()
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn j_a_change_is_made_although_the_operator_is_killed_meanwhile() -> Result<()> {
    installed()?;
    operator::a_change_survives_its_death()
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn j2_the_operator_is_small() -> Result<()> {
    installed()?;
    operator::its_memory_is_bounded()
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn k_an_image_that_cannot_be_had_is_named_with_its_node() -> Result<()> {
    installed()?;
    operator::a_bad_image_is_named_and_repaired()
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn l_a_node_that_leaves_the_placement_is_cleaned() -> Result<()> {
    installed()?;
    operator::a_node_that_leaves_is_cleaned(&scenario::client()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn m_a_deletion_while_the_operator_is_down_is_done_when_it_is_back() -> Result<()> {
    let narrator = installed()?;
    operator::a_deletion_waits_for_the_operator(narrator, &scenario::client()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn n_nodes_are_cleaned_by_hand() -> Result<()> {
    installed()?;
    manual_cleanup::the_binary_cleans_up_nodes_without_the_operator()
}
