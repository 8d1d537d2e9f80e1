//! Operations of an administrator with OLM, and the leftovers on the cluster.

use super::PATIENCE;
use super::releases::{CHANNEL, Release};
use anyhow::{Context as _, Result, anyhow};
use api::names::{NAMESPACE, OPERATOR, PART_OF};
use e2e::admin::apply;
use e2e::olm_v0::{self, Olm};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, OnceLock};
use testbed::{cluster, wait};

const SUBSCRIPTION: &str = "multus-service";

static OLM: OnceLock<Mutex<Option<Olm>>> = OnceLock::new();

/// OLM on the cluster; the first caller starts both.
pub(crate) fn olm() -> Result<Running> {
    let cell = OLM.get_or_init(|| Mutex::new(None));
    let mut guard = cell.lock().map_err(|_| anyhow!("another test panicked"))?;
    if guard.is_none() {
        let say = |line: &str| eprintln!("{line}");
        cluster::up(&cluster::UpOptions::default(), &say)?;
        *guard = Some(Olm::start(&say)?);
    }
    Ok(Running(guard))
}

/// OLM, for one caller at a time.
pub(crate) struct Running(MutexGuard<'static, Option<Olm>>);

impl Running {
    /// Serves a catalog.
    pub(crate) fn publish(mut self, blobs: &[Value]) -> Result<()> {
        self.0.as_mut().context("OLM was removed")?.publish(blobs)
    }

    /// Stops OLM and takes it off the cluster.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.0.take().context("OLM was removed")?.remove()
    }

    fn last_words(&self) -> String {
        self.0.as_ref().map(Olm::last_words).unwrap_or_default()
    }
}

/// The cluster without the product, and the namespace that the bundle suggests.
pub(crate) fn begin() -> Result<()> {
    drop(olm()?);
    let [first, ..] = super::releases()?;
    if cluster::kubectl(&["get", "msc", "cluster"]).is_ok() {
        cluster::kubectl(&["delete", "msc", "cluster", "--timeout=180s"])?;
    }
    // Another test's installation with kustomize.
    cluster::kubectl(&[
        "delete",
        "namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--timeout=180s",
    ])?;
    for name in everything_of_ours()? {
        cluster::kubectl(&["delete", &name, "--ignore-not-found", "--timeout=60s"])?;
    }
    apply_suggested_namespace(first)?;
    apply(&json!({
        "apiVersion": "operators.coreos.com/v1", "kind": "OperatorGroup",
        "metadata": {"name": SUBSCRIPTION, "namespace": NAMESPACE}, "spec": {},
    }))
}

/// The namespace that the console makes.
pub(crate) fn apply_suggested_namespace(release: &Release) -> Result<()> {
    let csv = release.bundle.csv()?;
    let template =
        csv["metadata"]["annotations"]["operatorframework.io/suggested-namespace-template"].as_str();
    apply(&serde_json::from_str(
        template.context("no namespace is suggested")?,
    )?)
}

/// Settings of the operator by the subscription.
pub(crate) fn settings() -> Value {
    json!({
        "env": [{"name": "LOG_LEVEL", "value": "debug"}],
        "resources": {"requests": {"cpu": "11m", "memory": "65Mi"}},
        "tolerations": [{"key": "example.com/infra", "operator": "Exists", "effect": "NoSchedule"}],
    })
}

/// As OperatorHub's form does.
pub(crate) fn subscribe() -> Result<()> {
    apply(&json!({
        "apiVersion": "operators.coreos.com/v1alpha1", "kind": "Subscription",
        "metadata": {"name": SUBSCRIPTION, "namespace": NAMESPACE},
        "spec": {
            "name": olm::PACKAGE, "channel": CHANNEL, "source": olm_v0::CATALOG, "sourceNamespace": olm_v0::NAMESPACE,
            "installPlanApproval": "Automatic", "config": settings(),
        },
    }))
}

