//! Installation, drift, configuration changes, Unmanaged.

use crate::fixture::{Fixture, NAMESPACE, message};
use anyhow::{Context as _, Result, ensure};
use api::names::{CONTROLLER, OPERATOR, OPERATOR_FIELD_MANAGER, PROXY};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;

const POLICIES: [&str; 9] = [
    "multus-service-controller-endpointslices",
    "multus-service-controller-status",
    "multus-service-endpointslices",
    "multus-service-events",
    "multus-service-operator-nodes",
    "multus-service-pod-networks",
    "multus-service-proxy-status",
    "multus-service-service-warnings",
    "multus-service-services",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn one_object_installs_everything() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let config = fixture.config().await?;
    let related = config
        .status
        .as_ref()
        .context("no status")?
        .related_objects
        .iter();
    let related: Vec<_> = related
        .map(|object| format!("{}/{}/{}", object.namespace, object.resource, object.name))
        .collect();
    let policies = |resource: &str| POLICIES.map(|policy| format!("/{resource}/{policy}")).to_vec();
    let expected = [
        vec![
            format!("{NAMESPACE}/serviceaccounts/{CONTROLLER}"),
            format!("{NAMESPACE}/serviceaccounts/{PROXY}"),
            format!("{NAMESPACE}/services/{CONTROLLER}-metrics"),
            format!("{NAMESPACE}/services/{OPERATOR}-metrics"),
            format!("{NAMESPACE}/services/{PROXY}-metrics"),
        ],
        policies("validatingadmissionpolicies"),
        policies("validatingadmissionpolicybindings"),
        vec![
            format!("{NAMESPACE}/daemonsets/{PROXY}"),
            format!("{NAMESPACE}/deployments/{CONTROLLER}"),
            format!("{NAMESPACE}/networkpolicies/multus-service"),
            format!("{NAMESPACE}/poddisruptionbudgets/{CONTROLLER}"),
            format!("/clusterrolebindings/{CONTROLLER}"),
            format!("/clusterrolebindings/{PROXY}"),
            format!("{NAMESPACE}/rolebindings/{CONTROLLER}"),
            format!("{NAMESPACE}/rolebindings/{PROXY}"),
        ],
    ]
    .concat();
    assert_eq!(related, expected);
    let line = fixture.kubectl(&["get", "msc", "--no-headers"])?;
    let columns: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        columns[..5],
        ["cluster", env!("CARGO_PKG_VERSION"), "True", "False", "False"]
    );
    let status = config.status.as_ref().context("no status")?;
    for version in [
        &status.operator_version,
        &status.target_version,
        &status.observed_version,
    ] {
        assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }
    let proxy = status.proxy.as_ref().context("no proxy")?;
    assert_eq!(
        (
            proxy.desired,
            proxy.updated,
            proxy.available,
            proxy.image.as_str()
        ),
        (2, 2, 2, "release/proxy:v1")
    );
    let wide = fixture.kubectl(&["get", "msc", "-o", "wide"])?;
    for column in [
        "UPGRADEABLE",
        "DESIRED",
        "READY",
        "BACKEND",
        "FAILING",
        "CAUSE",
        "REASON",
        "PROGRESS",
        "AsExpected",
    ] {
        assert!(wide.contains(column), "{wide}");
    }
    fixture.kubectl(&["wait", "msc/cluster", "--for=condition=Available", "--timeout=1s"])?;
    for (field, words) in [
        (
            "spec.proxy.backend",
            "backend is the backend that writes rules into the kernel.",
        ),
        ("spec.controller.replicas", "One of them is the leader"),
        (
            "spec.proxy.affinity.nodeAffinity",
            "node affinity scheduling rules",
        ),
        ("status.proxy.unhealthyNodes.reason", "CrashLoopBackOff"),
    ] {
        let explained = fixture.kubectl(&["explain", &format!("msc.{field}")])?;
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(explained.contains(words), "{explained}");
    }
    Ok(())
}

