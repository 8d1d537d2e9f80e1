//! Least privilege and silence, both from the apiserver's audit log.

use crate::bed::{Bed, NAMESPACE, message, repository};
use anyhow::{Context as _, Result};
use api::names::{CONFIG_NAME, CONTROLLER, OPERATOR, PROXY};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, Patch, PatchParams};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// One request of the operator.
#[derive(Debug, Clone)]
struct Request {
    verb: String,
    group: String,
    resource: String,
    code: i64,
}

fn requests(bed: &Bed) -> Result<Vec<Request>> {
    let user = format!("system:serviceaccount:{NAMESPACE}:{OPERATOR}");
    let log = std::fs::read_to_string(bed.server.audit_log())?;
    let events = log
        .lines()
        .map(serde_json::from_str::<Value>)
        .collect::<Result<Vec<_>, _>>()?;
    let text = |event: &Value, path| {
        event
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let request = |event: &Value| Request {
        verb: text(event, "/verb"),
        group: text(event, "/objectRef/apiGroup"),
        resource: match text(event, "/objectRef/subresource").as_str() {
            "" => text(event, "/objectRef/resource"),
            subresource => format!("{}/{subresource}", text(event, "/objectRef/resource")),
        },
        code: event
            .pointer("/responseStatus/code")
            .and_then(Value::as_i64)
            .unwrap_or_default(),
    };
    Ok(events
        .iter()
        .filter(|event| event.pointer("/user/username") == Some(&json!(user)))
        .map(request)
        .collect())
}

fn writes(bed: &Bed) -> Result<Vec<Request>> {
    let is_write = |request: &Request| {
        !["get", "list", "watch"].contains(&request.verb.as_str()) && request.resource != "leases"
    };
    Ok(requests(bed)?.into_iter().filter(is_write).collect())
}

/// Reconciles so far: each begins with a look at the configuration.
fn turns(bed: &Bed) -> Result<usize> {
    let is_turn = |request: &&Request| request.verb == "get" && request.resource == "multusserviceconfigs";
    Ok(requests(bed)?.iter().filter(is_turn).count())
}

fn memory_kib(pid: u32, kind: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(kind));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {kind} of process {pid}"))
}

#[derive(Deserialize)]
struct Role {
    rules: Vec<PolicyRule>,
}

/// The apiserver checks `bind`, and the `create` of an object that an apply makes, inside another request.
fn is_checked_inside(resource: &str, verb: &str) -> bool {
    match verb {
        "bind" => true,
        "create" => resource != "leases" && resource != "events",
        _ => false,
    }
}

/// (group, resource, verb) of everything the operator is granted.
fn grants() -> Result<Vec<(String, String, String)>> {
    let roles: Vec<Role> = serde_saphyr::from_multiple(&std::fs::read_to_string(repository(
        "config/rbac/operator_role.yaml",
    ))?)?;
    let mut grants = Vec::new();
    for rule in roles.iter().flat_map(|role| &role.rules) {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                grants.extend(
                    rule.verbs
                        .iter()
                        .map(|verb| (group.clone(), resource.clone(), verb.clone())),
                );
            }
        }
    }
    Ok(grants)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_operator_uses_every_right_it_has_and_needs_no_other() -> Result<()> {
    let bed = Bed::installed().await?;
    // Whether it exists is looked up.
    bed.set_spec(json!({ "controller": { "priorityClassName": "system-node-critical" } }))
        .await?;
    bed.until_installed().await?;
    // The one event there is.
    bed.nodes.set_stuck("node-a", true);
    bed.set_spec(json!({ "managementState": "Removed" })).await?;
    bed.eventually("node-a alone to be awaited", async || {
        let told = message(&bed.config().await?, "Progressing");
        Ok((told == "Waiting for nodes to be clean: node-a").then_some(()))
    })
    .await?;
    let past = "multusservice.cni.cncf.io/cleanup-since=2026-01-01T00:00:00Z";
    bed.kubectl(&[
        "-n",
        NAMESPACE,
        "annotate",
        "daemonset",
        "multus-service-proxy",
        "--overwrite",
        past,
    ])?;
    bed.until_conditions(&["Progressing=False/Removed"]).await?;

    let requests = requests(&bed)?;
    let forbidden: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
    let unused: Vec<_> = grants()?
        .into_iter()
        .filter(|(group, resource, verb)| {
            !requests
                .iter()
                .any(|request| (&request.group, &request.resource, &request.verb) == (group, resource, verb))
        })
        .filter(|(_, resource, verb)| !is_checked_inside(resource, verb))
        .collect();
    // A repeated event is counted up by a patch; why pods cannot be created is read in another test
    // (`pods_that_pod_security_forbids_are_told_in_its_words`).
    let elsewhere = [("events.k8s.io", "events", "patch"), ("", "events", "list")];
    let unused: Vec<_> = unused
        .iter()
        .filter(|(group, resource, verb)| !elsewhere.contains(&(group, resource, verb)))
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn nothing_is_written_when_nothing_is_to_do() -> Result<()> {
    let bed = Bed::installed().await?;
    // What cannot be taken out, because the API server puts the same value there again, is no reason to try for ever; and who
    // restarts pods is let to.
    bed.apply(&json!({
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
    bed.kubectl(&restart)?;
    bed.kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        &format!("daemonset/{PROXY}"),
        "--timeout=60s",
    ])?;
    bed.until_installed().await?;
    let version = async || -> Result<_> { Ok(bed.config().await?.metadata.resource_version) };
    // What the last turn of the installation started has settled.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (settled, before) = (version().await?, writes(&bed)?.len());
    let accounts: Api<ServiceAccount> = bed.here();
    for turn in 0..100 {
        let turns = turns(&bed)?;
        let note = json!({ "metadata": { "annotations": { "example.com/turn": turn.to_string() } } });
        accounts
            .patch(PROXY, &PatchParams::default(), &Patch::Merge(note))
            .await?;
        bed.eventually("the operator to look", async || {
            Ok((self::turns(&bed)? > turns).then_some(()))
        })
        .await?;
    }
    // Whatever the last turn wrote.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = writes(&bed)?;
    assert_eq!(after.len(), before, "{:?}", &after[before..]);
    assert_eq!(version().await?, settled, "{CONFIG_NAME} was written");
    let proxy = serde_json::to_value(bed.proxy().await?)?;
    let restarted = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt";
    assert!(
        proxy.pointer(restarted).is_some(),
        "the restart was undone: {proxy:#}"
    );
    // Without the pages of the program, which are many in an unoptimized build; the whole is measured on the cluster.
    let pid = bed.operator_pid()?;
    let (own, all) = (memory_kib(pid, "RssAnon:")?, memory_kib(pid, "VmRSS:")?);
    eprintln!("memory after 100 turns: {own} KiB of its own, {all} KiB with the program");
    assert!(own <= 30 * 1024, "{own} KiB of memory");
    Ok(())
}
