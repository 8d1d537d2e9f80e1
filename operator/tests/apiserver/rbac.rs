//! Least privilege and absence of writes, both from the audit log of the API server.

use crate::fixture::{Fixture, NAMESPACE, message, repository};
use crate::monitoring::{MONITORS, MONITORS_OF_OPENSHIFT, define_prometheus_operator, until_monitored};
use crate::openshift::{
    SAMPLES, TOUR, become_openshift, define_the_console, define_the_network_configuration, until_shown,
};
use anyhow::{Context as _, Result};
use api::names::{CLEANUP, CONFIG_NAME, CONTROLLER, OPERATOR, PROXY};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, Patch, PatchParams};
use operator::cleanup::node_labels::LABEL;
use operator::operands::SELECTOR;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use testbed::audit::{Log, Request, service_account};
use testbed::scrape::Scraper;

/// Every answered request of the operator.
fn requests(fixture: &Fixture) -> Result<Vec<Request>> {
    requests_in(&fixture.server.audit_log())
}

/// The operator's requests in a part of the log.
pub(crate) fn requests_in(log: &Log) -> Result<Vec<Request>> {
    let operator = service_account(NAMESPACE, OPERATOR);
    let mut requests = log.requests()?;
    requests.retain(|request| request.user == operator);
    Ok(requests)
}

fn writes(fixture: &Fixture) -> Result<Vec<Request>> {
    let mut requests = requests(fixture)?;
    requests.retain(|request| request.is_write() && request.resource != "leases");
    Ok(requests)
}

/// Number of reconciles so far: each begins with a read of the configuration.
fn reconciles(fixture: &Fixture) -> Result<usize> {
    let is_turn = |request: &&Request| request.verb == "get" && request.resource == "multusserviceconfigs";
    Ok(requests(fixture)?.iter().filter(is_turn).count())
}

pub(crate) fn memory_kib(pid: u32, kind: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(kind));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {kind} of process {pid}"))
}

#[derive(Deserialize)]
struct Role {
    kind: String,
    rules: Vec<PolicyRule>,
}

/// One permission: cluster-wide or in the operator's namespace; for all objects of the kind, or for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    is_everywhere: bool,
    group: String,
    resource: String,
    verb: String,
    name: Option<String>,
}

/// All permissions of the operator.
fn grants() -> Result<Vec<Grant>> {
    let roles: Vec<Role> = serde_saphyr::from_multiple(&std::fs::read_to_string(repository(
        "config/rbac/operator_role.yaml",
    ))?)?;
    Ok(roles
        .iter()
        .flat_map(|role| {
            role.rules
                .iter()
                .flat_map(|rule| of_rule(rule, role.kind == "ClusterRole"))
        })
        .collect())
}

