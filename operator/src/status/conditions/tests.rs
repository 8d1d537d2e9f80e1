//! Conditions from states of the workloads.

use super::*;
use crate::operands::Operands;
use crate::status::{describe, ours};
use crate::validate::{InvalidConfig, ReleaseImages, ValidatedConfig};
use api::config::{Backend, LogLevel};
use api::{MultusServiceConfig, MultusServiceConfigStatus};
use k8s_openapi::jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};

const GENERATION: i64 = 3;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A controller with `available` of two replicas.
fn controller(available: i32, finished: bool) -> Value {
    let reason = if finished {
        "NewReplicaSetAvailable"
    } else {
        "ReplicaSetUpdated"
    };
    json!({
        "metadata": { "name": "multus-service-controller", "generation": 5 },
        "status": {
            "observedGeneration": 5, "replicas": 2, "availableReplicas": available,
            "conditions": [{ "type": "Progressing", "status": "True", "reason": reason }],
        },
    })
}

/// Proxies: (generation seen, wanted, existing, new, available).
fn proxy((observed, desired, current, updated, available): (i64, i32, i32, i32, i32)) -> Value {
    json!({
        "metadata": { "name": "multus-service-proxy", "generation": 7 },
        "status": {
            "observedGeneration": observed, "desiredNumberScheduled": desired, "currentNumberScheduled": current,
            "updatedNumberScheduled": updated, "numberAvailable": available, "numberUnavailable": desired - available,
            "numberMisscheduled": 0, "numberReady": available,
        },
    })
}

fn live(controller: Value, proxy: Value) -> Operands {
    Operands {
        deployments: vec![serde_json::from_value(controller).unwrap()],
        daemon_sets: vec![serde_json::from_value(proxy).unwrap()],
        ..Operands::default()
    }
}

fn healthy() -> Operands {
    live(controller(2, true), proxy((7, 2, 2, 2, 2)))
}

type Verdict = Result<Intent, InvalidConfig>;

const INSTALL: Verdict = Ok(Intent::Install(ValidatedConfig {
    controller_image: String::new(),
    proxy_image: String::new(),
    log_level: LogLevel::Normal,
    backend: Backend::Auto,
}));

fn config(status: Option<MultusServiceConfigStatus>) -> MultusServiceConfig {
    let mut config = MultusServiceConfig {
        status,
        ..MultusServiceConfig::default()
    };
    config.metadata.generation = Some(GENERATION);
    config
}

fn tell(
    before: Option<&MultusServiceConfigStatus>,
    intent: &Result<Intent, InvalidConfig>,
    live: &Operands,
    failure: Option<(&str, Timestamp)>,
    now: Timestamp,
) -> MultusServiceConfigStatus {
    describe(&Outcome {
        config: &config(before.cloned()),
        intent,
        live,
        failure,
        now,
    })
}

/// As the API shows it: "Available=True/AsExpected".
fn short(status: &MultusServiceConfigStatus) -> Vec<String> {
    let show =
        |condition: &Condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason);
    status.conditions.iter().map(show).collect()
}

fn settled() -> MultusServiceConfigStatus {
    tell(None, &INSTALL, &healthy(), None, at(0))
}

#[rstest]
#[case::nothing_yet(Operands::default(), ["Available=False/NotYetDeployed", "Progressing=False/AsExpected"])]
#[case::just_created(
    live(json!({"metadata": {"name": "multus-service-controller"}}), json!({"metadata": {"name": "multus-service-proxy"}})),
    ["Available=False/ControllerUnavailable", "Progressing=True/Installing"],
)]
#[case::controller_up(
    live(controller(1, true), proxy((7, 2, 2, 2, 0))),
    ["Available=False/ProxyUnavailable", "Progressing=True/Installing"],
)]
#[case::one_proxy_up(
    live(controller(2, true), proxy((7, 2, 2, 2, 1))),
    ["Available=True/AsExpected", "Progressing=True/Installing"],
)]
#[case::done(healthy(), ["Available=True/AsExpected", "Progressing=False/AsExpected"])]
#[case::no_node_matches(
    live(controller(2, true), proxy((7, 0, 0, 0, 0))),
    ["Available=True/AsExpected", "Progressing=False/AsExpected"],
)]
fn of_an_installation(#[case] live: Operands, #[case] want: [&str; 2]) {
    let first = tell(None, &INSTALL, &Operands::default(), None, at(0));
    for before in [None, Some(&first)] {
        let status = tell(before, &INSTALL, &live, None, at(9));
        assert_eq!(short(&status)[..2], want);
        assert_eq!(short(&status)[2], "Degraded=False/AsExpected");
    }
}

