//! OpenShift's own CustomResourceDefinitions on the API server: absent, then there.

use crate::bed::{Bed, NAMESPACE};
use anyhow::{Context as _, Result, ensure};
use api::names::{CONTROLLER, OPERATOR, PROXY};
use e2e::tools;
use serde_json::json;

const INFRASTRUCTURE: &str = "0000_10_config-operator_01_infrastructures-Default.crd.yaml";

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

    let tool =
        tokio::task::spawn_blocking(|| tools::ensure(&[&tools::OPENSHIFT], &|line| eprintln!("{line}")))
            .await??;
    let file = tool
        .program(&tools::OPENSHIFT, INFRASTRUCTURE)?
        .display()
        .to_string();
    bed.kubectl(&["apply", "--server-side", "-f", &file])?;
    bed.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/infrastructures.config.openshift.io",
    ])?;
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

/// Forbidden, no API, no object, an object; the operator does its work all the time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn olm_is_told_whether_it_may_upgrade_and_its_absence_stops_nothing() -> Result<()> {
    let mut bed = Bed::start().await?;
    bed.environment
        .insert("OPERATOR_CONDITION_NAME", CONDITION.to_owned());
    bed.start_operator(true).await?;
    bed.kubectl(&["apply", "-k", &crate::bed::repository("config/samples")])?;
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
    bed.apply(&json!({ "apiVersion": "operators.coreos.com/v2", "kind": "OperatorCondition", "metadata": metadata }))?;
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
    bed.kubectl(&["-n", NAMESPACE, "delete", "rolebinding", "as-olm-does"])?;
    bed.nodes.set_holding(false);
    bed.until_installed().await?;
    ensure!(bed.operator_is_alive()?, "the operator has ended");
    Ok(())
}
