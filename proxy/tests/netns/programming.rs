//! The time from a change in the cluster to the rules of all pods.

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::BackendKind;
use super::objects::{Service, ready};
use super::testbed::Testbed;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

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
