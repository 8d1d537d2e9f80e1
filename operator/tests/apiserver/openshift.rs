//! OpenShift's own CustomResourceDefinitions on the API server: absent, then there.

use crate::bed::{Bed, NAMESPACE, message, repository};
use anyhow::{Context as _, Result, ensure};
use api::names::{CONFIG_NAME, CONTROLLER, OPERATOR, OPERATOR_FIELD_MANAGER, PROXY};
use e2e::tools;
use operator::operands::SELECTOR;
use serde_json::json;
use std::time::Instant;

const INFRASTRUCTURE: &str = "0000_10_config-operator_01_infrastructures-Default.crd.yaml";
const NETWORKS: &str = "0000_10_config-operator_01_networks.crd.yaml";
const QUICK_STARTS: &str = "00_consolequickstarts.crd.yaml";
const YAML_SAMPLES: &str = "00_consoleyamlsamples.crd.yaml";

/// Defines a kind as OpenShift does.
async fn define(bed: &Bed, file: &str) -> Result<()> {
    let tool =
        tokio::task::spawn_blocking(|| tools::ensure(&[&tools::OPENSHIFT], &|line| eprintln!("{line}")))
            .await??;
    let file = tool.program(&tools::OPENSHIFT, file)?.display().to_string();
    bed.kubectl(&["apply", "--server-side", "-f", &file])?;
    bed.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        &file,
    ])?;
    Ok(())
}

/// Kinds of OpenShift's console.
pub(crate) async fn define_the_console(bed: &Bed) -> Result<()> {
    define(bed, QUICK_STARTS).await?;
    define(bed, YAML_SAMPLES).await
}

/// OpenShift's network configuration, without an object.
pub(crate) async fn define_the_network_configuration(bed: &Bed) -> Result<()> {
    define(bed, NETWORKS).await
}

/// Replicas of the controller, and the arguments of both operands.
async fn look(bed: &Bed) -> Result<(Option<i32>, String)> {
    let controller = bed.controller().await?.context("no Deployment")?;
    let replicas = controller.spec.and_then(|spec| spec.replicas);
    let args = |kind: &str, name: &str| {
        bed.kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", "jsonpath={..args}"])
    };
    let args = args("deployment", CONTROLLER)? + &args("daemonset", PROXY)?;
    Ok((replicas, args))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_single_replica_openshift_gets_one_controller_and_multus_own_namespaces() -> Result<()> {
    let bed = Bed::installed().await?;
    let (replicas, args) = look(&bed).await?;
    ensure!(
        replicas == Some(2) && !args.contains("openshift-multus"),
        "without OpenShift: {replicas:?}, {args}"
    );

    define(&bed, INFRASTRUCTURE).await?;
    let object = bed.server.folder().join("infrastructure.json");
    let infrastructure = json!({
        "apiVersion": "config.openshift.io/v1", "kind": "Infrastructure",
        "metadata": { "name": "cluster" }, "spec": {},
    });
    std::fs::write(&object, infrastructure.to_string())?;
    bed.kubectl(&["apply", "-f", &object.display().to_string()])?;
    let status = json!({ "status": {
        "controlPlaneTopology": "SingleReplica", "infrastructureTopology": "SingleReplica",
        "cpuPartitioning": "None", "etcdDiscoveryDomain": "", "infrastructureName": "test",
    } });
    bed.kubectl(&[
        "patch",
        "infrastructures.config.openshift.io",
        "cluster",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])?;
    // The next turn, whatever it is for, meets it.
    bed.set_spec(json!({ "logLevel": "Debug" })).await?;
    bed.eventually("what suits a single-replica OpenShift", async || {
        let (replicas, args) = look(&bed).await?;
        let told = args.matches("openshift-multus").count();
        ensure!(
            replicas == Some(1) && told == 2,
            "there are {replicas:?} replicas, arguments {args}"
        );
        Ok(Some(()))
    })
    .await?;
    bed.until_installed().await?;
    Ok(())
}

/// Waits until both operands are given these ranges, or none.
async fn until_ranges(bed: &Bed, want: Option<&str>) -> Result<()> {
    bed.eventually(&format!("ranges {want:?}"), async || {
        let (_, args) = look(bed).await?;
        let has = |text: &str| args.matches(text).count();
        let is_given = match want {
            Some(ranges) => has(&format!("\"--service-cidrs={ranges}\"")) == 2,
            None => has("--service-cidrs") == 0,
        };
        ensure!(is_given, "arguments {args}");
        Ok(Some(()))
    })
    .await
}

/// The API server of the test serves ServiceCIDRs; the gate hides that it does. Every change comes of itself, by a watch.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn ranges_come_from_openshift_else_from_the_configuration_else_available_reports_it() -> Result<()> {
    let mut bed = Bed::start().await?;
    bed.start_operator_without_service_cidrs().await?;
    bed.kubectl(&["apply", "-k", &repository("config/samples")])?;
    let config = bed
        .until_conditions(&[
            "Available=True/ServiceCIDRsUnknown",
            "Progressing=False/AsExpected",
            "Degraded=False/AsExpected",
        ])
        .await?;
    let reported = message(&config, "Available");
    ensure!(reported.contains("set spec.serviceCIDRs"), "{reported}");
    until_ranges(&bed, None).await?;

    bed.set_spec(json!({ "serviceCIDRs": ["10.96.0.0/12"] })).await?;
    until_ranges(&bed, Some("10.96.0.0/12")).await?;
    bed.until_installed().await?;

    define_the_network_configuration(&bed).await?;
    let network = |ranges: &[&str]| {
        json!({
            "apiVersion": "config.openshift.io/v1", "kind": "Network", "metadata": { "name": "cluster" },
            "spec": { "clusterNetwork": [], "serviceNetwork": ranges, "networkType": "OVNKubernetes" },
        })
    };
    bed.apply(&network(&["172.30.0.0/16"]))?;
    until_ranges(&bed, Some("172.30.0.0/16")).await?;
    bed.apply(&network(&["172.30.0.0/16", "fd02::/112"]))?;
    until_ranges(&bed, Some("172.30.0.0/16,fd02::/112")).await?;
    bed.kubectl(&["delete", "networks.config.openshift.io", "cluster"])?;
    until_ranges(&bed, Some("10.96.0.0/12")).await?;
    bed.until_installed().await?;
    // A cluster that names its ranges itself, and an operator that finds that out: nothing is passed on.
    bed.stop_operator().await?;
    bed.start_operator(true).await?;
    until_ranges(&bed, None).await?;
    bed.until_installed().await?;
    Ok(())
}

