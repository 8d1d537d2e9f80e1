//! The life of the operator under the Operator Lifecycle Manager, on the two-node cluster: from the catalog to the last object.
//!
//! The tests share one cluster and one OLM and run one at a time, in the order of their names; each begins where the one before ended.

#[path = "olm/releases.rs"]
mod releases;
#[path = "olm/removal.rs"]
mod removal;
#[path = "olm/subscription.rs"]
mod subscription;

use anyhow::{Context as _, Result, anyhow, ensure};
use api::names::{NAMESPACE, OPERATOR};
use e2e::admin::{apply, set_spec};
use e2e::demo::{Narrator, checks, scenario};
use e2e::traffic::Traffic;
use releases::{Release, published, releases};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use subscription::{deployment_of_the_operator, olm};
use testbed::{cluster, wait};

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
    // What OpenShift's console shows is there, too.
    for object in [
        "consolequickstart/multus-service-first-service",
        "consoleyamlsample/multus-service-headless",
    ] {
        cluster::kubectl(&["get", object])?;
    }
    let narrator = Narrator::default();
    scenario::apply(&narrator)?;
    checks::both_servers_answer_over_net1(&narrator)
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

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn c1_an_update_waits_while_the_operator_is_not_upgradeable() -> Result<()> {
    let [first, second, third] = releases()?;
    manage("Unmanaged")?;
    wait::until(PATIENCE, "OLM to know that there must be no update", || {
        let found = cluster::kubectl(&[
            "-n",
            NAMESPACE,
            "get",
            "operatorcondition",
            &second.csv(),
            "-o",
            UPGRADEABLE,
        ])?;
        ensure!(found == "False", "Upgradeable is {found:?}");
        Ok(true)
    })?;
    olm()?.publish(&published(&[first, second, third]))?;
    wait::until(PATIENCE, "OLM to hold the update back", || {
        let waiting = subscription::csv(third)?.context("it is not there yet")?;
        let (phase, reason) = (&waiting["status"]["phase"], &waiting["status"]["reason"]);
        let message = waiting["status"]["message"].as_str().unwrap_or_default();
        if phase == "Pending"
            && reason == "OperatorConditionNotUpgradeable"
            && message.contains("spec.managementState is Unmanaged")
            && message.contains("set it to Managed")
        {
            return Ok(true);
        }
        Err(anyhow!("{phase} {reason}: {message}"))
    })?;
    let container = &deployment_of_the_operator()?["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["image"] == second.images[0].name, "{container:#}");

    manage("Managed")?;
    subscription::wait_for_success(third)?;
    wait_for_operands(third)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn d1_who_removes_the_operator_first_gets_out_by_subscribing_again() -> Result<()> {
    let [.., third] = releases()?;
    let client = scenario::client()?;
    ensure!(
        !client.rules()?.is_empty(),
        "the client's pod has no rules to be left behind"
    );
    subscription::unsubscribe()?;
    cluster::kubectl(&["delete", "msc", "cluster", "--wait=false"])?;
    let finalizers = "jsonpath={.metadata.deletionTimestamp} {.metadata.finalizers}";
    let found = cluster::kubectl(&["get", "msc", "cluster", "-o", finalizers])?;
    ensure!(
        found.contains("multusservice.cni.cncf.io"),
        "nothing holds the configuration: {found}"
    );
    ensure!(!client.rules()?.is_empty(), "who took the rules away?");

    subscription::subscribe()?;
    subscription::wait_for_success(third)?;
    cluster::kubectl(&["wait", "msc/cluster", "--for=delete", "--timeout=240s"])?;
    let left = client.rules()?;
    ensure!(left.is_empty(), "left in the client's namespace: {left:#?}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn d2_the_documented_removal_leaves_nothing() -> Result<()> {
    let [.., third] = releases()?;
    let client = scenario::client()?;
    subscription::apply_offered_configuration(third)?;
    wait_for_operands(third)?;
    wait::until(PATIENCE, "the client's rules to be there again", || {
        Ok(!client.rules()?.is_empty())
    })?;
    let commands = removal::documented("## Removing")?;
    ensure!(commands.len() > 5, "{commands:#?}");
    for command in commands {
        println!("{command}");
        removal::run(&command)?;
    }
    removal::wait_until_nothing_is_left()?;
    let left = client.rules()?;
    ensure!(left.is_empty(), "left in the client's namespace: {left:#?}");
    olm()?.remove()
}

/// Without OLM v0's kinds, its variables and its operator condition.
#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn e1_what_olm_v1_makes_of_the_bundle_works() -> Result<()> {
    let [.., third] = releases()?;
    subscription::apply_suggested_namespace(third)?;
    let objects = olm::registry_v1::objects(&third.bundle, NAMESPACE)?;
    let is_crd = |object: &&serde_json::Value| object["kind"] == "CustomResourceDefinition";
    objects.iter().filter(is_crd).try_for_each(apply)?;
    cluster::kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd",
        "--all",
    ])?;
    objects
        .iter()
        .filter(|object| !is_crd(object))
        .try_for_each(apply)?;
    let deployment = format!("deployment/{OPERATOR}");
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        &deployment,
        "--timeout=120s",
    ])?;
    let pods = cluster::kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "yaml"])?;
    ensure!(
        pods.contains("OPERATOR_VERSION") && !pods.contains("OPERATOR_CONDITION_NAME"),
        "{pods}"
    );
    subscription::apply_offered_configuration(third)?;
    wait_for_operands(third)?;
    checks::both_servers_answer_over_net1(&Narrator::default())?;

    cluster::kubectl(&["delete", "msc", "cluster", "--timeout=240s"])?;
    for object in objects.iter().rev() {
        removal::delete(object)?;
    }
    cluster::kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"])?;
    removal::wait_until_nothing_is_left()
}

const UPGRADEABLE: &str = "jsonpath={.status.conditions[?(@.type=='Upgradeable')].status}";

fn manage(state: &str) -> Result<()> {
    set_spec(&serde_json::json!({ "managementState": state }))
}

/// Every pod of controller and proxy has the release's image, and the configuration says that nothing is going on.
fn wait_for_operands(release: &Release) -> Result<()> {
    let [_, controller, proxy, _] = &release.images;
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
    // It says so, too: the version is that of the release and not that of the crate, which all three share.
    let version = release.version.to_string();
    wait::until(PATIENCE, "the status to name the release", || {
        let versions = "jsonpath={.status.operatorVersion} {.status.observedVersion}";
        let found = cluster::kubectl(&["get", "msc", "cluster", "-o", versions])?;
        ensure!(
            found == format!("{version} {version}"),
            "it names {found:?}, not {version}"
        );
        Ok(true)
    })
}