/// The images of `config/default` can be replaced as its comments describe.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn overlay_replaces_all_images() -> Result<()> {
    let fixture = Fixture::start().await?;
    let overlay = tempfile::tempdir()?;
    let default = std::fs::canonicalize(crate::fixture::repository("config/default"))?;
    // kustomize accepts relative paths only.
    let relative = format!(
        "{}{}",
        "../".repeat(overlay.path().components().count() - 1),
        default.strip_prefix("/")?.display()
    );
    let file = std::fs::read_to_string(default.join("kustomization.yaml"))?;
    let documented: Vec<_> = file
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .collect();
    let documented = documented.join("\n").replace(
        "https://github.com/multus-service/multus-service/config/default",
        &relative,
    );
    std::fs::write(overlay.path().join("kustomization.yaml"), documented)?;
    let rendered = fixture.kubectl(&["kustomize", &overlay.path().display().to_string()])?;
    let version = env!("CARGO_PKG_VERSION");
    for image in ["operator", "controller", "proxy"] {
        ensure!(
            rendered.contains(&format!(
                ": registry.example.com/multus-service/{image}:v{version}"
            )),
            "{rendered}"
        );
    }
    ensure!(!rendered.contains("quay.io"), "{rendered}");
    ensure!(rendered.contains("name: POD_NAMESPACE"), "{rendered}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn deleted_objects_are_recreated_and_edited_ones_repaired() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(fixture.client.clone());
    comes_back(&fixture, policies, &POLICIES).await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(fixture.client.clone());
    comes_back(&fixture, bindings, &POLICIES).await?;
    comes_back::<ServiceAccount>(&fixture, fixture.here(), &[CONTROLLER, PROXY]).await?;
    comes_back::<ClusterRoleBinding>(&fixture, Api::all(fixture.client.clone()), &[CONTROLLER, PROXY])
        .await?;
    comes_back::<RoleBinding>(&fixture, fixture.here(), &[CONTROLLER, PROXY]).await?;
    comes_back::<NetworkPolicy>(&fixture, fixture.here(), &["multus-service"]).await?;
    comes_back::<PodDisruptionBudget>(&fixture, fixture.here(), &[CONTROLLER]).await?;
    let metrics = ["operator", "controller", "proxy"].map(|name| format!("multus-service-{name}-metrics"));
    comes_back::<Service>(&fixture, fixture.here(), &metrics.each_ref().map(String::as_str)).await?;
    comes_back::<Deployment>(&fixture, fixture.here(), &[CONTROLLER]).await?;
    comes_back::<DaemonSet>(&fixture, fixture.here(), &[PROXY]).await?;

    fixture.kubectl(&["-n", NAMESPACE, "scale", "deployment", CONTROLLER, "--replicas=0"])?;
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "set",
        "image",
        &format!("daemonset/{PROXY}"),
        "proxy=evil:latest",
    ])?;
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "label",
        "serviceaccount",
        PROXY,
        "app.kubernetes.io/part-of-",
    ])?;
    fixture
        .eventually("the edits to be undone", async || {
            let (controller, proxy) = (
                fixture.controller().await?.context("no Deployment")?,
                fixture.proxy().await?.context("no DaemonSet")?,
            );
            let account: ServiceAccount = fixture.here().get(PROXY).await?;
            let replicas = controller.spec.and_then(|spec| spec.replicas);
            let labelled = account.labels().contains_key("app.kubernetes.io/part-of");
            Ok((replicas == Some(2) && image(&proxy) == "release/proxy:v1" && labelled).then_some(()))
        })
        .await?;
    fixture.until_installed().await?;
    Ok(())
}

async fn comes_back<K>(fixture: &Fixture, api: Api<K>, names: &[&str]) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    for name in names {
        let before = api.get(name).await?.uid();
        api.delete(name, &DeleteParams::default()).await?;
        fixture
            .eventually(&format!("{} {name} to be recreated", K::kind(&())), async || {
                Ok(api.get_opt(name).await?.filter(|object| object.uid() != before))
            })
            .await?;
    }
    Ok(())
}

fn image(proxy: &DaemonSet) -> &str {
    let pod = proxy.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.and_then(|pod| pod.containers[0].image.as_deref())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn configuration_change_is_rolled_out_and_reported() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture
        .set_spec(
            json!({ "logLevel": "Debug", "proxy": { "image": "mine/proxy:v2", "backend": "IPTables" } }),
        )
        .await?;
    // observedGeneration excludes the state before the edit.
    fixture.kubectl(&[
        "wait",
        "msc/cluster",
        "--for=condition=Progressing=False",
        "--timeout=30s",
    ])?;
    let proxy = fixture.proxy().await?.context("no DaemonSet")?;
    assert_eq!(image(&proxy), "mine/proxy:v2");
    let status = proxy.status.context("no status")?;
    assert_eq!(status.updated_number_scheduled, Some(2));
    let args = fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "daemonset",
        PROXY,
        "-o",
        "jsonpath={..args}",
    ])?;
    assert_eq!(
        args,
        r#"["--log-level=info,proxy=debug,rules=debug,process=debug","--backend=IPTables","--tls-cert-file=/etc/multus-service/metrics-tls/tls.crt","--tls-private-key-file=/etc/multus-service/metrics-tls/tls.key","--network-namespace-isolation=true","--global-namespaces=default"]"#
    );

    // A removed field returns to the value of the release.
    fixture.set_spec(json!({ "proxy": null })).await?;
    fixture
        .eventually("the release's image to return", async || {
            Ok((image(&fixture.proxy().await?.context("no DaemonSet")?) == "release/proxy:v1").then_some(()))
        })
        .await?;
    Ok(())
}

