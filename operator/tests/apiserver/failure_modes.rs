//! Failures on nodes and how they are reported. Tests shift the times in the status to simulate minutes.

use crate::fixture::{Fixture, NAMESPACE, NETWORK_DEFINITION, conditions, message, repository};
use anyhow::{Context as _, Result, ensure};
use api::names::NETWORK_DEFINITION as NETWORKS;
use api::names::{CONFIG_NAME, CONTROLLER, OPERATOR_FIELD_MANAGER, PROXY};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const LONG_AGO: &str = "2026-01-01T00:00:00Z";

/// Shifts the start times of faults into the past.
pub(crate) async fn age(fixture: &Fixture, field: &str) -> Result<()> {
    let patch = match field {
        "failures" => {
            let status = fixture.config().await?.status.context("no status")?;
            let failures = status.failures.iter();
            json!({ "failures": failures.map(|failure| json!({ "reason": failure.reason, "since": LONG_AGO })).collect::<Vec<_>>() })
        }
        _ => json!({ field: { "lastProgressTime": LONG_AGO } }),
    };
    fixture
        .configs()
        .patch_status(
            CONFIG_NAME,
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": patch })),
        )
        .await?;
    Ok(())
}

pub(crate) async fn until_failure(fixture: &Fixture, reason: &str) -> Result<()> {
    fixture
        .eventually(&format!("the failure {reason}"), async || {
            let status = fixture.config().await?.status.context("no status")?;
            let reasons: Vec<_> = status
                .failures
                .iter()
                .map(|failure| failure.reason.clone())
                .collect();
            ensure!(reasons.iter().any(|is| is == reason), "failures are {reasons:?}");
            Ok(Some(()))
        })
        .await
}

