//! Conditions by state of the workloads.

use super::*;
use crate::build::VERSION;
use crate::gather::Observed;
use crate::operands::{Kinds, Operands, VERSION_LABEL};
use crate::status::{build_status, managed_part};
use crate::validate::{InvalidConfig, ReleaseImages};
use api::names::PROXY;
use api::{MultusServiceConfig, MultusServiceConfigStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::LazyLock;

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
        "metadata": { "name": "multus-service-controller", "generation": 5, "labels": { VERSION_LABEL: VERSION } },
        "spec": { "replicas": 2, "selector": {}, "template": {} },
        "status": {
            "observedGeneration": 5, "replicas": 2, "updatedReplicas": 2, "availableReplicas": available,
            "conditions": [{ "type": "Progressing", "status": "True", "reason": reason }],
        },
    })
}

/// Proxies: (observed generation, desired, current, updated, available).
fn proxy((observed, desired, current, updated, available): (i64, i32, i32, i32, i32)) -> Value {
    json!({
        "metadata": { "name": "multus-service-proxy", "generation": 7, "labels": { VERSION_LABEL: VERSION } },
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

type Validation = Result<Intent, InvalidConfig>;

static INSTALL: LazyLock<Validation> = LazyLock::new(|| {
    let images = ReleaseImages {
        controller: Some("release/controller".to_owned()),
        proxy: Some("release/proxy".to_owned()),
    };
    let observed = Observed {
        config: config(None),
        now: at(0),
        ..Observed::default()
    };
    crate::validate::validate(&observed, &images)
});

fn config(status: Option<MultusServiceConfigStatus>) -> MultusServiceConfig {
    let mut config = MultusServiceConfig {
        status,
        ..MultusServiceConfig::default()
    };
    config.metadata.generation = Some(GENERATION);
    config
}

fn status_for(
    before: Option<&MultusServiceConfigStatus>,
    intent: &Result<Intent, InvalidConfig>,
    live: &Operands,
    failure: Option<&str>,
    now: Timestamp,
) -> MultusServiceConfigStatus {
    status_of(
        before,
        intent,
        live,
        failure,
        Observed {
            now,
            ..Observed::default()
        },
    )
}

fn status_of(
    before: Option<&MultusServiceConfigStatus>,
    intent: &Result<Intent, InvalidConfig>,
    live: &Operands,
    failure: Option<&str>,
    observed: Observed,
) -> MultusServiceConfigStatus {
    let observed = Observed {
        config: config(before.cloned()),
        version: VERSION.to_owned(),
        kinds: Kinds {
            admission_policies: true,
            ..Kinds::default()
        },
        ..observed
    };
    build_status(&Outcome {
        observed: &observed,
        intent,
        live,
        failure,
    })
}

/// Condition in the form "Available=True/AsExpected".
fn short(status: &MultusServiceConfigStatus) -> Vec<String> {
    let show =
        |condition: &Condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason);
    status.conditions.iter().map(show).collect()
}

fn settled() -> MultusServiceConfigStatus {
    status_for(None, &INSTALL, &healthy(), None, at(0))
}

#[rstest]
#[case::nothing_yet(Operands::default(), ["Available=False/NotYetDeployed", "Progressing=True/Installing"])]
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
fn conditions_of_an_installation(#[case] live: Operands, #[case] want: [&str; 2]) {
    let first = status_for(None, &INSTALL, &Operands::default(), None, at(0));
    for before in [None, Some(&first)] {
        let status = status_for(before, &INSTALL, &live, None, at(9));
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
fn conditions_after_the_installation(#[case] live: Operands, #[case] want: [&str; 2]) {
    assert_eq!(
        short(&status_for(Some(&settled()), &INSTALL, &live, None, at(9)))[..2],
        want
    );
}

#[test]
fn equal_state_gives_an_equal_status() {
    let settled = settled();
    assert_eq!(
        status_for(Some(&settled), &INSTALL, &healthy(), None, at(1_000)),
        settled
    );
}

#[test]
fn transition_time_changes_only_with_the_status() {
    let settled = settled();
    let lonely = live(controller(0, true), proxy((7, 2, 2, 2, 2)));
    let status = status_for(Some(&settled), &INSTALL, &lonely, None, at(60));
    let times = status
        .conditions
        .iter()
        .map(|condition| condition.last_transition_time.0);
    assert_eq!(times.collect::<Vec<_>>(), [at(60), at(0), at(0), at(0), at(0)]);
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
fn invalid_configuration_degrades_at_once_and_keeps_other_conditions() {
    let observed = Observed {
        config: config(None),
        now: at(0),
        ..Observed::default()
    };
    let invalid = crate::validate::validate(&observed, &ReleaseImages::default());
    let status = status_for(Some(&settled()), &invalid, &healthy(), None, at(9));
    assert_eq!(
        short(&status)[..3],
        [
            "Available=True/AsExpected",
            "Progressing=False/AsExpected",
            "Degraded=True/InvalidConfig"
        ]
    );
}

#[rstest]
#[case::momentary(0, false)]
#[case::almost(119, false)]
#[case::for_two_minutes(120, true)]
fn failing_writes_degrade_after_two_minutes(#[case] seconds: i64, #[case] degraded: bool) {
    let failure = Some("DaemonSet \"x\" not applied");
    let first = status_for(Some(&settled()), &INSTALL, &healthy(), failure, at(0));
    let status = status_for(Some(&first), &INSTALL, &healthy(), failure, at(seconds));
    let want = if degraded {
        "Degraded=True/ApplyFailed"
    } else {
        "Degraded=False/AsExpected"
    };
    assert_eq!(short(&status)[2], want);
    assert_eq!(short(&status)[1], "Progressing=False/AsExpected");
}

#[test]
fn failing_writes_are_remembered_across_restarts() {
    let first = status_for(Some(&settled()), &INSTALL, &healthy(), Some("nope"), at(0));
    let degraded = status_for(Some(&first), &INSTALL, &healthy(), Some("nope"), at(130));
    assert_eq!(short(&degraded)[2], "Degraded=True/ApplyFailed");
    let restarted = status_for(Some(&degraded), &INSTALL, &healthy(), Some("nope"), at(140));
    assert_eq!(restarted, degraded);
}

#[test]
fn unapplied_change_is_progressing() {
    let before = MultusServiceConfigStatus {
        observed_generation: Some(GENERATION - 1),
        ..settled()
    };
    let status = status_for(Some(&before), &INSTALL, &healthy(), Some("nope"), at(9));
    assert_eq!(short(&status)[1], "Progressing=True/Applying");
    assert_eq!(status.observed_generation, Some(GENERATION - 1));
}

#[test]
fn each_step_of_a_removal_is_reported() {
    let waiting = (0..12).map(|number| format!("node-{number:02}")).collect();
    let cleaning = Ok(Intent::Remove(Removal::CleanNodes {
        since: at(0),
        waiting,
    }));
    let status = status_for(Some(&settled()), &cleaning, &healthy(), None, at(0));
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
    let status = status_for(Some(&status), &deleting, &healthy(), None, at(0));
    assert_eq!(
        short(&status)[1..3],
        ["Progressing=True/Removing", "Degraded=True/NodesNotCleaned"]
    );
    assert!(status.conditions[2].message.contains("node-07"));

    let deleted = Ok(Intent::Remove(Removal::Delete { skipped: vec![] }));
    let status = status_for(Some(&status), &deleted, &Operands::default(), None, at(0));
    assert_eq!(
        short(&status)[..3],
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

    let again = status_for(
        Some(&status),
        &INSTALL,
        &live(controller(2, true), proxy((7, 2, 2, 2, 1))),
        None,
        at(0),
    );
    assert_eq!(
        short(&again)[..3],
        [
            "Available=True/AsExpected",
            "Progressing=True/Installing",
            "Degraded=False/AsExpected"
        ]
    );
}

#[test]
fn conditions_of_other_managers_are_not_compared() {
    let settled = settled();
    let mut shown = settled.clone();
    shown.conditions.reverse();
    shown.conditions.push(Condition {
        type_: "example.com/Other".to_owned(),
        ..shown.conditions[0].clone()
    });
    assert_eq!(managed_part(Some(&shown)), settled);
}

fn observed(pods: Vec<Pod>, seconds: i64) -> Observed {
    Observed {
        pods,
        now: at(seconds),
        ..Observed::default()
    }
}

fn crash_looping_proxy() -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "labels": { "app.kubernetes.io/name": PROXY } },
        "spec": { "nodeName": "node-a", "containers": [] },
        "status": { "containerStatuses": [{ "name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 5,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } } }] },
    }))
    .unwrap()
}

#[test]
fn failed_node_is_listed_at_once_and_degrades_after_two_minutes() {
    let live = live(controller(2, true), proxy((7, 2, 2, 2, 1)));
    let status_for = |before: &MultusServiceConfigStatus, seconds| {
        status_of(
            Some(before),
            &INSTALL,
            &live,
            None,
            observed(vec![crash_looping_proxy()], seconds),
        )
    };
    let first = status_for(&settled(), 0);
    let proxy = first.proxy.clone().unwrap();
    assert_eq!(
        (proxy.unhealthy_nodes[0].name.as_str(), proxy.unhealthy_node_count),
        ("node-a", 1)
    );
    assert_eq!(short(&first)[2], "Degraded=False/AsExpected");
    assert_eq!(short(&status_for(&first, 119))[2], "Degraded=False/AsExpected");
    let later = status_for(&first, 120);
    assert_eq!(
        short(&later)[..3],
        [
            "Available=True/AsExpected",
            "Progressing=False/AsExpected",
            "Degraded=True/ProxyCrashLooping"
        ]
    );
    assert!(
        later.conditions[2]
            .message
            .contains("node node-a (CrashLoopBackOff"),
        "{}",
        later.conditions[2].message
    );
    assert_eq!(status_for(&later, 500), later, "equal evidence, equal words");
}

#[test]
fn forbidden_pods_are_reported_without_a_node() {
    let live = live(controller(2, true), proxy((7, 2, 0, 0, 0)));
    let rejected = |seconds| Observed {
        proxy_rejection: Some("violates PodSecurity".to_owned()),
        ..observed(vec![], seconds)
    };
    let first = status_of(None, &INSTALL, &live, None, rejected(0));
    let later = status_of(Some(&first), &INSTALL, &live, None, rejected(120));
    assert_eq!(short(&later)[2], "Degraded=True/ProxyPodsForbidden");
    assert_eq!(later.conditions[2].message, "violates PodSecurity");
}

#[test]
fn hung_rollout_is_reported_and_does_not_block_upgrades() {
    let half = live(controller(2, true), proxy((7, 4, 4, 2, 3)));
    let more = live(controller(2, true), proxy((7, 4, 4, 3, 3)));
    let status = |before: &MultusServiceConfigStatus, live, seconds| {
        status_for(Some(before), &INSTALL, live, None, at(seconds))
    };
    let first = status(&settled(), &half, 0);
    assert_eq!(short(&first)[3], "Upgradeable=False/RolloutInProgress");
    // A restart in between changes nothing: the clock is in the status.
    let late = status(&first, &half, 599);
    assert_eq!(short(&late)[2], "Degraded=False/AsExpected");
    let moved = status(&late, &more, 600);
    assert_eq!(
        short(&moved)[2],
        "Degraded=False/AsExpected",
        "progress resets the clock"
    );
    let hung = status(&first, &half, 600);
    assert_eq!(
        short(&hung)[1..4],
        [
            "Progressing=True/RollingOutProxy",
            "Degraded=True/RolloutHung",
            "Upgradeable=True/AsExpected"
        ]
    );
    assert!(
        hung.conditions[2].message.contains("2 of 4 nodes updated"),
        "{}",
        hung.conditions[2].message
    );
    let done = status(&hung, &healthy(), 700);
    assert_eq!(
        (short(&done)[2].as_str(), done.rollout),
        ("Degraded=False/AsExpected", None)
    );
}

#[test]
fn rollout_that_waits_for_manual_deletion_does_not_hang() {
    let mut waiting = live(controller(2, true), proxy((7, 4, 4, 2, 4)));
    waiting.daemon_sets[0].spec = serde_json::from_value(json!({
        "selector": {}, "template": {}, "updateStrategy": { "type": "OnDelete" } }))
    .unwrap();
    let first = status_for(Some(&settled()), &INSTALL, &waiting, None, at(0));
    let later = status_for(Some(&first), &INSTALL, &waiting, None, at(9_999));
    assert_eq!(
        short(&later)[1..3],
        [
            "Progressing=True/WaitingForPodDeletion",
            "Degraded=False/AsExpected"
        ]
    );
    assert_eq!(short(&later)[3], "Upgradeable=True/AsExpected");
}

#[test]
fn several_reasons_are_joined() {
    let live = live(controller(0, true), proxy((7, 2, 2, 2, 1)));
    let status_for = |before: &MultusServiceConfigStatus, seconds| {
        status_of(
            Some(before),
            &INSTALL,
            &live,
            Some("nope"),
            observed(vec![crash_looping_proxy()], seconds),
        )
    };
    let later = status_for(&status_for(&settled(), 0), 120);
    assert_eq!(
        short(&later)[2],
        "Degraded=True/ApplyFailed::ProxyCrashLooping::ControllerUnavailable"
    );
    assert_eq!(later.conditions[2].message.lines().count(), 3);
}

/// ValidatingAdmissionPolicies, Service CIDRs, and the Available condition.
#[rstest]
#[case::all(true, ServiceRanges::Objects, "AsExpected", &["All components are available"])]
#[case::no_ranges(true, ServiceRanges::Unknown, "ServiceCIDRsUnknown", &["set spec.serviceCIDRs"])]
#[case::no_policies(false, ServiceRanges::Objects, "AdmissionPoliciesNotServed", &["enable admissionregistration.k8s.io/v1"])]
#[case::neither(
    false, ServiceRanges::Unknown, "AdmissionPoliciesNotServed::ServiceCIDRsUnknown",
    &["enable admissionregistration.k8s.io/v1", "set spec.serviceCIDRs"],
)]
fn unsupported_checks_are_reported_and_do_not_degrade(
    #[case] admission_policies: bool,
    #[case] service_ranges: ServiceRanges,
    #[case] reason: &str,
    #[case] words: &[&str],
) {
    let mut observed = observed(vec![], 0);
    observed.config = config(None);
    observed.kinds.admission_policies = admission_policies;
    observed.service_ranges = service_ranges;
    let images = ReleaseImages {
        controller: Some("release/controller".to_owned()),
        proxy: Some("release/proxy".to_owned()),
    };
    let status = build_status(&Outcome {
        observed: &observed,
        intent: &crate::validate::validate(&observed, &images),
        live: &healthy(),
        failure: None,
    });
    assert_eq!(
        short(&status)[..3],
        [
            format!("Available=True/{reason}"),
            "Progressing=False/AsExpected".to_owned(),
            "Degraded=False/AsExpected".to_owned()
        ]
    );
    let message = &status.conditions[0].message;
    assert!(words.iter().all(|words| message.contains(words)), "{message}");
}

#[test]
fn image_override_is_reported_while_it_is_set() {
    let mut overridden = config(None);
    overridden.spec.proxy = Some(api::config::ProxySpec {
        image: Some("mine".to_owned()),
        ..Default::default()
    });
    let observed = Observed {
        config: overridden,
        ..observed(vec![], 0)
    };
    let status = build_status(&Outcome {
        observed: &observed,
        intent: &INSTALL,
        live: &healthy(),
        failure: None,
    });
    assert_eq!(
        short(&status)[3..],
        [
            "Upgradeable=True/OperandImageOverridden",
            "OperandImageOverridden=True/ImageSet"
        ]
    );
    assert!(
        status.conditions[4].message.contains("spec.proxy.image is mine"),
        "{}",
        status.conditions[4].message
    );
}

#[test]
fn unmanaged_blocks_upgrades() {
    let status = status_for(Some(&settled()), &Ok(Intent::Observe), &healthy(), None, at(9));
    assert_eq!(short(&status)[3], "Upgradeable=False/Unmanaged");
}

#[test]
fn observed_version_changes_when_every_operand_is_updated() {
    let old = MultusServiceConfigStatus {
        observed_version: Some("0.0.9".to_owned()),
        ..settled()
    };
    let mut half = live(controller(2, true), proxy((7, 2, 2, 1, 2)));
    let status = status_for(Some(&old), &INSTALL, &half, None, at(0));
    assert_eq!(short(&status)[1], "Progressing=True/Upgrading");
    let versions = |status: &MultusServiceConfigStatus| {
        [
            &status.operator_version,
            &status.target_version,
            &status.observed_version,
        ]
        .map(|version| version.clone().unwrap_or_default())
    };
    assert_eq!(versions(&status), [VERSION, VERSION, "0.0.9"]);
    // The rollout is complete, but the old operator applied the operands.
    half = healthy();
    half.daemon_sets[0].metadata.labels = None;
    assert_eq!(
        versions(&status_for(Some(&old), &INSTALL, &half, None, at(0)))[2],
        "0.0.9"
    );
    assert_eq!(
        versions(&status_for(Some(&old), &INSTALL, &healthy(), None, at(0)))[2],
        VERSION
    );
}

/// The previous ReplicaSet still exists, and with it the condition of its rollout.
#[test]
fn rollback_progresses_until_its_replicas_are_available() {
    let mut back = healthy();
    let status = back.deployments[0].status.as_mut().unwrap();
    status.updated_replicas = Some(1);
    let status = status_for(Some(&settled()), &INSTALL, &back, None, at(1));
    assert_eq!(short(&status)[1], "Progressing=True/DeployingController");
    back.deployments[0].status.as_mut().unwrap().updated_replicas = None;
    let status = status_for(Some(&settled()), &INSTALL, &back, None, at(1));
    assert_eq!(short(&status)[1], "Progressing=True/DeployingController");
}

#[rstest]
#[case::up("0.0.9", "Upgrading")]
#[case::up_from_a_candidate("0.1.0-rc.1", "Upgrading")]
#[case::down("0.10.0", "Downgrading")]
fn version_change_is_reported_as_upgrade_or_downgrade(#[case] from: &str, #[case] want: &str) {
    let mut before = settled();
    before.observed_version = Some(from.to_owned());
    let rolling = live(controller(1, false), proxy((7, 2, 2, 2, 2)));
    let status = status_for(Some(&before), &INSTALL, &rolling, None, at(1));
    let progressing = &status.conditions[1];
    assert_eq!(progressing.reason, want);
    assert!(
        progressing.message.starts_with(&format!(
            "Changing from version {from} to {VERSION}: Controller rollout"
        )),
        "{}",
        progressing.message
    );
}

/// The clock of a removal is in the status from its start to its end, and a removal does not hang.
#[test]
fn removal_has_one_clock() {
    let waiting = |nodes: &[&str]| {
        Ok(Intent::Remove(Removal::CleanNodes {
            since: at(0),
            waiting: nodes.iter().map(|&node| node.to_owned()).collect(),
        }))
    };
    let first = status_for(Some(&settled()), &waiting(&["a", "b"]), &healthy(), None, at(0));
    let later = status_for(
        Some(&first),
        &waiting(&["b"]),
        &healthy(),
        Some("rejected"),
        at(900),
    );
    let clock = later.rollout.unwrap();
    assert_eq!(
        (clock.progress.as_str(), clock.last_progress_time.0),
        (cleanup::PROGRESS, at(0))
    );
    assert_eq!(short(&first)[2], "Degraded=False/AsExpected");
    let done = Ok(Intent::Remove(Removal::Delete { skipped: vec![] }));
    assert_eq!(
        status_for(Some(&first), &done, &Operands::default(), None, at(901)).rollout,
        None
    );
}

#[test]
fn cleanup_that_cannot_run_degrades() {
    let mut pod = serde_json::to_value(crash_looping_proxy()).unwrap();
    pod["metadata"]["annotations"] = json!({ cleanup::CLEANUP_ANNOTATION: "then" });
    let removal = Ok(Intent::Remove(Removal::CleanNodes {
        since: at(0),
        waiting: vec!["b".to_owned()],
    }));
    let seen = |seconds| observed(vec![serde_json::from_value(pod.clone()).unwrap()], seconds);
    let first = status_of(Some(&settled()), &removal, &healthy(), None, seen(0));
    let later = status_of(Some(&first), &removal, &healthy(), None, seen(120));
    assert_eq!(short(&later)[2], "Degraded=True/CleanupCrashLooping");
}
