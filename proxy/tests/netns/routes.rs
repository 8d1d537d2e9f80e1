//! A change touches the routes of the VIPs that it is about, and what is in their way is left alone.

use super::fake_node::{Driver, Runtime, object, uid, until};
use super::matrix::Kind;
use super::objects::{Service, plan};
use super::testbed::{Bed, Pod};
use proxy::apply::{Applied, Wanted, apply};
use proxy::backend::Held;
use rstest::rstest;
use rules::{Family, PodRules};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// A pod, and what its last attempt came to.
struct Scene {
    client: Pod,
    applied: Applied,
    _bed: Bed,
}

fn services(numbers: &[u8]) -> Vec<Service> {
    let one = |number: &u8| Service::new(&format!("web{number}"), *number).ready(&[2]);
    numbers.iter().map(one).collect()
}

fn vip(family: Family, number: u8) -> IpAddr {
    services(&[number])[0].vip(family)
}

impl Scene {
    fn new(numbers: &[u8]) -> Self {
        let mut bed = Bed::new();
        let client = bed.pod(7);
        let applied = write(&client, &Held::Nothing, None, numbers);
        Self {
            client,
            applied,
            _bed: bed,
        }
    }

    /// As the driver does when it knows what is there.
    fn change(&mut self, numbers: &[u8]) -> &Applied {
        let held = Held::Exactly(self.applied.rules.clone());
        let foreign = self.applied.foreign_routes.clone();
        self.applied = write(&self.client, &held, Some(foreign), numbers);
        assert!(self.applied.failures.is_empty(), "{:?}", self.applied.failures);
        &self.applied
    }

    /// The same after somebody changed routes.
    fn look(&mut self, numbers: &[u8]) -> &Applied {
        let held = Held::Exactly(self.applied.rules.clone());
        self.applied = write(&self.client, &held, None, numbers);
        &self.applied
    }

    fn route(&self, family: Family, action: &str) {
        let ip = if family == Family::V4 { "ip" } else { "ip -6" };
        self.client.sh(&format!("{ip} route {action}"));
    }

    /// The routes to a VIP.
    fn to(&self, family: Family, number: u8) -> String {
        let (ip, vip) = (
            if family == Family::V4 { "ip" } else { "ip -6" },
            vip(family, number),
        );
        self.client.sh(&format!("{ip} route show exact {vip}"))
    }
}

fn write(
    client: &Pod,
    held: &Held<PodRules>,
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
        .run(|| apply(Kind::Nftables.backend().as_ref(), held, &wanted))
        .unwrap()
}

/// A route that only a list of all could find is not found.
#[rstest]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_service_that_comes_or_goes_touches_its_own_route_alone(
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let mut scene = Scene::new(&[10, 11]);
    scene.route(family, &format!("add {} dev net1 proto 77", vip(family, 99)));
    scene.change(&[10, 11, 12]);
    assert!(scene.to(family, 12).contains("dev net1 proto 77"));
    scene.change(&[10, 12]);
    assert_eq!(scene.to(family, 11), "");
    assert!(!scene.to(family, 10).is_empty() && !scene.to(family, 99).is_empty());
    scene.look(&[10, 12]);
    assert_eq!(
        scene.to(family, 99),
        "",
        "when routes are looked at it is removed"
    );
}

#[rstest]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_route_of_somebody_else_in_the_way_of_a_new_service_is_left_alone(
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let mut scene = Scene::new(&[10]);
    let theirs = format!("{} dev eth0 proto 123", vip(family, 11));
    scene.route(family, &format!("add {theirs}"));
    let foreign = BTreeSet::from([vip(family, 11)]);
    assert_eq!(scene.change(&[10, 11]).foreign_routes, foreign);
    assert_eq!(
        scene.change(&[10, 11, 12]).foreign_routes,
        foreign,
        "it is remembered"
    );
    assert!(scene.to(family, 11).contains("dev eth0 proto 123"));
    assert_eq!(scene.change(&[10, 12]).foreign_routes, BTreeSet::new());
    assert!(
        scene.to(family, 11).contains("dev eth0 proto 123"),
        "it stays when the Service goes"
    );
    assert_eq!(scene.change(&[10, 11, 12]).foreign_routes, foreign);
    scene.route(family, &format!("del {theirs}"));
    assert_eq!(scene.look(&[10, 11, 12]).foreign_routes, BTreeSet::new());
    assert!(scene.to(family, 11).contains("dev net1 proto 77"));
}

#[rstest]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_route_of_ours_in_the_way_is_replaced_and_one_that_is_gone_is_not_missed(
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let mut scene = Scene::new(&[10, 11]);
    scene.route(family, &format!("add {} dev eth0 proto 77", vip(family, 12)));
    assert_eq!(scene.change(&[10, 11, 12]).foreign_routes, BTreeSet::new());
    assert!(scene.to(family, 12).contains("dev net1 proto 77") && !scene.to(family, 12).contains("eth0"));
    scene.route(family, &format!("del {}", vip(family, 10)));
    scene.change(&[11, 12]);
    assert!(scene.applied.is_complete());
}

/// Each change is one attempt: it is not looked at once more because the kernel tells of routes that it made for us.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn our_own_routes_are_no_news_and_those_of_others_are() {
    const APPLIED: &str = "multus_proxy_netns_apply_duration_seconds_count{backend=\"nftables\"}";
    let (mut bed, runtime) = (Bed::new(), Runtime::new());
    let client = bed.pod(7);
    let object = object(&client);
    runtime.ready_in(uid(&object), &client.netns);
    let driver = Driver::start(&runtime, Kind::Nftables, &[&services(&[10])[0]], &[&object]);
    until("ready", || driver.is_ready());
    // What the bed made is told of, too.
    std::thread::sleep(Duration::from_secs(2));
    let before = driver.metric(APPLIED);
    driver.service(&services(&[11])[0]);
    until("it is served", || {
        client.sh("ip route show 172.30.0.11").contains("net1")
    });
    std::thread::sleep(Duration::from_secs(2));
    let attempts = driver.metric(APPLIED) - before;
    // The Service and its slices come one after the other.
    assert!(attempts <= 3, "{attempts} attempts");
    let before = driver.metric(APPLIED);
    client.sh("ip route del 172.30.0.11");
    until("it is back", || {
        client.sh("ip route show 172.30.0.11").contains("net1")
    });
    until("by one more attempt", || driver.metric(APPLIED) > before);
}
