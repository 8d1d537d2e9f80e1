//! OpenShift's own CustomResourceDefinitions on the API server: absent, then there.

use crate::bed::{Bed, NAMESPACE};
use anyhow::{Context as _, Result, ensure};
use api::names::{CONTROLLER, PROXY};
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
