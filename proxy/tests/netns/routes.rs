//! A change touches only the routes of its VIPs, and keeps conflicting routes of other owners.

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::BackendKind;
use super::objects::{Service, plan};
use super::testbed::{Pod, Testbed};
use api::Family;
use proxy::backend::KnownRules;
use proxy::netns::apply::{Applied, Wanted, apply};
use rstest::rstest;
use rules::PodRules;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// A pod, and the result of its last attempt.
struct Fixture {
    client: Pod,
    applied: Applied,
    _testbed: Testbed,
}

fn services(numbers: &[u8]) -> Vec<Service> {
    let one = |number: &u8| Service::new(&format!("web{number}"), *number).ready(&[2]);
    numbers.iter().map(one).collect()
}

fn vip(family: Family, number: u8) -> IpAddr {
    services(&[number])[0].vip(family)
}

impl Fixture {
    fn new(numbers: &[u8]) -> Self {
        let mut testbed = Testbed::new();
        let client = testbed.pod(7);
        let applied = write(&client, &KnownRules::Nothing, None, numbers);
        Self {
            client,
            applied,
            _testbed: testbed,
        }
    }

    /// Applies with known rules and routes, as the driver does after a change.
    fn change(&mut self, numbers: &[u8]) -> &Applied {
        let held = KnownRules::Exactly(self.applied.rules.clone());
        let foreign = self.applied.foreign_routes.clone();
        self.applied = write(&self.client, &held, Some(foreign), numbers);
        assert!(self.applied.failures.is_empty(), "{:?}", self.applied.failures);
        &self.applied
    }

    /// Applies after routes were changed by another process, so that they are read again.
    fn resync(&mut self, numbers: &[u8]) -> &Applied {
        let held = KnownRules::Exactly(self.applied.rules.clone());
        self.applied = write(&self.client, &held, None, numbers);
        &self.applied
    }

    fn route(&self, family: Family, action: &str) {
        let ip = if family == Family::V4 { "ip" } else { "ip -6" };
        self.client.sh(&format!("{ip} route {action}"));
    }

    /// Routes to a VIP.
    fn routes_to(&self, family: Family, number: u8) -> String {
        let (ip, vip) = (
            if family == Family::V4 { "ip" } else { "ip -6" },
            vip(family, number),
        );
        self.client.sh(&format!("{ip} route show exact {vip}"))
    }
}

fn write(
    client: &Pod,
    held: &KnownRules<PodRules>,
    foreign_routes: Option<BTreeSet<IpAddr>>,
    numbers: &[u8],
) -> Applied {
    let wanted = Wanted {
        rules: plan(client, &services(numbers)).rules,
        addresses: client
            .status
            .iter()
            .flat_map(|status| status.addresses.clone())
            .collect(),
        foreign_routes,
    };
    client
        .run(|| apply(BackendKind::Nftables.backend().as_ref(), held, &wanted))
        .unwrap()
}

/// A stale route that only a full listing finds is not removed by a change.
#[rstest]
#[ignore = "needs root and network namespaces: make test-netns"]
fn adding_or_deleting_a_service_touches_only_its_own_route(#[values(Family::V4, Family::V6)] family: Family) {
    let mut fixture = Fixture::new(&[10, 11]);
    fixture.route(family, &format!("add {} dev net1 proto 77", vip(family, 99)));
    fixture.change(&[10, 11, 12]);
    assert!(fixture.routes_to(family, 12).contains("dev net1 proto 77"));
    fixture.change(&[10, 12]);
    assert_eq!(fixture.routes_to(family, 11), "");
    assert!(!fixture.routes_to(family, 10).is_empty() && !fixture.routes_to(family, 99).is_empty());
    fixture.resync(&[10, 12]);
    assert_eq!(fixture.routes_to(family, 99), "", "a full resync removes it");
}

#[rstest]
#[ignore = "needs root and network namespaces: make test-netns"]
fn conflicting_route_of_another_owner_is_kept(#[values(Family::V4, Family::V6)] family: Family) {
    let mut fixture = Fixture::new(&[10]);
    let unmanaged = format!("{} dev eth0 proto 123", vip(family, 11));
    fixture.route(family, &format!("add {unmanaged}"));
    let foreign = BTreeSet::from([vip(family, 11)]);
    assert_eq!(fixture.change(&[10, 11]).foreign_routes, foreign);
    assert_eq!(
        fixture.change(&[10, 11, 12]).foreign_routes,
        foreign,
        "the conflict is remembered"
    );
    assert!(fixture.routes_to(family, 11).contains("dev eth0 proto 123"));
    assert_eq!(fixture.change(&[10, 12]).foreign_routes, BTreeSet::new());
    assert!(
        fixture.routes_to(family, 11).contains("dev eth0 proto 123"),
        "it is kept when the Service is deleted"
    );
    assert_eq!(fixture.change(&[10, 11, 12]).foreign_routes, foreign);
    fixture.route(family, &format!("del {unmanaged}"));
    assert_eq!(fixture.resync(&[10, 11, 12]).foreign_routes, BTreeSet::new());
    assert!(fixture.routes_to(family, 11).contains("dev net1 proto 77"));
}

#[rstest]
#[ignore = "needs root and network namespaces: make test-netns"]
fn conflicting_managed_route_is_replaced_and_a_missing_one_is_no_error(
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let mut fixture = Fixture::new(&[10, 11]);
    fixture.route(family, &format!("add {} dev eth0 proto 77", vip(family, 12)));
    assert_eq!(fixture.change(&[10, 11, 12]).foreign_routes, BTreeSet::new());
    assert!(
        fixture.routes_to(family, 12).contains("dev net1 proto 77")
            && !fixture.routes_to(family, 12).contains("eth0")
    );
    fixture.route(family, &format!("del {}", vip(family, 10)));
    fixture.change(&[11, 12]);
    assert!(fixture.applied.is_complete());
}

/// Each change causes one attempt: notifications of the proxy's own routes cause no other.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn managed_routes_trigger_no_resync_and_others_do() {
    const APPLIED: &str =
        "multus_service_proxy_sync_proxy_rules_duration_seconds_count{backend=\"nftables\"}";
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let client = testbed.pod(7);
    let object = object(&client);
    runtime.set_sandbox(uid(&object), &client.netns);
    let driver = Driver::start(
        &runtime,
        BackendKind::Nftables,
        &[&services(&[10])[0]],
        &[&object],
    );
    until("ready", || driver.is_ready());
    // Notifications of the test bed's own routes arrive, too.
    std::thread::sleep(Duration::from_secs(2));
    let before = driver.metric(APPLIED);
    driver.service(&services(&[11])[0]);
    until("the Service is served", || {
        client.sh("ip route show 172.30.0.11").contains("net1")
    });
    std::thread::sleep(Duration::from_secs(2));
    let attempts = driver.metric(APPLIED) - before;
    // The Service and its slices arrive separately.
    assert!(attempts <= 3, "{attempts} attempts");
    let repaired = || driver.metric("multus_service_proxy_routes_repaired_total");
    let (before, repaired_before) = (driver.metric(APPLIED), repaired());
    client.sh("ip route del 172.30.0.11");
    until("the route is restored", || {
        client.sh("ip route show 172.30.0.11").contains("net1")
    });
    until("another attempt was made", || driver.metric(APPLIED) > before);
    // Other tests of this process may repair routes, too.
    assert!(repaired() > repaired_before);
}