async fn events(fixture: &Fixture, words: &str) -> Result<()> {
    fixture
        .eventually(&format!("an event with {words:?}"), async || {
            Ok(fixture.events()?.contains(words).then_some(()))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn crash_looping_proxy_is_reported_with_its_node_and_degrades_after_the_grace_period() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    let crashes = json!({ "containerStatuses": [{
        "name": "proxy", "image": "i", "imageID": "", "ready": false, "restartCount": 7,
        "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } },
        "lastState": { "terminated": { "exitCode": 1, "message": "no CAP_NET_ADMIN" } },
    }], "conditions": [{ "type": "Ready", "status": "False" }] });
    fixture.nodes.set_status("node-b", Some(crashes));
    until_failure(&fixture, "ProxyCrashLooping").await?;
    let config = fixture.config().await?;
    let unhealthy = config
        .status
        .context("no status")?
        .proxy
        .context("no proxy")?
        .unhealthy_nodes;
    assert_eq!(
        (unhealthy[0].name.as_str(), unhealthy[0].reason.as_str()),
        ("node-b", "CrashLoopBackOff")
    );
    assert!(conditions(&fixture.config().await?).contains(&"Degraded=False/AsExpected".to_owned()));

    age(&fixture, "failures").await?;
    let config = fixture
        .until_conditions(&[
            "Available=True/AsExpected",
            "Progressing=False/AsExpected",
            "Degraded=True/ProxyCrashLooping",
        ])
        .await?;
    let text = message(&config, "Degraded");
    assert!(
        text.contains("node-b") && text.contains("no CAP_NET_ADMIN"),
        "{text}"
    );
    events(&fixture, "Degraded changed from False to True").await?;

    // A restart keeps the start times.
    let before = config.status.context("no status")?;
    fixture.stop_operator().await?;
    fixture.start_operator(true).await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(fixture.config().await?.status, Some(before));

    fixture.nodes.set_status("node-b", None);
    fixture.until_installed().await?;
    events(&fixture, "Degraded changed from True to False").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_forbidden_by_pod_security_are_reported_with_its_message() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    fixture.kubectl(&[
        "label",
        "namespace",
        NAMESPACE,
        "--overwrite",
        "pod-security.kubernetes.io/enforce=restricted",
    ])?;
    fixture.start_operator(true).await?;
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    until_failure(&fixture, "ProxyPodsForbidden").await?;
    age(&fixture, "failures").await?;
    let config = fixture
        .until_conditions(&["Degraded=True/ProxyPodsForbidden", "Progressing=True/Installing"])
        .await?;
    let text = message(&config, "Degraded");
    assert!(
        text.contains("violates PodSecurity") && text.contains("hostNetwork"),
        "{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn rollout_without_progress_is_reported_and_does_not_block_upgrades() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    fixture.nodes.set_holding(true);
    fixture
        .set_spec(json!({ "proxy": { "backend": "IPTables" } }))
        .await?;
    fixture
        .until_conditions(&[
            "Progressing=True/RollingOutProxy",
            "Degraded=False/AsExpected",
            "Upgradeable=False/RolloutInProgress",
        ])
        .await?;
    fixture
        .eventually("one node to be replaced", async || {
            let text = message(&fixture.config().await?, "Progressing");
            Ok((text == "Proxy rollout: 1 of 2 nodes updated").then_some(()))
        })
        .await?;
    // A restart keeps the progress of the rollout and its clock.
    let before = fixture.config().await?.status;
    fixture.stop_operator().await?;
    fixture.start_operator(true).await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(fixture.config().await?.status, before);
    age(&fixture, "rollout").await?;
    let config = fixture
        .until_conditions(&["Degraded=True/RolloutHung", "Upgradeable=True/AsExpected"])
        .await?;
    assert!(
        message(&config, "Degraded").contains("1 of 2 nodes"),
        "{}",
        message(&config, "Degraded")
    );
    fixture.nodes.set_holding(false);
    fixture.until_installed().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn missing_multus_degrades_until_it_is_installed() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture.kubectl(&["delete", "crd", NETWORKS, "--timeout=60s"])?;
    until_failure(&fixture, "MissingMultus").await?;
    ensure!(conditions(&fixture.config().await?).contains(&"Degraded=False/AsExpected".to_owned()));
    age(&fixture, "failures").await?;
    let config = fixture
        .until_conditions(&[
            "Available=True/AsExpected",
            "Progressing=False/AsExpected",
            "Degraded=True/MissingMultus",
            "Upgradeable=True/AsExpected",
        ])
        .await?;
    let text = message(&config, "Degraded");
    assert!(
        text.contains(NETWORKS) && text.contains("install Multus"),
        "{text}"
    );
    // No other operand waits for it.
    fixture.set_spec(json!({ "logLevel": "Debug" })).await?;
    fixture
        .until_conditions(&["Progressing=False/AsExpected"])
        .await?;
    fixture.kubectl(&["apply", "-f", &repository(NETWORK_DEFINITION)])?;
    fixture.until_installed().await?;
    Ok(())
}

/// 13: values that the API server accepts and the operands cannot use.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn invalid_configuration_is_rejected_as_a_whole() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let generations = async || -> Result<_> {
        let (controller, proxy) = (
            fixture.controller().await?.context("no Deployment")?,
            fixture.proxy().await?.context("no DaemonSet")?,
        );
        Ok((controller.metadata.generation, proxy.metadata.generation))
    };
    let before = generations().await?;
    for (spec, reason, words) in [
        (
            json!({ "controller": { "replicas": 3 }, "proxy": { "nodeSelector": { "no": "node" } } }),
            "InvalidPlacement",
            "spec.proxy.nodeSelector",
        ),
        (
            json!({ "controller": { "replicas": 3 }, "proxy": { "tolerations": [{ "key": "not a label!", "operator": "Exists" }] } }),
            "InvalidConfig",
            "not a label!",
        ),
        (
            json!({ "controller": { "replicas": 3 }, "proxy": { "resources": { "requests": { "memory": "2Gi" }, "limits": { "memory": "1Gi" } } } }),
            "InvalidConfig",
            "must be less than or equal to memory limit",
        ),
        (
            json!({ "controller": { "replicas": 3 }, "proxy": { "priorityClassName": "no-such-class" } }),
            "InvalidConfig",
            "spec.proxy.priorityClassName: PriorityClass no-such-class not found",
        ),
    ] {
        fixture
            .set_spec(json!({ "controller": null, "proxy": null }))
            .await?;
        fixture.until_installed().await?;
        fixture.set_spec(spec.clone()).await?;
        let config = fixture
            .until_conditions(&[
                &format!("Degraded=True/{reason}"),
                "Available=True/AsExpected",
                "Progressing=False/AsExpected",
            ])
            .await?;
        let text = message(&config, "Degraded");
        assert!(text.contains(words), "{spec}: {text}");
        assert_eq!(generations().await?, before, "{spec} changed an operand");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn image_override_is_reported_in_one_event() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture
        .set_spec(json!({ "proxy": { "image": "mine/proxy:v2" } }))
        .await?;
    fixture
        .until_conditions(&[
            "OperandImageOverridden=True/ImageSet",
            "Progressing=False/AsExpected",
            "Upgradeable=True/OperandImageOverridden",
        ])
        .await?;
    events(&fixture, "spec.proxy.image is mine/proxy:v2").await?;
    fixture.set_spec(json!({ "logLevel": "Debug" })).await?;
    fixture
        .until_conditions(&[
            "OperandImageOverridden=True/ImageSet",
            "Progressing=False/AsExpected",
        ])
        .await?;
    let events: Value =
        serde_json::from_str(&fixture.kubectl(&["get", "events", "-n", "default", "-o", "json"])?)?;
    let events = events["items"].as_array().context("no events")?.iter();
    let about = events.filter(|event| {
        event["message"]
            .as_str()
            .is_some_and(|note| note.starts_with("OperandImageOverridden"))
    });
    assert_eq!(about.count(), 1);
    Ok(())
}

/// Server-side apply takes forced fields back from another field manager.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn fields_of_another_manager_are_reclaimed_and_changed_selectors_are_recreated() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    let foreign = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": PROXY },
        "spec": { "template": { "spec": { "priorityClassName": "system-cluster-critical" } } },
    });
    fixture
        .here::<k8s_openapi::api::apps::v1::DaemonSet>()
        .patch(
            PROXY,
            &PatchParams::apply("another").force(),
            &Patch::Apply(foreign),
        )
        .await?;
    fixture
        .eventually("the priority class to be restored", async || {
            let proxy = serde_json::to_value(fixture.proxy().await?)?;
            Ok(
                (proxy["spec"]["template"]["spec"]["priorityClassName"] == "system-node-critical")
                    .then_some(()),
            )
        })
        .await?;

    // An operator of another version, with another selector.
    fixture.stop_operator().await?;
    let mut old = serde_json::to_value(fixture.controller().await?)?;
    fixture.kubectl(&["-n", NAMESPACE, "delete", "deployment", CONTROLLER])?;
    old["metadata"] = json!({ "name": CONTROLLER, "labels": old["metadata"]["labels"] });
    old["spec"]["selector"]["matchLabels"]["era"] = json!("old");
    old["spec"]["template"]["metadata"]["labels"]["era"] = json!("old");
    if let Some(old) = old.as_object_mut() {
        old.insert("apiVersion".to_owned(), json!("apps/v1"));
        old.insert("kind".to_owned(), json!("Deployment"));
        old.remove("status");
    }
    fixture
        .here::<k8s_openapi::api::apps::v1::Deployment>()
        .patch(
            CONTROLLER,
            &PatchParams::apply(OPERATOR_FIELD_MANAGER).force(),
            &Patch::Apply(old),
        )
        .await?;
    fixture.start_operator(true).await?;
    fixture
        .eventually("the current selector", async || {
            let controller = serde_json::to_value(fixture.controller().await?)?;
            Ok((controller["spec"]["selector"]["matchLabels"]
                == json!({ "app.kubernetes.io/name": CONTROLLER }))
            .then_some(()))
        })
        .await?;
    fixture.until_installed().await?;
    events(&fixture, "Recreated Deployment/multus-service-controller").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn proxy_update_waits_for_the_controller() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    fixture.nodes.set_holding(true);
    fixture.start_operator(true).await?;
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    let config = fixture
        .until_conditions(&["Available=False/NotYetDeployed", "Progressing=True/Installing"])
        .await?;
    assert!(
        message(&config, "Progressing").contains("Controller rollout"),
        "{}",
        message(&config, "Progressing")
    );
    assert!(fixture.controller().await?.is_some() && fixture.proxy().await?.is_none());
    fixture.nodes.set_holding(false);
    fixture.until_installed().await?;
    Ok(())
}