fn of_rule(rule: &PolicyRule, is_everywhere: bool) -> Vec<Grant> {
    let names: Vec<_> = match rule.resource_names.as_deref().unwrap_or_default() {
        [] => vec![None],
        names => names.iter().cloned().map(Some).collect(),
    };
    let mut grants = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                grants.extend(names.iter().map(|name| Grant {
                    is_everywhere,
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    grants
}

/// Objects whose names are generated.
const ANY_NAME: [(&str, &str, &str); 3] = [
    ("", "nodes", "patch"),
    ("scheduling.k8s.io", "priorityclasses", "get"),
    ("events.k8s.io", "events", "patch"),
];

/// Permissions that another test uses: a repeated event is patched, and events about failed pod creations are read in
/// `pods_forbidden_by_pod_security_are_reported_with_its_message`.
const ELSEWHERE: [(&str, &str, &str); 2] = [("events.k8s.io", "events", "patch"), ("", "events", "list")];

impl Grant {
    fn is_in(&self, list: &[(&str, &str, &str)]) -> bool {
        list.contains(&(self.group.as_str(), self.resource.as_str(), self.verb.as_str()))
    }

    /// True when the request needs this permission, and no narrower one suffices.
    fn is_needed_by(&self, request: &Request) -> bool {
        // A creation by apply is authorized inside of the patch; other creations have no name when they are authorized.
        let is_verb = match (self.verb.as_str(), &self.name) {
            ("create", Some(_)) => request.verb == "patch" && request.code == 201,
            _ => request.verb == self.verb,
        };
        let is_name = match &self.name {
            Some(name) => *name == request.name,
            None => request.name.is_empty() || request.verb == "create" || self.is_in(&ANY_NAME),
        };
        is_verb
            && is_name
            && (&request.group, &request.resource) == (&self.group, &self.resource)
            && self.is_everywhere == (request.namespace != NAMESPACE)
    }
}

/// Bound roles: the API server authorizes `bind` inside of a patch, and does not log it.
fn bound(fixture: &Fixture) -> Result<Vec<Grant>> {
    let kinds = "clusterrolebindings,rolebindings";
    let path = r#"jsonpath={range .items[*]}{.kind} {.roleRef.kind} {.roleRef.name}{"\n"}{end}"#;
    let listed = fixture.kubectl(&["-n", NAMESPACE, "get", kinds, "-l", SELECTOR, "-o", path])?;
    let grant = |line: &str| {
        let (binding, role) = line.split_once(' ')?;
        let (kind, name) = role.split_once(' ')?;
        Some(Grant {
            // A ClusterRole has no namespace, in any binding.
            is_everywhere: binding == "ClusterRoleBinding" || kind == "ClusterRole",
            group: "rbac.authorization.k8s.io".to_owned(),
            resource: format!("{}s", kind.to_lowercase()),
            verb: "bind".to_owned(),
            name: Some(name.to_owned()),
        })
    };
    let mut bound: Vec<_> = listed.lines().filter_map(grant).collect();
    bound.sort();
    bound.dedup();
    Ok(bound)
}

/// A scrape with a token, and the TLS profile of OpenShift.
async fn serve_metrics(fixture: &Fixture) -> Result<()> {
    let address = fixture.operator_metrics().await?.to_string();
    fixture.server.set_tls_profile("Modern").await?;
    fixture.server.allow_metrics("allowed").await?;
    let scraper = Scraper::with_token(&fixture.server.token("allowed").await?);
    let tls12 = Scraper::default().arg("--tls-max", "1.2");
    fixture
        .eventually("a scrape, and only by TLS 1.3", async || {
            let is_strict = tls12.get(&address, "/metrics").is_err();
            let answer = scraper.get(&address, "/metrics")?;
            Ok((is_strict && answer.0 == 200).then_some(()))
        })
        .await
}

/// Uses every permission once: OpenShift's kinds, a node that is cleaned up and one that never is.
async fn whole_lifecycle(fixture: &Fixture) -> Result<()> {
    define_the_console(fixture).await?;
    until_shown(fixture, "consolequickstarts", &[TOUR]).await?;
    until_shown(fixture, "consoleyamlsamples", &SAMPLES).await?;
    define_the_network_configuration(fixture).await?;
    serve_metrics(fixture).await?;
    // Checks whether it exists.
    fixture.kubectl(&["label", "node", "node-a", "zone=in"])?;
    fixture.set_spec(json!({
        "controller": { "priorityClassName": "system-node-critical" }, "proxy": { "nodeSelector": { "zone": "in" } },
    }))
    .await?;
    fixture.until_installed().await?;
    fixture
        .eventually("node-b to be clean", async || {
            let labelled = fixture.kubectl(&["get", "nodes", "-l", LABEL, "-o", "name"])?;
            let cleanup = fixture.here::<DaemonSet>().get_opt(CLEANUP).await?;
            Ok((labelled.trim() == "node/node-a" && cleanup.is_none()).then_some(()))
        })
        .await?;
    // The only event.
    fixture.nodes.set_stuck("node-a", true);
    fixture.set_spec(json!({ "managementState": "Removed" })).await?;
    fixture
        .eventually("node-a alone to be waited for", async || {
            let text = message(&fixture.config().await?, "Progressing");
            Ok((text == "Waiting for rule cleanup on nodes: node-a").then_some(()))
        })
        .await?;
    let past = "multusservice.cni.cncf.io/cleanup-since=2026-01-01T00:00:00Z";
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "annotate",
        "daemonset",
        PROXY,
        "--overwrite",
        past,
    ])?;
    fixture.until_conditions(&["Progressing=False/Removed"]).await?;
    Ok(())
}

/// Each permission with its names and its scope: one object too many, or a namespace too many, fails.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn operator_uses_every_permission_it_has_and_no_other() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    become_openshift(&fixture, "HighlyAvailable").await?;
    define_prometheus_operator(&fixture)?;
    until_monitored(&fixture, &MONITORS_OF_OPENSHIFT, 1).await?;
    let bound = bound(&fixture)?;
    whole_lifecycle(&fixture).await?;
    // It releases its Lease.
    fixture.stop_operator().await?;

    let requests = requests(&fixture)?;
    let forbidden: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
    let (mut binding, others): (Vec<_>, Vec<_>) =
        grants()?.into_iter().partition(|grant| grant.verb == "bind");
    binding.sort();
    assert_eq!(binding, bound);
    let unused: Vec<_> = others
        .iter()
        .filter(|grant| !grant.is_in(&ELSEWHERE))
        .filter(|grant| !requests.iter().any(|request| grant.is_needed_by(request)))
        .collect();
    assert!(unused.is_empty(), "{unused:#?}");
    assert_policies_confine_throughout(&requests);
    Ok(())
}