#[rstest]
#[case::steady(healthy(), ["Available=True/AsExpected", "Progressing=False/AsExpected"])]
#[case::a_node_reboots(
    live(controller(1, true), proxy((7, 2, 2, 2, 1))),
    ["Available=True/AsExpected", "Progressing=False/AsExpected"],
)]
#[case::a_node_joins(
    live(controller(2, true), proxy((7, 3, 2, 2, 2))),
    ["Available=True/AsExpected", "Progressing=False/AsExpected"],
)]
#[case::the_joined_node_starts_its_proxy(
    live(controller(2, true), proxy((7, 3, 3, 3, 2))),
    ["Available=True/AsExpected", "Progressing=False/AsExpected"],
)]
#[case::a_new_template_not_seen_yet(
    live(controller(2, true), proxy((6, 2, 2, 2, 2))),
    ["Available=True/AsExpected", "Progressing=True/RollingOutProxy"],
)]
#[case::half_of_the_proxies_are_new(
    live(controller(2, true), proxy((7, 2, 2, 1, 1))),
    ["Available=True/AsExpected", "Progressing=True/RollingOutProxy"],
)]
#[case::a_new_controller(
    live(controller(1, false), proxy((7, 2, 2, 2, 2))),
    ["Available=True/AsExpected", "Progressing=True/DeployingController"],
)]
#[case::no_controller(
    live(controller(0, true), proxy((7, 2, 2, 2, 2))),
    ["Available=False/ControllerUnavailable", "Progressing=False/AsExpected"],
)]
#[case::no_proxy(
    live(controller(2, true), proxy((7, 2, 2, 2, 0))),
    ["Available=False/ProxyUnavailable", "Progressing=False/AsExpected"],
)]
fn once_installed(#[case] live: Operands, #[case] want: [&str; 2]) {
    assert_eq!(
        short(&tell(Some(&settled()), &INSTALL, &live, None, at(9)))[..2],
        want
    );
}

#[test]
fn the_same_again_is_the_same_status() {
    let settled = settled();
    assert_eq!(
        tell(Some(&settled), &INSTALL, &healthy(), None, at(1_000)),
        settled
    );
}

#[test]
fn a_transition_time_moves_only_with_the_condition_s_status() {
    let settled = settled();
    let lonely = live(controller(0, true), proxy((7, 2, 2, 2, 2)));
    let status = tell(Some(&settled), &INSTALL, &lonely, None, at(60));
    let times = status
        .conditions
        .iter()
        .map(|condition| condition.last_transition_time.0);
    assert_eq!(times.collect::<Vec<_>>(), [at(60), at(0), at(0)]);
}

#[test]
fn every_condition_carries_the_generation() {
    let status = settled();
    assert_eq!(status.observed_generation, Some(GENERATION));
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(GENERATION))
    );
}

#[test]
fn an_invalid_configuration_is_said_at_once_and_takes_nothing_away() {
    let observed = crate::gather::Observed {
        config: config(None),
        live: Operands::default(),
        proxy_pods: vec![],
        now: at(0),
    };
    let invalid = crate::validate::validate(&observed, &ReleaseImages::default());
    let status = tell(Some(&settled()), &invalid, &healthy(), None, at(9));
    assert_eq!(
        short(&status),
        [
            "Available=True/AsExpected",
            "Progressing=False/AsExpected",
            "Degraded=True/InvalidConfig"
        ]
    );
}