/// Makes the API server reject every change of our DaemonSets with this message.
pub(crate) fn deny_daemon_sets(fixture: &Fixture, words: &str) -> Result<()> {
    fixture.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "deny" },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["daemonsets"], "operations": ["CREATE", "UPDATE"],
            }]},
            // Not "Invalid", which is the reason of values that the API server itself rejects.
            "validations": [{ "expression": "false", "reason": "Forbidden", "message": words }],
        },
    }))?;
    fixture.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "deny" },
        "spec": { "policyName": "deny", "validationActions": ["Deny"] },
    }))
}

/// Waits until the policy is enforced.
pub(crate) async fn until_denied(fixture: &Fixture) -> Result<()> {
    fixture
        .eventually("the policy to be in force", async || {
            let try_it = [
                "-n",
                NAMESPACE,
                "annotate",
                "daemonset",
                PROXY,
                "tried=1",
                "--overwrite",
                "--dry-run=server",
            ];
            Ok(fixture.kubectl(&try_it).is_err().then_some(()))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn proxy_rejected_by_admission_leaves_the_controller_unchanged() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let generation = async || -> Result<_> {
        Ok(fixture
            .controller()
            .await?
            .context("no Deployment")?
            .metadata
            .generation)
    };
    let before = generation().await?;
    deny_daemon_sets(&fixture, "not on a Friday")?;
    until_denied(&fixture).await?;
    fixture.set_spec(json!({ "logLevel": "Debug" })).await?;
    until_failure(&fixture, "ApplyFailed").await?;
    age(&fixture, "failures").await?;
    let config = fixture.eventually("the rejection to be reported", async || {
        let config = fixture.config().await?;
        Ok(conditions(&config)
            .contains(&"Degraded=True/ApplyFailed".to_owned())
            .then_some(config))
    });
    let text = message(&config.await?, "Degraded");
    assert!(text.contains("not on a Friday") && text.contains(PROXY), "{text}");
    assert_eq!(generation().await?, before, "the controller was changed");
    fixture.kubectl(&["delete", "validatingadmissionpolicybinding", "deny"])?;
    fixture.until_installed().await?;
    assert_ne!(generation().await?, before);
    Ok(())
}

/// A newer release knows more values, and was rolled back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn unknown_value_is_reported_and_the_configuration_can_be_deleted() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let before = fixture
        .proxy()
        .await?
        .context("no DaemonSet")?
        .metadata
        .generation;
    let known =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/proxy/properties/backend/enum/-";
    let widen = json!([{ "op": "add", "path": known, "value": "Later" }]);
    let crd = "multusserviceconfigs.multusservice.cni.cncf.io";
    fixture.kubectl(&["patch", "crd", crd, "--type=json", "-p", &widen.to_string()])?;
    let patch = json!({ "spec": { "proxy": { "backend": "Later" } } }).to_string();
    fixture
        .eventually("the wider CRD to be in force", async || {
            Ok(fixture
                .kubectl(&["patch", "msc", CONFIG_NAME, "--type=merge", "-p", &patch])
                .ok())
        })
        .await?;
    fixture
        .eventually("the value to be reported", async || {
            let text = fixture.kubectl(&[
                "get",
                "msc",
                CONFIG_NAME,
                "-o",
                "jsonpath={.status.conditions[?(@.type=='Degraded')].message}",
            ])?;
            ensure!(text.contains("Later"), "message: {text}");
            Ok(Some(()))
        })
        .await?;
    let shown = fixture.kubectl(&[
        "get",
        "msc",
        CONFIG_NAME,
        "-o",
        "jsonpath={.status.conditions[*].reason}",
    ])?;
    ensure!(shown.contains("InvalidConfig"), "{shown}");
    assert_eq!(
        fixture
            .proxy()
            .await?
            .context("no DaemonSet")?
            .metadata
            .generation,
        before
    );
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--timeout=100s"])?;
    assert!(fixture.proxy().await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn joining_node_is_served_without_progressing() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let before = fixture.config().await?.status.context("no status")?.conditions;
    fixture.apply(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-c", "labels": { "kubernetes.io/os": "linux" } },
    }))?;
    fixture
        .eventually("the new node to have its proxy", async || {
            let proxy = fixture.config().await?.status.and_then(|status| status.proxy);
            Ok(proxy.filter(|proxy| (proxy.desired, proxy.available) == (3, 3)))
        })
        .await?;
    assert_eq!(
        fixture.config().await?.status.context("no status")?.conditions,
        before
    );
    Ok(())
}

