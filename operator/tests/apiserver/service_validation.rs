//! What kubectl prints for the author of a Service or pod, at once: `spec.serviceValidation`.

use crate::fixture::Fixture;
use anyhow::{Context as _, Result, ensure};
use api::NamespaceIsolation;
use api::names::{PROXY_NAME, PROXY_NAME_LABEL, SELECTOR_ANNOTATION, SERVICE_NETWORK_ANNOTATION};
use controller::settings::Settings;
use controller::validate::{Acceptance, validate};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

/// Namespace of the Services.
const SHOP: &str = "shop";

fn service(labels: &Value, annotations: &Value, spec: &Value) -> Value {
    let mut spec = spec.clone();
    if spec["type"] != "ExternalName" {
        spec["ports"] = json!([{ "port": 80 }]);
        if spec["clusterIP"].is_null() {
            // As the API server sets it, before a policy sees the Service.
            spec["clusterIP"] = json!("172.30.0.77");
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": SHOP, "labels": labels, "annotations": annotations },
        "spec": spec,
    })
}

/// A Service with the label and this network.
fn bound_to(network: &str, spec: &Value) -> Value {
    service(
        &json!({ PROXY_NAME_LABEL: PROXY_NAME }),
        &json!({ SERVICE_NETWORK_ANNOTATION: network }),
        spec,
    )
}

fn with_selector(selector: &str) -> Value {
    let annotations = json!({ SERVICE_NETWORK_ANNOTATION: "macvlan1", SELECTOR_ANNOTATION: selector });
    service(&json!({ PROXY_NAME_LABEL: PROXY_NAME }), &annotations, &json!({}))
}

/// Services that the controller serves or has nothing to do with, without a warning.
fn accepted() -> Vec<Value> {
    let none = json!({});
    let mut accepted: Vec<Value> = [
        "macvlan1",
        " mac vlan1 ",
        "default/macvlan1",
        "shop/net.100g",
        "n",
    ]
    .map(|network| bound_to(network, &none))
    .into();
    accepted.extend(
        [
            "app=web,tier!=back",
            "app==web",
            "app in (db, web)",
            "app in(db,web)",
            "missing notin (a),!canary",
            "tier",
            "! missing",
            "rank > 3,rank<10,rank>+3",
            "empty=",
            "example.com/team = red",
        ]
        .map(with_selector),
    );
    accepted.push(bound_to("macvlan1", &json!({ "selector": { "app": "web" } })));
    accepted.push(service(&none, &none, &none));
    accepted.push(service(
        &json!({ PROXY_NAME_LABEL: "cilium" }),
        &json!({ SERVICE_NETWORK_ANNOTATION: "macvlan1" }),
        &none,
    ));
    accepted
}

/// Services that the controller rejects.
fn rejected() -> Vec<Value> {
    let none = json!({});
    let mut rejected = vec![service(&json!({ PROXY_NAME_LABEL: PROXY_NAME }), &none, &none)];
    let long = "x".repeat(500);
    let networks = [
        "",
        "  ",
        "a/b/c",
        "a / b",
        "Macvlan1",
        "[{}]",
        "a,b",
        "a@net1",
        &long,
        "storage/macvlan1",
        "tab\tulator",
    ];
    rejected.extend(networks.map(|network| bound_to(network, &none)));
    let external = json!({ "type": "ExternalName", "externalName": "example.com" });
    rejected.push(bound_to("macvlan1", &external));
    let malformed = [
        "  ",
        "app=web,",
        "=web",
        "app=web db",
        "app in (web",
        "app in web",
        "appin (web)",
        "app=we/b",
        r#"{"app": "web"}"#,
        "rank>many",
        "app ~ web",
    ];
    rejected.extend(malformed.map(with_selector));
    rejected
}

/// Services that neither controller nor proxy watches: only the policy can report what is wrong.
fn not_asking() -> Vec<(Value, &'static str)> {
    let annotations = json!({ SERVICE_NETWORK_ANNOTATION: "macvlan1" });
    let none = json!({});
    let typo = |value: &str| service(&json!({ PROXY_NAME_LABEL: value }), &annotations, &none);
    vec![
        (
            service(&none, &annotations, &none),
            "has no effect without the label",
        ),
        (
            typo("multus-proxi"),
            r#""multus-proxi", which multus-service does not serve; its value is multus-proxy"#,
        ),
        (typo("Multus-Proxy"), "its value is multus-proxy"),
        (
            service(&json!({ PROXY_NAME_LABEL: "multus" }), &none, &none),
            "its value is multus-proxy",
        ),
    ]
}