/// Policies are created before the accounts that they confine, and deleted after them, bindings first.
fn assert_policies_confine_throughout(requests: &[Request]) {
    let kinds = |requests: Vec<&Request>| -> Vec<String> {
        requests
            .into_iter()
            .map(|request| request.resource.clone())
            .collect()
    };
    let created = requests
        .iter()
        .filter(|request| request.code == 201 && request.verb == "patch");
    // Without workloads: they are dry-run before anything is written.
    let is_no_workload = |kind: &String| !["deployments", "daemonsets"].contains(&kind.as_str());
    let created: Vec<_> = kinds(created.collect())
        .into_iter()
        .filter(is_no_workload)
        .collect();
    let deleted = kinds(
        requests
            .iter()
            .filter(|request| request.verb == "delete")
            .collect(),
    );
    let (policies, bindings) = (
        vec!["validatingadmissionpolicies"; 9],
        vec!["validatingadmissionpolicybindings"; 9],
    );
    assert_eq!(
        created[..18],
        [policies.clone(), bindings.clone()].concat(),
        "{created:?}"
    );
    assert_eq!(
        deleted[deleted.len() - 18..],
        [bindings, policies].concat(),
        "{deleted:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn nothing_is_written_without_a_change() -> Result<()> {
    let fixture = Fixture::installed().await?;
    define_prometheus_operator(&fixture)?;
    until_monitored(&fixture, &MONITORS, 1).await?;
    define_the_console(&fixture).await?;
    until_shown(&fixture, "consolequickstarts", &[TOUR]).await?;
    until_shown(&fixture, "consoleyamlsamples", &SAMPLES).await?;
    // A field that cannot be removed, because the API server sets it again, is not retried for ever; a restart of pods is kept.
    fixture.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": CONTROLLER, "namespace": NAMESPACE },
        "spec": { "revisionHistoryLimit": 10 },
    }))?;
    let restart = [
        "-n",
        NAMESPACE,
        "rollout",
        "restart",
        &format!("daemonset/{PROXY}"),
    ];
    fixture.kubectl(&restart)?;
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        &format!("daemonset/{PROXY}"),
        "--timeout=60s",
    ])?;
    fixture.until_installed().await?;
    let version = async || -> Result<_> { Ok(fixture.config().await?.metadata.resource_version) };
    // The changes of the last reconcile have settled.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (settled, before) = (version().await?, writes(&fixture)?.len());
    let accounts: Api<ServiceAccount> = fixture.here();
    for round in 0..100 {
        let reconciles = reconciles(&fixture)?;
        let note = json!({ "metadata": { "annotations": { "example.com/round": round.to_string() } } });
        accounts
            .patch(PROXY, &PatchParams::default(), &Patch::Merge(note))
            .await?;
        fixture
            .eventually("the operator to reconcile", async || {
                Ok((self::reconciles(&fixture)? > reconciles).then_some(()))
            })
            .await?;
    }
    // After the writes of the last reconcile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = writes(&fixture)?;
    assert_eq!(after.len(), before, "{:?}", &after[before..]);
    assert_eq!(version().await?, settled, "{CONFIG_NAME} was written");
    let proxy = serde_json::to_value(fixture.proxy().await?)?;
    let restarted = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt";
    assert!(
        proxy.pointer(restarted).is_some(),
        "the restart was undone: {proxy:#}"
    );
    // Without the pages of the program, which are many in an unoptimized build; the total is measured on the cluster.
    let pid = fixture.operator_pid()?;
    let (own, all) = (memory_kib(pid, "RssAnon:")?, memory_kib(pid, "VmRSS:")?);
    eprintln!("memory after 100 reconciles: {own} KiB of its own, {all} KiB with the program");
    assert!(own <= 30 * 1024, "{own} KiB of memory");
    Ok(())
}
