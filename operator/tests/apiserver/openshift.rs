//! OpenShift's own CustomResourceDefinitions on the API server: absent, then installed.

use crate::fixture::{Fixture, NAMESPACE, message, repository};
use anyhow::{Context as _, Result, ensure};
use api::names::{CONFIG_NAME, CONTROLLER, OPERATOR, OPERATOR_FIELD_MANAGER, PROXY};
use operator::operands::SELECTOR;
use serde_json::json;
use std::time::Instant;
use testbed::tools;

const INFRASTRUCTURE: &str = "0000_10_config-operator_01_infrastructures-Default.crd.yaml";
const NETWORKS: &str = "0000_10_config-operator_01_networks.crd.yaml";
const QUICK_STARTS: &str = "00_consolequickstarts.crd.yaml";
const YAML_SAMPLES: &str = "00_consoleyamlsamples.crd.yaml";

/// Defines a kind with OpenShift's CRD.
async fn define(fixture: &Fixture, file: &str) -> Result<()> {
    let tool =
        tokio::task::spawn_blocking(|| tools::ensure(&[&tools::OPENSHIFT], &|line| eprintln!("{line}")))
            .await??;
    let file = tool.program(&tools::OPENSHIFT, file)?.display().to_string();
    fixture.kubectl(&["apply", "--server-side", "-f", &file])?;
    fixture.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        &file,
    ])?;
    Ok(())
}

/// Kinds of OpenShift's console.
pub(crate) async fn define_the_console(fixture: &Fixture) -> Result<()> {
    define(fixture, QUICK_STARTS).await?;
    define(fixture, YAML_SAMPLES).await
}

/// OpenShift's network configuration, without an object.
pub(crate) async fn define_the_network_configuration(fixture: &Fixture) -> Result<()> {
    define(fixture, NETWORKS).await
}

/// OpenShift's infrastructure object. The next reconcile observes it, with any trigger.
pub(crate) async fn become_openshift(fixture: &Fixture, topology: &str) -> Result<()> {
    define(fixture, INFRASTRUCTURE).await?;
    let object = fixture.server.folder().join("infrastructure.json");
    let infrastructure = json!({
        "apiVersion": "config.openshift.io/v1", "kind": "Infrastructure",
        "metadata": { "name": "cluster" }, "spec": {},
    });
    std::fs::write(&object, infrastructure.to_string())?;
    fixture.kubectl(&["apply", "-f", &object.display().to_string()])?;
    let status = json!({ "status": {
        "controlPlaneTopology": topology, "infrastructureTopology": topology,
        "cpuPartitioning": "None", "etcdDiscoveryDomain": "", "infrastructureName": "test",
    } });
    fixture.kubectl(&[
        "patch",
        "infrastructures.config.openshift.io",
        "cluster",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])?;
    Ok(())
}

/// Replicas of the controller, and the arguments of both operands.
async fn look(fixture: &Fixture) -> Result<(Option<i32>, String)> {
    let controller = fixture.controller().await?.context("no Deployment")?;
    let replicas = controller.spec.and_then(|spec| spec.replicas);
    let args = |kind: &str, name: &str| {
        fixture.kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", "jsonpath={..args}"])
    };
    let args = args("deployment", CONTROLLER)? + &args("daemonset", PROXY)?;
    Ok((replicas, args))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn single_replica_openshift_gets_one_controller_and_the_namespaces_of_multus() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let (replicas, args) = look(&fixture).await?;
    ensure!(
        replicas == Some(2) && !args.contains("openshift-multus"),
        "without OpenShift: {replicas:?}, {args}"
    );

    become_openshift(&fixture, "SingleReplica").await?;
    fixture.set_spec(json!({ "logLevel": "Debug" })).await?;
    fixture
        .eventually("the defaults of a single-replica OpenShift", async || {
            let (replicas, args) = look(&fixture).await?;
            let count = args.matches("openshift-multus").count();
            ensure!(
                replicas == Some(1) && count == 2,
                "there are {replicas:?} replicas, arguments {args}"
            );
            Ok(Some(()))
        })
        .await?;
    fixture.until_installed().await?;
    Ok(())
}

