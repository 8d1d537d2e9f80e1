//! Admission policies of the operator restrict the permissions of its accounts and of other clients: real tokens, real requests.

use crate::fixture::{Fixture, NAMESPACE};
use anyhow::{Result, ensure};
use api::names::{
    CONTROLLER, MANAGED_BY, MANAGED_BY_LABEL, OPERATOR, PROXY, PROXY_NAME, PROXY_NAME_LABEL, RULES_LABEL,
    SERVICE_NAME_LABEL,
};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use operator::operands::SELECTOR;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// The namespace of the attacked Services.
const VICTIM: &str = "kube-system";

fn object<K: DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}

fn of<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

/// An installation whose policies are enforced, which takes a moment after their creation.
async fn in_force() -> Result<Fixture> {
    let fixture = Fixture::installed().await?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(fixture.client.clone());
    fixture
        .eventually("the policies to be checked without a warning", async || {
            let found = policies
                .list(&ListParams::default().labels(SELECTOR))
                .await?
                .items;
            ensure!(found.len() == 9, "there are {} policies", found.len());
            for policy in &found {
                let status = policy.status.clone().unwrap_or_default();
                let warnings = status.type_checking.unwrap_or_default().expression_warnings;
                ensure!(warnings.is_none(), "{}: {warnings:?}", policy.name_any());
                ensure!(
                    status.observed_generation == policy.metadata.generation,
                    "{} is not checked yet",
                    policy.name_any()
                );
            }
            Ok(Some(()))
        })
        .await?;
    let controller = account(&fixture, CONTROLLER).await?;
    let forged = slice("forged", "nothing", &json!({ SERVICE_NAME_LABEL: "nothing" }))?;
    let slices: Api<EndpointSlice> = of(&controller, VICTIM);
    until_denied(&fixture, async || {
        slices.create(&dry_run(), &forged).await.map(drop)
    })
    .await?;
    Ok(fixture)
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

/// Waits until a policy is enforced, which takes a moment after its creation.
async fn until_denied(fixture: &Fixture, mut request: impl AsyncFnMut() -> kube::Result<()>) -> Result<()> {
    fixture
        .eventually("the policy to be in force", async || {
            Ok(is_denied(request().await).then_some(()))
        })
        .await
}

async fn account(fixture: &Fixture, name: &str) -> Result<Client> {
    fixture.server.service_account_client(NAMESPACE, name).await
}

/// True when a policy rejected, and not RBAC or validation.
fn is_denied(answer: kube::Result<()>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy 'multus-service-"))
}

#[track_caller]
fn denied<T: Debug>(answer: kube::Result<T>, words: &str) {
    let message = match answer {
        Err(kube::Error::Api(status)) => status.message,
        other => format!("not denied: {other:?}"),
    };
    let is_policy = message.contains("ValidatingAdmissionPolicy 'multus-service-");
    assert!(is_policy && message.contains(words), "{message}");
}

fn slice(name: &str, service: &str, labels: &Value) -> Result<EndpointSlice> {
    object(json!({
        "metadata": {
            "name": name, "labels": labels,
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": service, "uid": "00000000-0000-0000-0000-000000000001" }],
        },
        "addressType": "IPv4", "ports": [],
        "endpoints": [{ "addresses": ["10.9.9.9"], "conditions": { "ready": true } }],
    }))
}

/// The garbage collector deletes objects whose owner does not exist.
fn owned(mut slice: EndpointSlice, service: &Service) -> EndpointSlice {
    slice.owner_references_mut()[0].uid = service.uid().unwrap_or_default();
    slice
}

/// Labels as the controller writes them.
fn labels_of_ours(service: &str) -> Value {
    json!({ MANAGED_BY_LABEL: MANAGED_BY, PROXY_NAME_LABEL: PROXY_NAME, SERVICE_NAME_LABEL: service })
}

/// A Service that kube-proxy serves, and the slice that kube-controller-manager made for it.
async fn victim(fixture: &Fixture, name: &str) -> Result<EndpointSlice> {
    let service: Service = object(json!({
        "metadata": { "name": name }, "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
    }))?;
    of(&fixture.client, VICTIM)
        .create(&PostParams::default(), &service)
        .await?;
    let slices: Api<EndpointSlice> = of(&fixture.client, VICTIM);
    let labels = ListParams::default().labels(&format!("{SERVICE_NAME_LABEL}={name}"));
    fixture
        .eventually("the slice of kube-controller-manager", async || {
            Ok(slices.list(&labels).await?.items.pop())
        })
        .await
}

fn redirected(mut slice: EndpointSlice) -> EndpointSlice {
    slice.endpoints = vec![serde_json::from_value(json!({ "addresses": ["10.9.9.9"] })).unwrap_or_default()];
    slice
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn stolen_controller_token_cannot_redirect_other_services() -> Result<()> {
    let fixture = in_force().await?;
    let dns = victim(&fixture, "kube-dns").await?;
    let stolen: Api<EndpointSlice> = of(&account(&fixture, CONTROLLER).await?, VICTIM);
    let (post, delete) = (PostParams::default(), DeleteParams::default());
    let name = dns.name_any();

    // Three requests of an attacker.
    let created = slice("evil", "kube-dns", &json!({ SERVICE_NAME_LABEL: "kube-dns" }))?;
    denied(stolen.create(&post, &created).await, "managed-by");
    denied(
        stolen.replace(&name, &post, &redirected(dns.clone())).await,
        "managed-by",
    );
    denied(stolen.delete(&name, &delete).await, "managed-by");

    // In two steps: create it with our labels, then change it; or the reverse.
    let mut ours = redirected(dns.clone());
    ours.metadata.labels = serde_json::from_value(labels_of_ours("kube-dns"))?;
    denied(stolen.replace(&name, &post, &ours).await, "managed-by");
    let half = json!({ MANAGED_BY_LABEL: MANAGED_BY, SERVICE_NAME_LABEL: "kube-dns" });
    denied(
        stolen.create(&post, &slice("evil", "kube-dns", &half)?).await,
        "service-proxy-name",
    );
    denied(
        stolen
            .create(&post, &slice("evil", "another", &labels_of_ours("kube-dns"))?)
            .await,
        "ownerReference",
    );
    let mut unowned = slice("evil", "kube-dns", &labels_of_ours("kube-dns"))?;
    unowned.metadata.owner_references = None;
    denied(stolen.create(&post, &unowned).await, "ownerReference");

    // The controller's own writes are allowed, and cannot be used for an attack.
    victim(&fixture, "web").await?;
    let web = of::<Service>(&fixture.client, VICTIM).get("web").await?;
    let mine = owned(slice("web-multus-a", "web", &labels_of_ours("web"))?, &web);
    let mine = stolen.create(&post, &mine).await?;
    let mut foreign = mine.clone();
    foreign.labels_mut().remove(PROXY_NAME_LABEL);
    denied(
        stolen.replace("web-multus-a", &post, &foreign).await,
        "service-proxy-name",
    );
    let mut foreign = mine.clone();
    foreign
        .labels_mut()
        .insert(MANAGED_BY_LABEL.to_owned(), "another".to_owned());
    denied(
        stolen.replace("web-multus-a", &post, &foreign).await,
        "managed-by",
    );
    let mut changed = mine;
    changed.endpoints[0].addresses = vec!["10.9.9.8".to_owned()];
    stolen.replace("web-multus-a", &post, &changed).await?;
    stolen.delete("web-multus-a", &delete).await?;

    let after = of::<EndpointSlice>(&fixture.client, VICTIM).get(&name).await?;
    assert_eq!(
        (after.endpoints, after.metadata.labels),
        (dns.endpoints, dns.metadata.labels)
    );
    Ok(())
}

/// Administrators are denied, too; the garbage collector and the namespace controller are not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn only_the_controller_writes_slices_that_proxies_read() -> Result<()> {
    let fixture = in_force().await?;
    fixture.kubectl(&["create", "namespace", "web"])?;
    let service: Service =
        object(json!({ "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 80 }] } }))?;
    let service = of(&fixture.client, "web")
        .create(&PostParams::default(), &service)
        .await?;
    let post = PostParams::default();
    let ours = owned(slice("web-multus-a", "web", &labels_of_ours("web"))?, &service);
    let (admin, controller): (Api<EndpointSlice>, Api<EndpointSlice>) = (
        of(&fixture.client, "web"),
        of(&account(&fixture, CONTROLLER).await?, "web"),
    );

    until_denied(&fixture, async || admin.create(&dry_run(), &ours).await.map(drop)).await?;
    denied(admin.create(&post, &ours).await, "may create an EndpointSlice");
    let written = controller.create(&post, &ours).await?;
    denied(
        admin
            .replace("web-multus-a", &post, &redirected(written.clone()))
            .await,
        "change the Service",
    );
    let patch = async |patch: Value| {
        let params = PatchParams::default();
        admin.patch("web-multus-a", &params, &Patch::Merge(patch)).await
    };
    denied(
        patch(json!({ "ports": [{ "port": 1 }] })).await,
        "change the Service",
    );
    denied(
        patch(json!({ "metadata": { "labels": { PROXY_NAME_LABEL: null } } })).await,
        "change the Service",
    );
    denied(
        patch(json!({ "metadata": { "labels": { MANAGED_BY_LABEL: "mine" } } })).await,
        "change the Service",
    );
    let mut owners = serde_json::to_value(&written.metadata.owner_references)?;
    owners[0]["uid"] = json!("00000000-0000-0000-0000-000000000002");
    denied(
        patch(json!({ "metadata": { "ownerReferences": owners } })).await,
        "ownerReference",
    );
    denied(
        patch(json!({ "metadata": { "finalizers": ["example.com/keep"] } })).await,
        "add a finalizer",
    );
    // Turn a slice of another client into a managed one.
    let theirs = slice("theirs", "web", &json!({ MANAGED_BY_LABEL: "mine" }))?;
    admin.create(&post, &owned(theirs, &service)).await?;
    let turned = json!({ "metadata": { "labels": { MANAGED_BY_LABEL: MANAGED_BY } } });
    denied(
        admin
            .patch("theirs", &PatchParams::default(), &Patch::Merge(turned))
            .await,
        "change the Service",
    );
    // Fields that no proxy reads.
    patch(json!({ "metadata": { "annotations": { "example.com/note": "seen" } } })).await?;

    // The controller of the archived multus-service writes slices of the same kind.
    let original = fixture
        .server
        .client_as(
            "system:serviceaccount:kube-system:multus-service",
            &["system:masters"],
        )
        .await?;
    let mut theirs = ours.clone();
    theirs.metadata.name = Some("web-multus-b".to_owned());
    of::<EndpointSlice>(&original, "web")
        .create(&post, &theirs)
        .await?;

    garbage_is_collected(&fixture, &admin, &controller, ours).await
}

/// Orphaning leaves the slice to the controller, which deletes it; collection deletes it; the namespace is deleted.
async fn garbage_is_collected(
    fixture: &Fixture,
    admin: &Api<EndpointSlice>,
    controller: &Api<EndpointSlice>,
    ours: EndpointSlice,
) -> Result<()> {
    let post = PostParams::default();
    fixture.kubectl(&[
        "-n",
        "web",
        "delete",
        "service",
        "web",
        "--cascade=orphan",
        "--timeout=60s",
    ])?;
    fixture
        .eventually("the slice to be an orphan", async || {
            Ok(admin
                .get("web-multus-a")
                .await?
                .owner_references()
                .is_empty()
                .then_some(()))
        })
        .await?;
    controller
        .delete("web-multus-a", &DeleteParams::default())
        .await?;
    let again = of(&fixture.client, "web")
        .create(
            &post,
            &object::<Service>(json!({
        "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 80 }] } }))?,
        )
        .await?;
    let ours = owned(ours, &again);
    controller.create(&post, &ours).await?;
    fixture.kubectl(&[
        "-n",
        "web",
        "delete",
        "service",
        "web",
        "--cascade=foreground",
        "--timeout=60s",
    ])?;
    fixture
        .eventually("the slice to be collected", async || {
            Ok(admin.get_opt("web-multus-a").await?.is_none().then_some(()))
        })
        .await?;
    fixture.kubectl(&["delete", "namespace", "web", "--timeout=60s"])?;
    Ok(())
}

/// An Event as our accounts write it, reported by `by`.
fn event(name: &str, by: &str) -> Result<Event> {
    object(json!({
        "metadata": { "name": name }, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Warning",
        "reason": "Test", "action": "Test", "note": "x", "reportingController": by, "reportingInstance": "a",
        "regarding": { "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": VICTIM },
    }))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn accounts_write_only_their_own_events() -> Result<()> {
    let fixture = in_force().await?;
    let post = PostParams::default();
    let as_admin: Api<Event> = of(&fixture.client, VICTIM);
    as_admin.create(&post, &event("theirs", "kubelet")?).await?;
    for name in [CONTROLLER, PROXY, OPERATOR] {
        // The operator publishes Events about a cluster-scoped object in `default`; the permission is the same.
        let events: Api<Event> = of(&account(&fixture, name).await?, VICTIM);
        let forged = event("forged", "kubelet")?;
        until_denied(&fixture, async || {
            events.create(&dry_run(), &forged).await.map(drop)
        })
        .await?;
        denied(events.create(&post, &forged).await, name);
        // The API server itself rejects the other source that tools show.
        let mut sourced = event("forged", name)?;
        sourced.deprecated_source = Some(object(json!({ "component": "kubelet" }))?);
        assert!(events.create(&post, &sourced).await.is_err());
        for metadata in [
            json!({ "finalizers": ["example.com/forever"] }),
            json!({ "labels": { "a": "b" } }),
            json!({ "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1" }] }),
        ] {
            let mut value = serde_json::to_value(event("forged", name)?)?;
            for (key, part) in metadata.as_object().into_iter().flatten() {
                value["metadata"][key] = part.clone();
            }
            denied(events.create(&post, &object(value)?).await, "may have no labels");
        }
        let patch = async |name: &str, patch: Value| {
            events
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
        };
        let series = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z" } });
        denied(patch("theirs", series.clone()).await, name);
        let finalizer = json!({ "metadata": { "finalizers": ["example.com/forever"] } });
        denied(patch("theirs", finalizer.clone()).await, name);

        let mine = format!("of-{name}");
        events.create(&post, &event(&mine, name)?).await?;
        patch(&mine, series).await?;
        denied(patch(&mine, finalizer).await, "may not change labels");
        let renamed = json!({ "reportingController": "kubelet" });
        assert!(patch(&mine, renamed).await.is_err());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn operator_can_change_only_its_node_label() -> Result<()> {
    let fixture = in_force().await?;
    let nodes: Api<Node> = Api::all(account(&fixture, OPERATOR).await?);
    let patch = async |patch: Value| {
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        nodes
            .patch_metadata("node-a", &params, &Patch::Merge(patch))
            .await
            .map(drop)
    };
    let label = |key: &str, value: Value| json!({ "metadata": { "labels": { key: value } } });
    until_denied(&fixture, async || patch(label("evil", json!("1"))).await).await?;
    let taint = json!({ "spec": { "taints": [{ "key": "evil", "effect": "NoExecute" }] } });
    denied(patch(taint).await, "spec or status");
    denied(
        patch(json!({ "spec": { "unschedulable": true } })).await,
        "spec or status",
    );
    denied(
        patch(label("node-role.kubernetes.io/control-plane", json!(""))).await,
        "and no other",
    );
    denied(
        patch(label("kubernetes.io/os", Value::Null)).await,
        "and no other",
    );
    denied(
        patch(label(RULES_LABEL, json!("other"))).await,
        "present, cleanup-pending or skipped",
    );
    denied(
        patch(json!({ "metadata": { "annotations": { "a": "b" } } })).await,
        "annotations",
    );
    denied(
        patch(json!({ "metadata": { "finalizers": ["example.com/forever"] } })).await,
        "finalizers",
    );
    for value in [
        json!("present"),
        json!("cleanup-pending"),
        json!("skipped"),
        Value::Null,
    ] {
        patch(label(RULES_LABEL, value)).await?;
    }
    Ok(())
}

/// As any other operand: deleted, changed, extended; accounts of the same name in other namespaces do not match.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn weakened_policy_is_restored() -> Result<()> {
    const NAME: &str = "multus-service-endpointslices";
    let fixture = Fixture::installed().await?;
    let policies = "validatingadmissionpolicy";
    let bindings = "validatingadmissionpolicybinding";
    let spec = |kind: &str| fixture.kubectl(&["get", kind, NAME, "-o", "jsonpath={.spec}"]);
    let before = (spec(policies)?, spec(bindings)?);
    for (kind, patch) in [
        (policies, json!({ "spec": { "failurePolicy": "Ignore" } })),
        (
            policies,
            json!({ "spec": { "validations": [{ "expression": "true" }] } }),
        ),
        (
            policies,
            json!({ "spec": { "matchConditions": [{ "name": "never", "expression": "false" }] } }),
        ),
        (
            policies,
            json!({ "spec": { "matchConstraints": { "namespaceSelector": { "matchLabels": { "no": "where" } } } } }),
        ),
        (bindings, json!({ "spec": { "validationActions": ["Audit"] } })),
        (
            bindings,
            json!({ "spec": { "matchResources": { "namespaceSelector": { "matchLabels": { "no": "where" } } } } }),
        ),
    ] {
        fixture.kubectl(&["patch", kind, NAME, "--type=merge", "-p", &patch.to_string()])?;
        fixture
            .eventually(&format!("{patch} to be undone"), async || {
                let now = (spec(policies)?, spec(bindings)?);
                ensure!(now == before, "now: {now:?}");
                Ok(Some(()))
            })
            .await?;
    }
    fixture.until_installed().await?;
    Ok(())
}