#[rstest]
#[case::a_blip(0, false)]
#[case::almost(119, false)]
#[case::for_two_minutes(120, true)]
fn failing_writes_are_said_after_two_minutes(#[case] seconds: i64, #[case] degraded: bool) {
    let failure = Some(("DaemonSet \"x\" could not be applied", at(0)));
    let status = tell(Some(&settled()), &INSTALL, &healthy(), failure, at(seconds));
    let want = if degraded {
        "Degraded=True/ApplyFailed"
    } else {
        "Degraded=False/AsExpected"
    };
    assert_eq!(short(&status)[2], want);
    assert_eq!(short(&status)[1], "Progressing=False/AsExpected");
}

#[test]
fn a_restart_does_not_forget_that_writes_fail() {
    let failing = Some(("nope", at(0)));
    let degraded = tell(Some(&settled()), &INSTALL, &healthy(), failing, at(130));
    let restarted = tell(
        Some(&degraded),
        &INSTALL,
        &healthy(),
        Some(("nope", at(140))),
        at(140),
    );
    assert_eq!(restarted, degraded);
}

#[test]
fn a_change_that_could_not_be_written_is_still_to_come() {
    let before = MultusServiceConfigStatus {
        observed_generation: Some(GENERATION - 1),
        ..settled()
    };
    let status = tell(Some(&before), &INSTALL, &healthy(), Some(("nope", at(9))), at(9));
    assert_eq!(short(&status)[1], "Progressing=True/Applying");
    assert_eq!(status.observed_generation, Some(GENERATION - 1));
}

#[test]
fn a_removal_tells_each_step() {
    let waiting = (0..12).map(|number| format!("node-{number:02}")).collect();
    let cleaning = Ok(Intent::Remove(Removal::CleanNodes {
        since: at(0),
        waiting,
    }));
    let status = tell(Some(&settled()), &cleaning, &healthy(), None, at(0));
    assert_eq!(
        short(&status)[..2],
        ["Available=False/Removing", "Progressing=True/Removing"]
    );
    let message = &status.conditions[1].message;
    assert!(
        message.contains("node-09 and 2 more") && !message.contains("node-10"),
        "{message}"
    );

    let deleting = Ok(Intent::Remove(Removal::Delete {
        skipped: vec!["node-07".to_owned()],
    }));
    let status = tell(Some(&status), &deleting, &healthy(), None, at(0));
    assert_eq!(
        short(&status)[1..],
        ["Progressing=True/Removing", "Degraded=True/NodesNotCleaned"]
    );
    assert!(status.conditions[2].message.contains("node-07"));

    let deleted = Ok(Intent::Remove(Removal::Delete { skipped: vec![] }));
    let status = tell(Some(&status), &deleted, &Operands::default(), None, at(0));
    assert_eq!(
        short(&status),
        [
            "Available=False/Removed",
            "Progressing=False/Removed",
            "Degraded=True/NodesNotCleaned"
        ]
    );
    assert!(
        status.conditions[2].message.contains("node-07"),
        "what was skipped is remembered"
    );

    let again = tell(
        Some(&status),
        &INSTALL,
        &live(controller(2, true), proxy((7, 2, 2, 2, 1))),
        None,
        at(0),
    );
    assert_eq!(
        short(&again),
        [
            "Available=True/AsExpected",
            "Progressing=True/Installing",
            "Degraded=False/AsExpected"
        ]
    );
}

#[test]
fn conditions_of_others_are_not_ours_to_compare() {
    let settled = settled();
    let mut shown = settled.clone();
    shown.conditions.reverse();
    shown.conditions.push(Condition {
        type_: "example.com/Other".to_owned(),
        ..shown.conditions[0].clone()
    });
    assert_eq!(ours(Some(&shown)), settled);
}