/// Waits until both operands get these Service CIDRs, or none.
async fn until_ranges(fixture: &Fixture, want: Option<&str>) -> Result<()> {
    fixture
        .eventually(&format!("ranges {want:?}"), async || {
            let (_, args) = look(fixture).await?;
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

/// The API server of the test serves ServiceCIDRs; the crash proxy hides them. Every change is observed by a watch.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn service_cidrs_come_from_openshift_or_the_configuration_or_are_reported_as_unknown() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    fixture.start_operator_without_service_cidrs().await?;
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    let config = fixture
        .until_conditions(&[
            "Available=True/ServiceCIDRsUnknown",
            "Progressing=False/AsExpected",
            "Degraded=False/AsExpected",
        ])
        .await?;
    let reported = message(&config, "Available");
    ensure!(reported.contains("set spec.serviceCIDRs"), "{reported}");
    until_ranges(&fixture, None).await?;

    fixture
        .set_spec(json!({ "serviceCIDRs": ["10.96.0.0/12"] }))
        .await?;
    until_ranges(&fixture, Some("10.96.0.0/12")).await?;
    fixture.until_installed().await?;

    define_the_network_configuration(&fixture).await?;
    let network = |ranges: &[&str]| {
        json!({
            "apiVersion": "config.openshift.io/v1", "kind": "Network", "metadata": { "name": "cluster" },
            "spec": { "clusterNetwork": [], "serviceNetwork": ranges, "networkType": "OVNKubernetes" },
        })
    };
    fixture.apply(&network(&["172.30.0.0/16"]))?;
    until_ranges(&fixture, Some("172.30.0.0/16")).await?;
    fixture.apply(&network(&["172.30.0.0/16", "fd02::/112"]))?;
    until_ranges(&fixture, Some("172.30.0.0/16,fd02::/112")).await?;
    fixture.kubectl(&["delete", "networks.config.openshift.io", "cluster"])?;
    until_ranges(&fixture, Some("10.96.0.0/12")).await?;
    fixture.until_installed().await?;
    // The cluster publishes its Service CIDRs itself, and the operator detects that: no argument is passed.
    fixture.stop_operator().await?;
    fixture.start_operator(true).await?;
    until_ranges(&fixture, None).await?;
    fixture.until_installed().await?;
    Ok(())
}

/// Our objects of one of the console's kinds.
fn shown(fixture: &Fixture, kind: &str) -> Result<Vec<String>> {
    let listed = fixture.kubectl(&[
        "get",
        kind,
        "-l",
        SELECTOR,
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ])?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}

pub(crate) async fn until_shown(fixture: &Fixture, kind: &str, want: &[&str]) -> Result<()> {
    let began = Instant::now();
    fixture
        .eventually(&format!("{kind} {want:?}"), async || {
            let shown = shown(fixture, kind)?;
            ensure!(shown == want, "there are {shown:?}");
            Ok(Some(()))
        })
        .await?;
    eprintln!("{kind} {want:?} after {:.1?}", began.elapsed());
    Ok(())
}

pub(crate) const TOUR: &str = "multus-service-first-service";
pub(crate) const SAMPLES: [&str; 2] = ["multus-service-headless", "multus-service-service"];

/// Every change must be observed in less than the five minutes of the resync.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn console_objects_exist_while_the_console_does() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let related = async |fixture: &Fixture| -> Result<usize> {
        let related = fixture
            .config()
            .await?
            .status
            .context("no status")?
            .related_objects;
        Ok(related
            .iter()
            .filter(|object| object.group == "console.openshift.io")
            .count())
    };
    assert_eq!(related(&fixture).await?, 0);

    define(&fixture, QUICK_STARTS).await?;
    until_shown(&fixture, "consolequickstarts", &[TOUR]).await?;
    define(&fixture, YAML_SAMPLES).await?;
    until_shown(&fixture, "consoleyamlsamples", &SAMPLES).await?;
    fixture
        .eventually("all objects to be in the status", async || {
            Ok((related(&fixture).await? == 3).then_some(()))
        })
        .await?;
    fixture.until_installed().await?;

    // As any other operand: deleted, changed, extended.
    fixture.kubectl(&["delete", "consolequickstart", TOUR])?;
    until_shown(&fixture, "consolequickstarts", &[TOUR]).await?;
    let edit = json!({ "spec": { "title": "Mine", "snippet": true } }).to_string();
    fixture.kubectl(&[
        "patch",
        "consoleyamlsample",
        SAMPLES[0],
        "--type=merge",
        "-p",
        &edit,
    ])?;
    fixture
        .eventually("the sample to be repaired", async || {
            let spec =
                fixture.kubectl(&["get", "consoleyamlsample", SAMPLES[0], "-o", "jsonpath={.spec}"])?;
            ensure!(
                !spec.contains("Mine") && !spec.contains("snippet"),
                "it is {spec}"
            );
            Ok(Some(()))
        })
        .await?;

    // The console's kinds are removed, and our objects with them.
    fixture.kubectl(&[
        "delete",
        "crd",
        "consoleyamlsamples.console.openshift.io",
        "--timeout=60s",
    ])?;
    fixture
        .eventually("the samples to leave the status", async || {
            Ok((related(&fixture).await? == 1).then_some(()))
        })
        .await?;
    fixture.until_installed().await?;
    define(&fixture, YAML_SAMPLES).await?;
    until_shown(&fixture, "consoleyamlsamples", &SAMPLES).await?;

    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--timeout=100s"])?;
    assert_eq!(
        shown(&fixture, "consolequickstarts,consoleyamlsamples")?,
        [] as [String; 0]
    );
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    fixture.until_installed().await?;
    until_shown(
        &fixture,
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

/// The OperatorCondition's Upgradeable status.
fn upgradeable_status(fixture: &Fixture) -> Result<String> {
    let path = "jsonpath={.spec.conditions[?(@.type=='Upgradeable')].status}";
    fixture.kubectl(&["-n", NAMESPACE, "get", "operatorcondition", CONDITION, "-o", path])
}

/// A condition of another manager, and an override of an administrator.
fn theirs() -> serde_json::Value {
    let since = "2026-01-01T00:00:00Z";
    json!({
        "conditions": [{ "type": "Other", "status": "True", "reason": "Theirs", "message": "", "lastTransitionTime": since }],
        "overrides": [{ "type": "Third", "status": "False", "reason": "Why", "message": "because" }],
    })
}

/// Fields of other managers are unchanged, and the operator wrote with one field manager, conditions only.
fn fields_of_other_managers_are_kept(fixture: &Fixture) -> Result<()> {
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
    let found: serde_json::Value = serde_json::from_str(&fixture.kubectl(&found)?)?;
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

/// Forbidden, no API, no object, an object; the operator reconciles in all cases.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn operator_condition_reports_upgradeable_and_its_absence_is_tolerated() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    fixture
        .environment
        .insert("OPERATOR_CONDITION_NAME", CONDITION.to_owned());
    fixture.start_operator(true).await?;
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    fixture.until_installed().await?;
    let works = async |fixture: &Fixture, level: &str| {
        fixture.set_spec(json!({ "logLevel": level })).await?;
        fixture.until_installed().await
    };
    for object in role() {
        fixture.apply(&object)?;
    }
    works(&fixture, "Debug").await?;

    let tool =
        tokio::task::spawn_blocking(|| tools::ensure(&[&tools::OLM], &|line| eprintln!("{line}"))).await??;
    let file = tool.program(&tools::OLM, "crds/operators.coreos.com_operatorconditions.yaml")?;
    fixture.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
    let crd = "crd/operatorconditions.operators.coreos.com";
    fixture.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", crd])?;
    works(&fixture, "Normal").await?;

    let metadata = json!({ "name": CONDITION, "namespace": NAMESPACE });
    fixture.apply(&json!({
        "apiVersion": "operators.coreos.com/v2", "kind": "OperatorCondition", "metadata": metadata, "spec": theirs(),
    }))?;
    works(&fixture, "Trace").await?;
    fixture
        .eventually("OperatorCondition to be updated", async || {
            let status = upgradeable_status(&fixture)?;
            ensure!(status == "True", "status: {status:?}");
            Ok(Some(()))
        })
        .await?;

    fixture.nodes.set_holding(true);
    fixture
        .set_spec(json!({ "proxy": { "backend": "IPTables" } }))
        .await?;
    fixture
        .eventually("OLM to be blocked", async || {
            Ok((upgradeable_status(&fixture)? == "False").then_some(()))
        })
        .await?;
    fields_of_other_managers_are_kept(&fixture)?;
    fixture.kubectl(&["-n", NAMESPACE, "delete", "rolebinding", "as-olm-does"])?;
    fixture.nodes.set_holding(false);
    fixture.until_installed().await?;
    ensure!(fixture.operator_is_alive()?, "the operator has ended");
    Ok(())
}
