//! The time from a change in the cluster to the rules of all pods, and whether a change is still to be applied.

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::BackendKind;
use super::objects::{Service, ready};
use super::testbed::Testbed;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

const LAST_QUEUED: &str = "multus_service_proxy_sync_proxy_rules_last_queued_timestamp_seconds";
const LAST_SYNC: &str = "multus_service_proxy_sync_proxy_rules_last_timestamp_seconds";
const MEASURED: &str = "multus_service_proxy_network_programming_duration_seconds_count";

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn network_programming_is_measured_from_the_change_to_the_rules_of_all_pods() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let pods = [testbed.pod(7), testbed.pod(8)];
    let objects = pods.each_ref().map(object);
    for (pod, object) in pods.iter().zip(&objects) {
        runtime.set_sandbox(uid(object), &pod.netns);
    }
    let mut web = Service::new("web", 10).ready(&[2]);
    web.triggered = Some(Timestamp::now() - SignedDuration::from_mins(5));
    let objects: Vec<_> = objects.iter().collect();
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web], &objects);
    until("ready", || driver.is_ready());
    assert_eq!(driver.metric(MEASURED), 0, "the change is older than the process");

    web.endpoints = ready(&[2, 3]);
    web.triggered = Some(Timestamp::now());
    driver.service(&web);
    let has_endpoint = |pod: &super::testbed::Pod| pod.sh("nft list ruleset").contains("10.1.0.3");
    until("all pods have the endpoint", || pods.iter().all(has_endpoint));
    // One slice of each family.
    until("each slice is measured once", || driver.metric(MEASURED) == 2);
    web.endpoints = ready(&[3]);
    driver.service(&web);
    until("the endpoint is removed", || {
        pods.iter()
            .all(|pod| !pod.sh("nft list ruleset").contains("10.1.0.2"))
    });
    assert_eq!(
        driver.metric(MEASURED),
        2,
        "a change without a time is not measured"
    );
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_pod_that_has_ended_or_is_deleted_is_no_longer_queued() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let pods = [testbed.pod(7), testbed.pod(8)];
    let objects = pods.each_ref().map(object);
    for (pod, object) in pods.iter().zip(&objects) {
        runtime.set_sandbox(uid(object), &pod.netns);
    }
    let web = Service::new("web", 10).ready(&[2]);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web], &objects.each_ref());
    until("ready", || driver.is_ready());
    let has_queued = || driver.seconds(LAST_QUEUED) > driver.seconds(LAST_SYNC);
    until("nothing is queued", || !has_queued());

    let [mut ended, deleted] = objects;
    ended.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
    driver.pod(&ended);
    until("the pod has ended", || driver.state_of(&ended).is_null());
    assert!(!has_queued(), "a pod that has ended");
    driver.delete_pod(&deleted);
    until("the pod is deleted", || driver.state_of(&deleted).is_null());
    assert!(!has_queued(), "a deleted pod");
}

/// The pod wants rules, and its sandbox is never found: the metric of failing pods counts it.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_pod_is_queued_until_it_is_counted_as_failing() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let pod = testbed.pod(7);
    let web = Service::new("web", 10).ready(&[2]);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web], &[]);
    until("ready", || driver.is_ready());
    let has_queued = || driver.seconds(LAST_QUEUED) > driver.seconds(LAST_SYNC);
    driver.pod(&object(&pod));
    until("the pod is queued", has_queued);
    let failing = || driver.metric("multus_service_proxy_pods_failing");
    assert_eq!(failing(), 0, "the pod is starting");
    until("the pod is counted as failing", || failing() == 1);
    assert!(!has_queued());
}