/// Ports of the metrics: the argument and the declared port of the DaemonSet, and the port of the Service.
async fn metrics_ports(fixture: &Fixture) -> Result<String> {
    let proxy = fixture.proxy().await?.context("no DaemonSet")?;
    let container = proxy
        .spec
        .and_then(|spec| spec.template.spec?.containers.into_iter().next())
        .context("no container")?;
    let argument = container
        .args
        .into_iter()
        .flatten()
        .find_map(|arg| Some(arg.strip_prefix("--metrics-port=")?.to_owned()));
    let declared = container.ports.into_iter().flatten();
    let declared: Vec<_> = declared
        .map(|port| (port.container_port, port.host_port))
        .collect();
    let service: Service = fixture.here().get(&format!("{PROXY}-metrics")).await?;
    let ports = service.spec.and_then(|spec| spec.ports).into_iter().flatten();
    let ports: Vec<_> = ports.map(|port| port.port).collect();
    Ok(json!([argument, declared, ports]).to_string())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn another_port_of_metrics_is_one_roll_out_of_daemon_set_and_service() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let before = fixture.proxy().await?.context("no DaemonSet")?;
    let rolled_out = async |spec: Value| {
        fixture.set_spec(spec).await?;
        fixture.until_installed().await?;
        metrics_ports(&fixture).await
    };
    let release = "[null,[[9124,9124],[9125,9125]],[9125]]";
    assert_eq!(metrics_ports(&fixture).await?, release);
    assert_eq!(
        rolled_out(json!({ "proxy": { "metricsPort": 9300 } })).await?,
        r#"["9300",[[9124,9124],[9300,9300]],[9300]]"#
    );
    let generations = |proxy: &DaemonSet| proxy.metadata.generation;
    let after = fixture.proxy().await?.context("no DaemonSet")?;
    let changes = generations(&after).zip(generations(&before));
    assert_eq!(
        changes.map(|(after, before)| after - before),
        Some(1),
        "one roll-out"
    );
    assert_eq!(rolled_out(json!({ "proxy": null })).await?, release);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn unmanaged_writes_no_operand_and_updates_status() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture
        .set_spec(json!({ "managementState": "Unmanaged", "logLevel": "Trace" }))
        .await?;
    fixture.until_installed().await?;
    fixture.kubectl(&["-n", NAMESPACE, "delete", "serviceaccount", PROXY])?;
    fixture.kubectl(&["-n", NAMESPACE, "scale", "deployment", CONTROLLER, "--replicas=0"])?;
    fixture
        .until_conditions(&["Available=False/ControllerUnavailable"])
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(
        fixture.here::<ServiceAccount>().get_opt(PROXY).await?.is_none(),
        "the account is back"
    );
    let replicas = fixture
        .controller()
        .await?
        .and_then(|controller| controller.spec?.replicas);
    assert_eq!(replicas, Some(0));

    fixture.set_spec(json!({ "managementState": "Managed" })).await?;
    fixture.until_installed().await?;
    assert!(fixture.here::<ServiceAccount>().get_opt(PROXY).await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn missing_images_install_nothing_and_report_the_remedy() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    fixture.start_operator(false).await?;
    fixture.kubectl(&["apply", "-k", &crate::fixture::repository("config/samples")])?;
    let config = fixture
        .until_conditions(&["Available=False/NotYetDeployed", "Degraded=True/InvalidConfig"])
        .await?;
    let degraded = message(&config, "Degraded");
    assert!(
        degraded.contains("RELATED_IMAGE_PROXY") && degraded.contains("spec.proxy.image"),
        "{degraded}"
    );
    assert!(fixture.proxy().await?.is_none() && fixture.controller().await?.is_none());

    fixture
        .set_spec(json!({ "controller": { "image": "mine/controller" }, "proxy": { "image": "mine/proxy" } }))
        .await?;
    fixture.until_installed().await?;
    // Removing an override keeps the running image.
    fixture.set_spec(json!({ "proxy": null })).await?;
    fixture
        .until_conditions(&["Available=True/AsExpected", "Degraded=True/InvalidConfig"])
        .await?;
    assert_eq!(
        image(&fixture.proxy().await?.context("no DaemonSet")?),
        "mine/proxy"
    );
    Ok(())
}

/// An operator of another version may have applied objects that this one does not know; their names are in this one's role.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn orphan_is_pruned_and_a_copy_with_the_same_labels_is_kept() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    let accounts: Api<ServiceAccount> = fixture.here();
    for (name, manager) in [("orphan", OPERATOR_FIELD_MANAGER), ("copy", "another")] {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": name, "labels": {
                "app.kubernetes.io/part-of": "multus-service", "app.kubernetes.io/managed-by": "multus-service-operator",
            }},
        });
        accounts
            .patch(name, &PatchParams::apply(manager), &Patch::Apply(account))
            .await?;
    }
    let name_of_old = [
        "role",
        "obsolete",
        "--verb=delete",
        "--resource=serviceaccounts",
        "--resource-name=orphan",
    ];
    fixture.kubectl(&[&["-n", NAMESPACE, "create"], &name_of_old[..]].concat())?;
    let account = format!("--serviceaccount={NAMESPACE}:{OPERATOR}");
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "create",
        "rolebinding",
        "obsolete",
        "--role=obsolete",
        &account,
    ])?;

    fixture.start_operator(true).await?;
    fixture.kubectl(&["apply", "-k", &crate::fixture::repository("config/samples")])?;
    fixture.until_installed().await?;
    assert!(accounts.get_opt("orphan").await?.is_none());
    assert!(accounts.get_opt("copy").await?.is_some());
    Ok(())
}