/// Objects of ours of a kind of the console's.
fn shown(bed: &Bed, kind: &str) -> Result<Vec<String>> {
    let listed = bed.kubectl(&[
        "get",
        kind,
        "-l",
        SELECTOR,
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ])?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}

pub(crate) async fn until_shown(bed: &Bed, kind: &str, want: &[&str]) -> Result<()> {
    let began = Instant::now();
    bed.eventually(&format!("{kind} {want:?}"), async || {
        let shown = shown(bed, kind)?;
        ensure!(shown == want, "there are {shown:?}");
        Ok(Some(()))
    })
    .await?;
    eprintln!("{kind} {want:?} after {:.1?}", began.elapsed());
    Ok(())
}

pub(crate) const TOUR: &str = "multus-service-first-service";
pub(crate) const SAMPLES: [&str; 2] = ["multus-service-headless", "multus-service-service"];

/// Everything that must come of itself comes in less than the five minutes after which the operator looks anyway.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_console_shows_us_as_soon_as_and_as_long_as_it_is_there() -> Result<()> {
    let bed = Bed::installed().await?;
    let related = async |bed: &Bed| -> Result<usize> {
        let related = bed.config().await?.status.context("no status")?.related_objects;
        Ok(related
            .iter()
            .filter(|object| object.group == "console.openshift.io")
            .count())
    };
    assert_eq!(related(&bed).await?, 0);

    define(&bed, QUICK_STARTS).await?;
    until_shown(&bed, "consolequickstarts", &[TOUR]).await?;
    define(&bed, YAML_SAMPLES).await?;
    until_shown(&bed, "consoleyamlsamples", &SAMPLES).await?;
    bed.eventually("all to be named in the status", async || {
        Ok((related(&bed).await? == 3).then_some(()))
    })
    .await?;
    bed.until_installed().await?;

    // As any other operand: deleted, changed, added to.
    bed.kubectl(&["delete", "consolequickstart", TOUR])?;
    until_shown(&bed, "consolequickstarts", &[TOUR]).await?;
    let edit = json!({ "spec": { "title": "Mine", "snippet": true } }).to_string();
    bed.kubectl(&[
        "patch",
        "consoleyamlsample",
        SAMPLES[0],
        "--type=merge",
        "-p",
        &edit,
    ])?;
    bed.eventually("the sample to be mended", async || {
        let spec = bed.kubectl(&["get", "consoleyamlsample", SAMPLES[0], "-o", "jsonpath={.spec}"])?;
        ensure!(
            !spec.contains("Mine") && !spec.contains("snippet"),
            "it is {spec}"
        );
        Ok(Some(()))
    })
    .await?;

    // The console goes, and its objects with it.
    bed.kubectl(&[
        "delete",
        "crd",
        "consoleyamlsamples.console.openshift.io",
        "--timeout=60s",
    ])?;
    bed.eventually("the samples to be forgotten", async || {
        Ok((related(&bed).await? == 1).then_some(()))
    })
    .await?;
    bed.until_installed().await?;
    define(&bed, YAML_SAMPLES).await?;
    until_shown(&bed, "consoleyamlsamples", &SAMPLES).await?;

    bed.kubectl(&["delete", "msc", CONFIG_NAME, "--timeout=100s"])?;
    assert_eq!(
        shown(&bed, "consolequickstarts,consoleyamlsamples")?,
        [] as [String; 0]
    );
    bed.kubectl(&["apply", "-k", &repository("config/samples")])?;
    bed.until_installed().await?;
    until_shown(
        &bed,
        "consolequickstarts,consoleyamlsamples",
        &[TOUR, SAMPLES[0], SAMPLES[1]],
    )
    .await
}