/// Subscription and ClusterServiceVersion deleted, as the console's **Uninstall Operator** does, and what OLM made of them gone.
pub(crate) fn unsubscribe() -> Result<()> {
    let timeout = "--timeout=120s";
    cluster::kubectl(&["-n", NAMESPACE, "delete", "subscription", SUBSCRIPTION, timeout])?;
    cluster::kubectl(&["-n", NAMESPACE, "delete", "csv", "--all", timeout])?;
    let deployment = format!("deployment/{OPERATOR}");
    cluster::kubectl(&["-n", NAMESPACE, "wait", &deployment, "--for=delete", timeout])?;
    let label = format!("app.kubernetes.io/name={OPERATOR}");
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "wait",
        "pod",
        "-l",
        &label,
        "--for=delete",
        timeout,
    ])?;
    Ok(())
}

/// A release's ClusterServiceVersion, if it is there.
pub(crate) fn csv(release: &Release) -> Result<Option<Value>> {
    let printed = cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "csv",
        &release.csv(),
        "--ignore-not-found",
        "-o",
        "json",
    ])?;
    Ok(if printed.trim().is_empty() {
        None
    } else {
        Some(serde_json::from_str(&printed)?)
    })
}

/// Waits until OLM says that the release is installed, and that no other is.
pub(crate) fn wait_for_success(release: &Release) -> Result<()> {
    let waited = wait::until(PATIENCE, &format!("{} to succeed", release.csv()), || {
        let csv = csv(release)?.context("it is not there yet")?;
        let others = cluster::kubectl(&["-n", NAMESPACE, "get", "csv", "-o", "name"])?
            .lines()
            .count();
        let status = &csv["status"];
        if status["phase"] == "Succeeded" && others == 1 {
            return Ok(true);
        }
        Err(anyhow!("{} of {others}: {}", status["phase"], status["message"]))
    });
    waited.map_err(|error| match olm() {
        Ok(olm) => anyhow!("{error:#}\n{}", olm.last_words()),
        Err(_) => error,
    })
}

/// The operator's Deployment.
pub(crate) fn deployment_of_the_operator() -> Result<Value> {
    Ok(serde_json::from_str(&cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "deployment",
        OPERATOR,
        "-o",
        "json",
    ])?)?)
}

/// The object that the console offers after the installation.
pub(crate) fn apply_offered_configuration(release: &Release) -> Result<()> {
    let csv = release.bundle.csv()?;
    let offered = csv["metadata"]["annotations"]["operatorframework.io/initialization-resource"].as_str();
    apply(&serde_json::from_str(offered.context("nothing is offered")?)?)
}

/// Objects on the cluster, in our namespace or cluster-scoped, that are ours by label or by name.
pub(crate) fn everything_of_ours() -> Result<Vec<String>> {
    let kinds = cluster::kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    // Events outlive their objects, and the metrics of a replica cannot be deleted.
    let kinds: Vec<_> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events") && !kind.contains("metrics.k8s.io"))
        .collect();
    let label = format!("app.kubernetes.io/part-of={PART_OF}");
    let labelled = cluster::kubectl(&["get", &kinds.join(","), "-A", "-l", &label, "-o", "name"])?;
    // What OLM makes of a bundle's objects need not keep their labels, and its record of an operator has none.
    let mut named = vec!["customresourcedefinitions", "clusterroles", "clusterrolebindings"];
    named.extend(
        kinds
            .iter()
            .find(|kind| **kind == "operators.operators.coreos.com"),
    );
    let named = cluster::kubectl(&["get", &named.join(","), "-o", "name"])?;
    let named = named
        .lines()
        .filter(|name| name.contains("multusservice") || name.contains("multus-service"))
        // The test bed's own: without its roles, Multus can start no pod.
        .filter(|name| !name.contains("multus-service-bed"));
    let mut found: Vec<String> = labelled.lines().chain(named).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    Ok(found)
}