/// Additional fields of operands: kind, name, patch. Server-side apply would keep them.
fn additions() -> Vec<(&'static str, &'static str, Value)> {
    let pod = |pod: Value| json!({ "spec": { "template": { "spec": pod } } });
    let container = |fields: Value| {
        let mut container = json!({ "name": "proxy" });
        for (key, value) in fields.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        json!({ "spec": { "template": { "spec": { "containers": [container] } } } })
    };
    vec![
        (
            "daemonset",
            PROXY,
            pod(json!({ "nodeSelector": { "non-existing": "true" } })),
        ),
        ("daemonset", PROXY, pod(json!({ "hostPID": true }))),
        (
            "daemonset",
            PROXY,
            pod(json!({ "containers": [{ "name": "sidecar", "image": "evil" }] })),
        ),
        (
            "daemonset",
            PROXY,
            container(json!({ "env": [{ "name": "EVIL", "value": "1" }] })),
        ),
        (
            "daemonset",
            PROXY,
            container(json!({ "resources": { "limits": { "memory": "64Mi" } } })),
        ),
        (
            "daemonset",
            PROXY,
            container(json!({ "securityContext": { "privileged": true, "allowPrivilegeEscalation": null } })),
        ),
        ("daemonset", PROXY, json!({ "spec": { "minReadySeconds": 600 } })),
        ("deployment", CONTROLLER, json!({ "spec": { "paused": true } })),
        (
            "networkpolicy",
            "multus-service",
            json!({ "spec": { "podSelector": { "matchLabels": { "matches": "nothing" } } } }),
        ),
    ]
}

/// The specs of the three changed kinds.
async fn specs(fixture: &Fixture) -> Result<Value> {
    let policy: NetworkPolicy = fixture.here().get("multus-service").await?;
    let (controller, proxy) = (fixture.controller().await?, fixture.proxy().await?);
    Ok(json!([
        controller.and_then(|controller| controller.spec),
        proxy.and_then(|proxy| proxy.spec),
        policy.spec
    ]))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn fields_added_by_other_managers_are_removed() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    let clean = specs(&fixture).await?;
    let add = |fixture: &Fixture, (kind, name, patch): &(&str, &str, Value)| {
        fixture.kubectl(&[
            "-n",
            NAMESPACE,
            "patch",
            kind,
            name,
            "--type=strategic",
            "-p",
            &patch.to_string(),
        ])
    };
    let repaired = async |fixture: &Fixture, what: &str| {
        fixture
            .eventually(&format!("{what} to be removed"), async || {
                let now = specs(fixture).await?;
                ensure!(now == clean, "now: {now:#}");
                Ok(Some(()))
            })
            .await
    };
    let additions = additions();
    fixture.stop_operator().await?;
    for addition in &additions {
        add(&fixture, addition)?;
    }
    ensure!(specs(&fixture).await? != clean, "nothing was added");
    fixture.start_operator(true).await?;
    repaired(&fixture, "everything that was there before the operator").await?;
    for addition in &additions {
        let before = fixture.kubectl(&[
            "-n",
            NAMESPACE,
            "get",
            addition.0,
            addition.1,
            "-o",
            "jsonpath={.metadata.generation}",
        ])?;
        add(&fixture, addition)?;
        repaired(&fixture, &addition.2.to_string()).await?;
        let after = fixture.kubectl(&[
            "-n",
            NAMESPACE,
            "get",
            addition.0,
            addition.1,
            "-o",
            "jsonpath={.metadata.generation}",
        ])?;
        ensure!(before != after, "{addition:?} added nothing");
    }
    fixture.until_installed().await?;
    Ok(())
}
