//! Conditions that make an endpoint eligible for new flows.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, endpoint, ready, unready};
use rules::Protocol::{Tcp, Udp};
use serde_json::json;

for_every_backend_and_family![
    unready_endpoint_gets_no_flows_until_it_is_ready_again,
    serving_terminating_endpoint_is_used_only_without_ready_endpoints,
    terminating_endpoint_that_does_not_serve_is_never_used,
    published_not_ready_endpoints_are_reached,
    missing_conditions_mean_ready,
];

fn unready_endpoint_gets_no_flows_until_it_is_ready_again(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let mut web = Service::new("web", 10);
    for (endpoints, expected) in [
        (ready(&[2, 3]), &[2, 3][..]),
        ([unready(&[2]), ready(&[3])].concat(), &[3]),
        (ready(&[2, 3]), &[2, 3]),
    ] {
        web.endpoints = endpoints;
        fixture.sync_to(&[&web]);
        assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), expected);
        assert_eq!(fixture.hosts(Udp, fixture.at(&web, 53)), expected);
    }
}

/// The last pod of a rollout keeps serving (KEP-1669).
fn serving_terminating_endpoint_is_used_only_without_ready_endpoints(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let leaving = endpoint(2, &json!({"ready": false, "serving": true, "terminating": true}));
    let mut web = Service::new("web", 10);
    web.endpoints = [vec![leaving.clone()], unready(&[3])].concat();
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [2]);
    web.endpoints = [vec![leaving], ready(&[3])].concat();
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [3]);
}

fn terminating_endpoint_that_does_not_serve_is_never_used(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let mut web = Service::new("web", 10);
    web.endpoints = vec![endpoint(
        2,
        &json!({"ready": false, "serving": false, "terminating": true}),
    )];
    fixture.sync_to(&[&web]);
    assert!(fixture.probe(Tcp, fixture.at(&web, 80)).is_rejected());
}

/// `publishNotReadyAddresses`: the controller writes endpoints as ready regardless of their state.
fn published_not_ready_endpoints_are_reached(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let mut web = Service::new("web", 10);
    web.spec = json!({"publishNotReadyAddresses": true});
    web.endpoints = vec![
        endpoint(2, &json!({"ready": true, "serving": false, "terminating": false})),
        endpoint(3, &json!({"ready": true, "serving": false, "terminating": true})),
    ];
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [2, 3]);
}

/// "A nil value should be interpreted as true": other controllers write such slices.
fn missing_conditions_mean_ready(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let mut web = Service::new("web", 10);
    web.endpoints = vec![endpoint(2, &json!({}))];
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
}
