//! Delays of the next attempt of a pod.

use super::*;
use crate::metrics::Cause;
use crate::netns::apply::Applied;
use crate::netns::failure;
use crate::report::pod_events;
use crate::sync::attempt::Error;
use crate::sync::backoff;
use rules::{AttachedNetwork, NetworkRules, PodRules};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const LATER: Duration = Duration::from_secs(99);

fn local() -> LocalPod {
    let pod = json!({
        "metadata": {
            "name": "client", "namespace": "web", "uid": "u-1",
            "annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"},
        },
    });
    LocalPod::parse(&serde_json::from_value(pod).unwrap()).unwrap()
}

/// Rules were written; of connection tracking only this is known.
fn applied(conntrack: Option<&str>) -> Applied {
    let network = AttachedNetwork {
        ipv4: None,
        ipv6: None,
        rules: Arc::new(NetworkRules::default()),
    };
    let name = api::NetworkRef::parse("macvlan1", "web").unwrap();
    Applied {
        rules: PodRules {
            networks: BTreeMap::from([(name, network)]),
        },
        written: true,
        absent: Vec::new(),
        failures: failure::Failures::default(),
        is_exact: true,
        parents: BTreeMap::new(),
        foreign_routes: BTreeSet::new(),
        unread: BTreeSet::new(),
        unreachable: BTreeSet::new(),
        pending: Pending::default(),
        conntrack: conntrack.map(str::to_owned),
    }
}

/// An attempt that wanted rules.
fn outcome(result: Result<Applied, Error>) -> Outcome {
    Outcome {
        shortcomings: BTreeSet::new(),
        wants_rules: true,
        was_unknown: false,
        began: Instant::now(),
        took: Duration::ZERO,
        is_disturbed: false,
        result,
    }
}

fn pod() -> Pod {
    Pod::new("web/client".to_owned())
}

#[test]
fn a_failed_deletion_of_flows_is_retried_soon() {
    let mut pod = pod();
    let stuck = outcome(Ok(applied(Some("no buffer space"))));
    for failures in 1..=3 {
        let next = pod.evaluate(&local(), &stuck, LATER);
        assert_eq!(
            (pod.failures.count(), next),
            (failures, Some(backoff::startup_delay(failures)))
        );
    }
    assert!(pod.has_rules, "rules are written all the same");
    assert_eq!(
        pod.evaluate(&local(), &outcome(Ok(applied(None))), LATER),
        Some(LATER)
    );
    assert_eq!(pod.failures.count(), 0);
}

#[test]
fn a_lasting_failure_to_delete_flows_is_reported() {
    let stuck = applied(Some("no buffer space"));
    let event = |is_lasting| pod_events::of_attempt(&local(), &BTreeSet::new(), Ok(&stuck), is_lasting);
    assert_eq!(event(false), None);
    let event = event(true).unwrap();
    assert_eq!(event.reason, "ServiceRulesIncomplete");
    assert!(event.note.contains("no buffer space"), "{}", event.note);
}

/// A pod that starts is tried often, for its sandbox is complete any moment. One that was served in full is not starting.
#[test]
fn a_fault_in_a_synced_sandbox_is_retried_less_often() {
    let mut pod = pod();
    pod.synced_sandbox = Some("sandbox".to_owned());
    let stuck = outcome(Ok(applied(Some("no buffer space"))));
    for failures in 1..=20 {
        let next = pod.evaluate(&local(), &stuck, LATER);
        assert_eq!(next, Some(backoff::repair_delay(failures)));
    }
    // Its sandbox is made again: it is starting.
    let gone = outcome(Err(Error::Sandbox(crate::container_runtime::Error::NotReady)));
    let next = pod.evaluate(&local(), &gone, LATER);
    assert_eq!(next, Some(backoff::startup_delay(pod.failures.count())));
}

/// One failure while a Service was wanted must not count as lasting for ever after the Service is gone.
#[test]
fn a_failure_ends_when_no_rules_are_wanted_any_more() {
    let absent = || Err(Error::Sandbox(crate::container_runtime::Error::NotReady));
    let mut pod = pod();
    pod.evaluate(&local(), &outcome(absent()), LATER);
    assert_eq!(pod.failures.count(), 1);
    pod.wants_nothing();
    assert_eq!((pod.failures.count(), pod.failures.error()), (0, None));

    pod.evaluate(&local(), &outcome(Ok(applied(Some("no buffer space")))), LATER);
    assert!(pod.has_rules && pod.failures.count() == 1);
    let without_service = Outcome {
        wants_rules: false,
        ..outcome(absent())
    };
    assert_eq!(pod.evaluate(&local(), &without_service, LATER), None);
    assert!(!pod.has_rules && pod.failures.count() == 0);
}

/// A pod can disappear and return under its UID during an attempt: a tenant may edit the annotation that attaches it.
#[test]
fn work_of_a_deleted_pod_is_not_handed_back_to_its_successor() {
    let _runtime = phase::tests::runtime().enter();
    let (mut timers, mut deleted, mut successor) = (Timers::new(), pod(), pod());
    let late = deleted.start(&local(), &mut timers).unwrap();
    deleted.abandon(&mut timers);
    assert!(late.is_abandoned.load(Ordering::Acquire));
    let current = successor.start(&local(), &mut timers).unwrap();
    assert!(!successor.owns(&late) && successor.owns(&current));
}

#[test]
fn a_lasting_failure_has_the_cause_of_the_last_attempt() {
    use crate::container_runtime::Error::{NotReady, Runtime};
    type Attempt = fn() -> Result<Applied, Error>;
    let cases: [(Attempt, _); 6] = [
        (|| Err(Error::Sandbox(NotReady)), Some(Cause::Sandbox)),
        (
            || Err(Error::Sandbox(Runtime(String::new()))),
            Some(Cause::ContainerRuntime),
        ),
        (
            || Err(Error::Apply(crate::netns::apply::Error::NotThePod)),
            Some(Cause::Addresses),
        ),
        (|| Ok(applied(Some("no buffer space"))), Some(Cause::Conntrack)),
        (|| Err(Error::Lost), Some(Cause::Other)),
        (|| Ok(applied(None)), None),
    ];
    let mut pod = pod();
    pod.conclude(&local(), None, &outcome(Err(Error::Lost)), LATER);
    assert_eq!(pod.failures.lasting_cause(), None, "one failure is not lasting");
    for (result, want) in cases {
        for _ in 0..200 {
            pod.conclude(&local(), None, &outcome(result()), LATER);
        }
        assert_eq!(pod.failures.lasting_cause(), want);
    }
}