const CONDITION: &str = "multus-service.v9.9.9";

fn role() -> [serde_json::Value; 2] {
    let metadata = json!({ "name": "as-olm-does", "namespace": NAMESPACE });
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{
                "apiGroups": ["operators.coreos.com"], "resources": ["operatorconditions"], "resourceNames": [CONDITION],
                "verbs": ["get", "list", "update", "patch", "delete"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "as-olm-does" },
            "subjects": [{ "kind": "ServiceAccount", "name": OPERATOR, "namespace": NAMESPACE }],
        }),
    ]
}

/// What OLM has been told.
fn told(bed: &Bed) -> Result<String> {
    let path = "jsonpath={.spec.conditions[?(@.type=='Upgradeable')].status}";
    bed.kubectl(&["-n", NAMESPACE, "get", "operatorcondition", CONDITION, "-o", path])
}

/// A condition of somebody else's, and what an administrator overrides.
fn theirs() -> serde_json::Value {
    let since = "2026-01-01T00:00:00Z";
    json!({
        "conditions": [{ "type": "Other", "status": "True", "reason": "Theirs", "message": "", "lastTransitionTime": since }],
        "overrides": [{ "type": "Third", "status": "False", "reason": "Why", "message": "because" }],
    })
}

/// All of it is as they wrote it, and we have written in one name, conditions only.
fn others_keep_what_is_theirs(bed: &Bed) -> Result<()> {
    let found = [
        "-n",
        NAMESPACE,
        "get",
        "operatorcondition",
        CONDITION,
        "-o",
        "json",
        "--show-managed-fields",
    ];
    let found: serde_json::Value = serde_json::from_str(&bed.kubectl(&found)?)?;
    let theirs = theirs();
    assert_eq!(found["spec"]["conditions"][0], theirs["conditions"][0]);
    assert_eq!(found["spec"]["overrides"], theirs["overrides"]);
    assert_eq!(found["spec"]["conditions"].as_array().map(Vec::len), Some(2));
    let entries = found["metadata"]["managedFields"]
        .as_array()
        .context("no managers")?;
    let managers: Vec<_> = entries.iter().map(|entry| &entry["manager"]).collect();
    assert_eq!(managers, ["kubectl", OPERATOR_FIELD_MANAGER]);
    assert_eq!(
        entries[1]["fieldsV1"],
        json!({ "f:spec": { "f:conditions": {} } })
    );
    let of_theirs = &entries[0]["fieldsV1"]["f:spec"];
    ensure!(!of_theirs["f:overrides"].is_null(), "{of_theirs}");
    Ok(())
}

/// Forbidden, no API, no object, an object; the operator does its work all the time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn olm_is_told_whether_it_may_upgrade_and_its_absence_stops_nothing() -> Result<()> {
    let mut bed = Bed::start().await?;
    bed.environment
        .insert("OPERATOR_CONDITION_NAME", CONDITION.to_owned());
    bed.start_operator(true).await?;
    bed.kubectl(&["apply", "-k", &repository("config/samples")])?;
    bed.until_installed().await?;
    let works = async |bed: &Bed, level: &str| {
        bed.set_spec(json!({ "logLevel": level })).await?;
        bed.until_installed().await
    };
    for object in role() {
        bed.apply(&object)?;
    }
    works(&bed, "Debug").await?;

    let tool =
        tokio::task::spawn_blocking(|| tools::ensure(&[&tools::OLM], &|line| eprintln!("{line}"))).await??;
    let file = tool.program(&tools::OLM, "crds/operators.coreos.com_operatorconditions.yaml")?;
    bed.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
    let crd = "crd/operatorconditions.operators.coreos.com";
    bed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", crd])?;
    works(&bed, "Normal").await?;

    let metadata = json!({ "name": CONDITION, "namespace": NAMESPACE });
    bed.apply(&json!({
        "apiVersion": "operators.coreos.com/v2", "kind": "OperatorCondition", "metadata": metadata, "spec": theirs(),
    }))?;
    works(&bed, "Trace").await?;
    bed.eventually("OLM to be told", async || {
        let told = told(&bed)?;
        ensure!(told == "True", "told: {told:?}");
        Ok(Some(()))
    })
    .await?;

    bed.nodes.set_holding(true);
    bed.set_spec(json!({ "proxy": { "backend": "IPTables" } }))
        .await?;
    bed.eventually("OLM to be told to wait", async || {
        Ok((told(&bed)? == "False").then_some(()))
    })
    .await?;
    others_keep_what_is_theirs(&bed)?;
    bed.kubectl(&["-n", NAMESPACE, "delete", "rolebinding", "as-olm-does"])?;
    bed.nodes.set_holding(false);
    bed.until_installed().await?;
    ensure!(bed.operator_is_alive()?, "the operator has ended");
    Ok(())
}
