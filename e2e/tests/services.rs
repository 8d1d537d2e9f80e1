//! The whole system on the two-node cluster: what the demo claims, and that bad objects harm only themselves.
//!
//! The tests share one cluster and one installation and run one at a time, in the order of their names.

use anyhow::{Result, ensure};
use e2e::demo::{checks, installed, scenario};
use std::path::Path;
use std::time::Duration;
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a1_the_slices_hold_second_network_addresses() -> Result<()> {
    checks::slices_hold_second_network_addresses(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a2_both_servers_answer_over_net1() -> Result<()> {
    checks::both_servers_answer_over_net1(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a3_no_packet_takes_eth0() -> Result<()> {
    checks::no_packet_takes_eth0(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a4_readiness_is_followed() -> Result<()> {
    checks::readiness_is_followed(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a5_an_ordinary_service_is_untouched() -> Result<()> {
    checks::an_ordinary_service_is_untouched(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a6_clients_on_both_nodes_are_served() -> Result<()> {
    installed()?;
    checks::servers_are_clients_too()
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn b1_broken_objects_do_not_affect_a_good_service() -> Result<()> {
    let narrator = installed()?;
    let outcome = apply_broken_objects().and_then(|()| {
        broken_objects_are_named()?;
        checks::slices_hold_second_network_addresses(narrator)?;
        checks::both_servers_answer_over_net1(narrator)?;
        // The rules still follow: a change after the broken objects arrived is applied.
        checks::readiness_is_followed(narrator)
    });
    for file in ["services.yaml", "pods.yaml"] {
        cluster::kubectl(&[
            "delete",
            "-f",
            &broken(file),
            "--ignore-not-found",
            "--timeout=60s",
        ])?;
    }
    outcome
}

/// The pods get their broken annotation when they run: Multus writes a good one before.
fn apply_broken_objects() -> Result<()> {
    const BROKEN: [(&str, &str); 3] = [
        ("garbage-status", r#"{"not": ["a list""#),
        (
            "loopback-status",
            r#"[{"name": "demo/macvlan1", "interface": "net1", "ips": ["127.0.0.1"]}]"#,
        ),
        (
            "no-address-status",
            r#"[{"name": "demo/macvlan1", "interface": "net1", "ips": ["10.1.0.300", "", "x"]}]"#,
        ),
    ];
    for file in ["services.yaml", "pods.yaml"] {
        cluster::kubectl(&["apply", "-f", &broken(file)])?;
    }
    for (pod, status) in BROKEN {
        let pod = format!("pod/{pod}");
        cluster::kubectl(&[
            "-n",
            scenario::NAMESPACE,
            "wait",
            &pod,
            "--for=condition=Ready",
            "--timeout=120s",
        ])?;
        let annotation = format!("{}={status}", api::names::NETWORK_STATUS_ANNOTATION);
        cluster::kubectl(&[
            "-n",
            scenario::NAMESPACE,
            "annotate",
            &pod,
            "--overwrite",
            &annotation,
        ])?;
    }
    Ok(())
}

/// Each broken Service has a Warning that names what is wrong.
fn broken_objects_are_named() -> Result<()> {
    for (service, word) in [
        ("no-annotation", "k8s.v1.cni.cncf.io/service-network"),
        ("malformed-annotation", "macvlan1,other/../net"),
        ("external", "ExternalName"),
    ] {
        wait::until(PATIENCE, &format!("a Warning about service {service}"), || {
            let selector = format!("involvedObject.kind=Service,involvedObject.name={service},type=Warning");
            let events = cluster::kubectl(&[
                "-n",
                scenario::NAMESPACE,
                "get",
                "events",
                "--field-selector",
                &selector,
            ])?;
            Ok(events.contains(word))
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn z_removal_leaves_no_rule_and_no_operand() -> Result<()> {
    installed()?;
    let mut pods = scenario::servers()?;
    pods.push(scenario::client()?);
    for pod in &pods {
        ensure!(!pod.rules()?.is_empty(), "{} has nothing to be removed", pod.pod);
    }

    cluster::kubectl(&["delete", "msc", "cluster", "--timeout=120s"])?;

    for pod in &pods {
        let left = pod.rules()?;
        ensure!(left.is_empty(), "left in {}: {left:#?}", pod.pod);
    }
    let operands = cluster::kubectl(&[
        "-n",
        api::names::NAMESPACE,
        "get",
        "deployments,daemonsets",
        "-o",
        "name",
    ])?;
    ensure!(
        operands.trim() == format!("deployment.apps/{}", api::names::OPERATOR),
        "left on the cluster: {operands}"
    );
    Ok(())
}

fn broken(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/broken")
        .join(file)
        .display()
        .to_string()
}
