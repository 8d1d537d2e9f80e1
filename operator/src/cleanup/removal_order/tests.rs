//! States of a removal.

use super::*;
use crate::operands::Operands;
use api::names::CLEANUP;
use k8s_openapi::api::apps::v1::DaemonSetStatus;
use k8s_openapi::api::core::v1::{Node, Pod};
use rstest::rstest;
use serde_json::json;

const STARTED: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(STARTED + seconds).unwrap()
}

fn daemon_set(cleanup: bool, status: DaemonSetStatus) -> DaemonSet {
    let mut daemon_set = DaemonSet {
        status: Some(status),
        ..DaemonSet::default()
    };
    daemon_set.metadata.name = Some(PROXY.to_owned());
    daemon_set.metadata.generation = Some(2);
    if cleanup {
        daemon_set
            .annotations_mut()
            .insert(CLEANUP_ANNOTATION.to_owned(), at(0).to_string());
    }
    daemon_set
}

/// Status with three nodes.
fn status(observed: i64, updated: i32, ready: i32) -> DaemonSetStatus {
    DaemonSetStatus {
        observed_generation: Some(observed),
        desired_number_scheduled: 3,
        current_number_scheduled: 3,
        updated_number_scheduled: Some(updated),
        number_ready: ready,
        ..DaemonSetStatus::default()
    }
}

fn pod(node: &str, cleanup: bool, ready: bool) -> Pod {
    pod_of(PROXY, node, cleanup, ready)
}

fn pod_of(operand: &str, node: &str, cleanup: bool, ready: bool) -> Pod {
    let since = at(0).to_string();
    let annotations = if cleanup {
        json!({ CLEANUP_ANNOTATION: since })
    } else {
        json!({})
    };
    serde_json::from_value(json!({
        "metadata": { "annotations": annotations, "labels": { "app.kubernetes.io/name": operand } },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
    }))
    .unwrap()
}

fn pods() -> Vec<Pod> {
    vec![
        pod("clean", true, true),
        // The old proxy pod terminates beside its cleanup pod.
        pod("clean", false, false),
        pod("at-work", true, false),
        pod("away", false, true),
    ]
}

fn observed(
    daemon_sets: Vec<DaemonSet>,
    pods: Vec<Pod>,
    labels: &[(&str, &str)],
    now: Timestamp,
) -> Observed {
    let node = |&(name, label): &(&str, &str)| -> Node {
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": { LABEL: label } } })).unwrap()
    };
    Observed {
        live: Operands {
            daemon_sets,
            ..Operands::default()
        },
        pods,
        nodes: labels.iter().map(node).collect(),
        now,
        ..Observed::default()
    }
}

fn step(daemon_set: DaemonSet, pods: Vec<Pod>, now: Timestamp) -> Removal {
    next_step(&observed(vec![daemon_set], pods, &[], now), CLEANUP_LIMIT)
}

fn waiting(nodes: &[&str]) -> Removal {
    Removal::CleanNodes {
        since: at(0),
        waiting: nodes.iter().map(|&node| node.to_owned()).collect(),
    }
}

fn delete(skipped: &[&str]) -> Removal {
    Removal::Delete {
        skipped: skipped.iter().map(|&node| node.to_owned()).collect(),
    }
}

#[rstest]
#[case::not_seen_yet(status(1, 3, 3), 0, waiting(&["at-work", "away"]))]
#[case::pods_still_being_replaced(status(2, 2, 3), 60, waiting(&["at-work", "away"]))]
#[case::a_node_still_at_work(status(2, 3, 2), 60, waiting(&["at-work", "away"]))]
#[case::the_limit_is_reached(status(2, 3, 2), 600, delete(&["at-work", "away"]))]
#[case::the_limit_is_not_reached(status(2, 3, 2), 599, waiting(&["at-work", "away"]))]
fn removal_waits_for_cleanup_within_the_limit(
    #[case] status: DaemonSetStatus,
    #[case] seconds: i64,
    #[case] want: Removal,
) {
    assert_eq!(step(daemon_set(true, status), pods(), at(seconds)), want);
}

#[test]
fn operands_are_deleted_when_all_nodes_are_clean() {
    let clean = ["a", "b", "c"].map(|node| pod(node, true, true)).to_vec();
    assert_eq!(
        step(daemon_set(true, status(2, 3, 3)), clean, at(60)),
        delete(&[])
    );
}

#[test]
fn healthy_proxies_become_cleanup_pods() {
    let want = Removal::CleanNodes {
        since: at(7),
        waiting: vec!["a".to_owned()],
    };
    let working = vec![pod("a", false, true)];
    assert_eq!(step(daemon_set(false, status(2, 3, 3)), working, at(7)), want);
}

#[test]
fn nodes_without_a_pod_are_reported() {
    let skipped = step(daemon_set(true, status(2, 3, 2)), vec![], at(600));
    assert_eq!(skipped, delete(&["those without a proxy pod"]));
}

#[test]
fn without_a_daemon_set_node_labels_decide() {
    let step =
        |pods, labels: &[(&str, &str)]| next_step(&observed(vec![], pods, labels, at(0)), CLEANUP_LIMIT);
    assert_eq!(step(pods(), &[]), delete(&[]));
    assert_eq!(
        step(
            vec![],
            &[("a", "present"), ("b", "cleanup-pending"), ("c", "skipped")]
        ),
        waiting(&["a", "b"])
    );
    let clean = vec![pod_of(CLEANUP, "a", false, true)];
    assert_eq!(step(clean, &[("a", "cleanup-pending")]), delete(&[]));
}

#[test]
fn unscheduled_nodes_are_waited_for() {
    let labels = [("a", "present"), ("gone", "cleanup-pending")];
    let clean = vec![pod("a", true, true), pod("b", true, true), pod("c", true, true)];
    let observed = observed(vec![daemon_set(true, status(2, 3, 3))], clean, &labels, at(9));
    assert_eq!(next_step(&observed, CLEANUP_LIMIT), waiting(&["gone"]));
}

#[test]
fn without_nodes_no_cleanup_is_needed() {
    let none = DaemonSetStatus {
        observed_generation: Some(2),
        ..DaemonSetStatus::default()
    };
    assert_eq!(step(daemon_set(true, none), vec![], at(0)), delete(&[]));
}

#[test]
fn invalid_annotation_restarts_the_cleanup() {
    let mut daemon_set = daemon_set(true, status(2, 3, 2));
    daemon_set
        .annotations_mut()
        .insert(CLEANUP_ANNOTATION.to_owned(), "yesterday".to_owned());
    assert!(matches!(step(daemon_set, vec![], at(5)), Removal::CleanNodes { since, .. } if since == at(5)));
}