/// Services of which a part is not served.
fn partly_served() -> Vec<Value> {
    let (label, selector) = (json!({ PROXY_NAME_LABEL: PROXY_NAME }), json!({ "app": "web" }));
    let headless = json!({ PROXY_NAME_LABEL: PROXY_NAME, "service.kubernetes.io/headless": "" });
    let network = json!({ SERVICE_NETWORK_ANNOTATION: "macvlan1" });
    let both = json!({ SERVICE_NETWORK_ANNOTATION: "macvlan1", SELECTOR_ANNOTATION: "app=web" });
    vec![
        bound_to("macvlan1", &json!({ "type": "NodePort" })),
        bound_to("macvlan1", &json!({ "type": "LoadBalancer" })),
        bound_to("macvlan1", &json!({ "externalIPs": ["192.0.2.1"] })),
        bound_to("macvlan1", &json!({ "clusterIP": "None", "selector": selector })),
        service(&headless, &network, &json!({})),
        service(&label, &both, &json!({ "selector": selector })),
    ]
}

/// What the controller reports of a Service, and whether it rejects it.
fn reported(object: &Value) -> Result<(bool, Option<String>)> {
    let service: Service = serde_json::from_value(object.clone())?;
    let settings = Settings {
        isolation: NamespaceIsolation::default(),
        ..Settings::default()
    };
    if !api::service::has_proxy_label(&service) {
        return Ok((false, None));
    }
    let (acceptance, problems) = validate(&service, &settings);
    let message = problems.into_iter().next().map(|problem| problem.message);
    Ok((acceptance == Acceptance::Rejected, message))
}

/// Words of the warning: those of the controller, but for the part of a selector that it names.
fn words(object: &Value) -> Result<String> {
    let (_, message) = reported(object)?;
    let message = message.with_context(|| format!("the controller reports nothing of {object}"))?;
    let of_selector =
        message.starts_with(&format!("annotation {SELECTOR_ANNOTATION} ")) && !message.contains("ignored");
    Ok(if of_selector {
        "is no selector; write for example app=nginx".to_owned()
    } else {
        message
    })
}

fn pod_spec(host_network: bool) -> Value {
    json!({ "hostNetwork": host_network, "containers": [{ "name": "a", "image": "a" }] })
}

fn pod(networks: &str, host_network: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "client", "namespace": SHOP, "annotations": { "k8s.v1.cni.cncf.io/networks": networks } },
        "spec": pod_spec(host_network),
    })
}

fn deployment(networks: &str) -> Value {
    let labels = json!({ "app": "web" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "namespace": SHOP },
        "spec": { "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels, "annotations": { "k8s.v1.cni.cncf.io/networks": networks } },
            "spec": pod_spec(false),
        } },
    })
}

/// Creates the object in a dry run; returns whether it is accepted, and what kubectl prints beside.
fn create(fixture: &Fixture, object: &Value) -> Result<(bool, String)> {
    let file = fixture.server.folder().join("object.json");
    std::fs::write(&file, object.to_string())?;
    fixture.kubectl_warnings(&["create", "--dry-run=server", "-f", &file.display().to_string()])
}

