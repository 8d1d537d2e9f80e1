//! The life of the operator under the Operator Lifecycle Manager, on the two-node cluster: from the catalog to the last object.
//!
//! The tests share one cluster and one OLM and run one at a time, in the order of their names; each begins where the one before ended.

#[path = "olm/releases.rs"]
mod releases;
#[path = "olm/subscription.rs"]
mod subscription;

use anyhow::{Result, ensure};
use api::names::{NAMESPACE, OPERATOR};
use e2e::demo::{Narrator, proof, scenario};
use e2e::traffic::Traffic;
use e2e::{cluster, wait};
use releases::{Release, published, releases};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use subscription::{deployment_of_the_operator, olm};

const PATIENCE: Duration = Duration::from_mins(4);

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a1_an_administrator_installs_it_from_the_catalog() -> Result<()> {
    subscription::begin()?;
    let [first, ..] = releases()?;
    olm()?.publish(&published(&[first]))?;
    let began = Instant::now();
    subscription::subscribe()?;
    subscription::wait_for_success(first)?;
    println!("installed {:.0?} after the subscription", began.elapsed());

    let deployment = deployment_of_the_operator()?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["image"] == first.images[0].name, "{container:#}");
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        &format!("deployment/{OPERATOR}"),
        "--timeout=120s",
    ])?;
    // What OpenShift's console shows is there, too.
    for object in [
        "consolequickstart/multus-service-first-service",
        "consoleyamlsample/multus-service-headless",
    ] {
        cluster::kubectl(&["get", object])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a2_the_subscriptions_settings_reach_the_operator() -> Result<()> {
    let deployment = deployment_of_the_operator()?;
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let has = |list: &serde_json::Value, item: &serde_json::Value| {
        list.as_array().is_some_and(|list| list.contains(item))
    };
    let settings = subscription::settings();
    ensure!(has(&container["env"], &settings["env"][0]), "{container:#}");
    ensure!(has(&pod["tolerations"], &settings["tolerations"][0]), "{pod:#}");
    ensure!(container["resources"] == settings["resources"], "{container:#}");
    // And what it sets of its own, which OLM v1 does not.
    ensure!(
        container["env"].to_string().contains("OPERATOR_CONDITION_NAME"),
        "{container:#}"
    );
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a3_the_offered_configuration_makes_services_work() -> Result<()> {
    let [first, ..] = releases()?;
    subscription::apply_offered_configuration(first)?;
    cluster::kubectl(&[
        "wait",
        "msc/cluster",
        "--for=condition=Available",
        "--timeout=300s",
    ])?;
    let narrator = Narrator::default();
    scenario::apply(&narrator)?;
    proof::both_servers_answer_over_net1(&narrator)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn b1_no_connection_notices_an_upgrade_by_the_catalog() -> Result<()> {
    let [first, second, _] = releases()?;
    let vip = SocketAddr::new(scenario::cluster_ip("web")?, 80);
    let traffic = Traffic::start(&scenario::client()?, vip, 100)?;
    let began = Instant::now();
    olm()?.publish(&published(&[first, second]))?;
    subscription::wait_for_success(second)?;
    println!("the new operator runs after {:.0?}", began.elapsed());
    wait_for_operands(second)?;
    println!("its operands run after {:.0?}", began.elapsed());
    let report = traffic.stop()?;
    println!("{report}");
    ensure!(report.attempts > 500 && report.failed == 0, "{report}");
    Ok(())
}

/// Every pod of controller and proxy has the release's image, and the configuration says that nothing is going on.
fn wait_for_operands(release: &Release) -> Result<()> {
    let [_, controller, proxy] = &release.images;
    wait::until(PATIENCE, "controller and proxy to be rolled out", || {
        for (name, image) in [(api::names::CONTROLLER, controller), (api::names::PROXY, proxy)] {
            let label = format!("app.kubernetes.io/name={name}");
            let images = "jsonpath={.items[*].spec.containers[0].image}";
            let images = cluster::kubectl(&["-n", NAMESPACE, "get", "pods", "-l", &label, "-o", images])?;
            if images.is_empty() || images.split_whitespace().any(|found| found != image.name) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    cluster::kubectl(&[
        "wait",
        "msc/cluster",
        "--for=condition=Progressing=False",
        "--timeout=240s",
    ])?;
    cluster::kubectl(&[
        "wait",
        "msc/cluster",
        "--for=condition=Available",
        "--timeout=60s",
    ])?;
    Ok(())
}