/// The effect of a reboot on kubelet and node controller.
fn set_up(fixture: &Fixture, node: &str, up: bool) -> Result<()> {
    let status = if up { "True" } else { "Unknown" };
    let ready = json!({ "type": "Ready", "status": status, "reason": "Test", "message": "" });
    let patch = json!({ "status": { "conditions": [ready] } }).to_string();
    fixture.kubectl(&["patch", "node", node, "--subresource=status", "-p", &patch])?;
    let not_ready = json!({ "conditions": [{ "type": "Ready", "status": "False" }] });
    fixture.nodes.set_status(node, (!up).then_some(not_ready));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn rebooting_node_changes_no_condition() -> Result<()> {
    let fixture = Fixture::installed().await?;
    let before = fixture.config().await?.status.context("no status")?;
    for (up, available) in [(false, 1), (true, 2)] {
        set_up(&fixture, "node-b", up)?;
        fixture
            .eventually("the node to be counted", async || {
                let proxy = fixture.config().await?.status.and_then(|status| status.proxy);
                Ok(proxy.filter(|proxy| proxy.available == available))
            })
            .await?;
        let status = fixture.config().await?.status.context("no status")?;
        assert_eq!(
            (status.conditions, status.failures),
            (before.conditions.clone(), vec![]),
            "node-b is up: {up}"
        );
    }
    Ok(())
}