/// Waits for a policy that reports this of an object, or nothing for `None`.
async fn until_output(fixture: &Fixture, object: &Value, words: Option<&str>) -> Result<()> {
    fixture
        .eventually("the policies to be in force", async || {
            let (_, output) = create(fixture, object)?;
            let is_so = words.map_or_else(|| output.is_empty(), |words| output.contains(words));
            ensure!(is_so, "kubectl printed {output:?}");
            Ok(Some(()))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn kubectl_warns_of_what_the_controller_will_reject_or_serve_in_part() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture.kubectl(&["create", "namespace", SHOP])?;
    fixture
        .kubectl(&["create", "serviceaccount", "-n", SHOP, "default"])
        .ok();
    until_output(&fixture, &rejected()[0], Some(&words(&rejected()[0])?)).await?;
    until_output(&fixture, &partly_served()[0], Some(&words(&partly_served()[0])?)).await?;
    for object in accepted() {
        ensure!(
            reported(&object)? == (false, None),
            "{object}: {:?}",
            reported(&object)?
        );
        let output = create(&fixture, &object)?;
        ensure!(output == (true, String::new()), "{object}: {output:?}");
    }
    for object in rejected() {
        ensure!(reported(&object)?.0, "the controller accepts {object}");
        warns(&fixture, &object, &words(&object)?)?;
    }
    for object in partly_served() {
        ensure!(!reported(&object)?.0, "the controller rejects {object}");
        warns(&fixture, &object, &words(&object)?)?;
    }
    for (object, words) in not_asking() {
        warns(&fixture, &object, words)?;
    }
    Ok(())
}

/// One warning with these words, and the object is accepted.
fn warns(fixture: &Fixture, object: &Value, words: &str) -> Result<()> {
    let (is_accepted, output) = create(fixture, object)?;
    ensure!(
        is_accepted && output.contains(words) && output.matches("Warning: ").count() == 1,
        "{object}: accepted {is_accepted}: {output:?} instead of {words:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn kubectl_warns_of_networks_that_multus_cannot_attach() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture.kubectl(&["create", "namespace", SHOP])?;
    until_output(&fixture, &deployment("a b"), Some("is no list of networks")).await?;
    for networks in [
        "",
        "macvlan1",
        "a, default/b@net1 ,c.d@eth1",
        "a,\n  b,\tc",
        "a @net1,b@,/c, shop / d",
        r#"[{"name": "macvlan1", "ips": ["10.1.0.9/24"]}]"#,
    ] {
        let (is_accepted, output) = create(&fixture, &deployment(networks))?;
        ensure!(is_accepted && output.is_empty(), "{networks:?}: {output}");
    }
    for networks in [
        "a b",
        "a,,b",
        "Macvlan1",
        "a/b/c",
        r#"[{"name": "macvlan1"}"#,
        r#"{"name": "a"}"#,
    ] {
        warns(&fixture, &deployment(networks), "is no list of networks")?;
    }
    // Pods are created beside the ServiceAccount of the namespace.
    until_output(&fixture, &pod("a b", false), Some("is no list of networks")).await?;
    warns(
        &fixture,
        &pod("macvlan1", true),
        "has no effect with spec.hostNetwork",
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn invalid_services_are_rejected_with_deny_and_not_validated_with_off() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture.kubectl(&["create", "namespace", SHOP])?;
    let invalid = rejected().swap_remove(1);
    let mut existing = invalid.clone();
    existing["metadata"]["name"] = json!("existing");
    fixture.apply(&existing)?;
    fixture.set_spec(json!({ "serviceValidation": "Deny" })).await?;
    until_output(&fixture, &invalid, Some("denied request")).await?;
    let (is_accepted, output) = create(&fixture, &invalid)?;
    ensure!(!is_accepted && output.contains(&words(&invalid)?), "{output}");
    for part in partly_served() {
        warns(&fixture, &part, &words(&part)?)?;
    }
    // The remedies work one step after the other.
    for (object, words) in not_asking() {
        warns(&fixture, &object, words)?;
    }
    // The one that exists can be changed elsewhere, repaired and deleted; a change for the worse is rejected.
    fixture.kubectl(&["annotate", "service", "existing", "-n", SHOP, "team=red"])?;
    let network = |value: &str| format!("{SERVICE_NETWORK_ANNOTATION}={value}");
    let set = |value: &str| {
        fixture.kubectl_warnings(&[
            "annotate",
            "--overwrite",
            "service",
            "existing",
            "-n",
            SHOP,
            &network(value),
        ])
    };
    let (is_accepted, output) = set("a,b")?;
    ensure!(
        !is_accepted && output.contains("make one Service per network"),
        "{output}"
    );
    ensure!(set("macvlan1")? == (true, String::new()));
    fixture.kubectl(&["delete", "service", "existing", "-n", SHOP])?;
    fixture.set_spec(json!({ "serviceValidation": "Off" })).await?;
    until_output(&fixture, &invalid, None).await
}
