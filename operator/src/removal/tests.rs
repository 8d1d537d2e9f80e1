//! Every state a removal can be found in.

use super::*;
use k8s_openapi::api::apps::v1::DaemonSetStatus;
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
    daemon_set.metadata.generation = Some(2);
    if cleanup {
        daemon_set
            .annotations_mut()
            .insert(CLEANUP_ANNOTATION.to_owned(), at(0).to_string());
    }
    daemon_set
}

/// Of three nodes.
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
    let since = at(0).to_string();
    let annotations = if cleanup {
        json!({ CLEANUP_ANNOTATION: since })
    } else {
        json!({})
    };
    serde_json::from_value(json!({
        "metadata": { "annotations": annotations },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
    }))
    .unwrap()
}

fn pods() -> Vec<Pod> {
    vec![
        pod("clean", true, true),
        // The old proxy on its way out beside its clean-up.
        pod("clean", false, false),
        pod("at-work", true, false),
        pod("away", false, true),
    ]
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
#[case::all_clean(status(2, 3, 3), 60, delete(&[]))]
#[case::out_of_patience(status(2, 3, 2), 600, delete(&["at-work", "away"]))]
#[case::the_limit_is_not_reached(status(2, 3, 2), 599, waiting(&["at-work", "away"]))]
fn of_a_clean_up(#[case] status: DaemonSetStatus, #[case] seconds: i64, #[case] want: Removal) {
    assert_eq!(
        next_step(Some(&daemon_set(true, status)), &pods(), at(seconds)),
        want
    );
}

#[test]
fn proxies_at_work_become_clean_ups_however_healthy_they_are() {
    let want = Removal::CleanNodes {
        since: at(7),
        waiting: vec!["a".to_owned()],
    };
    assert_eq!(
        next_step(
            Some(&daemon_set(false, status(2, 3, 3))),
            &[pod("a", false, true)],
            at(7)
        ),
        want
    );
}

#[test]
fn nodes_that_cannot_be_named_are_not_forgotten() {
    let skipped = next_step(Some(&daemon_set(true, status(2, 3, 2))), &[], at(600));
    assert_eq!(skipped, delete(&["nodes without a pod of the proxy"]));
}

#[test]
fn without_a_daemon_set_nothing_needs_cleaning() {
    assert_eq!(next_step(None, &pods(), at(0)), delete(&[]));
}

#[test]
fn without_nodes_nothing_needs_cleaning() {
    let none = DaemonSetStatus {
        observed_generation: Some(2),
        ..DaemonSetStatus::default()
    };
    assert_eq!(next_step(Some(&daemon_set(true, none)), &[], at(0)), delete(&[]));
}

#[test]
fn an_annotation_that_is_no_time_starts_the_clean_up_again() {
    let mut daemon_set = daemon_set(true, status(2, 3, 3));
    daemon_set
        .annotations_mut()
        .insert(CLEANUP_ANNOTATION.to_owned(), "yesterday".to_owned());
    assert!(
        matches!(next_step(Some(&daemon_set), &[], at(5)), Removal::CleanNodes { since, .. } if since == at(5))
    );
}
