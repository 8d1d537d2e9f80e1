use super::*;
use crate::facts::{Cluster, Networks, Right, Workload};
use serde_json::json;

fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn empty() -> Installation {
    Installation {
        version: Ok("v1.33.0".into()),
        cluster: Cluster {
            config: Ok(None),
            ranges: Ok(vec![of(
                json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["172.30.0.0/16"]}}),
            )]),
            nodes: Ok(vec![of(
                json!({"metadata": {"name": "node-1"}, "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.0", "kernelVersion": "6.1", "operatingSystem": "linux",
                "architecture": "", "bootID": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": ""}}}),
            )]),
            lease: Ok(None),
            controller: Ok(None),
            proxies: Ok(vec![]),
            now: jiff::Timestamp::UNIX_EPOCH,
        },
        networks: Ok(Networks::default()),
        services: Ok(vec![]),
        pods: Ok(vec![]),
        policies: Ok(vec![]),
        workloads: Ok(vec![]),
        rejected: vec![],
    }
}

#[test]
fn a_cluster_without_an_installation_meets_the_requirements() {
    let check = check(&empty());
    assert!(check.is_well() && !check.is_done(), "{check:?}");
    assert_eq!(check.is_installed, Some(false));
    let warned: Vec<_> = check
        .lines
        .iter()
        .filter(|line| line.state != State::Good)
        .collect();
    assert!(
        warned.len() == 1 && warned[0].group == "installation",
        "{warned:?}"
    );
}

#[test]
fn a_missing_requirement_is_broken_with_a_remedy() {
    let mut facts = empty();
    facts.cluster.config = Ok(Some(of(
        json!({"apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig", "metadata": {"name": "cluster"}, "spec": {}}),
    )));
    let check = check(&facts);
    let broken: Vec<_> = check.broken().map(|line| line.group).collect();
    for group in ["installation", "operands", "admission"] {
        assert!(broken.contains(&group), "{group}: {check:?}");
    }
    assert!(check.broken().all(|line| line.remedy.is_some()));
}

#[test]
fn the_archived_project_is_found() {
    let mut facts = empty();
    facts.workloads = Ok(vec![Workload {
        kind: "DaemonSet",
        namespace: "kube-system".into(),
        name: "multus-proxy-ds-amd64".into(),
        ..Workload::default()
    }]);
    let check = check(&facts);
    let [line] = check.broken().collect::<Vec<_>>()[..] else {
        panic!("{check:?}")
    };
    assert_eq!(
        line.remedy.as_deref(),
        Some("kubectl -n kube-system delete daemonset multus-proxy-ds-amd64")
    );
}

#[test]
fn a_missing_permission_is_named_and_breaks_nothing() {
    let forbidden = || {
        ReadError::Forbidden(Right {
            verb: "list",
            resource: "nodes".into(),
            namespace: None,
        })
    };
    let mut facts = empty();
    facts.cluster.nodes = Err(forbidden());
    facts.workloads = Err(forbidden());
    facts.cluster.config = Err(forbidden());
    facts.cluster.lease = Err(forbidden());
    facts.policies = Err(forbidden());
    let check = check(&facts);
    assert!(check.is_well() && check.is_installed.is_none(), "{check:?}");
    let unknown = check.lines.iter().filter(|line| line.state == State::Unknown);
    let remedies: Vec<_> = unknown.filter_map(|line| line.remedy.as_deref()).collect();
    assert!(
        remedies.len() >= 3
            && remedies
                .iter()
                .all(|one| *one == "kubectl auth can-i list nodes -A"),
        "{check:?}"
    );
}
